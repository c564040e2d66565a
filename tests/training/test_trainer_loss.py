from __future__ import annotations

import math

import pytest
import torch
from toy_training import GroupSampler, make_marian, make_model, make_pairs, make_run, make_trainer

from hf_nmt import runs


def updates(tmp_path, *, size, accumulation, model=None, **settings):
    """Losses and gradient norms of 50 updates over the same 8 pairs each."""
    with make_run(tmp_path) as run:
        trainer = make_trainer(
            run,
            model=model if model is not None else make_model(dropout=0.0),
            sampler=GroupSampler(64, size, shuffle=False),
            max_steps=50,
            logging_steps=1,
            save_strategy="no",
            gradient_accumulation_steps=accumulation,
            **settings,
        )
        trainer.train()
    entries = runs.read_metrics(run.folder)
    return runs.series(entries, "loss")[1], runs.series(entries, "grad_norm")[1], trainer


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_four_accumulated_batches_equal_one_of_four_times_the_size(tmp_path, smoothing):
    whole = updates(tmp_path / "1x4", size=8, accumulation=1, label_smoothing_factor=smoothing)
    parts = updates(tmp_path / "4x1", size=2, accumulation=4, label_smoothing_factor=smoothing)
    assert len(whole[0]) == 50
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert parts[1] == pytest.approx(whole[1], rel=1e-5)


def test_another_family_accumulates_as_exactly(tmp_path):
    whole = updates(tmp_path / "1x4", size=8, accumulation=1, model=make_marian())
    parts = updates(tmp_path / "4x1", size=2, accumulation=4, model=make_marian())
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert parts[1] == pytest.approx(whole[1], rel=1e-5)


@pytest.mark.parametrize("make", [lambda: make_model(dropout=0.0), make_marian])
def test_the_loss_is_the_mean_over_real_target_tokens(tmp_path, make):
    model, pairs = make(), make_pairs(8)
    with torch.no_grad():
        total = count = 0
        for row in pairs:  # one by one: no padding anywhere
            labels = torch.tensor([row["labels"]])
            decoder = torch.tensor([[2, *row["labels"][:-1]]])
            logits = model(input_ids=torch.tensor([row["input_ids"]]), decoder_input_ids=decoder).logits[0]
            total -= logits.log_softmax(-1)[range(labels.shape[1]), labels[0]].sum().item()
            count += labels.shape[1]
    with make_run(tmp_path) as run:
        trainer = make_trainer(
            run, model=model, pairs=pairs, label_smoothing_factor=0.0, max_steps=1, logging_steps=1, save_strategy="no"
        )
        trainer.train()
    assert runs.series(runs.read_metrics(run.folder), "loss")[1] == [pytest.approx(total / count, rel=1e-5)]


def test_tokens_are_counted_without_padding(tmp_path):
    pairs = make_pairs(64)
    with make_run(tmp_path) as run:
        make_trainer(run, pairs=pairs, num_train_epochs=2, max_steps=-1, save_strategy="no").train()
    tokens = sum(len(row["input_ids"]) + len(row["labels"]) for row in pairs)
    last = runs.read_metrics(run.folder)[-1]
    assert last["step"] == 15 and last["tokens"] <= 2 * tokens
    assert math.isclose(last["epoch"], 15 / 8, rel_tol=1e-6)
