"""FSDP in two processes on a processor, through the code that GPUs would run: the same updates as data parallelism."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from process_groups import run_in_processes
from safetensors.torch import load_file
from toy_training import VOCABULARY, make_marian, make_model, make_pairs, make_run, make_trainer
from transformers import M2M100Config, M2M100ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from hf_nmt import runs
from hf_nmt.batching.sampler import TokenBatchSampler
from hf_nmt.batching.settings import BatchingSettings
from hf_nmt.errors import ConfigError
from hf_nmt.training import checkpoints, sharding
from hf_nmt.training.settings import TrainingSettings

SILENT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
WIDTHS = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "pad_token_id": 1,
    "eos_token_id": 3,
    "decoder_start_token_id": 2,
}


def make_m2m100():
    return M2M100ForConditionalGeneration(
        M2M100Config(
            **WIDTHS, **SILENT, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, bos_token_id=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32,
            encoder_layerdrop=0.0, decoder_layerdrop=0.0,
        )
    )  # fmt: skip


def make_t5():
    return T5ForConditionalGeneration(
        T5Config(
            **WIDTHS, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0, feed_forward_proj="gated-gelu"
        )
    )


MODELS = {
    "tied": lambda: make_model(**SILENT),
    "untied": lambda: make_model(**SILENT, tie_word_embeddings=False),
    "marian": make_marian,
    "m2m100": make_m2m100,
    "t5": make_t5,
}


def toy_trainer(folder: Path, family: str, fsdp: bool, accumulation: int = 1, **settings: Any):
    os.environ |= {"ACCELERATE_USE_FSDP": str(fsdp).lower(), "FSDP_VERSION": "2"}
    rank = int(os.environ["RANK"])
    run = make_run(folder) if rank == 0 else runs.Run(folder / "reader", {}, writer=False)
    pairs = make_pairs(160)
    lengths = [np.array([len(row) for row in pairs[name]]) for name in ("input_ids", "labels")]
    sampler = TokenBatchSampler(
        *lengths,
        BatchingSettings(batch_tokens=64, max_source_length=12, max_target_length=12),
        seed=3,
        world_size=2,
        accumulation=accumulation,
    )
    torch.manual_seed(1)
    defaults = {"save_steps": 3, "logging_steps": 1, "learning_rate": 3e-3, "use_cpu": True}
    return make_trainer(
        run, model=MODELS[family](), pairs=pairs, sampler=sampler, gradient_accumulation_steps=accumulation,
        **defaults | settings,
    )  # fmt: skip


def train(folder: Path, family: str, fsdp: bool, accumulation: int, settings: dict[str, Any]):
    """Losses, gradient norms and final weights, on the first process; the share of weights and of Adam's state that
    this process held."""
    checkpoint = settings.pop("checkpoint", None)
    trainer = toy_trainer(folder, family, fsdp, accumulation, **settings)
    shares = []
    write = trainer.gather

    def gather():
        if (model := trainer._divided) is not None:
            whole = sum(parameter.numel() for parameter in model.parameters())
            held = sum(parameter.to_local().numel() for parameter in model.parameters())
            states = [state["exp_avg"] for state in trainer.optimizer.state.values()]
            shares.append((held / whole, sum(s.to_local().numel() for s in states) / sum(s.numel() for s in states)))
        write()

    trainer.gather = gather
    trainer.train(resume_from_checkpoint=checkpoint)
    assert trainer._divided is None and {type(p) for p in trainer.model.parameters()} == {torch.nn.Parameter}
    entries = runs.read_metrics(trainer.run.folder)
    found = {name: runs.series(entries, name)[1] for name in ("loss", "grad_norm")}
    return found, {n: t.numpy() for n, t in trainer.trained_weights().items()}, shares, trainer.run.folder


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return {*first} == {*second} and all(np.array_equal(first[name], second[name]) for name in first)


def worst_difference(folder: Path, family: str, steps: int, accumulation: int = 1, **settings: Any) -> float:
    options = (accumulation, settings | {"max_steps": steps})
    (plain, *_), _ = run_in_processes(train, 2, folder / "plain", family, False, *options)
    (divided, weights, shares, run), (_, others, other_shares, _) = run_in_processes(
        train, 2, folder / "divided", family, True, *options
    )
    assert same(weights, others)
    for held in zip(shares, other_shares, strict=True):
        for one, other in zip(*held, strict=True):
            assert 0.3 < one < 0.7 and one + other == pytest.approx(1)
    assert len(plain["loss"]) == len(divided["loss"]) == steps and plain["loss"][-1] < plain["loss"][0]
    return max(abs(a / b - 1) for name in plain for a, b in zip(plain[name], divided[name], strict=True))


def test_divided_weights_train_as_whole_ones(tmp_path):
    assert worst_difference(tmp_path, "tied", 6, accumulation=2) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("reshard", ["true", "false"])
def test_every_family_trains_divided_as_whole(tmp_path, monkeypatch, family, reshard):
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", reshard)
    assert worst_difference(tmp_path, family, 30) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"activation_checkpointing": True}, {"bf16": True}], ids=["checkpointing", "bf16"]
)
def test_what_saves_memory_besides_goes_with_it(tmp_path, settings):
    # Under autocast each process rounds its gradients to bfloat16 before they are summed, or after: both are right.
    assert worst_difference(tmp_path, "tied", 12, **settings) < (1e-2 if "bf16" in settings else 1e-5)


@pytest.mark.slow
def test_a_checkpoint_is_whole_and_training_goes_on_from_it(tmp_path):
    options = (1, {"max_steps": 6})
    (whole, weights, _, run), _ = run_in_processes(train, 2, tmp_path / "straight", "tied", True, *options)
    (plain, *_), _ = run_in_processes(train, 2, tmp_path / "plain", "tied", False, *options)
    checkpoint = runs.checkpoint_folder(run / "checkpoints", 3)
    assert checkpoints.is_whole(checkpoint)
    saved = load_file(runs.checkpoint_folder(run / "checkpoints", 6) / "model.safetensors")
    assert all(np.array_equal(tensor, weights[name]) for name, tensor in saved.items())
    state = torch.load(checkpoint / sharding.OPTIMIZER, weights_only=True)
    shapes = {tuple(tensor.shape) for tensor in load_file(checkpoint / "model.safetensors").values()}
    assert {tuple(values["exp_avg"].shape) for values in state["state"].values()} == shapes

    options = (1, {"max_steps": 6, "checkpoint": checkpoint})
    (resumed, again, *_), _ = run_in_processes(train, 2, tmp_path / "resumed", "tied", True, *options)
    assert same(weights, again)
    assert resumed == {name: values[3:] for name, values in whole.items()}
    (undivided, *_), _ = run_in_processes(train, 2, tmp_path / "undivided", "tied", False, *options)
    for name, values in plain.items():
        assert undivided[name] == pytest.approx(values[3:], rel=1e-5)


def launched(monkeypatch, world_size: int = 2, **variables: str) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    for name, value in variables.items():
        monkeypatch.setenv(f"FSDP_{name}", value)


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        TrainingSettings(use_cpu=True, **settings).arguments(seed=1, run_name="toy", validate=False)
    return str(error.value)


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


def test_adapters_are_refused():
    with pytest.raises(ConfigError, match="under FSDP all weights are trained.*recipes/launch/multi_gpu.yaml"):
        sharding.check_model(adapter=True)
    sharding.check_model(adapter=False)
