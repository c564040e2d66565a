"""Measure where the time and the memory of a training go, and how fast its model translates.

    python recipes/profile_run.py runs/<id>
    python recipes/profile_run.py train_config=my.yaml overrides=[model.d_model=512,training.bf16=true]

Takes the settings, the tokenizer and the texts of a run, or a settings file of recipes/train.py (what its --dry-run
prints), and trains some updates in a folder that goes away. The tables go to stdout; output/ keeps profile.md,
profile.json and, with trace=true, trace.json for chrome://tracing or Perfetto.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from pydantic import Field

from hf_nmt.config import Settings, from_command_line, interrupts_told, launch

with interrupts_told():  # torch and Transformers take seconds to import
    from hf_nmt.artifacts import atomic_folder, write_json, write_text
    from hf_nmt.errors import ConfigError
    from hf_nmt.evaluation.pages import as_markdown, as_text
    from hf_nmt.profiling.report import ProfiledTraining, profile, sections_of, training_settings
    from hf_nmt.run_records import find_runs

logger = logging.getLogger("hf_nmt.recipes.profile_run")


class ProfileRecipe(Settings):
    run: Path | None = Field(
        None, description="Run folder whose settings, tokenizer and texts are taken, and the weights of its best/."
    )
    train_config: Path | None = Field(None, description="Settings file of recipes/train.py in place of a run.")
    overrides: list[str] = Field(
        [], description="Changes of these settings, each key=value, such as model.d_model=512."
    )
    warmup_updates: int = Field(
        5, ge=1, description="Updates before anything is counted: caches fill, the optimizer makes its state."
    )
    updates: int = Field(
        20, ge=1, description="Updates that are measured plainly, and as many again with each part timed by itself."
    )
    peak_tflops: float | None = Field(
        None,
        gt=0,
        description="What the device can do at best, in 10^12 operations a second (on a CPU: of one core), for the "
        "MFU. null measures products of the model's own shapes and precision.",
    )
    batch_sizes: list[int] = Field([1, 8, 32], min_length=1, description="Sentences translated at once.")
    num_sentences: int = Field(64, ge=1, description="Sentences to translate, spread over the validation texts.")
    trace: bool = Field(False, description="Write a Chrome trace of two updates: tens of megabytes.")
    output: Path = Field(Path("profile"), description="Folder to write to.")
    overwrite: bool = Field(False, description="Replace the output if it exists.")

    def check_files(self) -> list[str]:
        findings = []
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            findings.append("run: one process is measured. Start it with python, not with a launcher.")
        if (self.run is None) == (self.train_config is None):
            findings.append("run: give run=runs/<id> or train_config=FILE, and not both.")
        elif self.train_config is not None and not self.train_config.is_file():
            findings.append(f"train_config: {self.train_config} does not exist.")
        else:
            try:
                findings += [f"of the training: {one}" for one in self.training.check_files()]
            except ConfigError as error:
                findings += [f"of the training: {finding}" for finding in error.findings]
        if min(self.batch_sizes) < 1:
            findings.append(f"batch_sizes: given {self.batch_sizes}, allowed: whole numbers from 1.")
        if self.output.exists() and not self.overwrite:
            findings.append(f"output: {self.output} exists. Choose another name, or replace it with overwrite=true.")
        elif self.output.exists() and not (self.output / "profile.json").is_file():
            findings.append(f"output: {self.output} is no profile, and so is not replaced. Choose another name.")
        return findings

    def folder(self) -> Path | None:
        found = [] if self.run is None else find_runs([self.run])
        if len(found) > 1:
            raise ConfigError(f"run: {self.run} holds {len(found)} runs. Name one of them, such as {found[0]}.")
        return found[0] if found else None

    @functools.cached_property
    def training(self) -> ProfiledTraining:
        return training_settings(self.folder(), self.train_config, self.overrides)


SETTINGS = ProfileRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(ProfileRecipe, argv, recipe="profile_run", doc=__doc__, positional="run")
    with atomic_folder(settings.output, replace=settings.overwrite) as partial, redirect_stdout(sys.stderr):
        record = profile(
            settings.training,
            settings.folder(),
            warmup=settings.warmup_updates,
            count=settings.updates,
            batch_sizes=settings.batch_sizes,
            num_sentences=settings.num_sentences,
            peak_tflops=settings.peak_tflops,
            trace=partial / "trace.json" if settings.trace else None,
        )
        sections = sections_of(record)
        write_json(partial / "profile.json", record)
        write_text(partial / "profile.md", as_markdown("Profile", sections, partial))
    logger.info("Written to %s", settings.output)
    sys.stdout.write(as_text(sections) + "\n")
    return 0


if __name__ == "__main__":
    launch(main)
