"""Text and sizes of the small models that `conftest.py` makes."""

from __future__ import annotations

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from hf_nmt.models.configuration_nmt import NmtConfig

# No abbreviation that a sentence splitter knows is among them.
WORDS = [f"{consonant}{vowel}lo" for consonant in "bdfgklmnprst" for vowel in "ae"]
SPECIAL = ["<unk>", "<pad>", "<s>", "</s>"]


def word_tokenizer(words=WORDS, special=SPECIAL) -> Tokenizer:
    """Whole words and punctuation marks; the special tokens come first, `</s>` closes a text."""
    pieces = [*special, *("\u2581" + word for word in words), ".", ",", "?"]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", special.index("</s>"))]
    )
    return tokenizer


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of one to eight words that end in a full stop or a question mark."""
    rng = random.Random(seed)

    def one() -> str:
        words = " ".join(rng.choices(WORDS, k=rng.randint(1, 7)))
        return words + rng.choice([".", "?", f", {rng.choice(WORDS)}."])

    return [one() for _ in range(count)]


def small_config(**changes) -> NmtConfig:
    sizes = {
        "vocab_size": len(SPECIAL) + len(WORDS) + 3,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 1,
        "decoder_attention_heads": 1,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "dropout": 0.0,
        "max_position_embeddings": 40,
    }
    return NmtConfig(**sizes | changes)
