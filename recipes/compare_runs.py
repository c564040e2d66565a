"""Compare trainings: settings that differ, cost, curves, scores.

    python recipes/compare_runs.py runs
    python recipes/compare_runs.py runs/<id> runs/<other> output=pre_or_post_norm

Takes run folders, or folders of runs; also runs that were interrupted or failed, with what is missing said. Scores on
test sets are found among what recipes/validate.py wrote (scores=[FOLDER,...]), by the hash of the model. The tables go
to stdout; output/ keeps comparison.html, a page with the curves that needs no other file, comparison.md with the
pictures beside it, and comparison.json with all figures.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pydantic import Field

from hf_nmt.config import Settings, from_command_line, launch
from hf_nmt.errors import ConfigError
from hf_nmt.evaluation.pages import as_text
from hf_nmt.evaluation.run_comparison import gather, write_comparison
from hf_nmt.run_records import find_runs

logger = logging.getLogger("hf_nmt.recipes.compare_runs")


class CompareRecipe(Settings):
    runs: list[Path] = Field([], description="Run folders, or folders of runs, in the order of the tables.")
    scores: list[Path] = Field(
        [Path("predictions")],
        description="Folders with what recipes/validate.py wrote, searched for scores of these runs' models on test "
        "sets. One that does not exist holds none.",
    )
    output: Path = Field(Path("comparison"), description="Folder to write the page, the pictures and the figures to.")
    overwrite: bool = Field(False, description="Replace the output if it exists.")

    def check_files(self) -> list[str]:
        findings = []
        if not self.runs:
            findings.append("runs: none are given. Write runs=[runs/<id>,runs/<other>], or a folder of runs.")
        try:
            find_runs(self.runs)
        except ConfigError as error:
            findings += [f"runs: {finding}" for finding in error.findings]
        if self.output.exists() and not self.overwrite:
            findings.append(f"output: {self.output} exists. Choose another name, or replace it with overwrite=true.")
        elif self.output.exists() and not (self.output / "comparison.json").is_file():
            findings.append(f"output: {self.output} is no comparison, and so is not replaced. Choose another name.")
        return findings


SETTINGS = CompareRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(CompareRecipe, argv, recipe="compare_runs", doc=__doc__, positional="runs")
    compared = gather(find_runs(settings.runs), settings.scores)
    sections = write_comparison(compared, settings.output, replace=settings.overwrite)
    logger.info("Written to %s", settings.output / "comparison.html")
    sys.stdout.write(as_text(sections) + "\n")
    return 0


if __name__ == "__main__":
    launch(main)
