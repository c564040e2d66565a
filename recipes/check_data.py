"""Check a version of a corpus: its files, records, languages, lengths, duplicates and tokens.

    python recipes/check_data.py processed_data/v<date>-<hash>
    python recipes/check_data.py processed_data/v<date>-<hash> only=files

Every measure has a bar in the settings; where one is passed the exit status is 1. Writes check.json and check.html, a
page that needs no other file, into the folder of the version, which stays as it was otherwise. Prints the path of the
page.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

from pydantic import Field

from hf_nmt.config import from_command_line, interrupts_told, launch

with interrupts_told():  # Arrow takes a second to import
    from hf_nmt.artifacts import problems_of_folder, write_json, write_text
    from hf_nmt.cleaning.check_page import page_of
    from hf_nmt.cleaning.check_settings import CheckSettings
    from hf_nmt.cleaning.checks import check_version
    from hf_nmt.cleaning.engine import LocalEngine
    from hf_nmt.data.versions import CHECK_RESULTS
    from hf_nmt.errors import GateError

logger = logging.getLogger("hf_nmt.recipes.check_data")


class CheckDataRecipe(CheckSettings):
    version: Path | None = Field(None, description="Folder that recipes/prepare_data.py wrote.")
    output_dir: Path | None = Field(
        None, description="Folder for check.json and check.html; null is that of the version."
    )
    num_workers: int | None = Field(
        None, ge=1, description="Processes; null takes one for each processor. It changes nothing in the result."
    )

    def check_files(self) -> list[str]:
        if self.version is None:
            return ["version: none is given. Write version=processed_data/v<date>-<hash>."]
        findings = [] if self.version.is_dir() else [f"version: there is no folder {self.version}."]
        findings += problems_of_folder("output_dir", self.output_dir)
        folders = {"tokens.tokenizer": self.tokens.tokenizer, "alignment.tokenizer": self.alignment.tokenizer}
        return findings + [
            f"{key}: there is no folder {folder}."
            for key, folder in folders.items()
            if folder is not None and not Path(folder).is_dir()
        ]


SETTINGS = CheckDataRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(CheckDataRecipe, argv, recipe="check_data", doc=__doc__, positional="version")
    assert settings.version is not None
    engine = LocalEngine(settings.num_workers or len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="check_data-") as work:  # TMPDIR chooses where
        report = check_version(settings.version, settings, engine, Path(work))
    results, page = ((settings.output_dir or settings.version) / name for name in CHECK_RESULTS)
    write_json(results, report)
    write_text(page, page_of(report))
    for gate in report["gates"]:
        logger.info("%s %s", "passed" if gate["passed"] else "FAILED", gate["told"])
    for note in report["notes"]:
        logger.warning("%s", note)
    sys.stdout.write(f"{page}\n")
    if not report["passed"]:
        told = [*report["problems"], *(gate["told"] for gate in report["gates"] if not gate["passed"])]
        raise GateError(f"{settings.version} does not pass:\n" + "\n".join(told))
    return 0


if __name__ == "__main__":
    launch(main)
