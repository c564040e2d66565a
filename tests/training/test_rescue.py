"""Trainings with a planted fault: each action does what it says, against trainings that never met the fault."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal

import numpy
import pytest
import torch
from process_groups import run_in_processes
from sharded_training import LAUNCHED
from toy_training import GroupSampler, StopAfter, make_model, make_pairs, make_run, make_trainer, weights

from hf_nmt import runs
from hf_nmt.errors import NmtError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import Score
from hf_nmt.training import checkpoints
from hf_nmt.training.objectives import ObjectiveSettings
from hf_nmt.training.validation import ValidationResult
from hf_nmt.training.watch_settings import WatchSettings

STEPS = 20
WARM = {"schedule": {"warmup_steps": 30}}
COSINE = {"name": "cosine", "warmup_steps": 4}
CONSTANT = {"schedule": {"name": "constant", "warmup_steps": 0}}


def watching(**settings) -> WatchSettings:
    return WatchSettings(grace_updates=0, window_updates=10, **settings)


class InOrder(GroupSampler):
    """A batch of eight pairs for each update of one epoch, without those of some updates."""

    def __init__(self, without=(), count: int = STEPS, size: int = 8):
        super().__init__(count * size, size, shuffle=False)
        self.groups = [group for step, group in enumerate(self.groups, start=1) if step not in without]


def training(folder, *, poisoned=(), factor=math.nan, without=(), stop=None, run=None, dropout=0.1, **settings):
    """Train for one epoch of 20 updates, less those left out; the trainer.

    Args:
        poisoned: updates whose loss is multiplied with `factor`.
        without: updates whose batches do not exist.
        stop: the process is interrupted after this update.
        run: to be continued.
        in_update: called with the trainer in the forward pass of each update.
    """
    pairs = settings.pop("pairs", make_pairs(STEPS * 8))
    sampler = settings.pop("sampler", InOrder(without))
    in_update = settings.pop("in_update", lambda trainer: None)
    settings = {"max_steps": STEPS - len(without), "save_steps": 5, "logging_steps": 1, "save_total_limit": None,
                "learning_rate": 3e-3} | settings  # fmt: skip
    checkpoint = None
    if run is None:
        run = make_run(folder)
    else:
        checkpoint = checkpoints.latest_whole(run.checkpoints)
        run.forget_after(runs.step_of(checkpoint))
    model = make_model(dropout=dropout, attention_dropout=0.0, activation_dropout=0.0)
    trainer = make_trainer(run, model=model, pairs=pairs, sampler=sampler, **settings)
    compute_loss = trainer.compute_loss

    def poison(*given, **options):
        in_update(trainer)
        loss = compute_loss(*given, **options)
        return loss * factor if trainer.state.global_step + 1 in poisoned else loss

    trainer.compute_loss = poison
    if stop is not None:
        trainer.add_callback(StopAfter(stop))
    with run:
        trainer.train(checkpoint)
    return trainer


def decisions(trainer):
    return [
        (entry["step"], entry["watch"]["check"], entry["watch"]["action"])
        for entry in runs.read_decisions(trainer.run.folder)
    ]


def logged(trainer, name="loss"):
    return dict(zip(*runs.series(runs.read_metrics(trainer.run.folder), name), strict=True))


def same_state(one, other):
    """Of two optimizers, bit for bit."""
    states = [trainer.optimizer.state_dict()["state"] for trainer in (one, other)]
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(states[0][key][name], states[1][key][name]) for key in states[0] for name in states[0][key])


@pytest.mark.parametrize(
    ("factor", "check"), [(math.nan, "not_finite"), (math.inf, "not_finite"), (1e4, "loss_spike")]
)
def test_a_skipped_update_is_as_if_its_batch_were_not_there(tmp_path, factor, check):
    options = WARM | {"dropout": 0.0}
    skipped = training(
        tmp_path, poisoned={13}, factor=factor, watch=watching(**{check: {"action": "skip"}}), **options
    )
    never = training(tmp_path / "never", without={13}, **options)
    assert torch.equal(weights(skipped.model), weights(never.model)) and same_state(skipped, never)
    assert (13, check, "skip") in decisions(skipped) and skipped.state.global_step == STEPS
    # The loss that is logged is that of the updates that were made.
    losses, expected = logged(skipped), logged(never)
    assert 13 not in losses and list(losses.values()) == pytest.approx(list(expected.values()))


def test_the_loss_logged_is_the_mean_of_the_updates_that_were_made(tmp_path):
    watch = watching(not_finite={"action": "skip"})
    skipped = training(tmp_path, poisoned={12, 14}, watch=watch, logging_steps=5, dropout=0.0, **WARM)
    never = training(tmp_path / "never", without={12, 14}, dropout=0.0, **WARM)
    each = logged(never)
    assert logged(skipped)[15] == pytest.approx((each[11] + each[12] + each[13]) / 3)


def test_a_roll_back_goes_on_from_the_checkpoint_past_the_batches_since(tmp_path):
    """Weights, optimizer, schedule and random state: the model has dropout, and the schedule warms up."""
    watch = watching(not_finite={"action": "roll_back"})
    back = training(tmp_path, poisoned={13}, watch=watch, **WARM)
    never = training(tmp_path / "never", without={11, 12, 13}, **WARM)
    assert torch.equal(weights(back.model), weights(never.model)) and same_state(back, never)
    assert back.lr_scheduler.state_dict() == never.lr_scheduler.state_dict()
    (entry,) = runs.read_decisions(back.run.folder)
    assert entry["watch"]["to_step"] == 10 and entry["watch"]["count"] == 1
    assert "goes back to the checkpoint of step 10 and on with the batches after" in entry["watch"]["told"]
    assert [logged(back)[step] for step in range(14, 21)] == pytest.approx(
        [logged(never)[step] for step in range(11, 18)]
    )


@pytest.mark.parametrize("action", ["skip", "roll_back"])
def test_the_moving_average_does_not_see_what_was_thrown_away(tmp_path, action):
    objective = ObjectiveSettings(ema={"decay": 0.8})
    watch = watching(not_finite={"action": action})
    rescued = training(tmp_path, poisoned={13}, watch=watch, objective=objective, dropout=0.0, **WARM)
    gone = {13} if action == "skip" else {11, 12, 13}
    never = training(tmp_path / "never", without=gone, objective=objective, dropout=0.0, **WARM)
    assert rescued.average.updates == never.average.updates == STEPS - len(gone)
    ours, theirs = rescued.average.weights(), never.average.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_roll_back_with_patience_leaves_out_the_checkpoint_of_the_bad_time(tmp_path):
    """The spike begins at 15, where a checkpoint is written; patience ends at 17."""
    watch = watching(loss_spike={"action": "roll_back", "patience": 3})
    back = training(tmp_path, poisoned={15, 16, 17}, factor=1e3, watch=watch)
    assert [one for one in decisions(back) if one[1] == "loss_spike"] == [
        (15, "loss_spike", "warn"),
        (17, "loss_spike", "roll_back"),
    ]
    never = training(tmp_path / "never", without=set(range(11, 18)))
    assert torch.equal(weights(back.model), weights(never.model))
    kept = [runs.step_of(folder) for folder in runs.list_checkpoints(back.run.checkpoints)]
    assert kept == [5, 10, 20]  # that of 15 could have become part of an average


def test_without_a_checkpoint_the_update_is_skipped_instead(tmp_path):
    watch = watching(not_finite={"action": "roll_back"})
    trainer = training(tmp_path, poisoned={3}, watch=watch)
    assert decisions(trainer) == [(3, "not_finite", "skip")]
    (entry,) = runs.read_decisions(trainer.run.folder)
    assert "There is no good checkpoint to go back to. The update is skipped" in entry["watch"]["told"]
    assert weights(trainer.model).isfinite().all()


def test_going_back_again_and_again_ends(tmp_path):
    watch = watching(not_finite={"action": "roll_back"}, max_roll_backs=2)
    with pytest.raises(NmtError, match=r"nan at step 14\. watch\.max_roll_backs=2 has been reached\."):
        training(tmp_path, poisoned={12, 13, 14}, watch=watch)
    (folder,) = tmp_path.iterdir()
    entries = [(entry["step"], entry["watch"]) for entry in runs.read_decisions(folder)]
    found = [(step, decision["action"], decision["count"], decision["to_step"]) for step, decision in entries]
    # To the one before, as the newest was of no avail.
    assert found == [(12, "roll_back", 1, 10), (13, "roll_back", 2, 5), (14, "stop", 0, None)]
    assert runs.load(folder).record["status"] == "failed"


def test_a_lowered_learning_rate_stays_below_its_schedule(tmp_path):
    """From the update on at which it is lowered, against a schedule that has the factor in it."""
    watch = watching(loss_spike={"action": "lower_learning_rate"}, learning_rate_factor=0.25)
    lowered = training(tmp_path, poisoned={13}, factor=1e3, watch=watch, schedule=COSINE)

    def rate(step):  # of update step + 1
        cosine = 0.5 * (1 + math.cos(math.pi * max(step - 4, 0) / (STEPS - 4)))
        return 3e-3 * min(step / 4, 1) * cosine * (0.25 if step >= 12 else 1)

    assert [logged(lowered, "learning_rate")[step] for step in range(1, 21)] == pytest.approx(
        [rate(step) for step in range(20)]
    )
    plain = training(tmp_path / "plain", poisoned={13}, factor=1e3, schedule=COSINE)
    first, other = (
        torch.cat([tensor.flatten() for tensor in _saved(trainer, 10).values()]) for trainer in (lowered, plain)
    )
    assert torch.equal(first, other) and not torch.equal(weights(lowered.model), weights(plain.model))
    # With SGD an update is the gradient times the rate.
    steps = {}
    for name, settings in (("lowered", watch), ("plain", None)):
        options = CONSTANT | {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": 13, "save_steps": 12, "dropout": 0.0}
        trainer = training(tmp_path / name, poisoned={13}, factor=1e3, watch=settings, **options)
        before = _saved(trainer, 12)
        steps[name] = torch.cat(
            [(tensor - before[key]).flatten() for key, tensor in trainer.model.state_dict().items() if key in before]
        )
    torch.testing.assert_close(steps["lowered"], 0.25 * steps["plain"], rtol=1e-3, atol=1e-7)


def _saved(trainer, step):
    from safetensors.torch import load_file

    return load_file(runs.checkpoint_folder(trainer.run.checkpoints, step) / "model.safetensors")


def test_lowering_at_a_loss_that_is_no_number_throws_the_update_away_too(tmp_path):
    watch = watching(not_finite={"action": "lower_learning_rate"})
    trainer = training(tmp_path, poisoned={13}, watch=watch)
    assert weights(trainer.model).isfinite().all() and trainer.watch.factor == 0.5


def test_a_stop_tells_why_and_leaves_the_good_checkpoints(tmp_path):
    told = (
        r"The loss of step 13, .* lies .* deviations above the median of the last 10 updates.* Lower "
        r"training\.learning_rate .* another watch\.loss_spike\.action or threshold, given beside resume\."
    )
    with pytest.raises(NmtError, match=told):
        training(tmp_path, poisoned={13}, factor=1e4, watch=watching(loss_spike={"action": "stop"}))
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in runs.list_checkpoints(folder / "checkpoints")] == ["step-5", "step-10"]
    # With another action it goes on from there.
    again = training(
        tmp_path, poisoned={13}, factor=1e4, watch=watching(loss_spike={"action": "skip"}),
        run=runs.load(folder, writer=True),
    )  # fmt: skip
    assert again.state.global_step == STEPS and (13, "loss_spike", "skip") in decisions(again)


def test_a_stop_before_the_first_checkpoint_names_none_to_go_on_from(tmp_path, caplog):
    """What else is wrong with the update is told before the training ends."""
    watch = watching(loss_spike={"action": "stop"}, gradient_norm={"action": "skip"})
    with pytest.raises(NmtError) as error:
        training(tmp_path, poisoned={13}, factor=1e4, watch=watch, save_steps=15)
    assert str(error.value).endswith(
        "The run has no checkpoint yet to go on from; start a new one, with other settings or another "
        "watch.loss_spike.action or threshold."
    )
    told = [message for message in caplog.messages if message.startswith("watch.")]
    assert [message.partition(":")[0] for message in told] == ["watch.gradient_norm", "watch.loss_spike"]
    assert told[0].endswith("What is done about it (skip) gives way to that of watch.loss_spike (stop).")


@pytest.mark.parametrize("stop", [*(pytest.param(step, marks=pytest.mark.slow) for step in (7, 12, 16)), 13, 18])
def test_interrupted_and_continued_equals_never_interrupted(tmp_path, stop):
    """Statistics, counts, the lowered learning rate and the decisions, bit for bit."""
    watch = watching(
        not_finite={"action": "roll_back"}, loss_spike={"action": "lower_learning_rate"}, max_roll_backs=2
    )
    faults = {"poisoned": {13, 17}, "watch": watch, **WARM}
    whole = training(tmp_path / "whole", **faults)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "parts", stop=stop, **faults)
    (folder,) = (tmp_path / "parts").iterdir()
    again = training(tmp_path, run=runs.load(folder, writer=True), **faults)
    assert torch.equal(weights(again.model), weights(whole.model)) and same_state(again, whole)
    assert again.watch.state_dict() == whole.watch.state_dict() and again.watch.state_dict()["taken"]
    histories = [runs.read_decisions(one.run.folder) for one in (whole, again)]
    assert histories[0] == histories[1] and len(histories[0]) == 2
    assert logged(again) == logged(whole)


def test_a_roll_back_passes_over_the_checkpoint_of_an_interrupt(tmp_path, monkeypatch):
    """Where a run that was never interrupted has none."""
    faults = {"poisoned": {13}, "watch": watching(not_finite={"action": "roll_back"}), **WARM}
    whole = training(tmp_path / "whole", **faults)
    monkeypatch.setattr(StopAfter, "on_step_end", lambda self, args, state, *given, **more: (
        os.kill(os.getpid(), signal.SIGINT) if state.global_step == self.step else None
    ))  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "parts", stop=12, save_total_limit=2, num_average_checkpoints=0, **faults)
    (folder,) = (tmp_path / "parts").iterdir()
    # It takes nobody's place.
    assert [runs.step_of(one) for one in runs.list_checkpoints(folder / "checkpoints")] == [5, 10, 12]
    again = training(tmp_path, run=runs.load(folder, writer=True), **faults)
    assert [entry["watch"]["to_step"] for entry in runs.read_decisions(folder)] == [10]
    assert (
        torch.equal(weights(again.model), weights(whole.model))
        and again.watch.state_dict() == whole.watch.state_dict()
    )


def test_updates_are_judged_late_where_nothing_needs_it_sooner_and_before_a_checkpoint(tmp_path):
    watch = watching()
    assert not any(check.action not in ("warn", "stop") for _, check in watch.checks())
    late = training(tmp_path, poisoned={13}, factor=1e3, watch=watch, logging_steps=50)
    state = json.loads((late.run.checkpoints / "step-15" / "run_state.json").read_text())["watch"]
    assert len(state["losses"]) == 10 and max(state["losses"]) > 100
    entry = next(one for one in runs.read_decisions(late.run.folder) if one["watch"]["check"] == "loss_spike")
    assert entry["step"] == 13 and entry["watch"]["action"] == "warn"
    with pytest.raises(NmtError, match="The training loss is nan at step 13. .* No checkpoint was written since"):
        training(tmp_path / "nan", poisoned={13}, logging_steps=50)
    (folder,) = (tmp_path / "nan").iterdir()
    assert [path.name for path in runs.list_checkpoints(folder / "checkpoints")] == ["step-5", "step-10"]


def test_all_batches_of_an_update_are_thrown_away_together_and_bf16_as_well(tmp_path):
    options = {"gradient_accumulation_steps": 2, "bf16": True, "dropout": 0.0, **WARM}
    watch = watching(not_finite={"action": "skip"})
    skipped = training(tmp_path, poisoned={7}, watch=watch, **options | {"max_steps": 10})
    never = training(tmp_path / "never", without={13, 14}, **options | {"max_steps": 9})
    assert torch.equal(weights(skipped.model), weights(never.model)) and decisions(skipped) == [
        (7, "not_finite", "skip")
    ]


class Collapsing:
    """A validation whose scores are given."""

    def __init__(self, scores):
        self.scores = list(scores)
        self.decoding = DecodingSettings(num_beams=1)

    def run(self, model, token_loss, *, num_beams=None, rank=0, world_size=1):
        bleu = self.scores.pop(0)
        score = Score(name="BLEU", value=bleu, unit="points", signature="none", n=1)
        return ValidationResult({"loss": 1.0, "perplexity": 2.7, "bleu": bleu, "seconds": 0.1}, [score], [], [])


def test_a_collapse_goes_back_behind_the_last_good_validation(tmp_path):
    """Validated every 6 updates, saved every 3: the collapse at 18 comes after the good one at 12."""
    watch = watching(score_collapse={"action": "roll_back"})
    options = {"eval_strategy": "steps", "eval_steps": 6, "save_steps": 3, **WARM}
    back = training(tmp_path, validation=Collapsing([20, 30, 5, 30]), watch=watch, **options)
    never = training(tmp_path / "never", without=set(range(13, 19)), **WARM)
    assert decisions(back) == [(18, "score_collapse", "roll_back")]
    assert torch.equal(weights(back.model), weights(never.model))
    assert [entry["metrics"]["bleu"] for entry in runs.read_validations(back.run.folder)] == [20, 30, 30]
    every = runs.read_validations(back.run.folder, given_up=True)
    assert [(entry["metrics"]["bleu"], runs.counts(entry)) for entry in every] == [
        (20, True), (30, True), (5, False), (30, True),
    ]  # fmt: skip
    assert back.state.best_global_step == 12
    kept = [runs.step_of(folder) for folder in runs.list_checkpoints(back.run.checkpoints)]
    assert kept == [3, 6, 9, 12, 18, 20]  # 15 was between the good and the bad validation


def test_weights_that_were_gone_back_from_are_not_the_best(tmp_path):
    """A collapse of BLEU with the best loss so far: what is saved then are the weights of the step before."""

    class WithLoss(Collapsing):
        def run(self, *given, **options):
            result = super().run(*given, **options)
            loss = {20: 3.0, 5: 1.0}.get(result.metrics["bleu"], 2.0)
            return dataclasses.replace(result, metrics=result.metrics | {"loss": loss})

    watch = watching(score_collapse={"action": "roll_back"})
    options = {"eval_strategy": "steps", "eval_steps": 5, "metric_for_best_model": "loss", "watch": watch}
    back = training(tmp_path, validation=WithLoss([20, 5, 20, 30]), **options)
    assert decisions(back) == [(10, "score_collapse", "roll_back")]
    assert (back.state.best_metric, back.state.best_global_step) == (2.0, 20)


def test_what_early_stopping_counted_since_is_forgotten_with_a_roll_back(tmp_path, caplog):
    """A patience of two: the second validation without a better one is gone back from, and the one after it counts as
    the second."""
    caplog.set_level("INFO")
    options = {"eval_strategy": "steps", "eval_steps": 4, "save_steps": 4, "early_stopping_patience": 2}
    watch = watching(score_collapse={"action": "roll_back"})
    scores = [30, 29, 5, 28]
    trainer = training(tmp_path, validation=Collapsing(scores), watch=watch, **options)
    assert decisions(trainer) == [(12, "score_collapse", "roll_back")]
    assert trainer.state.global_step == 16 and trainer.state.best_global_step == 4
    assert caplog.text.count("2 validations in a row brought no better bleu") == 1
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "parts", validation=Collapsing(scores), watch=watch, stop=6, **options)
    (folder,) = (tmp_path / "parts").iterdir()
    run = runs.load(folder, writer=True)
    again = training(tmp_path, run=run, validation=Collapsing(scores[1:]), watch=watch, **options)
    assert decisions(again) == decisions(trainer) and again.state.global_step == 16


def test_an_interval_of_skipped_updates_alone_is_told(tmp_path, caplog):
    watch = watching(not_finite={"action": "skip"})
    trainer = training(tmp_path, poisoned={6, 7, 8, 9, 10}, watch=watch, logging_steps=5, **WARM)
    assert caplog.text.count("step 10/20  no loss: none of the updates since the last log was made") == 1
    assert [*logged(trainer)] == [5, 15, 20] and [*logged(trainer, "learning_rate")] == [5, 10, 15, 20]


@pytest.mark.parametrize("name", ["constant", "reduce_on_plateau"])
def test_an_update_is_told_the_lowered_rate_once(tmp_path, name):
    """LOMO updates in the backward pass with the rate that the Trainer tells; other optimizers have it."""
    found = []
    training(
        tmp_path, poisoned={13}, factor=1e3, schedule={"name": name, "warmup_steps": 0},
        watch=watching(loss_spike={"action": "lower_learning_rate"}, learning_rate_factor=0.25),
        eval_strategy="steps", eval_steps=5, validation=Collapsing([20, 21, 22, 23]),
        in_update=lambda one: found.append((one._get_learning_rate(), one.optimizer.param_groups[0]["lr"])),
    )  # fmt: skip
    assert numpy.allclose(found, [(3e-3, 3e-3)] * 13 + [(7.5e-4, 7.5e-4)] * 7)


@pytest.mark.parametrize("name", ["constant", "step", "reduce_on_plateau"])
def test_a_rate_lowered_at_a_validation_is_that_of_the_schedule_in_the_checkpoint(tmp_path, name):
    """Whose updates would otherwise be made with the factor twice where the run goes on."""
    scores = [20, 5, 21, 22]
    options = {
        "eval_strategy": "steps", "eval_steps": 5, "schedule": {"name": name, "warmup_steps": 0},
        "watch": watching(score_collapse={"action": "lower_learning_rate"}),
    }  # fmt: skip
    whole = training(tmp_path / "whole", validation=Collapsing(scores), **options)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "parts", validation=Collapsing(scores), stop=12, **options)
    (folder,) = (tmp_path / "parts").iterdir()
    again = training(tmp_path, run=runs.load(folder, writer=True), validation=Collapsing(scores[2:]), **options)
    assert decisions(again) == decisions(whole) == [(10, "score_collapse", "lower_learning_rate")]
    assert logged(again, "learning_rate") == logged(whole, "learning_rate")
    assert torch.equal(weights(again.model), weights(whole.model)) and same_state(again, whole)


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
@pytest.mark.parametrize("action", ["skip", "roll_back"])
def test_updates_that_a_loss_scaler_leaves_out_are_no_faults(tmp_path, monkeypatch, action, max_grad_norm):
    """Half precision on a processor, with a scale under which the first gradients are not finite. A loss that is no
    number is a fault all the same."""
    run = make_run(tmp_path)
    trainer = make_trainer(
        run, model=make_model(dropout=0.0), pairs=make_pairs(STEPS * 8), sampler=InOrder(), max_steps=STEPS,
        save_steps=5, logging_steps=1, max_grad_norm=max_grad_norm, use_cpu=True, **CONSTANT,
        watch=watching(not_finite={"action": action}, gradient_norm={"action": action}),
    )  # fmt: skip
    trainer.args.fp16, trainer.accelerator.native_amp = True, True
    monkeypatch.setattr(trainer.accelerator.state, "_mixed_precision", "fp16")
    trainer.accelerator.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22, growth_interval=1000)
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *given, **more: (
        compute_loss(*given, **more) * (math.nan if trainer.state.global_step + 1 == 18 else 1)
    )
    scales = []
    scaler_step = scaler.step
    monkeypatch.setattr(scaler, "step", lambda *given: (scales.append(scaler.get_scale()), scaler_step(*given))[1])
    with run:
        trainer.train()
    left_out = sum(after < before for before, after in zip(scales[:16], scales[1:17], strict=True))
    assert 0 < left_out < 16
    assert decisions(trainer) == [(18, "not_finite", action)]
    assert weights(trainer.model).isfinite().all()


def distributed(folder, action, kind=None):
    """A loss that is no number on the second process alone."""
    os.environ |= LAUNCHED[kind] if kind else {}
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    poisoned = {7} if rank == world_size - 1 else ()
    run = runs.load(folder, writer=rank == 0)
    pairs, sampler = make_pairs(STEPS * 8), InOrder()
    watch = watching(not_finite={"action": action})
    trainer = make_trainer(
        run, model=make_model(dropout=0.0), pairs=pairs, sampler=sampler, watch=watch, max_steps=10, save_steps=2,
        logging_steps=1, use_cpu=True, gradient_accumulation_steps=1 if world_size > 1 else 2, learning_rate=3e-3,
    )  # fmt: skip
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *given, **more: (
        compute_loss(*given, **more) * (math.nan if trainer.state.global_step + 1 in poisoned else 1)
    )
    trainer.train()
    return weights(trainer.model).numpy(), trainer.watch.state_dict(), decisions(trainer)


@pytest.mark.parametrize("action", ["skip", "roll_back"])
def test_processes_decide_alike_and_as_one_alone(tmp_path, action):
    first, second = run_in_processes(distributed, 2, make_run(tmp_path / "two").folder, action)
    assert numpy.array_equal(first[0], second[0]) and first[1:] == second[1:]
    assert first[2] == [(7, "not_finite", action)]
    ((alone, _, found),) = run_in_processes(distributed, 1, make_run(tmp_path / "one").folder, action)
    assert found == first[2]
    assert first[0] == pytest.approx(alone, rel=1e-3, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["skip", "roll_back"])
def test_divided_weights_are_rescued_as_whole_ones(tmp_path, action):
    divided, other = run_in_processes(distributed, 2, make_run(tmp_path / "fsdp").folder, action, "fsdp")
    whole, _ = run_in_processes(distributed, 2, make_run(tmp_path / "whole").folder, action)
    assert numpy.array_equal(divided[0], other[0]) and divided[2] == whole[2] == [(7, "not_finite", action)]
    # By their losses: the biases of keys, whose true gradient is zero, follow the rounding.
    losses = [
        list(runs.series(runs.read_metrics(next((tmp_path / kind).iterdir())), "loss")[1])
        for kind in ("fsdp", "whole")
    ]
    assert len(losses[1]) == 9 and losses[0] == pytest.approx(losses[1], rel=1e-5)
