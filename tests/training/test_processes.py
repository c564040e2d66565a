from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from datasets import Dataset
from process_groups import run_in_processes
from small_models import sentences, word_tokenizer
from toy_training import VOCABULARY, collate, make_marian, make_model, make_pairs, make_run, make_trainer
from transformers import M2M100Config, M2M100ForConditionalGeneration

from hf_nmt import runs
from hf_nmt.batching.sampler import TokenBatchSampler
from hf_nmt.batching.settings import BatchingSettings
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import MetricSettings
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.training import validation as validation_module
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.validation import Validation


def make_m2m100():
    torch.manual_seed(0)
    return M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32,
            dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, encoder_layerdrop=0.0, decoder_layerdrop=0.0,
            pad_token_id=1, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2,
        )
    )  # fmt: skip


MODELS = {
    "nmt": lambda: make_model(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0),
    "marian": make_marian,
    "m2m100": make_m2m100,
}


def train(folder: Path, family: str, steps: int, batch_tokens: int, accumulation: int) -> dict[str, list[float]]:
    """Loss, gradient norm and tokens of each update; on the first process."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank == 0:
        run = make_run(folder)
    else:
        run = runs.Run(folder / "reader", {}, writer=False)
    pairs = make_pairs(160)
    lengths = [np.array([len(row) for row in pairs[name]]) for name in ("input_ids", "labels")]
    sampler = TokenBatchSampler(
        *lengths,
        BatchingSettings(batch_tokens=batch_tokens, max_source_length=12, max_target_length=12),
        seed=3,
        world_size=world_size,
        accumulation=accumulation,
    )
    settings = {"max_steps": steps, "save_steps": steps, "logging_steps": 1, "use_cpu": True, "learning_rate": 3e-3}
    trainer = make_trainer(
        run, model=MODELS[family](), pairs=pairs, sampler=sampler, gradient_accumulation_steps=accumulation, **settings
    )
    trainer.train()
    entries = runs.read_metrics(run.folder)
    found = {name: runs.series(entries, name)[1] for name in ("loss", "grad_norm")}
    return found | {"tokens": [entry["tokens"] for entry in entries if entry["name"] == "loss"]}


def worst_difference(folder: Path, family: str, steps: int) -> float:
    """Largest relative difference of loss and gradient norm, in any update, between the three ways to cut it."""
    (whole,) = run_in_processes(train, 1, folder / "whole", family, steps, 128, 1)
    (accumulated,) = run_in_processes(train, 1, folder / "accumulated", family, steps, 64, 2)
    divided, reader = run_in_processes(train, 2, folder / "divided", family, steps, 64, 1)
    assert reader["loss"] == []
    worst = 0.0
    for other in (accumulated, divided):
        assert other["tokens"] == whole["tokens"] and len(whole["tokens"]) == steps
        for name in ("loss", "grad_norm"):
            assert len(other[name]) == len(whole[name]) == steps
            worst = max(worst, *(abs(a / b - 1) for a, b in zip(other[name], whole[name], strict=True)))
    assert whole["loss"][-1] < whole["loss"][0]  # the weights did change
    return worst


@pytest.mark.parametrize("family", ["m2m100"])  # ours, through the recipe: test_resume.py
def test_an_update_is_the_same_whole_accumulated_and_divided_among_processes(tmp_path, family):
    assert worst_difference(tmp_path, family, steps=10) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_fifty_updates_are_the_same_whole_accumulated_and_divided_among_processes(tmp_path, family):
    assert worst_difference(tmp_path, family, steps=50) < 1e-6


TEXTS = sentences(41, seed=11)


def validate(folder: Path, count: int, decoding: DecodingSettings):
    """A validation of `count` sentences, and which process computed scores."""
    state = PartialState(cpu=True)
    model = NmtForConditionalGeneration.from_pretrained(folder)
    tokenizer = NmtTokenizer(tokenizer_object=word_tokenizer())
    texts = TEXTS[:count]
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(texts)["input_ids"]]
    computed = []
    compute = validation_module.score_pairs
    validation_module.score_pairs = lambda *given, **more: (
        computed.append(state.process_index) or compute(*given, **more)
    )
    validation = Validation(
        Dataset.from_dict({"source": texts, "target": texts}),
        [collate(rows[start : start + 3]) for start in range(0, count, 3)],
        tokenizer,
        decoding,
        MetricSettings(names=["bleu", "chrf"], num_bootstrap_samples=0),
        languages=("de", "en"),
        num_samples=2,
    )
    result = validation.run(
        model,
        lambda batch: model(**batch, num_items_in_batch=1).loss,
        rank=state.process_index,
        world_size=state.num_processes,
    )
    del result.metrics["seconds"]
    return (result.metrics, result.scores, result.samples, result.translations), computed


@pytest.mark.parametrize("count", [1, 2, 41])
def test_processes_validate_as_one_alone(tmp_path, unsure_system, count):
    """Fewer sentences than processes too; and all know what the first has computed."""
    unsure_system[0].save_pretrained(tmp_path)
    decoding = DecodingSettings(num_beams=3, batch_tokens=60, max_target_length=12)
    ((alone, _),) = run_in_processes(validate, 1, tmp_path, count, decoding)
    assert len(alone[-1]) == count and len({*alone[-1]}) > count / 4 and all(map(math.isfinite, alone[0].values()))
    results = run_in_processes(validate, 3, tmp_path, count, decoding)
    assert [result for result, _ in results] == [alone] * 3
    assert [computed for _, computed in results] == [[0], [], []]


def waits(seconds: int) -> float:
    """How long a process of a training on the processor waits for the others."""
    TrainingSettings(use_cpu=True, ddp_timeout=seconds).arguments(seed=1, run_name="toy", validate=False)
    group = torch.distributed.distributed_c10d._get_default_group()
    return group._get_backend(torch.device("cpu")).options._timeout.total_seconds()


def test_processes_without_gpus_wait_as_long_as_is_set():
    assert run_in_processes(waits, 2, 77) == [77.0, 77.0]
