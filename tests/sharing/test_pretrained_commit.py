"""A run on a model of the Hub stays with the commit that it was started on."""

from __future__ import annotations

import json

import families
import pytest
import torch
from run_folders import stopped_run
from safetensors.torch import load_file
from settings_walk.keys import recipe_module
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import hf_nmt


def push(folder, seed):
    """The tiny model with other weights, as me/x."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    changed = folder.parent / f"model-{seed}"
    model.save_pretrained(changed)
    AutoTokenizer.from_pretrained(folder).save_pretrained(changed)
    return hf_nmt.push_to_hub(changed, "me/x", exist_ok=True if seed > 1 else None).oid


@pytest.mark.parametrize(
    "more",
    [
        (),
        *(pytest.param((one,), marks=pytest.mark.slow) for one in ("model.revision=main", "model.adapter.type=lora")),
    ],
    ids=str,
)
def test_a_run_without_a_checkpoint_goes_on_with_the_commit_it_was_started_on(
    more, hub, train_family, tmp_path, monkeypatch
):
    first = push(families.make("marian", tmp_path / "model"), seed=1)
    more = ("model.pretrained=me/x", "training.max_steps=2", *more)
    whole = train_family("marian", *more)
    assert json.loads((whole / "run.json").read_text())["pretrained"] == {"path": "me/x", "revision": first}
    stopped = stopped_run(lambda: train_family("marian", *more), tmp_path, monkeypatch, after=1)
    for folder in (stopped / "checkpoints").glob("step-*"):
        pytest.fail(f"the run was stopped after its first checkpoint {folder}")
    assert push(tmp_path / "model", seed=2) != first
    assert recipe_module("train").main([f"resume={stopped}"]) == 0
    expected, found = (load_file(run / "best" / "model.safetensors") for run in (whole, stopped))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    # A new run takes the new one.
    other = train_family("marian", *more)
    assert json.loads((other / "run.json").read_text())["pretrained"]["revision"] != first
    assert not all(
        torch.equal(tensor, expected[name]) for name, tensor in load_file(other / "best/model.safetensors").items()
    )
    if "lora" in more[-1]:
        assert json.loads((stopped / "adapter" / "adapter_config.json").read_text())["revision"] == first
