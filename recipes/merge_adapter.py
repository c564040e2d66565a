"""Merge an adapter into the model it was trained on: a whole model folder, which needs peft no more.

    python recipes/merge_adapter.py runs/<id>/adapter output=merged
    python recipes/merge_adapter.py adapter=runs/<id>/checkpoints/step-500 output=merged base=models/parent

A training run leaves the merged model in best/ by itself; this is for checkpoints, and for adapters from elsewhere,
peft's own too. The logits of the two are compared, weights that were tied are checked to be one, and what was written
is read back. Prints the folder.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pydantic import Field

from hf_nmt.artifacts import may_be_hub_id
from hf_nmt.config import Settings, from_command_line, interrupts_told, launch
from hf_nmt.errors import NmtError

with interrupts_told():  # torch and Transformers take seconds to import
    from hf_nmt.generation.adapters import is_adapter
    from hf_nmt.training.adapters import merge_folder
    from hf_nmt.translators import find_model

logger = logging.getLogger("hf_nmt.recipes.merge_adapter")


class MergeRecipe(Settings):
    adapter: Path | None = Field(
        None, description="Adapter folder: adapter/ of a run, one of its checkpoints, or one that peft wrote."
    )
    output: Path | None = Field(None, description="Folder to write the whole model into.")
    base: str | None = Field(
        None,
        description="The model that the adapter belongs to: a folder, a run folder or an id of the Hub. null takes "
        "what the adapter says.",
    )
    overwrite: bool = Field(False, description="Replace the output if it exists.")

    def check_files(self) -> list[str]:
        findings = []
        if self.adapter is None:
            findings.append("adapter: none is given. Write adapter=FOLDER, such as adapter=runs/<id>/adapter.")
        elif not is_adapter(self.adapter):
            findings.append(
                f"adapter: {self.adapter} holds no adapter: there is no adapter_config.json beside weights."
            )
        if self.base is not None and not may_be_hub_id(self.base):
            try:
                find_model(self.base)
            except NmtError as error:
                findings.append(f"base: {error}")
        if self.output is None:
            findings.append("output: none is given. Write output=FOLDER.")
        elif self.output.exists() and not self.overwrite:
            findings.append(f"output: {self.output} exists. Choose another name, or replace it with overwrite=true.")
        elif self.output.exists() and not (self.output / "config.json").is_file():
            findings.append(f"output: {self.output} is no model, and so is not replaced. Choose another name.")
        return findings


SETTINGS = MergeRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(MergeRecipe, argv, recipe="merge_adapter", doc=__doc__, positional="adapter")
    difference = merge_folder(settings.adapter, settings.output, base=settings.base)
    logger.info("the logits of the merged model differ by at most %.2g from those of model and adapter", difference)
    sys.stdout.write(f"{settings.output}\n")
    return 0


if __name__ == "__main__":
    launch(main)
