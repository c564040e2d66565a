"""Make a model folder of Transformers from a Marian model.

    python recipes/import_marian.py model.npz output=imported
    python recipes/import_marian.py model.npz vocabularies=[source.spm,target.spm] output=imported
    python recipes/import_marian.py model.npz vocabularies=vocab.yml splitters=[source.spm,target.spm] output=imported

Transformers with self-attention and layer norm after each block, of any size, embeddings tied or not, are imported and
translate as in Marian; others are refused with all that stands against them. Vocabularies and search settings that are
not given are taken from model.npz.decoder.yml. The folder is one of MarianMTModel and MarianTokenizer, which every
recipe takes as model. It is read again and compared before it gets its name. Prints its path.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pydantic import Field

from hf_nmt.artifacts import atomic_folder
from hf_nmt.config import Settings, from_command_line, launch
from hf_nmt.errors import ConfigError
from hf_nmt.marian.importing import find_files, write_model
from hf_nmt.training.saved import check_saved

logger = logging.getLogger("hf_nmt.recipes.import_marian")


class ImportRecipe(Settings):
    model: Path | None = Field(None, description="Model file of Marian, .npz.")
    vocabularies: Path | list[Path] | None = Field(
        None,
        description="Vocabulary of Marian, .spm or .yml, or those of source and target; null takes what the decoder's "
        "file names.",
    )
    splitters: Path | list[Path] | None = Field(
        None,
        description="SentencePiece model that splits the text into pieces of a .yml vocabulary, or those of source "
        "and target; null where the vocabularies are .spm files, which split by themselves.",
    )
    decoder: Path | None = Field(
        None,
        description="File with the options of Marian's decoder, for beams, penalty and unknown words; null takes "
        "MODEL.decoder.yml where it is there.",
    )
    output: Path | None = Field(None, description="Folder to write.")
    overwrite: bool = Field(False, description="Replace the folder where it is there already.")
    source_language: str | None = Field(
        None, description="Code of the source language, for the splitter of sentences."
    )
    target_language: str | None = Field(None, description="Code of the target language.")

    def check_files(self) -> list[str]:
        findings = [f"{name}: not given. Type {name}=PATH." for name in ("model", "output") if not getattr(self, name)]
        given = {"model": [self.model], "decoder": [self.decoder]}
        given |= {name: _listed(getattr(self, name)) for name in ("vocabularies", "splitters")}
        for name, paths in given.items():
            findings += [f"{name}: there is no file {path}." for path in paths or [] if path and not path.is_file()]
        if self.output is not None and self.output.exists():
            if not self.overwrite:
                findings.append(f"output: {self.output} is there already; overwrite=true replaces it.")
            elif not (self.output / "config.json").is_file():
                findings.append(f"output: {self.output} is no model, and so is not replaced. Choose another name.")
        return findings


SETTINGS = ImportRecipe


def _listed(paths: Path | list[Path] | None) -> list[Path] | None:
    return [paths] if isinstance(paths, Path) else paths


def main(argv: list[str]) -> int:
    settings = from_command_line(ImportRecipe, argv, recipe="import_marian", doc=__doc__, positional="model")
    if settings.model is None or settings.output is None:
        raise ConfigError("model, output: both must be given.")
    files = find_files(settings.model, _listed(settings.vocabularies), _listed(settings.splitters), settings.decoder)
    with atomic_folder(settings.output, replace=settings.overwrite) as partial:
        model, tokenizer = write_model(
            files, partial, source_language=settings.source_language, target_language=settings.target_language
        )
        check_saved(model, tokenizer, partial)
    sys.stdout.write(f"{settings.output}\n")
    return 0


if __name__ == "__main__":
    launch(main)
