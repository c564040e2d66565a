"""A tiny model trained with its weights divided among processes, or not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor
from toy_training import VOCABULARY, make_marian, make_model, make_pairs, make_run, make_trainer
from transformers import M2M100Config, M2M100ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from hf_nmt import runs
from hf_nmt.batching.sampler import TokenBatchSampler
from hf_nmt.batching.settings import BatchingSettings
from hf_nmt.errors import ConfigError
from hf_nmt.training.settings import TrainingSettings

SILENT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
WIDTHS = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "pad_token_id": 1,
    "eos_token_id": 3,
    "decoder_start_token_id": 2,
}


def make_m2m100(layers: int = 1, layerdrop: float = 0.0):
    return M2M100ForConditionalGeneration(
        M2M100Config(
            **WIDTHS, **SILENT, bos_token_id=2, encoder_layers=layers, decoder_layers=layers,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, max_position_embeddings=32, encoder_layerdrop=layerdrop, decoder_layerdrop=layerdrop,
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


# Of which no two trainings are the same.
RANDOM = {
    "layerdrop": lambda: make_m2m100(layers=2, layerdrop=0.4),
    "dropped": lambda: make_model(dropout=0.3),
}

# What a launcher sets in each process.
LAUNCHED = {
    "fsdp": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    **{
        f"zero{stage}": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}
        for stage in (1, 2, 3)
    },
}


def toy_trainer(folder: Path, family: str, kind: str | None, accumulation: int = 1, **settings: Any):
    """The same global batches of two processes, or of one that accumulates twice as much."""
    os.environ |= LAUNCHED[kind] if kind else {}
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    accumulation *= 2 // world_size
    run = make_run(folder) if rank == 0 else runs.Run(folder / "reader", {}, writer=False)
    pairs = make_pairs(160)
    lengths = [np.array([len(row) for row in pairs[name]]) for name in ("input_ids", "labels")]
    sampler = TokenBatchSampler(
        *lengths,
        BatchingSettings(batch_tokens=64, max_source_length=12, max_target_length=12),
        seed=3,
        world_size=world_size,
        accumulation=accumulation,
    )
    torch.manual_seed(1)
    defaults = {"save_steps": 3, "logging_steps": 1, "learning_rate": 3e-3, "use_cpu": True}
    model = (MODELS | RANDOM)[family]()
    return make_trainer(
        run, model=model, pairs=pairs, sampler=sampler, gradient_accumulation_steps=accumulation,
        **defaults | settings,
    )  # fmt: skip


def shares_of(module: torch.nn.Module, optimizer: Any) -> tuple[float, float]:
    """Of the weights and of the state of Adam this process has so much."""
    parameters = [*module.parameters()]
    sizes = [getattr(parameter, "ds_numel", parameter.numel()) for parameter in parameters]  # what DeepSpeed hides
    trained = sum(size for size, parameter in zip(sizes, parameters, strict=True) if parameter.requires_grad)
    if isinstance(parameters[0], DTensor):
        weights = sum(parameter.to_local().numel() for parameter in parameters)
        states = sum(state["exp_avg"].to_local().numel() for state in optimizer.state.values())
    else:  # between updates DeepSpeed leaves a parameter empty that it has divided
        held = [parameter if parameter.numel() else parameter.ds_tensor for parameter in parameters]
        weights = sum(tensor.numel() for tensor in held)
        states = sum(state["exp_avg"].numel() for state in optimizer.optimizer.optimizer.state.values())
    return weights / sum(sizes), states / trained


def train(folder: Path, family: str, kind: str | None, accumulation: int, settings: dict[str, Any]):
    """Losses and gradient norms, on the first process; the final weights; the shares of weights and of Adam's state
    that this process held at each checkpoint; the run folder."""
    checkpoint = settings.pop("checkpoint", None)
    trainer = toy_trainer(folder, family, kind, accumulation, **settings)
    shares = []
    write = trainer.gather

    def gather():
        if trainer._divided is not None:
            shares.append(shares_of(trainer._divided.module, trainer.optimizer))
        write()

    trainer.gather = gather
    trainer.train(resume_from_checkpoint=checkpoint)
    assert trainer._divided is None and {type(p) for p in trainer.model.parameters()} == {torch.nn.Parameter}
    entries = runs.read_metrics(trainer.run.folder)
    found = {name: runs.series(entries, name)[1] for name in ("loss", "grad_norm")}
    return found, {n: t.numpy() for n, t in trainer.trained_weights().items()}, shares, trainer.run.folder


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return {*first} == {*second} and all(np.array_equal(first[name], second[name]) for name in first)


def worst_difference(first: dict[str, list[float]], second: dict[str, list[float]]) -> float:
    """The largest relative difference of a loss or a gradient norm."""
    assert {*first} == {*second} == {"loss", "grad_norm"}
    return max(abs(a / b - 1) for name in first for a, b in zip(first[name], second[name], strict=True))


def refusal(**settings: Any) -> str:
    """Why training with these settings is refused, under the launcher that the environment tells of."""
    with pytest.raises(ConfigError) as error:
        TrainingSettings(use_cpu=True, **settings).arguments(seed=1, run_name="toy", validate=False)
    return str(error.value)
