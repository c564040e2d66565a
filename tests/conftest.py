"""Small models for the tests of translation: one learns to copy in seconds."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import families
import pytest
import torch
from hub_server import HubServer
from settings_walk.keys import recipe_module
from small_models import sentences, small_config, word_tokenizer

from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.models.tokenization_nmt import NmtTokenizer

# A shell lets what it runs in the background ignore the interrupt, and the processes that tests interrupt inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _trained() -> dict[int, NmtForConditionalGeneration]:
    """A model that learns to copy, after some steps and at the end."""
    torch.manual_seed(0)
    tokenizer = NmtTokenizer(tokenizer_object=word_tokenizer())
    model = NmtForConditionalGeneration(small_config())
    optimizer = torch.optim.Adam(model.parameters())
    texts, num_steps, kept = sentences(300 * 32, seed=1), 300, {}
    for step in range(num_steps):
        if step == 120:
            kept[step] = copy.deepcopy(model).eval()
        optimizer.param_groups[0]["lr"] = 2e-2 * min(1, (step + 1) / 30) * (1 - step / num_steps)
        batch = tokenizer(texts[step * 32 : step * 32 + 32], padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return kept | {num_steps: model.eval()}


@pytest.fixture
def copy_system(_trained):
    """A model that copies the sentences of `sentences`, and its tokenizer."""
    return copy.deepcopy(_trained[300]), NmtTokenizer(tokenizer_object=word_tokenizer())


@pytest.fixture
def unsure_system(_trained):
    """The same half-way: its translations are wrong, of many lengths, and close to each other in score."""
    return copy.deepcopy(_trained[120]), NmtTokenizer(tokenizer_object=word_tokenizer())


@pytest.fixture(scope="session")
def copy_folder(_trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "copy"
    _trained[300].save_pretrained(folder)
    NmtTokenizer(tokenizer_object=word_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture
def server() -> Iterator[HubServer]:
    """A Hub on this machine."""
    with HubServer() as server:
        yield server


@pytest.fixture
def train_family(tmp_path, monkeypatch):
    """Name of a family and further arguments of recipes/train.py -> the run folder; see `families.arguments`."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    module = recipe_module("train")
    monkeypatch.setattr(module, "plot_run", lambda folder: None)
    monkeypatch.setattr("hf_nmt.evaluation.run_comparison.draw_comparison", lambda *given: [])

    def run(name: str, *more: str) -> Path:
        before = set((tmp_path / "runs").glob("*"))
        assert module.main(families.arguments(name, tmp_path, *more)) == 0
        (folder,) = set((tmp_path / "runs").glob("*")) - before
        return folder

    return run
