"""Tiny random models of every family of translation models, with tokenizers of the families' own classes.

The subword models are trained on generated text. Special tokens, language codes and generation settings are those of
the published models.
"""

from __future__ import annotations

import functools
import io
import json
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from small_models import WORDS
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    MT5Config,
    MT5ForConditionalGeneration,
    NllbTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from transformers.models.m2m_100.modeling_m2m_100 import shift_tokens_right as m2m_shift
from transformers.models.mbart.modeling_mbart import shift_tokens_right as mbart_shift

from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer

_VOWELS = str.maketrans("aeo", "iuy")
# Every layer is a multiple of 64 wide, as 4-bit weights need it.
_SIZE = {
    "d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
_T5_SIZE = {"d_model": 64, "d_kv": 32, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
_MARIAN_TARGETS = ("deu", "fra", "cmn_Hans")


# The form of sources and labels in the documentation of each tokenizer: {s} and {t} stand for the languages.
FORMS = {
    "nmt": ("X </s>", "X </s>"),
    "nmt_tags": ("<2{t}> X </s>", "X </s>"),
    "marian": ("X </s>", "X </s>"),
    "marian_multilingual": (">>{t}<< X </s>", "X </s>"),
    "m2m_100": ("__{s}__ X </s>", "__{t}__ X </s>"),
    "nllb": ("{s} X </s>", "{t} X </s>"),
    "t5": ("X </s>", "X </s>"),
    "mt5": ("X </s>", "X </s>"),
    "mbart50": ("{s} X </s>", "{t} X </s>"),
    "mbart": ("X </s> {s}", "X </s> {t}"),
    "bart": ("<s> X </s>", "<s> X </s>"),
}


def pairs(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Sources and targets: the target has the words backwards and other vowels, so that it can be learnt."""
    rng = random.Random(seed)
    rows = [rng.choices(WORDS, k=rng.randint(1, 7)) for _ in range(count)]
    return [" ".join(row) + "." for row in rows], [" ".join(row[::-1]).translate(_VOWELS) + "." for row in rows]


def write_pairs(folder: Path, count: int = 60, seed: int = 3, name: str = "text") -> dict[str, Path]:
    """Files `<name>.source` and `<name>.target` of `pairs`."""
    files = {side: folder / f"{name}.{side}" for side in ("source", "target")}
    for file, texts in zip(files.values(), pairs(count, seed), strict=True):
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return files


@dataclass(frozen=True)
class Family:
    """How a family is made, and the languages its models know.

    Attributes:
        build: keyword arguments of its configuration -> model and tokenizer.
        source, target: codes as the family spells them, or any where it has none.
        targets: target languages to choose from; empty where a model has one only.
    """

    build: Callable[..., tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    source: str
    target: str
    targets: tuple[str, ...] = ()


def load(name: str, **changes: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and a tokenizer of a family, in memory.

    Args:
        name: a key of `FAMILIES`.
        changes: keyword arguments of the configuration that take the place of the tiny ones.
    """
    torch.manual_seed(1)
    model, tokenizer = FAMILIES[name].build(**changes)
    return model.eval(), tokenizer


def make(name: str, folder: Path | str, **changes: Any) -> Path:
    """A saved model folder of a family; see `load`."""
    model, tokenizer = load(name, **changes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def arguments(name: str, folder: Path, *more: str) -> list[str]:
    """Of recipes/train.py: a few updates of a family's model in `folder/model`, which is made, on generated text.

    Args:
        more: arguments that come last, and so count.
    """
    family = FAMILIES[name]
    if not (folder / "model").is_dir():
        make(name, folder / "model")
    texts = {"train": write_pairs(folder), "validation": write_pairs(folder, 8, seed=5, name="validation")}
    return [
        f"model.pretrained={folder / 'model'}", f"output_dir={folder / 'runs'}",
        f"data.source_language={family.source}", f"data.target_language={family.target}",
        *(f"data.{split}.{side}={file}" for split, files in texts.items() for side, file in files.items()),
        "batching.batch_tokens=256", "batching.max_source_length=60", "batching.max_target_length=60",
        "training.max_steps=4", "training.save_steps=2", "training.eval_steps=4", "schedule.warmup_steps=1",
        "training.logging_steps=1", "training.use_cpu=true", "training.disable_tqdm=true",
        "decoding.num_beams=2", "decoding.max_target_length=20", *more,
    ]  # fmt: skip


def special_ids(tokenizer: PreTrainedTokenizerBase, form: str, source: str, target: str) -> list[list[int]]:
    """Ids in front of the text and behind it, by a form of `FORMS`."""
    sides = [side.format(s=source, t=target) for side in form.split("X")]
    ids = [tokenizer.convert_tokens_to_ids(side.split()) for side in sides]
    assert tokenizer.unk_token_id not in ids[0] + ids[1]
    return ids


def decoder_input_ids(model: PreTrainedModel, labels: torch.Tensor) -> torch.Tensor:
    """What the family itself makes of labels (B, T) that are padded with -100: (B, T)."""
    config = model.config
    if isinstance(model, M2M100ForConditionalGeneration):  # has no method for it
        return m2m_shift(labels, config.pad_token_id, config.decoder_start_token_id)
    if isinstance(model, MBartForConditionalGeneration):
        return mbart_shift(labels.clone(), config.pad_token_id)
    if isinstance(model, NmtForConditionalGeneration):
        start = torch.full_like(labels[:, :1], config.decoder_start_token_id)
        return torch.cat([start, labels[:, :-1]], dim=1).masked_fill(_follows_padding(labels), config.pad_token_id)
    return model.prepare_decoder_input_ids_from_labels(labels)


def _follows_padding(labels: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(labels[:, :1], dtype=torch.bool), labels[:, :-1] == -100], dim=1)


@functools.cache
def _sentencepiece(kind: str, side: str, size: int = 90) -> bytes:
    """A SentencePiece model of sources, targets or both."""
    sources, targets = pairs(400, seed=11)
    texts = {"source": sources, "target": targets, "both": sources + targets}[side]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type=kind, vocab_size=size, minloglevel=2,
        character_coverage=1.0, hard_vocab_limit=False, num_threads=1,
    )  # fmt: skip
    return model.getvalue()


def _pieces(kind: str, side: str) -> list[tuple[str, float]]:
    """Pieces and scores, without `<unk>`, `<s>` and `</s>`, which come first."""
    model = sentencepiece.SentencePieceProcessor(model_proto=_sentencepiece(kind, side))
    return [(model.id_to_piece(i), model.get_score(i)) for i in range(3, model.get_piece_size())]


def _numbered(pieces: Iterable[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _nmt(tags: bool = False, **changes: Any):
    targets = ("en", "fr", "zh") if tags else ("en",)
    sources, texts = pairs(200, seed=12)
    settings = TokenizerSettings(vocab_size=340, language_tags=tags)
    tokenizer = train_tokenizer(
        sources, texts, settings, source_language="de", target_language=list(targets) if tags else "en"
    )
    config = NmtConfig(
        **_SIZE | {"vocab_size": tokenizer.target_vocab_size, "dropout": 0.1} | changes,
        source_language="de",
        target_language=None if tags else "en",
    )
    return NmtForConditionalGeneration(config), tokenizer


def _marian(targets: tuple[str, ...] = (), **changes: Any):
    codes = [f">>{code}<<" for code in targets]
    pieces = [piece for side in ("source", "target") for piece, _ in _pieces("unigram", side)]
    vocabulary = _numbered(["</s>", "<unk>", *codes, *pieces, "<pad>"])
    with tempfile.TemporaryDirectory() as folder:
        files = {side: Path(folder, f"{side}.spm") for side in ("source", "target")}
        for side, file in files.items():
            file.write_bytes(_sentencepiece("unigram", side))
        vocabulary_file = Path(folder, "vocab.json")
        vocabulary_file.write_text(json.dumps(vocabulary), encoding="utf-8")
        tokenizer = MarianTokenizer(
            str(files["source"]), str(files["target"]), str(vocabulary_file),
            source_lang="eng" if targets else "de", target_lang=None if targets else "en",
        )  # fmt: skip
    pad = vocabulary["<pad>"]
    config = MarianConfig(
        **_SIZE | {"vocab_size": len(vocabulary), "dropout": 0.1, "activation_function": "swish"} | changes,
        pad_token_id=pad, eos_token_id=0, bos_token_id=0, forced_eos_token_id=0, decoder_start_token_id=pad,
        static_position_embeddings=True, scale_embedding=True,
    )  # fmt: skip
    model = MarianMTModel(config)
    model.final_logits_bias.normal_(std=0.1)
    model.generation_config.update(num_beams=4, max_length=64, bad_words_ids=[[pad]])
    return model, tokenizer


def _m2m_100(**changes: Any):
    pieces = [piece for piece, _ in _pieces("bpe", "both")]
    with tempfile.TemporaryDirectory() as folder:
        model_file, vocabulary_file = Path(folder, "sentencepiece.bpe.model"), Path(folder, "vocab.json")
        model_file.write_bytes(_sentencepiece("bpe", "both"))
        vocabulary_file.write_text(json.dumps(_numbered(["<s>", "<pad>", "</s>", "<unk>", *pieces])))
        tokenizer = M2M100Tokenizer(str(vocabulary_file), str(model_file))
    size = max(tokenizer.lang_code_to_id.values()) + 1 + tokenizer.num_madeup_words
    model = M2M100ForConditionalGeneration(_m2m_config(size, **changes))
    model.generation_config.update(num_beams=5, max_length=64, early_stopping=True)
    return model, tokenizer


def _m2m_config(vocab_size: int, **changes: Any) -> M2M100Config:
    return M2M100Config(
        **_SIZE | {"vocab_size": vocab_size, "dropout": 0.1, "attention_dropout": 0.1} | changes,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, scale_embedding=True,
    )  # fmt: skip


@functools.cache
def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges as fairseq's models of Transformers order them."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator([text for side in pairs(400, seed=11) for text in side], trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    return trained["vocab"], [tuple(merge) for merge in trained["merges"]]


def _nllb(**changes: Any):
    vocabulary, merges = _byte_pairs()
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=merges, src_lang="eng_Latn")
    model = M2M100ForConditionalGeneration(_m2m_config(len(tokenizer), **changes))
    model.generation_config.update(max_length=64)
    return model, tokenizer


def _mbart_config(vocab_size: int, **changes: Any) -> MBartConfig:
    return MBartConfig(
        **_SIZE | {"vocab_size": vocab_size, "dropout": 0.1, "attention_dropout": 0.1} | changes,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, forced_eos_token_id=2, scale_embedding=True,
    )  # fmt: skip


def _mbart_vocabulary(codes: Iterable[str]) -> list[tuple[str, float]]:
    special = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>")]
    return [*special, *_pieces("unigram", "both"), *((code, 0.0) for code in codes), ("<mask>", 0.0)]


def _mbart50(**changes: Any):
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

    tokenizer = MBart50Tokenizer(vocab=_mbart_vocabulary(FAIRSEQ_LANGUAGE_CODES), src_lang="en_XX")
    model = MBartForConditionalGeneration(_mbart_config(len(tokenizer), **{"decoder_start_token_id": 2} | changes))
    model.generation_config.update(num_beams=5, max_length=64, early_stopping=True)
    return model, tokenizer


def _mbart(**changes: Any):
    from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

    tokenizer = MBartTokenizer(vocab=_mbart_vocabulary(FAIRSEQ_LANGUAGE_CODES), src_lang="en_XX")
    model = MBartForConditionalGeneration(_mbart_config(len(tokenizer), **changes))
    model.generation_config.update(num_beams=5, max_length=64, early_stopping=True)
    return model, tokenizer


def _t5_tokenizer() -> T5Tokenizer:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    extra = [(f"<extra_id_{number}>", 0.0) for number in range(99, -1, -1)]
    return T5Tokenizer(vocab=[*special, *_pieces("unigram", "both"), *extra])


def _t5(**changes: Any):
    tokenizer = _t5_tokenizer()
    names = {"de": "German", "fr": "French", "ro": "Romanian"}
    tasks = {
        f"translation_en_to_{code}": {
            "prefix": f"translate English to {name}: ", "num_beams": 4, "max_length": 300, "early_stopping": True
        }
        for code, name in names.items()
    }  # fmt: skip
    config = T5Config(
        **_T5_SIZE | {"vocab_size": len(tokenizer) + 20} | changes,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, task_specific_params=tasks,
    )  # fmt: skip
    return T5ForConditionalGeneration(config), tokenizer


def _mt5(**changes: Any):
    tokenizer = _t5_tokenizer()
    config = MT5Config(
        **_T5_SIZE | {"vocab_size": len(tokenizer) + 20, "feed_forward_proj": "gated-gelu"} | changes,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return MT5ForConditionalGeneration(config), tokenizer


def _bart(**changes: Any):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    trained.train_from_iterator([text for side in pairs(400, seed=11) for text in side], trainer)
    model = json.loads(trained.to_str())["model"]
    tokenizer = BartTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    config = BartConfig(
        **_SIZE | {"vocab_size": len(tokenizer), "dropout": 0.1} | changes,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
        forced_bos_token_id=0,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    model.generation_config.update(forced_bos_token_id=0, num_beams=4, max_length=64)
    return model, tokenizer


FAMILIES = {
    "nmt": Family(_nmt, "de", "en"),
    "nmt_tags": Family(functools.partial(_nmt, True), "de", "en", ("en", "fr", "zh")),
    "marian": Family(_marian, "de", "en"),
    "marian_multilingual": Family(functools.partial(_marian, _MARIAN_TARGETS), "eng", "deu", _MARIAN_TARGETS),
    "m2m_100": Family(_m2m_100, "en", "de", ("de", "fr", "zh")),
    "nllb": Family(_nllb, "eng_Latn", "deu_Latn", ("deu_Latn", "fra_Latn", "zho_Hans")),
    "t5": Family(_t5, "en", "de", ("de", "fr", "ro")),
    "mt5": Family(_mt5, "en", "de"),
    "mbart50": Family(_mbart50, "en_XX", "de_DE", ("de_DE", "fr_XX", "zh_CN")),
    "mbart": Family(_mbart, "en_XX", "de_DE", ("de_DE", "fr_XX", "zh_CN")),
    "bart": Family(_bart, "en", "de"),
}
