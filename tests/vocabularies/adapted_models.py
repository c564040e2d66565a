"""Models before and after their vocabulary is adapted, and what both must agree in."""

from __future__ import annotations

import random

import families
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
from hf_nmt.translators import load_model
from hf_nmt.vocabularies.adaptation import adapt_vocabulary
from hf_nmt.vocabularies.settings import VocabularySettings

# Text of some of the words only, so that there is something to trim; and words that no family has seen.
SOURCES, TARGETS = (
    [text for text in side if not {*text} & {*"bp"}][:20] for side in families.pairs(200, seed=3)
)  # fmt: skip
NEW_SOURCES = [f"où zézayer {text}" for text in SOURCES]
NEW_TARGETS = [f"gumybu lykky qu {text}" for text in TARGETS]
SAME = {"source": SOURCES, "target": TARGETS}
NEW = {"source": NEW_SOURCES, "target": NEW_TARGETS}
NOTHING = {"source": [], "target": []}


def of_ours(**settings):
    """A model of ours with other tokenizer settings than those of `families`."""
    sources, targets = families.pairs(200, seed=12)
    tokenizer = train_tokenizer(
        sources, targets, TokenizerSettings(vocab_size=330, **settings), source_language="de", target_language="en"
    )
    separate = tokenizer.separate_vocabularies
    torch.manual_seed(1)
    config = NmtConfig(
        vocab_size=tokenizer.target_vocab_size, source_vocab_size=tokenizer.source_vocab_size if separate else None,
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64, source_language="de", target_language="en",
    )  # fmt: skip
    return NmtForConditionalGeneration(config).eval(), tokenizer


OURS = {
    "nmt_separate": {"joint": False, "byte_fallback": False},
    "nmt_unigram": {"algorithm": "unigram"},
    "nmt_tagged": {"source_tags": ["<BT>"]},
}


def adapt(folder, output, texts=SAME, languages=(None, None), **settings):
    source, target = languages
    return adapt_vocabulary(
        *load_model(folder),
        output,
        VocabularySettings(**settings),
        texts,
        source_language=source,
        target_language=target,
    )


def opened(folder):
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def written(tokenizer, side, texts):
    """Tokens of texts, by what every user calls; without what the tokenizer adds at their ends."""
    if getattr(tokenizer, "tgt_lang", "") is None:  # some refuse to work without
        tokenizer.tgt_lang = {"NmtTokenizer": "en", "M2M100Tokenizer": "de"}.get(type(tokenizer).__name__)
    if side == "target":
        getattr(tokenizer, "_switch_to_target_mode", lambda: None)()
    try:
        rows = [tokenizer.tokenize(text, add_special_tokens=False) for text in texts]
    finally:
        getattr(tokenizer, "_switch_to_input_mode", lambda: None)()
    return rows


def token_of(tokenizer, side, number):
    if side == "target" and hasattr(tokenizer, "target_backend"):
        return tokenizer.target_backend.id_to_token(number)
    if number in getattr(tokenizer, "id_to_lang_token", {}):
        return tokenizer.id_to_lang_token[number]
    return tokenizer.convert_ids_to_tokens(number)


def table(tokenizer, side):
    """token -> id."""
    if side == "target" and hasattr(tokenizer, "target_backend"):
        return tokenizer.target_backend.get_vocab()
    return tokenizer.get_vocab() | getattr(tokenizer, "lang_token_to_id", {})


def logits(model, sources, targets):
    with torch.no_grad():
        ids, decoder = torch.tensor([sources]), torch.tensor([targets])
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=decoder).logits[0]


def assert_kept_tokens_are_equal(before, after):
    """Logits of every token that both have, for random texts of such tokens."""
    (old, old_tokenizer), (new, new_tokenizer) = before, after
    tables = {side: (table(old_tokenizer, side), table(new_tokenizer, side)) for side in ("source", "target")}
    shared = {side: sorted(olds.keys() & news.keys()) for side, (olds, news) in tables.items()}
    draw = random.Random(5)
    chosen = {
        side: [token for token in draw.choices(names, k=30) if token != old_tokenizer.pad_token]
        for side, names in shared.items()
    }
    found = []
    for number, model in enumerate((old, new)):
        rows = [[tables[side][number][token] for token in chosen[side]] for side in ("source", "target")]
        columns = [tables["target"][number][token] for token in shared["target"]]
        found.append(logits(model, *rows)[:, columns])
    assert len(shared["target"]) > 20 and found[0].std() > 0.1
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
