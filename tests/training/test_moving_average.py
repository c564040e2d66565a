from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from process_groups import run_in_processes
from sharded_training import toy_trainer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toy_training import make_marian, make_model, make_run, make_trainer, train_until
from transformers import TrainerCallback

from hf_nmt import runs
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import Score
from hf_nmt.training import checkpoints, moving_average
from hf_nmt.training.finish import choose_model
from hf_nmt.training.moving_average import MovingAverage, MovingAverageSettings
from hf_nmt.training.objectives import ObjectiveSettings
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.validation import ValidationResult


def objective(**settings) -> ObjectiveSettings:
    return ObjectiveSettings(ema=MovingAverageSettings(**settings))


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.detach().float().flatten() for tensor in tensors])


class Each(TrainerCallback):
    """Keeps what a function gives after each update."""

    def __init__(self, function):
        self.function, self.seen = function, []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(self.function())


class Watching:
    """Stands for a validation: keeps the weights that it was given, and gives the next score."""

    def __init__(self, scores):
        self.scores, self.seen = list(scores), []
        self.decoding = DecodingSettings(num_beams=5)

    def run(self, model, token_loss, *, num_beams=None, rank=0, world_size=1):
        self.seen.append(flat(model.parameters()))
        bleu = self.scores.pop(0)
        score = Score(name="BLEU", value=bleu, unit="points", signature="none", n=1)
        return ValidationResult({"loss": 1.0, "perplexity": 2.7, "bleu": bleu, "seconds": 0.1}, [score], [], [])


@pytest.mark.parametrize("make", [make_model, make_marian], ids=["tied", "marian"])
def test_it_is_the_average_of_the_library(tmp_path, make):
    with make_run(tmp_path) as run:
        trainer = make_trainer(run, model=make(), objective=objective(decay=0.8, warmup=False), max_steps=8)
        other = AveragedModel(trainer.model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
        trainer.add_callback(Each(lambda: other.update_parameters(trainer.model)))
        trainer.train()
    expected = {name: weight for name, weight in other.module.named_parameters() if weight.requires_grad}
    found = trainer.average.weights()
    assert found.keys() == expected.keys()  # weights of two names once
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(flat(found.values()), flat(trainer.model.parameters()))


def test_first_weights_are_soon_forgotten_while_it_warms_up():
    model = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, MovingAverageSettings(decay=0.5))
    expected, kept = None, []
    for n, value in enumerate([8.0, -4.0, 2.5, 7.0, 1.0, 3.0, -6.0, 2.0, 9.0, 4.0, -1.0]):
        with torch.no_grad():
            model.weight.fill_(value)
        kept.append(average.decay())
        d = min(0.5, (1 + n) / (10 + n))
        expected = value if expected is None else d * expected + (1 - d) * value
        average.update()
        assert average.weights()["weight"].item() == pytest.approx(expected, rel=1e-6)
    assert kept[1] == 2 / 11 and kept[7] < 0.5 and kept[8:] == [0.5] * 3


def test_it_is_kept_in_float32_and_of_what_is_trained_alone():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).to(torch.bfloat16)
    model[0].requires_grad_(False)
    average = MovingAverage(model, MovingAverageSettings(decay=0.999, warmup=False))
    with torch.no_grad():
        model[1].weight.fill_(1.0)
    average.update()
    with torch.no_grad():
        model[1].weight.fill_(2.0)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    average.update()
    assert average.weights().keys() == {"1.weight", "1.bias"}
    assert average.weights()["1.weight"].unique().item() == pytest.approx(1.001, rel=1e-6)  # 1 in bfloat16
    with average.in_use():
        assert not torch.equal(model[1].weight, before["1.weight"])
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_an_update_that_was_left_out_does_not_move_it(tmp_path):
    class LeaveOut(TrainerCallback):
        """As a gradient scaler does where gradients are infinite."""

        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            optimizer = trainer.optimizer
            optimizer._is_overflow = state.global_step in (2, 5)
            if optimizer._is_overflow:
                for group in optimizer.param_groups:
                    for weight in group["params"]:
                        weight.grad = None

    with make_run(tmp_path) as run:
        trainer = make_trainer(
            run, objective=objective(decay=0.8), max_steps=7, schedule={"name": "constant", "warmup_steps": 0}
        )
        each = Each(lambda: flat(trainer.average.weights().values()))
        trainer.add_callback(LeaveOut())
        trainer.add_callback(each)
        trainer.train()
    still = [torch.equal(before, after) for before, after in zip(each.seen, each.seen[1:], strict=False)]
    assert still == [False, True, False, False, True, False] and trainer.average.updates == 5


def test_it_goes_on_after_a_resume_bit_by_bit(tmp_path):
    settings = {"objective": objective(decay=0.9), "max_steps": 16, "save_steps": 4}
    with make_run(tmp_path / "whole") as whole:
        expected = make_trainer(whole, **settings)
        expected.train()
    run = make_run(tmp_path / "parts")
    train_until(11, run, **settings)
    with runs.resume(run.folder, "train") as again:
        trainer = make_trainer(again, model=make_model(seed=9), **settings)
        trainer.train(checkpoints.latest_whole(again.checkpoints))
    assert trainer.average.updates == expected.average.updates == 16
    found, wanted = trainer.average.weights(), expected.average.weights()
    assert [*found] == [*wanted] and all(torch.equal(found[name], wanted[name]) for name in wanted)
    # And again from the checkpoint of the end, which is not trained any further.
    last = make_trainer(trainer.run, model=make_model(seed=8), **settings)
    last.train(checkpoints.latest_whole(trainer.run.checkpoints))
    choose_model(last)
    assert torch.equal(flat(last.model.parameters()), flat(wanted.values()))


def test_validations_take_it_where_asked_and_give_the_weights_back(tmp_path):
    def trained(folder: Path, **ema):
        with make_run(folder) as run:
            trainer = make_trainer(
                run, validation=(validation := Watching([10, 30, 20, 1, 2, 3])), objective=objective(decay=0.9, **ema),
                eval_strategy="steps", eval_steps=2, save_steps=2, max_steps=6, num_average_checkpoints=2,
            )  # fmt: skip
            averages, weights = (
                Each(lambda: flat(trainer.average.weights().values())),
                Each(lambda: flat(trainer.model.parameters())),
            )
            trainer.add_callback(averages)
            trainer.add_callback(weights)
            trainer.train()
            chosen, candidates = choose_model(trainer)
        return trainer, validation.seen, averages.seen, weights.seen, chosen, candidates

    trainer, seen, averages, weights, chosen, candidates = trained(tmp_path / "with", use_for_validation=True)
    plain = trained(tmp_path / "without")
    assert all(torch.equal(one, other) for one, other in zip(weights, plain[3], strict=True))
    assert all(torch.equal(seen[number], averages[2 * number + 1]) for number in range(3))
    assert all(torch.equal(plain[1][number], weights[2 * number + 1]) for number in range(3))
    # Of the best checkpoint where it was told by the average, else the last one.
    assert [(one.kind, one.steps) for one in candidates] == [("single", [4]), ("average", [4, 6]), ("ema", [4])]
    assert [(one.kind, one.steps) for one in plain[5]] == [("single", [4]), ("average", [4, 6]), ("ema", [6])]
    assert torch.equal(seen[5], averages[3]) and torch.equal(plain[1][5], averages[5])
    assert chosen.kind == plain[4].kind == "ema" and torch.equal(flat(trainer.model.parameters()), averages[3])
    assert trainer.run.record["best"] == {"kind": "ema", "steps": [4]}


def test_without_validation_texts_it_is_the_model(tmp_path, caplog):
    with make_run(tmp_path) as run:
        trainer = make_trainer(run, objective=objective(decay=0.9), max_steps=6, save_steps=2)
        trainer.train()
        chosen, candidates = choose_model(trainer)
    assert chosen.kind == "ema" and [one.kind for one in candidates] == ["last", "average", "ema"]
    assert "best/ is the moving average of the weights (step 6)" in caplog.text
    assert torch.equal(flat(trainer.model.parameters()), flat(trainer.average.weights().values()))


def test_a_file_that_is_read_back_differently_is_an_error(tmp_path, monkeypatch):
    average = MovingAverage(torch.nn.Linear(2, 2), MovingAverageSettings())
    average.update()
    average.write(tmp_path)
    save = moving_average.save_file
    monkeypatch.setattr(
        moving_average,
        "save_file",
        lambda weights, path, metadata: save({n: w + 1e-6 for n, w in weights.items()}, path, metadata),
    )
    with pytest.raises(NmtError, match="moving average of the weights was written and read back differently"):
        average.write(tmp_path)


def averaged(folder: Path) -> dict[str, np.ndarray]:
    trainer = toy_trainer(folder, "tied", None, objective=objective(decay=0.8), max_steps=4)
    trainer.train()
    return {name: weight.numpy() for name, weight in trainer.average.weights().items()}


def test_two_processes_keep_the_same_average_as_one_that_accumulates(tmp_path):
    (one,) = run_in_processes(averaged, 1, tmp_path / "one")
    first, second = run_in_processes(averaged, 2, tmp_path / "two")
    assert all(np.array_equal(first[name], second[name]) for name in one)
    assert all(np.allclose(first[name], weights, rtol=1e-4, atol=1e-6) for name, weights in one.items())


def test_divided_weights_are_refused(monkeypatch):
    monkeypatch.setitem(os.environ, "ACCELERATE_USE_FSDP", "true")
    recipe = TrainingRecipe(objective=objective(), training={"use_cpu": True})
    with pytest.raises(ConfigError, match=r"objective.ema: with weights divided among .*num_average_checkpoints"):
        recipe.arguments()
