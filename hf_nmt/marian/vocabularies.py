"""The vocabularies of a Marian model as a `MarianTokenizer`.

Marian reads a `.spm` file of SentencePiece as vocabulary and splitter in one, or a `.yml` file of pieces and their
numbers, for text that was split before; then the SentencePiece models that split it are needed as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_nmt.config_keys import shown
from hf_nmt.errors import DataError, need
from hf_nmt.marian.weights import EOS, UNKNOWN

PADDING = "<pad>"


def read_vocabulary(path: Path | str) -> dict[str, int]:
    """Piece -> number, of a `.spm`, `.yml` or `.json` vocabulary.

    Raises:
        DataError: it cannot be read, or does not open with the end of the sentence and the unknown word.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    if path.suffix == ".spm":
        processor = splitter(path)
        pieces = {processor.id_to_piece(number): number for number in range(processor.vocab_size())}
        specials = (processor.eos_id(), processor.unk_id())
    elif path.suffix in (".yml", ".yaml", ".json"):
        try:
            pieces = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError) as error:
            raise DataError(f"{path}: this is not a vocabulary: {' '.join(str(error).split())}") from error
        if not isinstance(pieces, dict) or not all(isinstance(number, int) for number in pieces.values()):
            raise DataError(f"{path}: a vocabulary holds lines of `piece: number`; this file holds {shown(pieces)}.")
        pieces = {str(piece): number for piece, number in pieces.items()}
        specials = (pieces.get("</s>"), pieces.get("<unk>"))
    else:
        kind = "Factored vocabularies are not imported." if path.suffix == ".fsv" else "Name it by what it is."
        raise DataError(f"{path}: a vocabulary of Marian ends in .spm, .yml, .yaml or .json. {kind}")
    if specials != (EOS, UNKNOWN):
        raise DataError(
            f"{path}: </s> and <unk> have the numbers {specials[0]} and {specials[1]}; in Marian they are 0 and 1."
        )
    return pieces


def splitter(path: Path | str) -> Any:
    """The SentencePiece model in a file.

    Raises:
        DataError: there is none.
        NmtError: SentencePiece is not installed.
    """
    processor = need("sentencepiece", "sentencepiece").SentencePieceProcessor()
    try:
        processor.Load(str(path))
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: this is not a SentencePiece model: {' '.join(str(error).split())}") from error
    return processor


def numbered(pieces: Mapping[str, int], size: int, path: Path | str, rows: int) -> dict[str, int]:
    """The vocabulary with the padding as its last entry, and entries that stand for nothing up to it.

    Args:
        pieces: piece -> number.
        size: entries in all, the padding too.
        path: for messages.
        rows: of the embeddings.

    Raises:
        DataError: the vocabulary is not that of the model.
    """
    if max(pieces.values()) + 1 > rows or len(pieces) != rows:
        raise DataError(
            f"{path}: it has {len(pieces)} entries, and the embeddings of the model {rows}. Give the vocabulary that "
            "the model was trained with."
        )
    empty = {f"<empty_{number}>": number for number in range(rows, size - 1)}
    return {**dict(sorted(pieces.items(), key=lambda entry: entry[1])), **empty, PADDING: size - 1}


def write_tokenizer(
    folder: Path,
    vocabularies: Sequence[Mapping[str, int]],
    splitters: Sequence[Path | str],
    languages: tuple[str | None, str | None],
    longest: int,
) -> Any:
    """Write a `MarianTokenizer` and return it as it is read back.

    Args:
        folder: where to.
        vocabularies: of the source and the target, see `numbered`; one for both.
        splitters: SentencePiece models of source and target.
        languages: codes of source and target.
        longest: tokens of the longest source.
    """
    from transformers import MarianTokenizer

    files = [folder / "vocab.json", folder / "target_vocab.json"][: len(vocabularies)]
    for file, vocabulary in zip(files, vocabularies, strict=True):
        file.write_text(json.dumps(vocabulary, ensure_ascii=False, indent=2), encoding="utf-8")
    spm = [folder / "source.spm", folder / "target.spm"]
    for path, target in zip(splitters, spm, strict=True):
        target.write_bytes(Path(path).read_bytes())
    tokenizer = MarianTokenizer(
        *(str(path) for path in spm),
        str(files[0]),
        **({"target_vocab_file": str(files[1]), "separate_vocabs": True} if len(files) == 2 else {}),
        source_lang=languages[0],
        target_lang=languages[1],
        model_max_length=longest,
    )
    tokenizer.save_pretrained(folder)
    return MarianTokenizer.from_pretrained(folder)
