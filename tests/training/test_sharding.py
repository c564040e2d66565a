"""FSDP in two processes on a processor, through the code that GPUs would run: the same updates as data parallelism."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from process_groups import run_in_processes
from safetensors.torch import load_file
from sharded_training import MODELS, refusal, same, train, worst_difference

from hf_nmt import runs
from hf_nmt.errors import ConfigError
from hf_nmt.training import checkpoints, sharding


def worst_difference_to_whole(folder: Path, family: str, steps: int, accumulation: int = 1, **settings: Any) -> float:
    options = (accumulation, settings | {"max_steps": steps})
    (plain, *_), _ = run_in_processes(train, 2, folder / "plain", family, None, *options)
    (divided, weights, shares, run), (_, others, other_shares, _) = run_in_processes(
        train, 2, folder / "divided", family, "fsdp", *options
    )
    assert same(weights, others)
    for held in zip(shares, other_shares, strict=True):
        for one, other in zip(*held, strict=True):
            assert 0.3 < one < 0.7 and one + other == pytest.approx(1)
    assert len(plain["loss"]) == len(divided["loss"]) == steps and plain["loss"][-1] < plain["loss"][0]
    return worst_difference(plain, divided)


def test_divided_weights_train_as_whole_ones(tmp_path):
    assert worst_difference_to_whole(tmp_path, "tied", 6, accumulation=2) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("reshard", ["true", "false"])
def test_every_family_trains_divided_as_whole(tmp_path, monkeypatch, family, reshard):
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", reshard)
    assert worst_difference_to_whole(tmp_path, family, 30) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"activation_checkpointing": True}, {"bf16": True}], ids=["checkpointing", "bf16"]
)
def test_what_saves_memory_besides_goes_with_it(tmp_path, settings):
    # Under autocast each process rounds its gradients to bfloat16 before they are summed, or after: both are right.
    assert worst_difference_to_whole(tmp_path, "tied", 12, **settings) < (1e-2 if "bf16" in settings else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step", "reduce_on_plateau"])
def test_a_schedule_of_torch_goes_with_it_and_on_from_a_checkpoint(tmp_path, name):
    schedule = {"name": name, "warmup_steps": 2} | ({"step_size_steps": 2} if name == "step" else {})
    assert worst_difference_to_whole(tmp_path, "tied", 6, schedule=schedule) < 1e-5
    (run,) = (tmp_path / "divided").iterdir()
    options = (1, {"max_steps": 6, "schedule": schedule, "checkpoint": runs.checkpoint_folder(run / "checkpoints", 3)})
    (resumed, weights, *_), _ = run_in_processes(train, 2, tmp_path / "resumed", "tied", "fsdp", *options)
    last = load_file(runs.checkpoint_folder(run / "checkpoints", 6) / "model.safetensors")
    assert all(numpy.array_equal(tensor, weights[name]) for name, tensor in last.items())
    entries = runs.read_metrics(run)
    assert resumed["loss"] == runs.series(entries, "loss")[1][3:]
    if name == "step":
        assert runs.series(entries, "learning_rate")[1] == pytest.approx([0, 1.5e-3, 3e-3, 3e-3, 1.5e-3, 1.5e-3])


@pytest.mark.slow
def test_a_checkpoint_is_whole_and_training_goes_on_from_it(tmp_path):
    options = (1, {"max_steps": 6})
    (whole, weights, _, run), _ = run_in_processes(train, 2, tmp_path / "straight", "tied", "fsdp", *options)
    (plain, *_), _ = run_in_processes(train, 2, tmp_path / "plain", "tied", None, *options)
    checkpoint = runs.checkpoint_folder(run / "checkpoints", 3)
    assert checkpoints.is_whole(checkpoint)
    saved = load_file(runs.checkpoint_folder(run / "checkpoints", 6) / "model.safetensors")
    assert all(numpy.array_equal(tensor, weights[name]) for name, tensor in saved.items())
    state = torch.load(checkpoint / sharding.OPTIMIZER, weights_only=True)
    shapes = {tuple(tensor.shape) for tensor in load_file(checkpoint / "model.safetensors").values()}
    assert {tuple(values["exp_avg"].shape) for values in state["state"].values()} == shapes

    options = (1, {"max_steps": 6, "checkpoint": checkpoint})
    (resumed, again, *_), _ = run_in_processes(train, 2, tmp_path / "resumed", "tied", "fsdp", *options)
    assert same(weights, again)
    assert resumed == {name: values[3:] for name, values in whole.items()}
    (undivided, *_), _ = run_in_processes(train, 2, tmp_path / "undivided", "tied", None, *options)
    for name, values in plain.items():
        assert undivided[name] == pytest.approx(values[3:], rel=1e-5)


def launched(monkeypatch, world_size: int = 2, **variables: str) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    for name, value in variables.items():
        monkeypatch.setenv(f"FSDP_{name}", value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"VERSION": "1"}, "fsdp_version=1; write 2 in the launch file"),
        ({"OFFLOAD_PARAMS": "true"}, "fsdp_offload_params=true; write false"),
        ({"CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading=true; write false"),
        ({"ACTIVATION_CHECKPOINTING": "true"}, "training.activation_checkpointing=true in the launch file"),
        (
            {"AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"},
            "fsdp_auto_wrap_policy=SIZE_BASED_WRAP; write TRANSFORMER_BASED_WRAP",
        ),
        ({"TRANSFORMER_CLS_TO_WRAP": "EncoderLayer"}, "fsdp_transformer_layer_cls_to_wrap=EncoderLayer; leave it out"),
    ],
)
def test_what_a_launch_file_asks_and_does_not_get_is_refused(monkeypatch, variables, message):
    launched(monkeypatch, **variables)
    assert message in refusal()


def test_all_reasons_are_told_at_once(monkeypatch):
    launched(monkeypatch, world_size=1, VERSION="1")
    found = refusal(torch_compile=True, optim="adafactor")
    for part in ("fsdp_version=1", "needs several processes", "training.torch_compile: ", "allowed under FSDP: adamw"):
        assert part in found
    assert "training.fp16: its loss scaling" in refusal(fp16=True)


def test_adapters_are_refused(monkeypatch):
    launched(monkeypatch)
    with pytest.raises(ConfigError, match="under FSDP all weights are trained.*recipes/launch/multi_gpu.yaml"):
        sharding.check_model(adapter=True)
    sharding.check_model(adapter=False)
