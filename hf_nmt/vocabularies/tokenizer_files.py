"""Tokenizers as their files: read as vocabularies and subword models, and written with others.

Two kinds are known: tokenizers of the `tokenizers` package that hold BPE or Unigram (hf_nmt, NLLB, T5, mT5, mBART,
BART), and those that hold SentencePiece models beside a table of ids (Marian, M2M100).
"""

from __future__ import annotations

import abc
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hf_nmt.errors import NmtError, need
from hf_nmt.tokenizer_training import BYTES, SPACE
from hf_nmt.vocabularies.subword_models import Bpe, ScoredBpe, SubwordModel, Unigram

SOURCE, TARGET = "source", "target"
BOTH = (SOURCE, TARGET)


@dataclasses.dataclass(frozen=True)
class Part:
    """A subword model, and the sides of a pair that are written with it."""

    sides: tuple[str, ...]
    model: SubwordModel


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """One table of ids.

    Attributes:
        tokens: by id; None where an id stands for nothing.
        fixed: tokens that text does not decide on: special ones, language codes, bytes.
        parts: the subword models whose pieces are in it.
        tail: tokens that must come last, in this order.
    """

    tokens: Sequence[str | None]
    fixed: frozenset[str]
    parts: tuple[Part, ...]
    tail: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[str, ...]:
        return tuple(side for part in self.parts for side in part.sides)

    def known(self, side: str) -> frozenset[str]:
        """All that texts of a side can be written with."""
        return self.fixed.union(*(part.model.pieces for part in self.parts if side in part.sides))


class TokenizerFiles(abc.ABC):
    """A loaded tokenizer, its vocabularies, and how to save it with others.

    Attributes:
        vocabularies: one, or one for each side.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.vocabularies: list[Vocabulary] = []

    @abc.abstractmethod
    def encode(self, side: str, texts: Sequence[str]) -> list[list[str]]:
        """Pieces of the texts of a side, special tokens not added; one that has no id stands for the unknown token."""

    def ids(self, side: str, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, by their ids; the unknown are left out."""
        index = next(_index(vocabulary) for vocabulary in self.vocabularies if side in vocabulary.sides)
        return [[index[piece] for piece in row if piece in index] for row in self.encode(side, texts)]

    @abc.abstractmethod
    def words(self, side: str, texts: Iterable[str]) -> Counter[str]:
        """What the subword model of a side is given one by one, with counts."""

    def write(self, folder: Path, vocabularies: Sequence[Vocabulary], config: dict[str, Any]) -> None:
        """Save the tokenizer with other vocabularies.

        Args:
            folder: where.
            vocabularies: as many as there were, of the same parts.
            config: entries of tokenizer_config.json to change.
        """
        self.tokenizer.save_pretrained(folder)
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        if decoder := settings.pop("added_tokens_decoder", None):
            index = _index(vocabularies[0])
            kept = {token["content"]: token for token in decoder.values() if token["content"] in index}
            settings["added_tokens_decoder"] = {str(index[content]): token for content, token in kept.items()}
        _write_json(file, settings | config)
        self._write_vocabularies(folder, vocabularies)

    @abc.abstractmethod
    def _write_vocabularies(self, folder: Path, vocabularies: Sequence[Vocabulary]) -> None: ...


def open_tokenizer(tokenizer: PreTrainedTokenizerBase) -> TokenizerFiles:
    """
    Raises:
        NmtError: a tokenizer of a kind that cannot be rewritten.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        return RustTokenizerFiles(tokenizer)
    if type(tokenizer).__name__ in _SENTENCEPIECE:
        return SentencePieceFiles(tokenizer)
    raise NmtError(
        f"The vocabulary of a {type(tokenizer).__name__} cannot be adapted. Known are the tokenizers of hf_nmt, NLLB, "
        "M2M100, T5, mT5, mBART, BART and Marian."
    )


def _index(vocabulary: Vocabulary) -> dict[str, int]:
    return {token: number for number, token in enumerate(vocabulary.tokens) if token is not None}


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _by_id(vocabulary: dict[str, int]) -> list[str | None]:
    tokens: list[str | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():
        tokens[number] = token
    return tokens


class RustTokenizerFiles(TokenizerFiles):
    """tokenizer.json, and tokenizer_target.json where the target side has its own vocabulary."""

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer)
        source = getattr(tokenizer, "source_backend", tokenizer.backend_tokenizer)
        # One vocabulary may have a view for each side, which differ in what they read as tags.
        target = tokenizer.target_backend if getattr(tokenizer, "separate_vocabularies", False) else source
        self._backends: dict[str, Tokenizer] = {SOURCE: source, TARGET: target}
        self._files = {"tokenizer.json": source}
        if target is not source:
            self._files["tokenizer_target.json"] = target
        sides = [BOTH] if target is source else [(SOURCE,), (TARGET,)]
        self.vocabularies = [
            self._vocabulary(backend, of) for backend, of in zip(self._files.values(), sides, strict=True)
        ]

    def _vocabulary(self, backend: Tokenizer, sides: tuple[str, ...]) -> Vocabulary:
        written = json.loads(backend.to_str())
        model = written["model"]
        if model["type"] not in ("BPE", "Unigram") or any(
            model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")
        ):
            raise NmtError(
                f"The vocabulary of a {type(self.tokenizer).__name__} that holds a {model['type']} model cannot be "
                "adapted: BPE and Unigram without marks of their own inside words are known."
            )
        tokens = _by_id(backend.get_vocab(with_added_tokens=True))
        fixed = {token["content"] for token in written["added_tokens"]} | {*self.tokenizer.all_special_tokens, *BYTES}
        if model["type"] == "BPE":
            merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
            subwords: SubwordModel = Bpe({*model["vocab"]} - fixed, merges)
            if "ByteLevel" in json.dumps(written["pre_tokenizer"]):  # the bytes of all text are single pieces
                fixed |= {*pre_tokenizers.ByteLevel.alphabet()}
        else:
            fixed.add(model["vocab"][model["unk_id"]][0])
            subwords = Unigram({piece: score for piece, score in model["vocab"] if piece not in fixed})
        return Vocabulary(tokens, frozenset(fixed.intersection(filter(None, tokens))), (Part(sides, subwords),))

    def encode(self, side: str, texts: Sequence[str]) -> list[list[str]]:
        backend = self._backends[side]
        backend.no_truncation()
        backend.no_padding()
        return [encoding.tokens for encoding in backend.encode_batch(list(texts), add_special_tokens=False)]

    def words(self, side: str, texts: Iterable[str]) -> Counter[str]:
        backend = self._backends[side]
        counts: Counter[str] = Counter()
        for text in texts:
            text = backend.normalizer.normalize_str(text) if backend.normalizer else text
            words = backend.pre_tokenizer.pre_tokenize_str(text) if backend.pre_tokenizer else [(text, None)]
            counts.update(word for word, _ in words)
        return counts

    def _write_vocabularies(self, folder: Path, vocabularies: Sequence[Vocabulary]) -> None:
        files = zip(self._files.items(), self.vocabularies, vocabularies, strict=True)
        for (name, backend), old, vocabulary in files:
            written = json.loads(backend.to_str())
            _rewrite(written, old, vocabulary)
            (folder / name).write_text(json.dumps(written, ensure_ascii=False), encoding="utf-8")


def _rewrite(written: dict[str, Any], old: Vocabulary, vocabulary: Vocabulary) -> None:
    """Put a vocabulary into the contents of a tokenizer.json."""
    index, model = _index(vocabulary), written["model"]
    (part,) = vocabulary.parts
    # Added tokens are entries of the model too: they keep their ids whatever order a class adds them in on loading.
    if isinstance(part.model, Bpe):
        model["vocab"], model["merges"] = index, part.model.merges
    else:
        assert isinstance(part.model, Unigram)
        scores = dict(model["vocab"]) | part.model.scores
        unknown = model["vocab"][model["unk_id"]][0]
        lowest = min(scores.values())
        model["vocab"] = [(token, scores.get(token, lowest)) for token in vocabulary.tokens]
        model["unk_id"] = index[unknown]
    added = {token["content"]: token for token in written["added_tokens"]}
    for code in vocabulary.fixed - old.fixed:
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added[code] = {"id": 0, "content": code} | plain | {"special": True}
    renumbered = (facts | {"id": index[token]} for token, facts in added.items())
    written["added_tokens"] = sorted(renumbered, key=lambda token: token["id"])
    written["truncation"] = written["padding"] = None
    _renumber(written["post_processor"], index)


def _renumber(processor: dict[str, Any] | None, index: dict[str, int]) -> None:
    """Change the ids that a post-processor holds."""
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        _renumber(inner, index)
    for name in ("sep", "cls"):
        if name in processor:
            processor[name] = [processor[name][0], index[processor[name][0]]]
    if processor["type"] == "TemplateProcessing":
        for special in processor["special_tokens"].values():
            special["ids"] = [index[token] for token in special["tokens"]]


# Files of a class: SentencePiece models with the sides they are for, tables of ids with the sides they are for.
_SENTENCEPIECE: dict[str, tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]] = {
    "MarianTokenizer": (
        {"source.spm": (SOURCE,), "target.spm": (TARGET,)},
        {"vocab.json": (SOURCE,), "target_vocab.json": (TARGET,)},
    ),
    "M2M100Tokenizer": ({"sentencepiece.bpe.model": BOTH}, {"vocab.json": BOTH}),
}
NORMAL, _UNIGRAM, _BPE = 1, 1, 2  # of sentencepiece_model.proto: kind of a piece, kinds of models


class SentencePieceFiles(TokenizerFiles):
    """SentencePiece models, and vocab.json with the ids of their pieces."""

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer)
        model_files, tables = _SENTENCEPIECE[type(tokenizer).__name__]
        if type(tokenizer).__name__ == "MarianTokenizer":
            processors = [tokenizer.spm_source, tokenizer.spm_target]
            encoders = [tokenizer.encoder, *([tokenizer.target_encoder] if tokenizer.separate_vocabs else [])]
            codes = {token for token in tokenizer.encoder if re.fullmatch(">>.+<<", token)}
            tail: tuple[str, ...] = ()
        else:
            processors, encoders = [tokenizer.sp_model], [tokenizer.encoder]
            # Their ids follow those of vocab.json by the class itself.
            tail = tuple(sorted(tokenizer.lang_token_to_id, key=tokenizer.lang_token_to_id.__getitem__))
            codes = {*tail}
        self._processors = {
            side: processor
            for processor, sides in zip(processors, model_files.values(), strict=True)
            for side in sides
        }
        self._model_files = {name: sides[0] for name, sides in model_files.items()}
        self._tables = [*tables][: len(encoders)]
        self._protos = {side: self._proto(side) for side in self._model_files.values()}
        fixed = codes | {*tokenizer.all_special_tokens}
        for proto in self._protos.values():
            fixed |= {piece.piece for piece in proto.pieces if piece.type != NORMAL}
        parts = [Part(sides, _subwords(self._protos[sides[0]])) for sides in model_files.values()]
        grouped = [parts] if len(encoders) == 1 else [[part] for part in parts]
        for encoder, of in zip(encoders, grouped, strict=True):
            tokens = [*_by_id(encoder), *tail]
            self.vocabularies.append(Vocabulary(tokens, frozenset(fixed.intersection(tokens)), tuple(of), tail))

    def _proto(self, side: str) -> Any:
        proto = need("sentencepiece.sentencepiece_model_pb2", "sentencepiece").ModelProto()
        proto.ParseFromString(self._processors[side].serialized_model_proto())
        return proto

    def encode(self, side: str, texts: Sequence[str]) -> list[list[str]]:
        return self._processors[side].encode(list(texts), out_type=str)

    def words(self, side: str, texts: Iterable[str]) -> Counter[str]:
        processor = self._processors[side]
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(re.findall(f"{SPACE}?[^{SPACE}]+|{SPACE}", processor.normalize(text)))
        return counts

    def _write_vocabularies(self, folder: Path, vocabularies: Sequence[Vocabulary]) -> None:
        for name, vocabulary in zip(self._tables, vocabularies, strict=True):
            tokens = vocabulary.tokens[: len(vocabulary.tokens) - len(vocabulary.tail)]
            _write_json(folder / name, {token: number for number, token in enumerate(tokens)})
        models = {side: part.model for vocabulary in vocabularies for part in vocabulary.parts for side in part.sides}
        for name, side in self._model_files.items():
            model = models[side]
            assert isinstance(model, ScoredBpe | Unigram)
            (folder / name).write_bytes(with_pieces(self._protos[side], model.scores).SerializeToString())


def _subwords(proto: Any) -> ScoredBpe | Unigram:
    kinds: dict[int, Any] = {_UNIGRAM: Unigram, _BPE: ScoredBpe}
    if proto.trainer_spec.model_type not in kinds:
        raise NmtError("A SentencePiece model of words or characters cannot be adapted: BPE and Unigram are known.")
    return kinds[proto.trainer_spec.model_type](
        {piece.piece: piece.score for piece in proto.pieces if piece.type == NORMAL}
    )


def with_pieces(proto: Any, scores: dict[str, float]) -> Any:
    """A SentencePiece model with these pieces in place of its own; what are no pieces of text stays, in its place."""
    changed = type(proto)()
    changed.CopyFrom(proto)
    del changed.pieces[:]
    left = dict(scores)
    for piece in proto.pieces:
        if piece.type != NORMAL or piece.piece in left:
            changed.pieces.add().CopyFrom(piece)
            if piece.type == NORMAL:
                changed.pieces[-1].score = left.pop(piece.piece)
    for token, score in left.items():
        changed.pieces.add(piece=token, score=score, type=NORMAL)
    changed.trainer_spec.vocab_size = len(changed.pieces)
    return changed


def chunks(texts: Any, size: int = 1000) -> Iterator[list[str]]:
    """The texts of a column or a list, some at a time."""
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])
