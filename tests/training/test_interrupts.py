from __future__ import annotations

import os
import signal
import threading

import pytest
import torch
from process_groups import run_in_processes
from toy_training import GroupSampler, make_model, make_pairs, make_run, make_trainer, weights
from transformers import TrainerCallback

from hf_nmt import runs
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import Score
from hf_nmt.training import checkpoints
from hf_nmt.training.interrupts import Interrupts
from hf_nmt.training.preparation import latest_checkpoint
from hf_nmt.training.validation import ValidationResult


class Interrupt(TrainerCallback):
    """Sends the process a signal in the middle of an update, or right after."""

    def __init__(self, step, number=signal.SIGINT, times=1, event="on_step_begin"):
        self.step, self.number, self.times = step, number, times
        setattr(self, event, self._send)

    def _send(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def training(run, interrupt=None, **settings):
    """Twenty updates in epochs of eight."""
    defaults = {"max_steps": 20, "save_steps": 6, "logging_steps": 4, "num_average_checkpoints": 0}
    pairs = make_pairs(64)
    trainer = make_trainer(
        run, model=make_model(dropout=0.2), pairs=pairs, sampler=GroupSampler(64, 8), **defaults | settings
    )
    checkpoint = latest_checkpoint(run, trainer.args)
    if interrupt is not None:
        trainer.add_callback(interrupt)
    with run:
        trainer.train(checkpoint)
    return trainer


def steps(folder):
    return [runs.step_of(path) for path in runs.list_checkpoints(folder / "checkpoints")]


@pytest.mark.parametrize(
    ("step", "saving"),
    [
        (9, {}),
        (16, {"save_strategy": "epoch"}),
        (20, {}),
        pytest.param(12, {}, marks=pytest.mark.slow),
        pytest.param(16, {}, marks=pytest.mark.slow),
        pytest.param(9, {"save_strategy": "epoch"}, marks=pytest.mark.slow),
    ],
)
def test_the_running_update_is_finished_and_saved_and_the_run_goes_on_as_if_never_interrupted(tmp_path, step, saving):
    whole = training(make_run(tmp_path / "whole"), **saving)
    run = make_run(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        training(run, Interrupt(step), **saving)
    assert steps(run.folder)[-1] == step and checkpoints.latest_whole(run.checkpoints) is not None
    assert runs.load(run.folder).record["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = training(runs.resume(run.folder, "train"), **saving)
    assert torch.equal(weights(again.model), weights(whole.model)) and again.state.global_step == 20
    assert steps(run.folder) == steps(whole.run.folder)  # that of the interrupt has gone, and is in no average
    losses = [runs.series(runs.read_metrics(one.folder), "loss") for one in (run, whole.run)]
    assert losses[0] == losses[1]


class Scores:
    """A validation whose score is drawn."""

    decoding = DecodingSettings(num_beams=1)

    def run(self, model, token_loss, **options):
        loss = float(torch.rand(()))
        value = 30.0 - loss
        score = Score(name="BLEU", value=value, unit="points", signature="none", n=1)
        return ValidationResult({"loss": loss, "perplexity": 1.0, "bleu": value, "seconds": 0.0}, [score], [], [])


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        (12, {}),  # in the middle of an epoch
        (20, {"eval_steps": 10, "save_steps": 10}),  # the last update
        (16, {"eval_strategy": "epoch", "save_strategy": "epoch"}),
        (18, {"save_strategy": "best"}),
        (12, {"early_stopping_patience": 1}),  # which may end it there
    ],
)
def test_a_validation_that_is_due_is_put_off_until_the_run_goes_on(tmp_path, step, settings):
    """Before which a launcher could kill it. All is then as if never interrupted, the random state too."""
    settings = {"eval_strategy": "steps", "eval_steps": 6} | settings
    whole = training(make_run(tmp_path / "whole"), validation=Scores(), **settings)
    run = make_run(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        training(run, Interrupt(step), validation=Scores(), **settings)
    assert steps(run.folder)[-1] == step not in [entry["step"] for entry in runs.read_validations(run.folder)]
    again = training(runs.resume(run.folder, "train"), validation=Scores(), **settings)
    assert torch.equal(weights(again.model), weights(whole.model))
    planned = [
        [
            runs.step_of(path)
            for path in runs.list_checkpoints(one.run.checkpoints)
            if not checkpoints.is_of_interrupt(path)
        ]
        for one in (again, whole)
    ]
    assert planned[0] == planned[1]
    told = [
        [(entry["step"], entry["metrics"]["bleu"]) for entry in runs.read_validations(one.run.folder)]
        for one in (again, whole)
    ]
    assert told[0] == told[1] and step in dict(told[0])
    assert again.state.global_step == whole.state.global_step
    assert again.state.best_global_step == whole.state.best_global_step


def test_a_validation_that_was_made_up_for_and_not_saved_is_told_once(tmp_path, monkeypatch):
    """The process was killed between the two; the next one validates again."""
    settings = {"eval_strategy": "steps", "eval_steps": 6, "validation": Scores()}
    run = make_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        training(run, Interrupt(12), **settings)

    def killed(*given):
        raise SystemExit(137)

    with monkeypatch.context() as patched:
        patched.setattr("hf_nmt.training.trainer.TranslationTrainer._save_checkpoint", killed)
        with pytest.raises(SystemExit):
            training(runs.resume(run.folder, "train"), **settings)
    assert [entry["step"] for entry in runs.read_validations(run.folder)] == [6, 12]
    training(runs.resume(run.folder, "train"), **settings)
    assert [entry["step"] for entry in runs.read_validations(run.folder)] == [6, 12, 18, 20]
    entries = runs.read_metrics(run.folder)
    assert runs.series(entries, "eval_bleu")[0] == [6, 12, 18, 20]
    assert runs.series(entries, "loss")[0] == [4, 8, 12, 16, 20]


def interrupted_alone(folder):
    """The second of two processes hears an interrupt in its ninth update; the numbers exchanged in each update."""
    rank = int(os.environ["RANK"])
    run = runs.load(folder, writer=rank == 0)
    trainer = make_trainer(
        run, pairs=make_pairs(64), sampler=GroupSampler(64, 4), use_cpu=True, max_steps=20, save_steps=6,
        logging_steps=50, num_average_checkpoints=0,
    )  # fmt: skip
    if rank == 1:
        trainer.add_callback(Interrupt(9))
    gathered = []
    gather = trainer.accelerator.gather
    trainer.accelerator.gather = lambda tensor: (gathered.append(trainer.state.global_step), gather(tensor))[1]
    try:
        trainer.train()
    except KeyboardInterrupt:
        return steps(folder), [gathered.count(step) for step in range(1, 5)]
    return None


def test_processes_hear_of_an_interrupt_with_the_number_that_they_exchange_anyhow(tmp_path):
    first, second = run_in_processes(interrupted_alone, 2, make_run(tmp_path).folder)
    assert first == second == ([6, 10], [1, 1, 1, 1])


def test_the_second_time_it_ends_at_once(tmp_path, caplog):
    run = make_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        training(run, Interrupt(9, times=2))
    assert steps(run.folder) == [6]
    told = (
        "Stopping after this update or validation, with a checkpoint. Once more stops at once, and goes back to the "
        "last checkpoint."
    )
    assert caplog.messages.count(told) == 1


def test_before_the_first_checkpoint_none_is_promised(tmp_path, caplog):
    run = make_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        training(run, Interrupt(4, times=2))
    assert steps(run.folder) == []
    (told,) = [message for message in caplog.messages if message.startswith("Stopping")]
    assert told.endswith("Once more stops at once, and loses all that was trained, as there is no checkpoint yet.")


def test_without_checkpoints_it_ends_at_once(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        training(run, Interrupt(9), save_strategy="no")
    assert steps(run.folder) == []


def test_sigterm_does_what_it_did_before_once_the_checkpoint_is_written(tmp_path):
    class Ended(Exception):
        pass

    def end(number, frame):
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    run = make_run(tmp_path)
    try:
        with pytest.raises(Ended):
            training(run, Interrupt(9, signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
    assert steps(run.folder) == [6, 9]


def test_an_interrupt_while_a_checkpoint_is_written_ends_with_that(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        training(run, Interrupt(7, event="on_save"))
    assert steps(run.folder) == [6]


def test_of_several_processes_the_echo_of_a_launcher_is_not_a_second_interrupt(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    interrupts = Interrupts(tmp_path)
    with pytest.raises(KeyboardInterrupt), interrupts.held(several=True, told=False):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked == signal.SIGINT
        clock[0] += 6
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")


def test_signals_are_left_alone_where_they_are_ignored_and_in_other_threads(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interrupts(tmp_path).held(several=False, told=False):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    found = []

    def hold():
        with Interrupts(tmp_path).held(several=False, told=False):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
