from __future__ import annotations

import os
from pathlib import Path

import families
import numpy as np
import pytest
import torch
from process_groups import run_in_processes
from sharded_training import toy_trainer
from test_family_batches import encoded
from toy_training import (
    collate,
    make_marian,
    make_model,
    make_pairs,
    make_tokenizer,
    resumed_and_whole,
)

from hf_nmt import runs
from hf_nmt.batching import TranslationCollator
from hf_nmt.training.cross_entropy import CrossEntropy
from hf_nmt.training.objectives import ObjectiveSettings
from hf_nmt.training.scheduled_sampling import ScheduledSampling, ScheduledSamplingSettings, predicted_ids, special_ids

SPECIAL = range(4)


class Recorder:
    """An objective that keeps what it is given."""

    def begin(self, max_steps):
        pass

    def __call__(self, model, inputs, step):
        self.read = inputs["decoder_input_ids"]
        return torch.zeros(())

    def log_values(self, step, total):
        return {}


def sampling(
    model, objective=None, special=SPECIAL, seed=1, rank=0, world_size=1, accumulation=2, **settings
) -> ScheduledSampling:
    settings = {"probability": 1.0} | ({} if "ramp_share" in settings else {"ramp_steps": 0}) | settings
    found = ScheduledSampling(
        objective or CrossEntropy(model, smoothing=0.1), ScheduledSamplingSettings(**settings), model, special,
        seed=seed, rank=rank, world_size=world_size, accumulation=accumulation,
    )  # fmt: skip
    found.begin(100)
    return found


def batch_of(count: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    return collate([*make_pairs(count, seed=seed)])


def read_by(objective: ScheduledSampling, model, batch, step: int = 0) -> torch.Tensor:
    objective.objective = recorder = Recorder()
    objective(model, batch, step)
    return recorder.read


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"start_steps": 10, "ramp_steps": 20}, {0: 0, 9: 0, 10: 0, 15: 0.075, 29: 0.285, 30: 0.3, 99: 0.3}),
        ({"start_share": 0.1, "ramp_share": 0.2}, {0: 0, 10: 0, 15: 0.075, 30: 0.3, 99: 0.3}),
        ({"ramp_steps": None}, {0: 0, 25: 0.15, 50: 0.3}),
        ({"start_steps": 10, "ramp_steps": 0}, {9: 0, 10: 0.3, 99: 0.3}),
    ],
)
def test_the_probability_rises_in_a_straight_line(settings, expected):
    found = sampling(make_model(), probability=0.3, **settings)
    assert {step: found.probability(step) for step in expected} == pytest.approx(expected)


def test_a_length_has_one_unit():
    with pytest.raises(ValueError, match="(?s)start_steps and start_share are given.*ramp_steps: ramp_steps and"):
        ScheduledSamplingSettings(start_steps=1, start_share=0.1, ramp_steps=1, ramp_share=0.1)


@pytest.mark.parametrize("make", [make_model, make_marian])
def test_before_the_ramp_it_is_the_plain_loss_bit_by_bit(make):
    model, batch = make(dropout=0.3).train(), batch_of()

    def loss_of(objective, step):
        torch.manual_seed(5)
        model.zero_grad()
        loss = objective(model, batch, step)
        loss.backward()
        return loss, [weight.grad for weight in model.parameters() if weight.grad is not None], torch.get_rng_state()

    plain = loss_of(CrossEntropy(model, smoothing=0.1), 0)
    without = loss_of(sampling(model, start_steps=3), 2)
    # And where a first pass is made, but nothing is a word: it takes no random number from the training.
    nothing = loss_of(sampling(model, special=range(40)), 0)
    for other in (without, nothing):
        assert torch.equal(plain[0], other[0]) and torch.equal(plain[2], other[2])
        assert all(torch.equal(one, two) for one, two in zip(plain[1], other[1], strict=True))
    assert model.training


@pytest.mark.parametrize("name", families.FAMILIES)
def test_with_probability_1_every_word_is_the_models_own(name):
    """Recomputed row by row, position by position, from the reference alone."""
    model, tokenizer = families.load(name)
    rows = encoded(name, model, tokenizer)
    pairs = [{"input_ids": ids, "labels": labels} for ids, labels in zip(rows.input_ids, rows.labels, strict=True)]
    batch = TranslationCollator.for_model(model)(pairs)
    special = special_ids(tokenizer)
    targets = families.FAMILIES[name].targets if name != "t5" else ()  # which is told in words
    for target in targets:  # whatever a family calls its codes
        forms = (target, f"__{target}__", f"<2{target}>", f">>{target}<<")
        ids = {tokenizer.convert_tokens_to_ids(form) for form in forms} - {tokenizer.unk_token_id, None}
        assert ids and ids <= special

    expected = batch["decoder_input_ids"].clone()
    model.eval()
    with torch.no_grad():
        for row, labels in enumerate(rows.labels):
            one = {"input_ids": torch.tensor([rows.input_ids[row]])}
            reference = batch["decoder_input_ids"][row, : len(labels)]
            logits = model(**one, decoder_input_ids=reference[None]).logits[0]
            for place in range(1, len(labels)):
                predicted = logits[place - 1].argmax().item()
                if reference[place].item() not in special and predicted not in special:
                    expected[row, place] = predicted
    model.train()
    found = read_by(sampling(model, special=special), model, batch)
    assert torch.equal(found, expected)
    words = ~torch.isin(batch["decoder_input_ids"], torch.tensor([*special])) & (batch["labels"] != -100)
    words[:, 0] = False
    changed = found != batch["decoder_input_ids"]
    assert not changed[~words].any() and changed.sum() > 0.3 * words.sum()

    torch.manual_seed(7)
    loss = sampling(model, special=special)(model, batch, 0)
    torch.manual_seed(7)
    wanted = CrossEntropy(model, smoothing=0.1)(model, batch | {"decoder_input_ids": expected}, 0)
    assert torch.equal(loss, wanted)


@pytest.mark.parametrize("make", [make_model, make_marian])
@pytest.mark.parametrize("bf16", [False, True])
def test_no_gradient_flows_through_the_first_pass(make, bf16):
    model, batch = make(dropout=0.0).train(), batch_of()
    mixed = batch | {"decoder_input_ids": read_by(sampling(model, probability=0.5), model, batch)}
    gradients = []
    for objective, inputs in ((sampling(model, probability=0.5), batch), (CrossEntropy(model, 0.1), mixed)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = objective(model, inputs, 0)
        loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})
    assert all(torch.equal(gradients[1][name], gradient) for name, gradient in gradients[0].items())
    assert not torch.equal(mixed["decoder_input_ids"], batch["decoder_input_ids"])


def test_so_many_are_replaced():
    model = make_model()
    batch = batch_of(2000)
    words = (batch["labels"] != -100) & (batch["decoder_input_ids"] >= 4)
    words[:, 0] = False
    every = read_by(sampling(model), model, batch) != batch["decoder_input_ids"]
    some = read_by(sampling(model, probability=0.3), model, batch) != batch["decoder_input_ids"]
    assert not some[~every].any() and not every[~words].any()
    count = int(every.sum())
    assert count > 5000
    assert abs(int(some.sum()) - 0.3 * count) < 4 * (count * 0.3 * 0.7) ** 0.5


def test_what_is_drawn_depends_on_seed_update_and_place_of_the_batch_alone():
    model, batch = make_model(), batch_of()
    plain = {"probability": 0.5}

    def reads(objective, step=0, count=1):
        return [read_by(objective, model, batch, step) for _ in range(count)]

    first, second = reads(sampling(model, **plain), count=2)
    assert torch.equal(first, reads(sampling(model, **plain))[0])
    others = [second, reads(sampling(model, **plain), step=1)[0], reads(sampling(model, seed=2, **plain))[0]]
    assert all(not torch.equal(first, other) for other in others)
    # Two processes with a batch each draw what one draws for two.
    (of_second,) = reads(sampling(model, rank=1, world_size=2, **plain))
    assert torch.equal(of_second, second)
    again = sampling(model, **plain)
    reads(again, count=2)
    assert all(torch.equal(*both) for both in zip(reads(again, count=2), (first, second), strict=True))
    assert torch.equal(reads(again, step=1)[0], others[1])  # the count begins anew with an update


def test_tokens_are_drawn_from_the_distribution_of_the_model():
    logits = torch.tensor([2.0, 0.0, 1.0, 9.0, -1.0]).repeat(4000, 1)
    draws = torch.Generator().manual_seed(3)
    counts = torch.bincount(predicted_ids(logits.clone(), 3, draws), minlength=5) / 4000
    shares = torch.tensor([2.0, 0.0, 1.0, float("-inf"), -1.0]).softmax(0)
    assert counts[3] == 0 and torch.allclose(counts, shares, atol=0.03)
    assert predicted_ids(logits.clone(), None, None).unique().tolist() == [3]
    assert predicted_ids(logits.clone(), 3, None).unique().tolist() == [0]
    model, batch = make_model(), batch_of()
    sampled, likeliest = (
        read_by(sampling(model, prediction=prediction), model, batch) for prediction in ("sample", "argmax")
    )
    assert not torch.equal(sampled, likeliest)


OBJECTIVE = ObjectiveSettings(scheduled_sampling=ScheduledSamplingSettings(probability=0.6, ramp_steps=6))


def test_a_resumed_run_replaces_the_same_tokens(tmp_path):
    settings = {
        "objective": OBJECTIVE, "max_steps": 12, "save_steps": 5, "logging_steps": 1, "gradient_accumulation_steps": 2
    }  # fmt: skip
    resumed, whole = resumed_and_whole(tmp_path, **settings)
    found, wanted = (
        [runs.series(runs.read_metrics(folder), name) for name in ("loss", "scheduled_sampling_probability")]
        for folder in (resumed.run.folder, whole.run.folder)
    )
    assert found == wanted and len(wanted[0][1]) == 12
    assert wanted[1][1] == pytest.approx([0.6 * min(step / 6, 1) for step in range(12)])
    weights = [[*one.model.parameters()] for one in (resumed, whole)]
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def losses(folder: Path, family: str) -> list[float]:
    trainer = toy_trainer(folder, family, None, objective=OBJECTIVE, max_steps=8)
    assert trainer.args.world_size == int(os.environ.get("WORLD_SIZE", 1))
    trainer.train()
    return runs.series(runs.read_metrics(trainer.run.folder), "loss")[1]


@pytest.mark.parametrize("family", ["tied", "m2m100"])
def test_two_processes_train_as_one_that_accumulates(tmp_path, family):
    (one,) = run_in_processes(losses, 1, tmp_path / "one", family)
    first, second = run_in_processes(losses, 2, tmp_path / "two", family)
    assert second == [] and len(one) == 8
    assert np.allclose(first, one, rtol=1e-5)


def test_special_ids_are_those_of_the_tokenizer():
    assert special_ids(make_tokenizer()) == {0, 1, 2, 3}
