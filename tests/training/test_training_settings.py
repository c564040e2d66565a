from __future__ import annotations

import dataclasses
import os
import sys
import types

import pytest
from transformers import Seq2SeqTrainingArguments

from hf_nmt.config import load
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.training import settings as module
from hf_nmt.training.settings import REFUSED, RENAMED, TRAINER_DEFAULTS, TrainingSettings

FIELDS = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(TrainingSettings, overrides=overrides)
    return str(error.value)


def arguments(**changes):
    return TrainingSettings(**changes).arguments(seed=5, run_name="test", validate=True)


def test_every_argument_of_the_trainer_is_taken_or_refused():
    assert len(FIELDS) > 100
    taken = FIELDS & TrainingSettings.model_fields.keys()
    assert taken | REFUSED.keys() == FIELDS
    assert not taken & REFUSED.keys()
    assert not FIELDS & RENAMED.keys()
    assert TRAINER_DEFAULTS.keys() <= taken


def test_what_is_taken_reaches_the_trainer():
    values = {"learning_rate": 3e-4, "adam_beta1": 0.8, "max_grad_norm": 0.5,
              "dataloader_num_workers": 1, "logging_steps": 7, "optim": "adafactor", "data_seed": 9}  # fmt: skip
    found = arguments(**values)
    for name, value in values.items():
        assert getattr(found, name) == value
    assert found.seed == 5 and found.run_name == "test"
    assert found.report_to == []


def test_own_defaults_reach_the_trainer_and_the_help():
    found = arguments()
    for name, (value, reason) in TRAINER_DEFAULTS.items():
        assert getattr(found, name) == value, name
        assert reason in TrainingSettings.model_fields[name].description
    others = {name: field.default for name, field in TrainingSettings.model_fields.items() if name in FIELDS}
    theirs = Seq2SeqTrainingArguments()
    for name in ("weight_decay", "adam_beta1", "max_grad_norm", "gradient_accumulation_steps", "full_determinism"):
        assert others[name] == getattr(theirs, name)


def test_types_convert_and_words_are_checked():
    found = load(TrainingSettings, overrides=["learning_rate=2e-4", "save_steps=0.1", "bf16=true"])
    assert (found.learning_rate, found.save_steps, found.bf16) == (2e-4, 0.1, True)
    message = refused("optim=adamm", "eval_strategy=epochs", "learning_rate=fast")
    assert "optim: given 'adamm'" in message and "adamw_torch" in message
    assert "eval_strategy: given 'epochs', allowed: no | steps | epoch" in message
    assert "learning_rate" in message


def test_no_number_of_updates_is_written_as_null_too():
    found = load(TrainingSettings, overrides=["max_steps=null"])
    assert found.max_steps == -1 and found == load(TrainingSettings, overrides=["max_steps=-1"])
    assert "max_steps: given 'x', allowed: integer" in refused("max_steps=x")


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("evaluation_strategy=steps", "write eval_strategy"),
        ("warmup_ratio=0.1", "write schedule.warmup_share"),
        ("warmup_steps=0.1", "write schedule.warmup_steps, or schedule.warmup_share for a share"),
        ("lr_scheduler_type=cosine", "write schedule.name"),
        ("lr_scheduler_kwargs={a: 1}", "write the keys of the `schedule` section"),
        ("no_cuda=true", "write use_cpu"),
        ("group_by_length=true", "token budget of the `batching` section"),
        ("sortish_sampler=true", "the Trainer accepts it and does nothing with it"),
        ("per_device_train_batch_size=8", "token budget of the `batching` section"),
        ("gradient_checkpointing=true", "write activation_checkpointing"),
        ("generation_num_beams=4", "write decoding.num_beams"),
        ("push_to_hub=true", "push the finished model with recipes/push.py"),
        ("output_dir=x", "write output_dir at the top level"),
        ("deepspeed=x.json", "launch with recipes/launch/deepspeed_zero2.yaml"),
        ("fsdp=full_shard", "launch with recipes/launch/fsdp.yaml"),
    ],
)
def test_names_that_would_do_nothing_are_answered(override, answer):
    name = override.partition("=")[0]
    message = refused(override)
    assert message.startswith(f"{name}: ") and answer in message


def test_all_findings_come_at_once():
    message = refused("warmup_ratio=0.1", "fp16=true", "bf16=true", "metric_for_best_model=rouge")
    assert len(message.splitlines()) == 3
    assert "at most one of fp16 and bf16 can be true" in message
    assert "metric_for_best_model: given 'rouge', allowed: bleu, chrf or loss" in message


@pytest.mark.parametrize(
    ("evaluation", "saving", "allowed"),
    [
        (500, 500, True),
        (500, 250, True),
        (500, 1000, False),
        (0.1, 0.1, True),
        (0.1, 0.05, False),
        (0.1, 10, False),
        (None, 5, False),
    ],
)
def test_every_validation_needs_its_checkpoint(evaluation, saving, allowed):
    findings = TrainingSettings(eval_steps=evaluation, save_steps=saving).validation_findings()
    assert bool(findings) != allowed
    assert all(finding.startswith("eval_steps: ") and "every validation has" in finding for finding in findings)


def test_strategies_must_meet():
    (finding,) = load(TrainingSettings, overrides=["eval_strategy=epoch"]).validation_findings()
    assert "allowed with eval_strategy=epoch: epoch or best" in finding
    fitting = load(TrainingSettings, overrides=["eval_strategy=epoch", "save_strategy=epoch"])
    assert fitting.validation_findings() == []
    message = refused("eval_strategy=no", "early_stopping_patience=3")
    assert "early_stopping_patience: needs validations, but eval_strategy is no" in message


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["eval_strategy=no"],
        ["eval_strategy=epoch", "save_strategy=epoch", "early_stopping_patience=null"],
        ["bf16=true", "save_steps=0.1", "eval_steps=0.1", "report_to=[tensorboard]"],
    ],
)
def test_recorded_settings_are_valid_again(overrides):
    settings = load(TrainingSettings, overrides=overrides)
    assert TrainingSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_the_precision_of_the_launcher_must_be_that_of_the_settings(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ConfigError, match="training.fp16: the launcher asks for fp16, the settings for fp32"):
        TrainingSettings().arguments(seed=1, run_name="x", validate=False)


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("tensorbord", "training.report_to: given 'tensorbord', allowed: none, all, .*tensorboard"),
        ("tensorboard", r"'tensorboard' is needed here and is not installed. .* pip install .hf_nmt\[tensorboard\]"),
        ("wandb", r"pip install .hf_nmt\[wandb\]"),
        ("mlflow", r"pip install .hf_nmt\[mlflow\]"),
    ],
)
def test_a_tracker_that_is_not_there_is_told_before_anything_loads(tracker, message, monkeypatch):
    for name in ("tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    with pytest.raises(NmtError, match=message):
        TrainingSettings(report_to=[tracker]).arguments(seed=1, run_name="x", validate=False)


@pytest.mark.parametrize(("given", "mode"), [(None, "offline"), ("online", "online"), ("disabled", "disabled")])
def test_a_tracker_sends_nothing_unless_told_to(given, mode, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    monkeypatch.setenv("WANDB_MODE", given or "")
    if given is None:
        monkeypatch.delenv("WANDB_MODE")
    arguments(report_to=["wandb"])
    assert os.environ.pop("WANDB_MODE") == mode
    assert ("W&B writes on this machine only" in caplog.text) == (given is None)
    arguments()
    assert "WANDB_MODE" not in os.environ


def test_without_texts_there_is_no_validation():
    found = TrainingSettings().arguments(seed=1, run_name="x", validate=False)
    assert found.eval_strategy == "no" and found.metric_for_best_model is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fp16": True}, "training.fp16: .*the Trainer would silently train in fp32; use bf16"),
        ({"tf32": True}, "training.tf32: .*NVIDIA GPUs only"),
        ({"optim": "grokadamw"}, "training.optim: grokadamw cannot be used here: .*grokadamw"),
        ({"dataloader_prefetch_factor": 2}, "training: .*dataloader_num_workers"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        arguments(use_cpu=True, **changes)


def test_bf16_works_without_a_gpu(monkeypatch):
    monkeypatch.setattr(module, "_has_accelerator", lambda: False)
    found = arguments(bf16=True)
    assert found.use_cpu and found.mixed_precision == "bf16" and not found.dataloader_pin_memory


def test_another_number_of_processes_names_the_launch_line(monkeypatch):
    monkeypatch.setattr(module, "_has_accelerator", lambda: False)
    with pytest.raises(ConfigError) as error:
        arguments(num_processes=2)
    message = str(error.value)
    assert "training.num_processes: given 2, but 1 process runs" in message
    assert "accelerate launch --multi_gpu --num_processes 2 recipes/train.py ... training.use_cpu=true" in message
    assert arguments(num_processes=1).world_size == 1


def test_a_launcher_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_MEGATRON_LM", "true")
    with pytest.raises(ConfigError, match="the launcher asks for Megatron-LM; .* under FSDP or DeepSpeed"):
        arguments()


def test_epochs_that_do_nothing_are_told(caplog):
    arguments(max_steps=40, num_train_epochs=2)
    told = "training.max_steps=40 tells how long the training is; training.num_train_epochs=2 is passed over. For"
    assert [message for message in caplog.messages if message.startswith(told)] == caplog.messages != []
    caplog.clear()
    arguments(max_steps=40)
    arguments(num_train_epochs=2)
    assert not caplog.messages
