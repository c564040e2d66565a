"""DeepSpeed's ZeRO in two processes on a processor: the same updates as one process, the same checkpoints."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from process_groups import run_in_processes
from safetensors.torch import load_file
from sharded_training import LAUNCHED, MODELS, refusal, same, train, worst_difference

from hf_nmt import runs
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.training import checkpoints, sharding

needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


def worst_difference_to_one(folder: Path, kind: str, family: str, steps: int, accumulation: int = 1, **settings: Any):
    options = (accumulation, settings | {"max_steps": steps, "save_steps": steps})
    ((whole, *_),) = run_in_processes(train, 1, folder / "whole", family, None, *options)
    (divided, weights, shares, run), (_, others, other_shares, _) = run_in_processes(
        train, 2, folder / "divided", family, kind, *options
    )
    assert same(weights, others) and shares
    for held in zip(shares, other_shares, strict=True):
        for one, other, both in zip(*held, (1 if kind == "zero3" else 2, 1), strict=True):
            assert both <= one + other < both + 0.2 and one == pytest.approx(
                other, abs=0.2
            )  # filled up to equal parts
    assert len(whole["loss"]) == len(divided["loss"]) == steps and whole["loss"][-1] < whole["loss"][0]
    return worst_difference(whole, divided)


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("kind", ["zero1", "zero2", "zero3"])
def test_fifty_updates_are_those_of_one_process(tmp_path, kind):
    assert worst_difference_to_one(tmp_path, kind, "tied", 50, accumulation=2) < 1e-5


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("family", sorted({*MODELS} - {"tied"}))
@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_every_family_trains_divided_as_whole(tmp_path, kind, family):
    assert worst_difference_to_one(tmp_path, kind, family, 50) < 1e-5


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("kind", ["zero2", "zero3"])
@pytest.mark.parametrize(
    "settings",
    [{"activation_checkpointing": True}, {"max_grad_norm": 0.0}, {"max_grad_norm": 0.1}],
    ids=["checkpointing", "unclipped", "clipped"],
)
def test_settings_mean_the_same(tmp_path, kind, settings):
    assert worst_difference_to_one(tmp_path, kind, "tied", 12, **settings) < 1e-5


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("family", ["tied", "marian"])  # one computes its loss under autocast, of the other we do
@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_bfloat16_is_that_of_data_parallelism(tmp_path, kind, family):
    def run(name: str, kind: str | None, **settings: Any):
        return run_in_processes(train, 2, tmp_path / name, family, kind, 1, {"max_steps": 3, **settings})[0][0]

    parallel, divided, exact = run("parallel", None, bf16=True), run("divided", kind, bf16=True), run("fp32", None)
    first = {name: values[:1] for name, values in parallel.items()}
    assert first["loss"] == divided["loss"][:1] != exact["loss"][:1]
    # Gradients that meet in bfloat16 are added in another order, which the weights of the next updates show.
    assert worst_difference(first, {name: values[:1] for name, values in divided.items()}) < 1e-4
    assert worst_difference(parallel, divided) < 1e-2


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_a_checkpoint_is_whole_and_training_goes_on_from_it_twice(tmp_path, kind):
    def run(name: str, kind: str | None, settings: dict[str, Any]):
        options = (1, {"max_steps": 6, "save_steps": 2, **settings})
        return run_in_processes(train, 2, tmp_path / name, "tied", kind, *options)[0]

    straight, weights, _, folder = run("straight", kind, {})
    plain, _, _, plain_folder = run("plain", None, {})
    first = runs.checkpoint_folder(folder / "checkpoints", 2)
    assert checkpoints.is_whole(first)
    assert {path.name for path in first.iterdir()} == {
        path.name for path in runs.checkpoint_folder(plain_folder / "checkpoints", 2).iterdir()
    }
    saved = load_file(runs.checkpoint_folder(folder / "checkpoints", 6) / "model.safetensors")
    assert all(numpy.array_equal(tensor, weights[name]) for name, tensor in saved.items())
    states = [
        torch.load(runs.checkpoint_folder(of / "checkpoints", 2) / sharding.OPTIMIZER, weights_only=True)
        for of in (folder, plain_folder)
    ]
    assert [group["params"] for group in states[0]["param_groups"]] == [
        group["params"] for group in states[1]["param_groups"]
    ]
    for index, values in states[1]["state"].items():
        assert float(states[0]["state"][index]["step"]) == float(values["step"]) == 2
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(states[0]["state"][index][name], values[name], rtol=1e-4, atol=1e-9)

    once, _, _, folder = run("once", kind, {"checkpoint": first})
    assert once == {name: values[2:] for name, values in straight.items()}
    second = runs.checkpoint_folder(folder / "checkpoints", 4)
    twice, again, *_ = run("twice", kind, {"checkpoint": second})
    assert twice == {name: values[4:] for name, values in straight.items()}
    assert same(weights, again)

    # As it was begun otherwise, it goes on as well.
    for name, other in (("undivided", None), ("fsdp", "fsdp"), ("other", "zero3" if kind == "zero2" else "zero2")):
        found, *_ = run(name, other, {"checkpoint": first})
        assert worst_difference({key: values[2:] for key, values in plain.items()}, found) < 1e-5


def why_it_ended(*options: Any) -> str:
    try:
        train(*options)
    except NmtError as error:
        return str(error)
    return ""


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("kind", ["zero2", "zero3"])
def test_the_watch_knows_an_update_that_deepspeed_leaves_out(tmp_path, kind):
    settings = {"learning_rate": 1e30, "max_steps": 8, "logging_steps": 8, "save_steps": 8}
    told = run_in_processes(why_it_ended, 2, tmp_path, "tied", kind, 1, settings)
    assert all("is nan at step 3. Lower training.learning_rate" in message for message in told), told


def launched(monkeypatch, world_size: int = 2, **variables: str) -> None:
    monkeypatch.setattr(sharding, "find_spec", lambda name: object())
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    for name, value in (LAUNCHED["zero2"] | variables).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DEEPSPEED_ZERO_STAGE", "0", "DeepSpeed with zero_stage=0; write 1, 2 or 3 in the launch file"),
        ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu", "offload_optimizer_device=cpu; write none"),
        ("DEEPSPEED_OFFLOAD_PARAM_DEVICE", "nvme", "offload_param_device=nvme; write none"),
        ("DEEPSPEED_ZERO3_INIT", "true", "zero3_init_flag=true; write false"),
        ("DEEPSPEED_CONFIG_FILE", "x.json", "is made from our settings: write zero_stage instead in the launch file"),
        (
            "GRADIENT_CLIPPING",
            "1.0",
            "gradient_clipping=1.0; set training.max_grad_norm, and leave it out in the launch file",
        ),
        ("GRADIENT_ACCUMULATION_STEPS", "4", "set training.gradient_accumulation_steps, and leave it out"),
    ],
)
def test_what_a_launch_file_asks_and_does_not_get_is_refused(monkeypatch, variable, value, message):
    launched(monkeypatch, **{f"ACCELERATE_{variable}": value})
    assert message in refusal()


def test_all_reasons_are_told_at_once(monkeypatch):
    launched(monkeypatch, world_size=1, **LAUNCHED["fsdp"])
    monkeypatch.setattr(sharding, "find_spec", lambda name: None)
    found = refusal(fp16=True, torch_compile=True, optim="adafactor")
    for part in (
        "DeepSpeed, which needs several processes",
        'pip install "hf_nmt[deepspeed]"',
        "asks for FSDP and for DeepSpeed; launch with one of them",
        "training.fp16: its loss scaling",
        "training.torch_compile: ",
        "training.optim: given adafactor",
    ):
        assert part in found


def test_adapters_are_refused(monkeypatch):
    launched(monkeypatch)
    with pytest.raises(ConfigError, match="under DeepSpeed all weights are trained.*recipes/launch/multi_gpu.yaml"):
        sharding.check_model(adapter=True)
