"""Rows of the embeddings that are trained beside an adapter: those of tokens that the model did not have."""

from __future__ import annotations

import json

import families
import pytest
import torch
from recipe_processes import run_distributed, run_recipe
from run_folders import equal, run_named, stopped_run
from safetensors.torch import load_file
from settings_walk.keys import recipe_module
from torch import nn
from toy_training import make_model
from transformers import AutoModelForSeq2SeqLM

from hf_nmt.errors import ConfigError
from hf_nmt.generation import adapters
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.training.adapters import AdapterSettings, add_adapter
from hf_nmt.training.token_rows import rows_of
from hf_nmt.translators import SavedModel, load_model, load_translator
from hf_nmt.vocabularies.adaptation import adapt_vocabulary
from hf_nmt.vocabularies.settings import VocabularySettings

MODELS = ["nmt", "marian", "nllb", "mt5"]  # the others are of these classes


def saved(name, folder):
    """A model folder; "two" has a vocabulary for each side, and mT5 an output projection of its own, as published."""
    if name == "two":
        make_model(source_vocab_size=30).save_pretrained(folder)
        return folder
    model, tokenizer = families.load(name)
    if name == "mt5":
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loss_of(model, ids):
    return model(input_ids=ids, decoder_input_ids=ids).logits.log_softmax(-1)[..., 5:9].sum()


@pytest.mark.parametrize("name", [*MODELS, "two"])
def test_rows_are_trained_by_the_gradients_of_the_whole_matrices(name, tmp_path):
    folder = saved(name, tmp_path)
    whole, model = (SavedModel(str(folder)).model() for _ in range(2))
    rows = {"source": [5, 7], "target": [6, 7] if name == "two" else [5, 7]}
    add_adapter(model, AdapterSettings(rank=2), rows=rows)
    ids = torch.tensor([[5, 6, 7, 8, 5, 2]])
    values = [loss_of(one, ids) for one in (whole, model)]
    torch.testing.assert_close(*values)  # a fresh adapter changes nothing
    for value in values:
        value.backward()
    found = {
        key: weight.grad for key, weight in model.named_parameters() if "token_adapter" in key and weight.requires_grad
    }
    expected = {
        "source": whole.get_encoder().embed_tokens.weight.grad, "target": whole.get_output_embeddings().weight.grad
    }  # fmt: skip
    apart = whole.get_encoder().embed_tokens.weight is not whole.get_output_embeddings().weight
    assert len(found) == (2 if apart else 1) and apart == (name in ("two", "mt5"))
    for side, gradient in zip(expected, found.values(), strict=False):  # one matrix, or two
        torch.testing.assert_close(gradient, expected[side][rows[side]], atol=1e-4, rtol=1e-4)
        assert gradient.abs().min(1).values.max() > 0


@pytest.mark.parametrize("name", [*MODELS, "two"])
def test_merged_they_stand_in_all_that_shares_their_weights(name, tmp_path):
    before = SavedModel(str(saved(name, tmp_path / "model"))).model()
    tied = {key: value.clone() for key, value in before.state_dict().items()}
    add_adapter(model := SavedModel(str(tmp_path / "model")).model(), AdapterSettings(rank=2), rows=rows_for(name))
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    ids = torch.tensor([[5, 6, 7, 8, 5, 2]])
    for _ in range(3):
        loss_of(model, ids).backward()
        optimizer.step()
    expected = model(input_ids=ids, decoder_input_ids=ids).logits
    adapters.write_adapter(model, tmp_path / "adapter")
    size = sum(weight.numel() for weight in load_file(tmp_path / "adapter" / adapters.ADAPTER_WEIGHTS).values())
    assert size == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    read = SavedModel(str(tmp_path / "model")).model()
    adapters.apply_adapter(read, tmp_path / "adapter")
    torch.testing.assert_close(read(input_ids=ids, decoder_input_ids=ids).logits, expected)

    merged = adapters.merge_adapter(model)
    torch.testing.assert_close(merged(input_ids=ids, decoder_input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert type(merged) is type(before) and not adapters.has_adapter(merged)
    sides, found = rows_for(name), merged.state_dict()
    for key, rows in tied.items():
        if key.endswith(("shared.weight", "embed_tokens.weight", "lm_head.weight")):
            changed = [number for number, row in enumerate(found[key]) if not torch.equal(row, rows[number])]
            assert changed == sides["source" if "encoder" in key else "target"], key
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(again.eval()(input_ids=ids, decoder_input_ids=ids).logits,
                               merged(input_ids=ids, decoder_input_ids=ids).logits)  # fmt: skip


def rows_for(name):
    return {"source": [5, 7], "target": [6, 7] if name == "two" else [5, 7]}


@pytest.mark.parametrize("name", ["nllb", "marian", "nmt_tags"])
def test_peft_opens_them_too(name, tmp_path):
    """Where all matrices are one, as peft by itself ties no others."""
    peft = pytest.importorskip("peft")
    add_adapter(
        model := SavedModel(str(saved(name, tmp_path / "model"))).model(), AdapterSettings(rank=2), rows=rows_for(name)
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1
    adapters.write_adapter(model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model"), tmp_path / "adapter"
    )
    ids = torch.tensor([[5, 6, 7, 2]])
    torch.testing.assert_close(
        *(one.eval()(input_ids=ids, decoder_input_ids=ids).logits for one in (model, theirs)), atol=1e-5, rtol=1e-5
    )


ADDED = {
    "nllb": {"add_languages": ["xxx_Latn"]}, "m2m_100": {"add_languages": ["xx"]},
    "nmt_tags": {"add_languages": ["cs"]}, "marian": {"grow": 6}, "mt5": {"grow": 6},
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("nllb", "marian"))) for name in ADDED]
)
def test_a_run_trains_the_new_tokens_and_no_others(name, train_family, tmp_path):
    base, family = families.make(name, tmp_path / "base"), families.FAMILIES[name]
    sources, targets = families.pairs(30, seed=3)
    texts = {"source": [f"qux {text}" for text in sources], "target": [f"wyx {text}" for text in targets]}
    settings = VocabularySettings(**ADDED[name])
    adapt_vocabulary(
        *load_model(base), tmp_path / "model", settings, texts if settings.reads_text else dict.fromkeys(texts, [])
    )
    new = json.loads((tmp_path / "model" / "new_tokens.json").read_text())
    before, tokenizer = load_model(tmp_path / "model")
    numbers = rows_of("new", tokenizer, SavedModel(str(tmp_path / "model")))
    assert new["source"] == new["target"] and (len(new["source"]) == 1 or not settings.add_languages)
    assert numbers["source"] == rows_of(new["source"], tokenizer, SavedModel(str(tmp_path / "model")))["source"]
    text = {side: tmp_path / f"new.{side}" for side in texts}
    for side, file in text.items():
        file.write_text("".join(f"{line}\n" for line in texts[side]))
    target = {"nllb": "xxx_Latn", "m2m_100": "xx", "nmt_tags": "cs"}.get(name, family.target)
    run = train_family(
        name, "model.adapter.type=lora", "model.adapter.tokens=new", "training.learning_rate=0.05",
        f"data.target_language={target}", *(f"data.train.{side}={file}" for side, file in text.items()),
    )  # fmt: skip
    after, _ = load_model(run / "best")
    rows = [one.get_output_embeddings().weight for one in (before, after)]
    changed = [number for number in range(len(rows[0])) if not torch.equal(rows[0][number], rows[1][number])]
    assert changed == numbers["target"]
    adapters.check_tied(after)
    size = (run / "adapter" / adapters.ADAPTER_WEIGHTS).stat().st_size
    assert size < (run / "best" / "model.safetensors").stat().st_size / 2
    search = DecodingSettings(num_beams=1, max_target_length=9, split_sentences=False)
    told = {"source_language": family.source, "target_language": target}
    found = [
        [best[0].tokens for best in load_translator(folder, "cpu", **told).translate(texts["source"][:3], search)]
        for folder in (run / "best", run / "adapter")
    ]
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_its_rows(train_family, tmp_path, monkeypatch):
    more = ("model.adapter.type=lora", "model.adapter.tokens=[fra_Latn, deu_Latn]", "training.learning_rate=0.05")
    whole = train_family("nllb", *more)
    stopped = stopped_run(lambda: train_family("nllb", *more), tmp_path, monkeypatch, after=3)
    assert recipe_module("train").main([f"resume={stopped}"]) == 0
    for name in ("adapter/adapter_model.safetensors", "best/model.safetensors"):
        expected, found = load_file(whole / name), load_file(stopped / name)
        assert equal(expected, found)
    assert any("token_adapter" in key for key in load_file(stopped / "adapter/adapter_model.safetensors"))


@pytest.mark.slow
def test_two_processes_train_the_rows_that_one_trains(tmp_path):
    argv = families.arguments("nllb", tmp_path, "model.dropout=0", "model.attention_dropout=0",
                              "model.adapter.type=lora", "model.adapter.tokens=[deu_Latn]")  # fmt: skip
    one = [*argv, "name=one", "training.gradient_accumulation_steps=2"]
    assert run_recipe(one, tmp_path / "one") == 0, (tmp_path / "one.err").read_text()
    two = [*argv, "name=two", "training.num_processes=2"]
    assert run_distributed(two, tmp_path / "two", 2) == [0, 0], (tmp_path / "two-0.err").read_text()
    found = [load_file(run_named(tmp_path, name) / "adapter" / adapters.ADAPTER_WEIGHTS) for name in ("one", "two")]
    (rows,) = [key for key in found[0] if "token_adapter" in key]
    torch.testing.assert_close(found[0][rows], found[1][rows], atol=1e-5, rtol=1e-4)


REFUSED = {
    "[nothing_here]": "model.adapter.tokens: nothing_here is not in the vocabulary of the model. Write tokens as it",
    "new": "model.adapter.tokens: new is for a model that recipes/adapt_vocabulary.py wrote, and .* has no new_tokens",
    "[]": "model.adapter.tokens: .*no token is named",
    "old": "model.adapter.tokens: ",
}


@pytest.mark.parametrize("tokens", REFUSED)
def test_tokens_that_are_not_there_are_refused_before_a_text_is_read(tokens, train_family, monkeypatch):
    monkeypatch.setattr("hf_nmt.training.texts.load_pairs", lambda *given, **options: pytest.fail("texts were read"))
    with pytest.raises(ConfigError, match=REFUSED[tokens]):
        train_family("nmt", "model.adapter.type=lora", f"model.adapter.tokens={tokens}")


def test_each_side_has_ids_of_its_own(tmp_path):
    from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer

    sources, targets = families.pairs(60, seed=1)
    settings = TokenizerSettings(vocab_size=300, joint=False)
    tokenizer = train_tokenizer(sources, targets, settings, source_language="de", target_language="en")
    tables = tokenizer.source_backend.get_vocab(), tokenizer.target_backend.get_vocab()
    both = next(token for token, number in tables[0].items() if token in tables[1] and tables[1][token] != number)
    found = rows_of([both], tokenizer, SavedModel(str(tmp_path)))
    assert found == {"source": [tables[0][both]], "target": [tables[1][both]]}
    one = next(token for token in tables[1] if token not in tables[0])
    assert rows_of([one], tokenizer, SavedModel(str(tmp_path))) == {"source": [], "target": [tables[1][one]]}
