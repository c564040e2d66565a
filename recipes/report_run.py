"""Write the report of a training anew: of one that was interrupted, against another run, or with scores on test sets.

    python recipes/report_run.py runs/<id>
    python recipes/report_run.py runs/<id> baseline=runs/<other>

Every training that ends writes its report itself (report.baseline of recipes/train.py). Writes training_report.html, a
page that needs no other file, and training_report.json into the run folder. Prints the path of the page.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pydantic import Field

from hf_nmt.config import from_command_line, launch
from hf_nmt.errors import ConfigError
from hf_nmt.evaluation.pages import as_text
from hf_nmt.evaluation.training_report import PAGE, ReportSettings, write_training_report
from hf_nmt.run_records import find_runs

logger = logging.getLogger("hf_nmt.recipes.report_run")


class ReportRecipe(ReportSettings):
    run: Path | None = Field(None, description="Run folder to report on; it need not be finished.")
    scores: list[Path] = Field(
        [Path("predictions")],
        description="Folders with what recipes/validate.py wrote, searched for scores of the runs' models on test "
        "sets. One that does not exist holds none.",
    )

    def check_files(self) -> list[str]:
        findings = super().check_files()
        if self.run is None:
            return ["run: none is given. Write run=runs/<id>.", *findings]
        try:
            found = find_runs([self.run])
        except ConfigError as error:
            return [*(f"run: {finding}" for finding in error.findings), *findings]
        if len(found) > 1:
            findings.append(f"run: {self.run} holds {len(found)} runs. Name one of them, such as {found[0]}.")
        elif self.baseline is not None and not findings and len(find_runs([self.baseline, self.run])) == 1:
            findings.append(f"baseline: {self.baseline} is the run itself. Name another one.")
        return findings


SETTINGS = ReportRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(ReportRecipe, argv, recipe="report_run", doc=__doc__, positional="run")
    (folder,) = find_runs([settings.run])
    _, sections = write_training_report(folder, settings.baseline, settings.scores)
    logger.info("\n%s", as_text([section for section in sections if section.title not in ("Settings",)]))
    sys.stdout.write(f"{folder / PAGE}\n")
    return 0


if __name__ == "__main__":
    launch(main)
