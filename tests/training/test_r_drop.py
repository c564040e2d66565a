from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from process_groups import run_in_processes
from sharded_training import toy_trainer
from torch.nn import functional as F  # noqa: N812
from toy_training import collate, make_marian, make_model, make_pairs, make_run, make_trainer, resumed_and_whole
from transformers import T5Config, T5ForConditionalGeneration

from hf_nmt import runs
from hf_nmt.errors import ConfigError
from hf_nmt.models.loss_nmt import smoothed_cross_entropy
from hf_nmt.training import r_drop
from hf_nmt.training.cross_entropy import CrossEntropy
from hf_nmt.training.model_building import ModelSettings
from hf_nmt.training.objectives import ObjectiveSettings
from hf_nmt.training.r_drop import (
    RDrop,
    RDropSettings,
    has_dropout,
    paired_cross_entropy,
    paired_cross_entropy_from_logits,
)
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.scheduled_sampling import ScheduledSamplingSettings

PADDING = 3


def states(count: int = 11, seed: int = 0):
    """Decoder states (2N, D), output projection (V, D) and labels (2N) in float64."""
    torch.manual_seed(seed)
    hidden = torch.randn(2 * count, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8])[torch.randint(8, (count,))]
    return hidden, weight, labels.repeat(2)


def plain(hidden, weight, labels, alpha, smoothing):
    """By torch alone, over the entries that are not padding."""
    kept = [entry for entry in range(len(weight)) if entry != PADDING]
    logs = (hidden @ weight[kept].T).log_softmax(1)
    places = torch.tensor([kept.index(label) for label in labels.tolist()])
    count = len(labels) // 2
    both = [
        F.cross_entropy(logs[part], places[part], label_smoothing=smoothing, reduction="sum")
        for part in (slice(count), slice(count, None))
    ]
    forth = F.kl_div(logs[count:], logs[:count], log_target=True, reduction="sum")
    back = F.kl_div(logs[:count], logs[count:], log_target=True, reduction="sum")
    return (both[0] + both[1]) / 2 + alpha * (forth + back) / 2, (forth + back) / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("alpha", [0.0, 2.5])
@pytest.mark.parametrize("rows", [4, 512])
def test_value_and_gradient_are_those_of_autograd(monkeypatch, smoothing, alpha, rows):
    monkeypatch.setattr(r_drop, "CHUNK_ROWS", rows)  # 11 pairs: six chunks, or one
    found = paired_cross_entropy(*(given := states()), alpha=alpha, masked_id=PADDING, smoothing=smoothing)
    expected = plain(*(other := states()), alpha, smoothing)
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-12)
    assert found[1].item() == pytest.approx(expected[1].item(), rel=1e-12) and not found[1].requires_grad
    (3 * found[0]).backward()
    (3 * expected[0]).backward()
    for one, two in zip(given[:2], other[:2], strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-10, atol=1e-12) and one.grad.abs().sum() > 0


def test_the_copies_may_change_places():
    hidden, weight, labels = states()
    swapped = torch.cat([hidden[11:], hidden[:11]])
    options = {"alpha": 2.5, "masked_id": PADDING, "smoothing": 0.1}
    found, other = (paired_cross_entropy(given, weight, labels, **options) for given in (hidden, swapped))
    assert found[0].item() == pytest.approx(other[0].item(), rel=1e-12)
    assert found[1].item() == pytest.approx(other[1].item(), rel=1e-12) and found[1] > 0.1


def test_without_alpha_it_is_the_mean_of_two_losses():
    hidden, weight, labels = (given.float() if given.is_floating_point() else given for given in states())
    found, _ = paired_cross_entropy(hidden, weight, labels, alpha=0.0, masked_id=PADDING, smoothing=0.1)
    two = [
        smoothed_cross_entropy(hidden[part], weight, labels[part], masked_id=PADDING, smoothing=0.1).item()
        for part in (slice(11), slice(11, None))
    ]
    assert found.item() == pytest.approx(sum(two) / 2, rel=1e-6)


def test_given_logits_give_the_same():
    hidden, weight, labels = states()
    logits = (hidden @ weight.T).float()
    logits[:, PADDING] = -1e4
    found = paired_cross_entropy_from_logits(logits, labels, alpha=2.5, smoothing=0.0)
    expected = paired_cross_entropy(hidden, weight, labels, alpha=2.5, masked_id=PADDING, smoothing=0.0)
    assert torch.allclose(torch.stack([*found]), torch.stack([*expected]).float(), rtol=1e-5)


def gradients(model, loss) -> list[torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("make", [make_model, make_marian])
def test_both_copies_of_a_batch_have_their_own_dropout(make):
    """Against the logits of one call with every row twice, which draws the same dropout from the same seed."""
    model, batch = make(dropout=0.2).train(), collate([*make_pairs(12)])
    torch.manual_seed(3)
    loss = RDrop(model, 0.1, RDropSettings(alpha=1.5))(model, batch, 0)
    found = gradients(model, loss)
    torch.manual_seed(3)
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in batch.items()}
    is_token = batch["labels"] != -100
    copies = [part[is_token] for part in model(**twice).logits.chunk(2)]
    if make is make_model:  # whose padding entry takes no part in smoothing
        copies = [part[:, [0, *range(2, 40)]] for part in copies]
    labels = batch["labels"][is_token]
    labels = labels - (labels > 1).long() if make is make_model else labels
    first, second = (part.log_softmax(1) for part in copies)
    expected = sum(F.cross_entropy(part, labels, label_smoothing=0.1, reduction="sum") for part in copies) / 2
    apart = (F.kl_div(second, first, log_target=True, reduction="sum")
             + F.kl_div(first, second, log_target=True, reduction="sum")) / 2  # fmt: skip
    assert apart > 0.1 and loss.item() == pytest.approx((expected + 1.5 * apart).item(), rel=1e-5)
    for one, two in zip(found, gradients(model, expected + 1.5 * apart), strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-4)


def test_without_dropout_nothing_but_the_plain_loss_is_left():
    model, batch = make_model(dropout=0.0).train(), collate([*make_pairs(12)])
    objective = RDrop(model, 0.1, RDropSettings())
    loss = objective(model, batch, 0)
    assert loss.item() == pytest.approx(CrossEntropy(model, 0.1)(model, batch).item(), rel=1e-6)
    assert objective.log_values(1, lambda tensor: tensor) == {"r_drop_divergence": pytest.approx(0, abs=1e-7)}
    count = int((batch["labels"] != -100).sum())
    other = torch.tensor([60.0, 3.0 * count])  # of another process
    assert objective.log_values(1, lambda tensor: tensor + other)["r_drop_divergence"] == pytest.approx(15 / count)


def test_a_model_without_dropout_is_refused(tmp_path):
    objective = ObjectiveSettings(r_drop=RDropSettings())
    rate = {"attention_dropout": 0.0, "activation_dropout": 0.0}
    silent = make_model(dropout=0.0, **rate)
    with pytest.raises(ConfigError, match=r"objective.r_drop: .* no dropout.* Set model.dropout, or objective.r_drop"):
        make_trainer(make_run(tmp_path), model=silent, objective=objective)
    for changes in ({"dropout": 0.1}, {"dropout": 0.0, "attention_dropout": 0.1}):
        objective.check_model(make_model(**changes))
    sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    assert [has_dropout(T5ForConditionalGeneration(T5Config(**sizes, dropout_rate=p))) for p in (0.1, 0.0)] == [
        True,
        False,
    ]

    class Recipe(TrainingRecipe):
        model: ModelSettings

    with pytest.raises(ValueError, match=r"objective.r_drop: .* no dropout"):  # before anything is read
        Recipe(objective=objective, model=ModelSettings(dropout=0.0))
    Recipe(objective=objective, model=ModelSettings(dropout=0.0, attention_dropout=0.1))


OBJECTIVE = ObjectiveSettings(
    r_drop=RDropSettings(alpha=2.0),
    scheduled_sampling=ScheduledSamplingSettings(probability=0.5, ramp_steps=0),
)


def test_a_resumed_run_with_scheduled_sampling_goes_on_bit_by_bit(tmp_path):
    settings = {"objective": OBJECTIVE, "max_steps": 12, "save_steps": 5, "logging_steps": 2}
    settings["gradient_accumulation_steps"] = 2
    resumed, whole = resumed_and_whole(tmp_path, **settings)
    found, wanted = (
        [runs.series(runs.read_metrics(folder), name) for name in ("loss", "r_drop_divergence", "grad_norm")]
        for folder in (resumed.run.folder, whole.run.folder)
    )
    assert found == wanted and len(wanted[1][1]) == 6 and min(wanted[1][1]) > 0
    assert runs.series(runs.read_metrics(resumed.run.folder), "scheduled_sampling_probability")[1] == [0.5] * 6


def divergences(folder: Path, kind: str | None = None) -> tuple[list[float], list[float]]:
    trainer = toy_trainer(folder, "dropped", kind, objective=OBJECTIVE, max_steps=4)
    assert trainer.args.world_size == int(os.environ.get("WORLD_SIZE", 1))
    trainer.train()
    entries = runs.read_metrics(trainer.run.folder)
    return runs.series(entries, "loss")[1], runs.series(entries, "r_drop_divergence")[1]


def test_two_processes_log_the_divergence_of_both(tmp_path):
    (one,) = run_in_processes(divergences, 1, tmp_path / "one")
    first, _ = run_in_processes(divergences, 2, tmp_path / "two")
    # Each process drops other states; what they learn from is the same.
    assert len(one[1]) == len(first[1]) == 4
    assert first[0] == pytest.approx(one[0], rel=0.15) and first[1] == pytest.approx(one[1], rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fsdp", "zero2", "zero3"])
def test_weights_divided_among_processes_are_trained_as_whole_ones(tmp_path, kind):
    if kind != "fsdp":
        pytest.importorskip("deepspeed")
    whole, _ = run_in_processes(divergences, 2, tmp_path / "whole")
    divided, _ = run_in_processes(divergences, 2, tmp_path / "divided", kind)
    assert divided[0] == pytest.approx(whole[0], rel=1e-4) and divided[1] == pytest.approx(whole[1], rel=1e-3)
