from __future__ import annotations

import json

import pytest
import torch
from toy_training import (
    GroupSampler,
    StopAfter,
    make_marian,
    make_model,
    make_pairs,
    make_run,
    make_trainer,
    train_until,
    weights,
)
from transformers import TrainerCallback

from hf_nmt import runs
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import Score
from hf_nmt.training import checkpoints
from hf_nmt.training.finish import choose_model
from hf_nmt.training.preparation import latest_checkpoint
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.validation import ValidationResult


class Scripted:
    """Stands for a validation: gives the next of the scores it was told."""

    def __init__(self, scores):
        self.scores, self.calls = list(scores), []
        self.decoding = DecodingSettings(num_beams=5)

    def run(self, model, token_loss, *, num_beams=None, rank=0, world_size=1):
        bleu = self.scores.pop(0)
        self.calls.append((num_beams, bleu))
        score = Score(name="BLEU", value=bleu, unit="points", signature="none", n=1)
        return ValidationResult({"loss": 1.0, "perplexity": 2.7, "bleu": bleu, "seconds": 0.1}, [score], [], [])


def trained(tmp_path, scores, **settings):
    validation = Scripted(scores)
    run = make_run(tmp_path)
    with run:
        trainer = make_trainer(
            run, validation=validation, **({"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2} | settings)
        )
        trainer.train()
    return trainer, validation


def kept(trainer):
    return [runs.step_of(folder) for folder in runs.list_checkpoints(trainer.run.checkpoints)]


def test_training_ends_after_validations_without_a_new_best(tmp_path, caplog):
    trainer, _ = trained(tmp_path, [10, 30, 20, 30, 25, 40], early_stopping_patience=3, save_total_limit=2)
    assert trainer.state.global_step == 10 and trainer.state.best_global_step == 4
    assert "3 validations in a row brought no better bleu" in caplog.text


@pytest.mark.parametrize(
    ("limit", "average", "left"), [(1, 0, [4, 12]), (2, 3, [4, 8, 10, 12]), (None, 0, [2, 4, 6, 8, 10, 12])]
)
def test_the_best_and_those_to_be_averaged_are_kept(tmp_path, limit, average, left):
    trainer, _ = trained(
        tmp_path, [10, 30, 20, 20, 20, 20], max_steps=12, save_total_limit=limit, num_average_checkpoints=average
    )
    assert kept(trainer) == left


def test_no_checkpoint_takes_the_place_of_good_ones_once_the_loss_is_no_number(tmp_path):
    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 5:
                with torch.no_grad():
                    model.lm_head.weight.fill_(float("nan"))

    run = make_run(tmp_path)
    with pytest.raises(NmtError, match="loss is nan at step 6.*No checkpoint was written since"), run:
        trainer = make_trainer(run, max_steps=12, save_steps=2, logging_steps=100, save_total_limit=2)
        trainer.add_callback(Poison())
        trainer.train()
    assert kept(trainer) == [2, 4]


def test_validation_while_training_takes_its_own_beams_and_the_last_those_of_decoding(tmp_path):
    trainer, validation = trained(
        tmp_path, [10, 30, 5, 6], max_steps=4, num_average_checkpoints=2, validation_num_beams=2
    )
    choose_model(trainer)
    assert [beams for beams, _ in validation.calls] == [2, 2, None, None]


def test_a_sample_is_validated_while_training_and_everything_at_the_end(tmp_path):
    sample = Scripted([10, 30])
    trainer, validation = trained(tmp_path, [5, 6], max_steps=4, num_average_checkpoints=2, validation_sample=sample)
    assert [bleu for _, bleu in sample.calls] == [10, 30] and validation.calls == []
    chosen, _ = choose_model(trainer)
    assert [bleu for _, bleu in validation.calls] == [5, 6] and chosen.kind == "average"
    entries = runs.read_validations(trainer.run.folder)
    assert [entry["metrics"]["bleu"] for entry in entries] == [10, 30] and "sentences" in entries[0]


@pytest.mark.parametrize(("single", "average", "kind"), [(31, 30, "single"), (30, 31, "average")])
def test_the_better_of_best_checkpoint_and_average_is_chosen(tmp_path, single, average, kind):
    trainer, _ = trained(tmp_path, [10, 30, 20, single, average], max_steps=6, num_average_checkpoints=2)
    chosen, candidates = choose_model(trainer)
    assert chosen.kind == kind and [candidate.kind for candidate in candidates] == ["single", "average"]
    steps = [4] if kind == "single" else [4, 6]
    assert chosen.steps == steps and trainer.run.record["best"] == {"kind": kind, "steps": steps}
    folders = [runs.checkpoint_folder(trainer.run.checkpoints, step) for step in steps]
    expected = checkpoints.average_weights(folders)
    held = trainer.model.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in expected.items())


def test_the_lower_loss_is_the_better_one(tmp_path):
    trainer, _ = trained(tmp_path, [10, 9], max_steps=4, metric_for_best_model="loss")
    assert trainer.state.best_global_step == 2  # both have loss 1.0: the first stays


def test_without_validation_the_average_is_chosen(tmp_path, caplog):
    with make_run(tmp_path) as run:
        trainer = make_trainer(run, max_steps=6, save_steps=2, num_average_checkpoints=2)
        trainer.train()
        chosen, _ = choose_model(trainer)
    assert chosen.kind == "average" and chosen.steps == [4, 6] and chosen.result is None
    assert "no validation texts: best/ is the average of 2 checkpoints" in caplog.text


def test_without_checkpoints_the_last_weights_are_kept(tmp_path, caplog):
    with make_run(tmp_path) as run:
        trainer = make_trainer(run, max_steps=3, save_strategy="no")
        trainer.train()
        before = weights(trainer.model)
        chosen, _ = choose_model(trainer)
    assert chosen.kind == "last" and chosen.steps == [3] and torch.equal(weights(trainer.model), before)
    assert "fewer than two whole checkpoints" in caplog.text


def test_resumed_in_the_middle_of_an_epoch_and_of_a_log_interval(tmp_path):
    settings = {"max_steps": 20, "save_steps": 7, "logging_steps": 3, "gradient_accumulation_steps": 2}
    with make_run(tmp_path / "whole") as whole:
        expected = make_trainer(whole, sampler=GroupSampler(64, 4), **settings)
        expected.train()
    run = make_run(tmp_path / "parts")
    for stop in (10, 16, None):
        run = runs.load(run.folder, writer=True)
        checkpoint = checkpoints.latest_whole(run.checkpoints)
        try:
            with run:
                run.forget_after(None if checkpoint is None else runs.step_of(checkpoint))
                trainer = make_trainer(run, sampler=GroupSampler(64, 4), **settings)
                if stop is not None:
                    trainer.add_callback(StopAfter(stop))
                trainer.train(checkpoint)
        except KeyboardInterrupt:
            pass
    assert torch.equal(weights(trainer.model), weights(expected.model))
    found, wanted = (
        [(entry["step"], entry["name"], entry["value"], entry["tokens"]) for entry in runs.read_metrics(folder)
         if entry["name"] != "tokens_per_second"]
        for folder in (run.folder, whole.folder)
    )  # fmt: skip
    assert found == wanted


def test_patience_counts_on_after_a_resume(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "early_stopping_patience": 3}
    run = make_run(tmp_path)
    train_until(7, run, validation=Scripted([10, 30, 20]), **settings)
    with runs.resume(run.folder, "train") as again:
        trainer = make_trainer(again, validation=Scripted([25, 26, 99]), **settings)
        trainer.train(checkpoints.latest_whole(again.checkpoints))
    assert trainer.state.global_step == 10 and trainer.state.best_global_step == 4


@pytest.mark.parametrize(
    ("make", "strategy"), [(make_marian, {"save_steps": 3}), (make_model, {"save_strategy": "epoch"})]
)
def test_other_families_and_whole_epochs_resume_as_well(tmp_path, make, strategy):
    settings = {"max_steps": 20, "logging_steps": 1} | strategy
    with make_run(tmp_path / "whole") as whole:
        expected = make_trainer(whole, model=make(dropout=0.2), **settings)
        expected.train()
    run = make_run(tmp_path / "parts")
    train_until(11, run, model=make(dropout=0.2), **settings)
    with runs.resume(run.folder, "train") as again:
        arguments = TrainingSettings().arguments(seed=1, run_name="x", validate=False)
        checkpoint = latest_checkpoint(again, arguments)
        assert checkpoint.name == ("step-9" if "save_steps" in strategy else "step-8")
        trainer = make_trainer(again, model=make(dropout=0.2), **settings)
        trainer.train(checkpoint)
    assert torch.equal(weights(trainer.model), weights(expected.model))
    losses = [runs.series(runs.read_metrics(folder), "loss") for folder in (whole.folder, run.folder)]
    assert losses[0] == losses[1] and losses[0][0] == list(range(1, 21))


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path, caplog):
    run = make_run(tmp_path)
    run.add_metrics(1, {"loss": 1.0}, epoch=0, tokens=1, seconds=1)
    arguments = TrainingSettings().arguments(seed=1, run_name="x", validate=False)
    assert latest_checkpoint(run, arguments) is None
    assert "no whole checkpoint; it begins anew" in caplog.text and runs.read_metrics(run.folder) == []


def test_a_checkpoint_of_the_end_is_not_trained_further(tmp_path):
    trainer, _ = trained(tmp_path, [10, 30, 20], early_stopping_patience=1)  # ends at step 6 of 20
    assert trainer.state.global_step == 6
    again = make_trainer(
        trainer.run,
        model=make_model(seed=9),
        validation=Scripted([]),
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
    )
    again.train(checkpoints.latest_whole(trainer.run.checkpoints))
    assert torch.equal(weights(again.model), weights(trainer.model))
    assert again.state.global_step == 6 and again.state.best_global_step == 4
    assert again.stopwatch.tokens == trainer.stopwatch.tokens > 0


def test_a_checkpoint_of_other_batches_is_refused(tmp_path):
    trainer, _ = trained(tmp_path, [1, 2], max_steps=4)
    other = make_trainer(trainer.run, pairs=make_pairs(48), eval_strategy="no", save_steps=2)
    with pytest.raises(ConfigError, match="the training data or the batching are not those"):
        other.train(checkpoints.latest_whole(trainer.run.checkpoints))


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path):
    trainer, _ = trained(tmp_path, [1, 2], max_steps=4)
    folder = checkpoints.latest_whole(trainer.run.checkpoints)
    state = json.loads((folder / "run_state.json").read_text()) | {"world_size": 2}
    (folder / "run_state.json").write_text(json.dumps(state))
    with pytest.raises(ConfigError, match="was written by 2 processes, now 1 run.* Launch as many as before"):
        trainer.train(folder)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer, _ = trained(tmp_path, [1, 2], max_steps=4)
    other = make_trainer(trainer.run, model=make_model(encoder_layers=3), eval_strategy="no", save_steps=2)
    with pytest.raises(NmtError, match=r"does not fit the model: missing \['model.encoder.layers.2"):
        other.train(checkpoints.latest_whole(trainer.run.checkpoints))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    model = make_model()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with (
        make_run(tmp_path) as run,
        pytest.raises(NmtError, match="The training loss is nan at step 1. Lower training.learning_rate"),
    ):
        make_trainer(run, model=model).train()


def test_nothing_that_is_shared_is_pickled(tmp_path):
    trainer, _ = trained(tmp_path, [1, 2], max_steps=4)
    folder = checkpoints.latest_whole(trainer.run.checkpoints)
    names = {path.name for path in folder.iterdir()}
    assert "training_args.bin" not in names
    assert {"model.safetensors", "config.json", "tokenizer.json", "optimizer.pt", "COMPLETE"} <= names
    torch.load(folder / "optimizer.pt", weights_only=True)


def test_only_the_log_is_written_to(tmp_path, capfd):
    trained(tmp_path, [1, 2], max_steps=4, logging_steps=1)
    assert capfd.readouterr().out == ""


def test_tensorboard_files_lie_in_the_run_folder(tmp_path):
    pytest.importorskip("tensorboard")
    trainer, _ = trained(tmp_path, [1, 2], max_steps=4, report_to=["tensorboard"])
    assert list((trainer.run.folder / "tensorboard").iterdir())


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "wandb"])
def test_trackers_write_on_this_machine(tmp_path, monkeypatch, capsys, tracker):
    pytest.importorskip(tracker)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = make_run(tmp_path / "runs")
    make_trainer(run, max_steps=4, logging_steps=1, save_steps=4, report_to=[tracker]).train()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    written = {
        "tensorboard": lambda: list((run.folder / "tensorboard").rglob("events.out.tfevents.*")),
        "mlflow": lambda: list(tmp_path.glob("mlflow.db")),
        "wandb": lambda: list(tmp_path.glob("wandb/offline-run-*/*.wandb")),
    }[tracker]()
    assert written and all(path.stat().st_size > 200 for path in written)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"warmup_steps": 4},
            "warms up for 4 updates (schedule.warmup_steps), and the training has 4: it ends at 0.000375, and its "
            "peak is 0.0005.",
        ),
        (
            {"warmup_steps": 16},
            "warms up for 16 updates (schedule.warmup_steps), and the training has 4: it ends at 9.38e-05",
        ),
        (
            {"warmup_steps": 3},
            "warms up for 3 of the 4 updates of the training (schedule.warmup_steps), so that little is made of its "
            "peak. A tenth is usual; write schedule.warmup_share=0.1 schedule.warmup_steps=null.",
        ),
        (
            {"warmup_share": 0.75},
            "(schedule.warmup_share), so that little is made of its peak. A tenth is usual; write "
            "schedule.warmup_share=0.1.",
        ),
        ({"warmup_share": 0.5}, None),
        ({"warmup_steps": 0, "name": "constant"}, None),
    ],
)
def test_a_warmup_as_long_as_the_training_or_nearly_is_told_once(tmp_path, caplog, changes, told):
    with make_run(tmp_path) as run:
        make_trainer(run, max_steps=4, schedule=changes).train()
    messages = [message for message in caplog.messages if "warms up" in message]
    assert len(messages) == (told is not None) and (told is None or told in messages[0])
