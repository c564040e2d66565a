"""A model folder of Transformers from the files of a Marian model."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import GenerationConfig, MarianMTModel

from hf_nmt.config_keys import shown
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.marian import weights
from hf_nmt.marian.archive import Archive, read_archive
from hf_nmt.marian.vocabularies import numbered, read_vocabulary, write_tokenizer

logger = logging.getLogger(__name__)

# Of Transformers' own length limit, for those who call `generate` without one; hf_nmt goes by the source.
LONGEST_TRANSLATION = 512
# Options of a Marian decoder that have a counterpart, and those that only say how fast it is or what it prints.
_SEARCH = ("beam-size", "normalize", "allow-unk")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "word-penalty": (0, 0.0),
    "output-sampling": ([], None, False),
    "best-deep": (False,),
    "right-left": (False,),
}


@dataclasses.dataclass(frozen=True)
class MarianFiles:
    """The files of a Marian model.

    Attributes:
        archive: the `.npz` file.
        vocabularies: files of the source and the target vocabulary; equal where there is one.
        splitters: SentencePiece models that split source and target.
        search: options of the decoder, such as beam-size.
    """

    archive: Archive
    vocabularies: tuple[Path, Path]
    splitters: tuple[Path, Path]
    search: dict[str, Any]


def find_files(
    model: Path | str,
    vocabularies: Sequence[Path | str] | None = None,
    splitters: Sequence[Path | str] | None = None,
    decoder: Path | str | None = None,
) -> MarianFiles:
    """Find what belongs to a model.

    Args:
        model: the `.npz` file.
        vocabularies: one or two files; None takes those that the decoder's file names.
        splitters: one or two SentencePiece models, for vocabularies in `.yml`; None takes the vocabularies themselves.
        decoder: the decoder's file; None takes MODEL.decoder.yml where it is there.

    Raises:
        ConfigError: a file is not named and not found.
        DataError: a file cannot be used.
    """
    model = Path(model)
    archive = read_archive(model)
    beside = model.with_name(f"{model.name}.decoder.yml")
    path = Path(decoder) if decoder is not None else beside if beside.is_file() else None
    search = _read_options(path) if path is not None else {}
    if vocabularies is None:
        named = [str(name) for name in search.get("vocabs") or []]
        vocabularies = [_found(name, path.parent) for name in named] if path is not None else []
    if len(vocabularies) not in (1, 2):
        raise ConfigError(
            f"vocabularies: {len(vocabularies)} were found, and the model has one or two. Give their files, such as "
            "vocabularies=[source.spm,target.spm]; one file serves both sides."
        )
    both = (Path(vocabularies[0]), Path(vocabularies[-1]))
    if splitters is None:
        if unsplit := [path for path in both if path.suffix != ".spm"]:
            raise ConfigError(
                f"splitters: {unsplit[0]} lists pieces, and does not say how text is split into them. Give the "
                "SentencePiece models of source and target, such as splitters=[source.spm,target.spm]. A model for "
                "text that was prepared in another way cannot be imported."
            )
        splitters = both
    if len(splitters) not in (1, 2):
        raise ConfigError(f"splitters: {len(splitters)} are given; give one or two files.")
    return MarianFiles(archive, both, (Path(splitters[0]), Path(splitters[-1])), search)


def _found(name: str, folder: Path) -> Path:
    """The file where the decoder's file says it is, else one of the same name beside it."""
    given = Path(name)
    return next((path for path in (given, folder / given, folder / given.name) if path.is_file()), given)


def _read_options(path: Path) -> dict[str, Any]:
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: the decoder's file cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: this is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise DataError(f"{path}: the decoder's file holds options, this one holds {shown(options)}.")
    return options


def search_settings(search: dict[str, Any], model: MarianMTModel) -> GenerationConfig:
    """How Marian's decoder searches, in the words of `generate`.

    Marian ranks by log-probability / length ** normalize, as `generate` does by length_penalty, and never takes the
    unknown word unless allow-unk is set. A file that does not tell leaves beams and penalty to whoever translates.
    """
    config = model.config
    values: dict[str, Any] = {"max_length": LONGEST_TRANSLATION}
    if "beam-size" in search:
        values["num_beams"] = int(search["beam-size"])
    if "normalize" in search:
        values["length_penalty"] = float(search["normalize"])
    if not search.get("allow-unk"):
        values["suppress_tokens"] = [weights.UNKNOWN]
    for name, neutral in _NEUTRAL.items():
        if name in search and search[name] not in neutral:
            logger.warning("%s of the decoder is %s; it has no counterpart and is left out", name, shown(search[name]))
    return GenerationConfig(
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        **values,
    )


def write_model(
    files: MarianFiles, folder: Path, *, source_language: str | None = None, target_language: str | None = None
) -> tuple[MarianMTModel, Any]:
    """Write weights, configuration, generation settings and tokenizer into a folder; returns model and tokenizer.

    Raises:
        DataError: the parameters do not fit the options, or the vocabularies do not fit the parameters.
    """
    archive = files.archive
    model = weights.build_model(archive)
    size = model.config.vocab_size
    rows = [archive.arrays[name].shape[0] for name in weights.embedding_names(archive)]
    vocabularies = [
        numbered(read_vocabulary(path), size, path, count)
        for path, count in zip(files.vocabularies, rows, strict=True)
    ]
    if vocabularies[0] != vocabularies[1] and weights.shares_sides(archive):
        raise DataError(
            f"{files.vocabularies[1]}: source and target share their embeddings, so that they have one vocabulary, "
            f"and this one is another than {files.vocabularies[0]}."
        )
    one = vocabularies[0] == vocabularies[1]
    model.generation_config = search_settings(files.search, model)
    model.save_pretrained(folder)
    tokenizer = write_tokenizer(
        folder,
        vocabularies[:1] if one else vocabularies,
        files.splitters,
        (source_language, target_language),
        model.config.max_position_embeddings,
    )
    logger.info(
        "%s: all %d parameters are in the model: %d encoder and %d decoder layers, width %d, %s; vocabularies of %s",
        archive.path,
        len(archive.arrays),
        model.config.encoder_layers,
        model.config.decoder_layers,
        model.config.d_model,
        _tied(archive),
        rows[0] if one else f"{rows[0]} and {rows[1]}",
    )
    return model, tokenizer


def _tied(archive: Archive) -> str:
    sides, output = weights.shares_sides(archive), weights.ties_output(archive)
    return {
        (True, True): "one matrix for all embeddings and the output",
        (True, False): "one matrix for source and target embeddings",
        (False, True): "one matrix for target embeddings and the output",
        (False, False): "three matrices for embeddings and output",
    }[sides, output]
