"""Adapters from the command line: every family, a run that was killed, two processes, what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import families
import pytest
import torch
from recipe_processes import run_distributed, run_recipe
from run_folders import equal, last_weights, run_named
from safetensors.torch import load_file

from hf_nmt import runs
from hf_nmt.errors import ConfigError
from hf_nmt.generation import adapters
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.translators import load_model, load_translator

TEXTS = families.pairs(4, seed=9)[0]
SEARCH = DecodingSettings(num_beams=1, max_target_length=9, split_sentences=False)


# A few updates of an adapter.
ADAPTER = (
    "--config", "lora", "training.max_steps=6", "training.save_steps=3", "training.eval_steps=6",
    "training.learning_rate=0.02",
)  # fmt: skip


@pytest.fixture
def train(train_family):
    return lambda name, *more: train_family(name, *ADAPTER, *more)


def translated(folder: Path) -> list[str]:
    return [best[0].text for best in load_translator(folder, "cpu").translate(TEXTS, SEARCH)]


SLOW = [name for name in families.FAMILIES if name not in ("marian_multilingual", "t5")]


@pytest.mark.parametrize(
    "name", ["marian_multilingual", "t5", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_run_of_every_family(name, train, tmp_path):
    run = train(name)
    best, base = (load_file(folder / "model.safetensors") for folder in (run / "best", tmp_path / "model"))
    # Only the projections are other than before, and tied weights are saved once as before.
    assert best.keys() == base.keys()
    changed = {key.split(".")[-2] for key in best if not torch.equal(best[key], base[key])}
    assert changed and changed <= {
        "q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"
    }  # fmt: skip
    merged, alone = load_model(run / "best")[0], load_model(run / "adapter")[0]
    assert all(torch.equal(one, other) for one, other in zip(
        merged.state_dict().values(), alone.state_dict().values(), strict=True))  # fmt: skip
    # The language of the run, and its instruction, come with the adapter.
    assert translated(run / "adapter") == translated(run / "best")
    assert (
        load_translator(run / "adapter", "cpu").tokenizer.get_vocab()
        == load_translator(run / "best", "cpu").tokenizer.get_vocab()
    )
    for key in ("task_specific_params", "source_language", "target_language", "decoder_start_token_id"):
        assert getattr(merged.config, key, None) == getattr(alone.config, key, None)
    assert merged.generation_config.to_dict() == alone.generation_config.to_dict()
    folder = run / "checkpoints" / "step-6"
    assert adapters.is_adapter(folder) and not (folder / "model.safetensors").exists()
    assert "library_name: peft" in (run / "adapter" / "README.md").read_text()
    assert str(tmp_path) not in (run / "adapter" / "model_config.json").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["parameters"] == merged.num_parameters()


def test_an_instruction_comes_with_the_adapter(train):
    run = train("t5", "model.source_prefix='say it in German: '", "data.validation.max_rows=2")
    for folder in (run / "best", run / "adapter"):
        translator = load_translator(folder, "cpu", source_language="en", target_language="de")
        assert translator._languages.select("en", "de").prefix == "say it in German: "


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_runs_end_with_full_weights_that_were_validated(kind, train, tmp_path, caplog):
    pytest.importorskip("bitsandbytes")
    caplog.set_level("INFO", "hf_nmt")
    run = train("nmt", f"model.quantization={kind}", "training.max_steps=3")
    best, base = (load_file(folder / "model.safetensors") for folder in (run / "best", tmp_path / "model"))
    assert {tensor.dtype for tensor in best.values()} == {torch.float32} and best.keys() == base.keys()
    assert torch.equal(best["lm_head.weight" if "lm_head.weight" in best else min(best)], base[
        "lm_head.weight" if "lm_head.weight" in base else min(base)])  # fmt: skip
    assert "quantization_config" not in json.loads((run / "best" / "config.json").read_text())
    assert "quantization_config" not in json.loads((run / "adapter" / "model_config.json").read_text())
    assert translated(run / "adapter") == translated(run / "best")
    assert (
        "over quantized weights: loss " in caplog.text
        and "merged into the full ones, as in best/: loss" in caplog.text
    )


REFUSED = {
    "nothing to adapt": (["model.pretrained=null"], "model.pretrained: required and not given, as there is adapter"),
    "bits without adapter": (
        ["model.adapter=null", "model.quantization=int8"],
        "quantization: weights of 8 or 4 bits cannot be trained, but an adapter over them can",
    ),
    "layers": (["model.adapter.target_modules=[query]"], "model.adapter.target_modules: given query; the layers of"),
    "kind": (["model.adapter.type=prefix"], "model.adapter.type: .*lora"),
    "rank": (["model.adapter.rank=0"], "model.adapter.rank: "),
    "an adapter": (["model.pretrained=ADAPTER"], "model.pretrained: .*adapter is an adapter, not a whole model"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_before_a_text_is_read(what, train, tmp_path, monkeypatch):
    more, message = REFUSED[what]
    (tmp_path / "adapter").mkdir()
    for name in (adapters.ADAPTER_CONFIG, adapters.ADAPTER_WEIGHTS):
        (tmp_path / "adapter" / name).write_text("{}")
    monkeypatch.setattr("hf_nmt.training.texts.load_pairs", lambda *given, **options: pytest.fail("texts were read"))
    with pytest.raises(ConfigError, match=message):
        train("marian", *(argument.replace("ADAPTER", str(tmp_path / "adapter")) for argument in more))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    argv = families.arguments("marian", tmp_path, *ADAPTER, "model.adapter.dropout=0.1")
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    assert run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=5) == -signal.SIGKILL
    whole, killed = (run_named(tmp_path, name) for name in ("whole", "killed"))
    changed = shutil.copytree(killed, tmp_path / "runs" / "changed")
    assert run_recipe([f"resume={killed}"], tmp_path / "second") == 0, (tmp_path / "second.err").read_text()
    assert "continuing at step 3" in (tmp_path / "second.err").read_text()
    assert equal(*(last_weights(run, adapters.ADAPTER_WEIGHTS) for run in (whole, killed)))
    assert equal(*(load_file(run / "best" / "model.safetensors") for run in (whole, killed)))
    families.make("marian", tmp_path / "model", encoder_layerdrop=0.1)
    assert run_recipe([f"resume={changed}"], tmp_path / "third") == 2
    assert "resume: the hash of model.pretrained was " in (tmp_path / "third.err").read_text()


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates(tmp_path):
    argv = families.arguments("nmt", tmp_path, *ADAPTER, "model.dropout=0", "model.adapter.dropout=0")
    one = [*argv, "name=one", "training.gradient_accumulation_steps=2"]
    assert run_recipe(one, tmp_path / "one") == 0, (tmp_path / "one.err").read_text()
    two = [*argv, "name=two", "training.num_processes=2"]
    assert run_distributed(two, tmp_path / "two", 2) == [0, 0], (tmp_path / "two-0.err").read_text()
    found = [run_named(tmp_path, name) for name in ("one", "two")]
    for name in ("loss", "grad_norm", "eval_loss"):
        values = [runs.series(runs.read_metrics(run), name)[1] for run in found]
        assert values[1] == pytest.approx(values[0], rel=1e-5) and values[0]
    assert (found[1] / "adapter" / adapters.ADAPTER_WEIGHTS).is_file()
