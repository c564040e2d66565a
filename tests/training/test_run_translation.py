"""Arguments of run_translation.py: each is known, lands where the table says, and is told of."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest
import yaml
from settings_walk.keys import recipe_module, settings_of
from transformers import Seq2SeqTrainingArguments

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.training.run_translation import (
    ARGUMENTS,
    NOT_GIVEN,
    OPTION,
    SECRETS,
    NoCounterpart,
    command_line,
    known_arguments,
    map_arguments,
    read_arguments,
)

# What the script cannot do without; a JSON file has both sides of a pair.
NEEDED = {"source_lang": "de", "target_lang": "en", "train_file": "pairs.json", "validation_file": "dev.json"}

# Argument -> (value, what it must make of our settings, further arguments); or what the answer must say.
CASES = {
    "model_name_or_path": ("runs/de-en", {"model.pretrained": "runs/de-en"}),
    "config_name": "`model` section",
    "tokenizer_name": "brings its tokenizer",
    "cache_dir": "HF_HOME",
    "use_fast_tokenizer": "one tokenizer",
    "model_revision": ("v2", {"model.revision": "v2"}, {"model_name_or_path": "me/model"}),
    "token": "HF_TOKEN",
    "use_auth_token": "HF_TOKEN",
    "trust_remote_code": "no code of others",
    "source_lang": ("fr", {"data.source_language": "fr", "data.train.source_column": None}),
    "target_lang": ("ro_RO", {"data.target_language": "ro_RO", "data.train.target_column": "translation.ro",
                              "data.validation.target_column": "translation.ro"}),
    "dataset_name": ("wmt16", {"data.train.path": "wmt16", "data.train.format": "hub", "data.train.split": "train",
                               "data.validation.split": "validation"},
                     {"train_file": None, "validation_file": None, "do_eval": True}),
    "dataset_config_name": ("ro-en", {"data.train.subset": "ro-en", "data.validation": None},
                            {"train_file": None, "validation_file": None, "dataset_name": "wmt16"}),
    "train_file": ("other.json", {"data.train.path": "other.json"}),
    "validation_file": ("other.jsonl", {"data.validation.path": "other.jsonl"}),
    "test_file": "data.test.path=FILE",
    "overwrite_cache": "content is the same",
    "preprocessing_num_workers": "content is the same",
    "max_source_length": (64, {"batching.max_source_length": 64, "batching.too_long": "truncate"}),
    "max_target_length": (48, {"batching.max_target_length": 48, "batching.too_long": "truncate"}),
    "val_max_target_length": (60, {"decoding.max_target_length": 60}),
    "pad_to_max_length": "longest pair",
    "max_train_samples": (100, {"data.train.max_rows": 100}),
    "max_eval_samples": (50, {"data.validation.max_rows": 50}),
    "max_predict_samples": "data.test.max_rows=N",
    "num_beams": (3, {"decoding.num_beams": 3}),
    "ignore_pad_token_for_loss": "never counts",
    "source_prefix": ("translate: ", {"model.source_prefix": "translate: "}, {"model_name_or_path": "t5-small"}),
    "forced_bos_token": ("de_DE", {"data.target_language": "de_DE"}, {"target_lang": "de_DE"}),
    "output_dir": ("elsewhere", {"output_dir": Path("elsewhere")}),
    "run_name": ("mine", {"name": "mine"}),
    "seed": (7, {"seed": 7}),
    "per_device_train_batch_size": (4, {"batching.max_sentences": 4, "batching.batch_tokens": 4 * 128},
                                    {"max_source_length": 100}),
    "per_gpu_train_batch_size": (6, {"batching.max_sentences": 6, "batching.batch_tokens": 6 * 256}),
    "per_device_eval_batch_size": "decoding.batch_tokens",
    "predict_with_generate": "always translates",
    "generation_max_length": (60, {"decoding.max_target_length": 60}, {"val_max_target_length": 70}),
    "generation_num_beams": (2, {"decoding.num_beams": 2}),
    "gradient_checkpointing": (True, {"training.activation_checkpointing": True}),
    "gradient_checkpointing_kwargs": ({"every_n_layers": 2},
                                      {"training.activation_checkpointing_kwargs": {"every_n_layers": 2}}),
    "evaluation_strategy": ("epoch", {"training.eval_strategy": "epoch", "training.save_strategy": "epoch"}),
    "warmup_ratio": (0.1, {"schedule.warmup_share": 0.1, "schedule.warmup_steps": None}),
    "warmup_steps": (30, {"schedule.warmup_steps": 30, "schedule.warmup_share": None}),
    "lr_scheduler_type": ("reduce_lr_on_plateau", {"schedule.name": "reduce_on_plateau", "schedule.gamma": 0.1}),
    "lr_scheduler_kwargs": ({"num_cycles": 4, "min_lr_ratio": 0.1},
                            {"schedule.T_0_share": 0.25, "schedule.min_learning_rate": 5e-6},
                            {"lr_scheduler_type": "cosine_with_restarts"}),
    "no_cuda": (True, {"training.use_cpu": True}),
    "adafactor": (True, {"training.optim": "adafactor"}),
    "optim": ("adamw_hf", {"training.optim": "adamw_torch"}),
    "metric_for_best_model": ("eval_chrf", {"training.metric_for_best_model": "chrf"}),
    "resume_from_checkpoint": "resume=runs/<id>",
    "do_train": "this recipe trains",
    "do_eval": "validation corpus",
    "do_predict": "recipes/validate.py",
}  # fmt: skip

# Arguments of the Trainer under their own name, those of Transformers 4 too, and names that are refused with a reason.
OF_THE_TRAINER = {
    "learning_rate": 3e-4, "fp16": True, "bf16": True, "label_smoothing_factor": 0.2,
    "gradient_accumulation_steps": 4, "num_train_epochs": 2, "max_steps": 9, "weight_decay": 0.01,
    "logging_steps": 10, "save_total_limit": 2, "report_to": ["tensorboard"], "max_grad_norm": 0.5, "data_seed": 3,
}  # fmt: skip
OF_TRANSFORMERS_4 = (
    "overwrite_output_dir", "evaluation_strategy", "warmup_ratio", "logging_dir", "group_by_length", "no_cuda",
    "push_to_hub_model_id", "push_to_hub_token", "push_to_hub_organization", "include_inputs_for_metrics",
    "save_safetensors", "fp16_backend", "fp16_opt_level", "half_precision_backend", "use_mps_device", "adafactor",
    "per_gpu_train_batch_size", "per_gpu_eval_batch_size", "sortish_sampler", "past_index", "torchdynamo",
    "split_batches", "dispatch_batches", "include_tokens_per_second", "use_ipex", "jit_mode_eval", "tpu_num_cores",
)  # fmt: skip


def settings(given: dict):
    mapped = map_arguments({name: value for name, value in (NEEDED | given).items() if value is not None})
    write = {key: value for line in mapped for key, value in line.settings.items()}
    return mapped, load(settings_of("train"), overrides=[f"{key}={json.dumps(value)}" for key, value in write.items()])


def value_at(tree, key: str):
    for step in key.split("."):
        tree = getattr(tree, step, None)
    return tree


def test_every_argument_of_the_table_has_a_case():
    assert len(ARGUMENTS) > 45
    assert CASES.keys() == ARGUMENTS.keys()


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if not isinstance(case, str)))
def test_an_argument_lands_where_it_says(name):
    value, expected, *more = CASES[name]
    mapped, loaded = settings({name: value, **(more[0] if more else {})})
    line = next(line for line in mapped if line.argument.startswith(f"{name}="))
    told = str(line) + "".join(str(other) for other in mapped if other.argument == "checkpoints")
    for key, what in expected.items():
        assert value_at(loaded, key) == what, key
        if what is not None and "generation" not in name:
            assert key in told
    other = value_at(settings({})[1], next(iter(expected)))
    assert other != next(iter(expected.values()))


def test_what_has_no_counterpart_says_why_and_what_to_do():
    reasons = {name: reason for name, reason in CASES.items() if isinstance(reason, str)}
    assert len(reasons) > 15
    for name, reason in reasons.items():
        mapped, _ = settings({name: "x"})
        shown = "***" if name in SECRETS else "x"
        line = next(line for line in mapped if line.argument == f"{name}={shown}")
        assert line.settings == {} and reason in str(line) and "no counterpart" in str(line)


def test_tokens_stay_out_of_the_report():
    secret = dict.fromkeys(SECRETS, "hf_secret")
    assert len(secret) == 4
    lines = [str(line) for line in map_arguments(NEEDED | secret)]
    assert not any("hf_secret" in line for line in lines)
    assert sum("=***: no counterpart" in line for line in lines) == 4


def test_arguments_of_the_trainer_keep_their_names():
    for name, value in OF_THE_TRAINER.items():
        _, loaded = settings({name: value})
        assert getattr(loaded.training, name) == value


def test_every_argument_of_both_generations_is_known():
    known = known_arguments()
    assert not {"sam_rho", "num_validation_sentences"} & {*known}  # ours, which the script never had
    fields = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    assert len(fields) > 100
    assert fields <= known.keys()
    assert {*OF_TRANSFORMERS_4} <= known.keys()
    keys = {entry for entry in known.values() if isinstance(entry, str)}
    assert not {key for key in keys if value_at_field(key) is None}
    assert not [name for name, entry in known.items() if isinstance(entry, NoCounterpart) and len(entry.why) < 10]


def value_at_field(key: str):
    """The field of a dotted key, through sections and sections that may be null."""
    from hf_nmt.config_keys import keys_of

    return next((found.field for found in keys_of(settings_of("train")) if found.path == key), None)


def test_what_is_not_given_is_as_in_the_script():
    mapped, loaded = settings({})
    theirs = Seq2SeqTrainingArguments()
    assert {line.argument for line in mapped if "not given" in line.argument} == {
        f"{name} (not given)" for name in NOT_GIVEN
    }
    for name in ("learning_rate", "num_train_epochs", "adam_beta2", "adam_epsilon", "label_smoothing_factor"):
        assert getattr(loaded.training, name) == getattr(theirs, name) == NOT_GIVEN[name]
    assert loaded.schedule.name == theirs.lr_scheduler_type.value and loaded.schedule.warmup_steps == 0
    assert loaded.batching.max_sentences == theirs.per_device_train_batch_size
    assert settings({"max_steps": 5})[1].training.num_train_epochs != 3
    assert settings({"warmup_ratio": 0.1, "warmup_steps": 20})[1].schedule.warmup_steps == 20


@pytest.mark.parametrize(
    ("given", "eval_steps", "save_steps"),
    [
        ({"eval_steps": 200}, 200, 200),
        ({"save_steps": 100}, 100, 100),
        ({"eval_strategy": "steps", "eval_steps": 200, "save_steps": 500}, 200, 200),
        ({"eval_strategy": "steps", "eval_steps": 300, "save_steps": 300, "save_strategy": "epoch"}, 300, 300),
    ],
)
def test_checkpoints_are_where_validations_are(given, eval_steps, save_steps):
    mapped, loaded = settings(given)
    assert (loaded.training.eval_steps, loaded.training.save_steps) == (eval_steps, save_steps)
    assert loaded.training.save_strategy == "steps"
    assert any(line.argument == "checkpoints" for line in mapped)


def test_no_validation_no_rule_for_checkpoints():
    mapped, loaded = settings({"eval_strategy": "no", "save_strategy": "epoch"})
    assert loaded.training.save_strategy == "epoch"
    assert not any(line.argument == "checkpoints" for line in mapped)


def test_unknown_arguments_come_all_at_once_with_the_nearest():
    with pytest.raises(ConfigError) as error:
        map_arguments({"learning_rat": 1, "source_language": "de", "frobnicate": 2})
    assert error.value.findings == [
        "learning_rat: unknown argument of run_translation.py. Did you mean learning_rate?",
        "source_language: unknown argument of run_translation.py. Did you mean source_lang?",
        "frobnicate: unknown argument of run_translation.py. Take it out; settings of this recipe follow the file as "
        "key=value.",
    ]


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("a.json", "{,}", "a.json: this is not JSON (a YAML file is named .yaml)"),
        ("a.yaml", "a: [", "a.yaml: this is not YAML"),
        ("a.json", "[1]", 'names and values, as {"model_name_or_path": "t5-small", ...}; this one holds [1].'),
        ("a.json", None, "a.json: the file cannot be read: No such file or directory."),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, name, text, answer):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        read_arguments(tmp_path / name)
    assert answer in str(error.value)


def test_json_and_yaml_are_read_alike(tmp_path):
    given = NEEDED | {"learning_rate": 3e-4, "fp16": False, "source_prefix": "translate: "}
    (tmp_path / "a.json").write_text(json.dumps(given))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(given))
    assert read_arguments(tmp_path / "a.json") == read_arguments(tmp_path / "a.yaml") == given


# The command line


def write(folder: Path, **given) -> str:
    path = folder / "args.json"
    path.write_text(json.dumps(given))
    return str(path)


def test_a_value_that_cannot_be_used_names_the_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, **NEEDED, max_target_length="long", seed=-1, per_device_train_batch_size="many")
    with pytest.raises(ConfigError) as error:
        recipe_module("train").main([OPTION, path, "training.learning_rate=fast"])
    message = str(error.value)
    assert (
        f"batching.max_target_length: given 'long', allowed: integer > 1. ({path}: max_target_length=long)" in message
    )
    assert f"seed: given -1, allowed: integer >= 0. ({path}: seed=-1)" in message
    assert f"({path}: per_device_train_batch_size=many)" in message
    typed = next(finding for finding in error.value.findings if finding.startswith("training.learning_rate"))
    assert path not in typed


def test_unknown_names_and_wrong_values_come_together(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    wrong = {"batch_size": 4, "num_train_epochs": "three"}
    unknown = "batch_size: unknown argument of run_translation.py. Here write batching.batch_tokens"
    for given in (wrong, {"batch_size": 4}):
        with pytest.raises(ConfigError) as error:
            recipe_module("train").main([OPTION, write(tmp_path, **NEEDED, **given), "--dry-run"])
        assert error.value.findings[0].startswith(unknown)
        told = any("training.num_train_epochs: given 'three'" in finding for finding in error.value.findings)
        assert told == (given is wrong) and not capsys.readouterr().out


@pytest.mark.parametrize("argv", [[OPTION], [OPTION, "--dry-run"], [OPTION, "seed=3"]])
def test_a_file_must_follow(argv):
    with pytest.raises(ConfigError, match="a JSON or YAML file with the arguments must follow"):
        command_line(argv)


def test_other_command_lines_stay_as_they_are(tmp_path):
    assert command_line(["--config", "tiny", "seed=3"]).arguments == ["--config", "tiny", "seed=3"]
    assert command_line([OPTION, "missing.json", "--help"]).arguments == ["--help"]
    path = write(tmp_path, seed=3)
    assert command_line([f"{OPTION}={path}", "seed=4"]).arguments[-1] == "seed=4"
    assert command_line(["seed=4", OPTION, path]).arguments[-1] == "seed=4"


def test_dry_run_prints_a_settings_file_that_gives_the_same(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    for name in ("pairs.json", "dev.json"):
        Path(name).write_text(json.dumps({"translation": {"de": "eins", "en": "one"}}) + "\n")
    path = write(tmp_path, **NEEDED, learning_rate=3e-4, do_train=True)
    module = recipe_module("train")
    with caplog.at_level(logging.INFO, "hf_nmt"), pytest.raises(SystemExit) as leave:
        module.main([OPTION, path, "seed=9", "--dry-run"])
    assert leave.value.code == 0
    assert "learning_rate=0.0003: training.learning_rate=0.0003" in caplog.text
    assert "do_train=true: no counterpart (this recipe trains)" in caplog.text
    Path("ours.yaml").write_text(capsys.readouterr().out)
    loaded = load(module.SETTINGS, "ours.yaml")
    assert (loaded.seed, loaded.training.learning_rate, loaded.data.source_language) == (9, 3e-4, "de")


def test_a_model_is_trained_from_the_arguments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [f"wort{i % 7} haus{i % 5}" for i in range(40)]
    for name in ("pairs.json", "dev.json"):
        rows = [{"translation": {"de": line, "ro": " ".join(reversed(line.split()))}} for line in lines]
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = write(tmp_path, **(NEEDED | {"target_lang": "ro_RO"}), output_dir="out", max_steps=2, do_train=True,
                 do_eval=True, per_device_train_batch_size=4, max_source_length=32, max_target_length=32, num_beams=2,
                 evaluation_strategy="steps", eval_steps=2, warmup_ratio=0.5, predict_with_generate=True)  # fmt: skip
    assert recipe_module("train").main(["--config", "tiny", OPTION, path, "training.logging_steps=1"]) == 0
    best = Path(capsys.readouterr().out.strip())
    record = json.loads((best.parent / "run.json").read_text())
    assert best.parent.parent.name == "out" and (best / "model.safetensors").exists()
    kept = record["settings"]
    assert kept["data"]["target_language"] == "ro_RO" and kept["batching"]["batch_tokens"] == 128
    assert kept["training"]["max_steps"] == 2 and kept["schedule"]["warmup_share"] == 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"target_lang": "en", "forced_bos_token": "fr_XX"},
            "target_lang=en and forced_bos_token=fr_XX: both are data.target_language here, with "
            "the values en and fr_XX.",
        ),
        (
            {"train_file": "pairs.json", "dataset_name": "wmt16"},
            "train_file=pairs.json and dataset_name=wmt16: both are data.train.path here",
        ),
        ({"eval_strategy": "steps", "evaluation_strategy": "epoch"}, "both are training.eval_strategy here"),
    ],
)
def test_two_arguments_that_contradict_each_other_are_refused(given, message):
    with pytest.raises(ConfigError) as error:
        map_arguments(given)
    assert message in str(error.value)


def test_two_arguments_that_agree_are_taken():
    settings = settings_of_mapped(
        {"target_lang": "fr_XX", "forced_bos_token": "fr_XX", "no_cuda": False, "use_cpu": True}
    )
    assert settings["data.target_language"] == "fr_XX" and settings["training.use_cpu"] is True


def settings_of_mapped(given):
    return {key: value for line in map_arguments(given) for key, value in line.settings.items()}
