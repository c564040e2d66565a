"""Every encoder-decoder of Transformers translates as its own `generate` does, whatever its special tokens."""

from __future__ import annotations

import pytest
import torch
from small_models import WORDS, sentences, word_tokenizer
from tokenizers import processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.translator import TorchTranslator

# Orders of the special tokens: pad 0 is what beam search fills with ends of sentences instead.
PAD_FIRST = ["<pad>", "</s>", "<unk>", "<s>"]
BART_ORDER = ["<s>", "<pad>", "</s>", "<unk>"]
SIZE = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64, "init_std": 0.6,
}  # fmt: skip
FAMILIES = {
    "t5": (
        T5ForConditionalGeneration,
        T5Config(
            d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0, initializer_factor=3.0
        ),
        PAD_FIRST,
    ),
    "marian": (MarianMTModel, MarianConfig(**SIZE, decoder_start_token_id=0, forced_eos_token_id=1), PAD_FIRST),
    "bart": (BartForConditionalGeneration, BartConfig(**SIZE, forced_bos_token_id=0), BART_ORDER),
    "m2m_100": (M2M100ForConditionalGeneration, M2M100Config(**SIZE), BART_ORDER),
}
TEXTS = sentences(10, seed=41)


@pytest.fixture(params=FAMILIES)
def system(request):
    model_class, config, special = FAMILIES[request.param]
    backend = word_tokenizer(special=special)
    eos = special.index("</s>")
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", eos)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    config.vocab_size = len(special) + len(WORDS) + 3
    config.pad_token_id, config.eos_token_id = special.index("<pad>"), eos
    torch.manual_seed(2)
    model = model_class(config).eval()
    with torch.no_grad():  # ends come now and then
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.clone())
        head.weight[eos] += 0.4 * head.weight.std()
    return model, PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def expected(model, tokenizer, text, num_beams):
    """The texts, scores and whether each came to its end, from `generate` for one text."""
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    length = 2 * inputs["input_ids"].shape[1] + 20
    out = model.generate(
        **inputs, num_beams=num_beams, num_return_sequences=num_beams, max_length=1 + length, do_sample=False,
        forced_eos_token_id=None, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    eos = tokenizer.eos_token_id
    texts, ended = [], []
    for row in out.sequences[:, 1:].tolist():
        ended.append(eos in row)
        texts.append(tokenizer.decode(row[: row.index(eos)] if eos in row else row, skip_special_tokens=True))
    scores = out.sequences_scores.tolist() if num_beams > 1 else None
    return texts, ended, scores


@pytest.mark.parametrize("num_beams", [1, 3])
def test_translations_are_those_of_generate(system, num_beams):
    settings = DecodingSettings(num_beams=num_beams, num_return_sequences=num_beams, batch_tokens=200)
    for text, n_best in zip(TEXTS, TorchTranslator(*system).translate(TEXTS, settings), strict=True):
        texts, ended, scores = expected(*system, text, num_beams)
        assert [one.text for one in n_best] == texts
        assert [one.finish_reason == "eos" for one in n_best] == ended
        if scores is not None:
            assert [one.score for one in n_best] == pytest.approx(scores, abs=1e-4)


def test_lengths_vary(system):
    """What the test above compares is neither empty nor always cut off."""
    found = [n_best[0] for n_best in TorchTranslator(*system).translate(TEXTS)]
    assert len({one.text for one in found}) > 3
