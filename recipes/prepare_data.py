"""Make a clean, versioned corpus of raw parallel text.

    python recipes/prepare_data.py source_language=de target_language=en inputs.mine.path=raw.tsv
    python recipes/prepare_data.py --config my.yaml explain=ID

Runs the steps of the list over all inputs and writes processed_data/v<date>-<hash>/: Parquet files, a manifest, and
rejects.parquet with every pair that was dropped, by which step and for which reason. The same text and settings give
the same hash, for any number of workers, and with --engine ray, which takes more than one machine. A broken-off run
goes on where it stopped. With explain=ID nothing is written: the story of one pair goes to stdout.

With `leakage.sets` training text that holds pairs of an evaluation set makes no version: exit status 1, and the pairs
in leakage.tsv. leakage.on_leak=drop takes them out.

With `splits.sets` the version holds validation and test sets that share no article and no sentence with train:
splits.sets.validation.count=1000. split_manifest.json tells what stands where.

With `augment` train gets copies with noise or synonyms; at most augment.max_synthetic_share of it is synthetic.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Self

import pydantic
from pydantic import Field

from hf_nmt.config import from_command_line, interrupts_told, launch

with interrupts_told():  # Arrow takes a second to import
    from hf_nmt.artifacts import problems_of_folder
    from hf_nmt.cleaning import split_manifest
    from hf_nmt.cleaning.augmentation import AugmentSettings, augment
    from hf_nmt.cleaning.corpus import read_inputs
    from hf_nmt.cleaning.engine import Engine
    from hf_nmt.cleaning.leakage import LeakageSettings, pass_gate, read_sets
    from hf_nmt.cleaning.pipeline import KEPT, clean, explain, read_table
    from hf_nmt.cleaning.settings import EngineSettings, InputSettings, StepChoice, default_steps, named_steps
    from hf_nmt.cleaning.splits import TRAIN, SplitSettings, check_names, split
    from hf_nmt.data.manifest import files_of
    from hf_nmt.data.raw import keep_raw, problems_of_names
    from hf_nmt.data.versions import write_version
    from hf_nmt.errors import ConfigError


class PrepareDataRecipe(EngineSettings):
    source_language: str = Field(description="code of the sources, such as ko")
    target_language: str = Field(description="code of the targets, such as en")
    inputs: dict[str, InputSettings] = Field(
        min_length=1, description="Corpora that go in, by names of your own; the name becomes the records' origin."
    )
    steps: list[StepChoice] = Field(
        default_factory=default_steps, description="Steps in their order, each `- KIND: {settings}`."
    )
    augment: AugmentSettings | None = Field(
        None, description="Synthetic copies of the training text, and how much of it may be synthetic; null: neither."
    )
    leakage: LeakageSettings | None = Field(
        None, description="Evaluation sets, and how much of them the training text may hold."
    )
    splits: SplitSettings | None = Field(
        None, description="Sets that are taken from the corpus, such as validation and test; null makes train alone."
    )
    output_dir: Path = Field(Path("processed_data"), description="Where v<date>-<hash>/ is written.")
    raw_dir: Path | None = Field(
        None, description="Folder such as data/raw, where the files of all inputs are kept by date; null keeps none."
    )
    work_dir: Path = Field(
        Path("processed_data/.work"),
        description="Where tables lie between the steps, so that a broken-off run goes on; may be removed.",
    )
    explain: str | None = Field(None, description="Id of a record whose story is told, in place of a run.")

    @pydantic.model_validator(mode="after")
    def _sets_to_compare(self) -> Self:
        if self.splits is not None:
            check_names(self.splits, self.leakage.sets if self.leakage else {})
        elif self.leakage is not None and not self.leakage.sets:
            raise ConfigError("leakage.sets: no set to compare with. Give one, or make some with splits.sets.")
        elif self.leakage is not None and self.leakage.splits != LeakageSettings().splits:
            raise ConfigError("leakage.splits: it would change nothing, as no splits are made. Take it out.")
        return self

    def check_files(self) -> list[str]:
        own = [(one.source_language, one.target_language) for one in self.inputs.values()]
        pairs = [(one or self.source_language, other or self.target_language) for one, other in own]
        findings = self.augment.problems(pairs) if self.augment else []
        for key in ("output_dir", "work_dir", "raw_dir"):
            findings += problems_of_folder(key, getattr(self, key))
        return findings + (problems_of_names(self.inputs) if self.raw_dir else [])


SETTINGS = PrepareDataRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(PrepareDataRecipe, argv, recipe="prepare_data", doc=__doc__)
    with settings.opened_engine() as engine:
        return prepare(settings, engine)


def prepare(settings: PrepareDataRecipe, engine: Engine) -> int:
    languages = (settings.source_language, settings.target_language)
    steps = named_steps(settings.steps)
    sets = read_sets(settings.leakage.sets, languages) if settings.leakage else {}
    tables, identity = read_inputs(settings.inputs, languages, settings.work_dir)
    cleaned = clean(tables, steps, settings.work_dir, identity=identity, engine=engine)
    made = split(cleaned.kept, settings.splits, settings.work_dir, engine) if settings.splits else None
    if settings.explain is not None:
        for line in explain(settings.explain, tables, steps, settings.work_dir, identity=identity):
            last = [made.place_of(settings.explain)] if made and line == KEPT else []
            last += ["leakage: not in this story; see leakage.tsv"] if settings.leakage and line == KEPT else []
            sys.stdout.write("\n".join([line, *last]) + "\n")
        return 0
    cleaned.tell()
    reports: dict[str, str] = {}
    own = {name: paths for name, paths in made.tables.items() if name != TRAIN} if made else {}
    cleaned = made.train(cleaned) if made else cleaned
    if settings.augment:
        cleaned = augment(cleaned, settings.augment, engine, settings.work_dir)
    if leakage := settings.leakage or (LeakageSettings() if own else None):
        cleaned, reports = pass_gate(cleaned, sets, leakage, engine, settings.work_dir, settings.output_dir, own)
    splits = {TRAIN: cleaned.kept, **own}
    if made:
        reports[split_manifest.NAME] = split_manifest.describe(made, splits)
    files = {name: list(files_of(one)) for name, one in settings.inputs.items()}
    licences = {name: one.licence for name, one in settings.inputs.items()}
    folder = write_version(
        settings.output_dir,
        {name: [read_table(path) for path in paths] for name, paths in splits.items()},
        [read_table(path) for path in cleaned.rejected],
        steps=cleaned.steps,
        files=[file for own in files.values() for file in own],
        inputs={name: one.model_dump(mode="json", exclude_none=True) for name, one in settings.inputs.items()},
        languages=languages,
        reports=reports,
        raw=keep_raw(settings.raw_dir, files, licences) if settings.raw_dir else None,
    )
    cleaned.tell(first=len(steps))
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    launch(main)
