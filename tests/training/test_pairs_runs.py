"""Runs of `recipes/train.py` on several language pairs: what is true of one pair is true of them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
import translation_tasks
from recipe_processes import run_recipe
from safetensors.torch import load_file

from hf_nmt import runs


@pytest.fixture
def given(tmp_path):
    """Pairs of unlike size, drawn by temperature."""
    data = translation_tasks.write_pairs(tmp_path, (90, 40, 10), validation=4)
    return [*data, "data.sampling_temperature=5", "--config", "tiny", f"output_dir={tmp_path / 'runs'}"]


def the_run(folder: Path, name: str) -> Path:
    (found,) = (folder / "runs").glob(f"{name}-*")
    return found


def measured(run: Path) -> list[tuple]:
    """All that was logged, but for what depends on the clock."""
    return [
        (entry["step"], entry["epoch"], entry["tokens"], entry["name"], entry["value"])
        for entry in runs.read_metrics(run)
        if entry["name"] not in ("tokens_per_second", "eval_seconds")
    ]


def test_a_killed_and_resumed_run_of_several_pairs_equals_one_never_killed(tmp_path, given):
    argv = [*given, "tokenizer.dropout=0.1", "model.dropout=0.2", "training.max_steps=6"]
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    assert run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=5) == -signal.SIGKILL
    whole, run = the_run(tmp_path, "whole"), the_run(tmp_path, "killed")
    assert run_recipe([f"resume={run}"], tmp_path / "second") == 0, (tmp_path / "second.err").read_text()
    assert "continuing at step 3" in (tmp_path / "second.err").read_text()
    expected, found = (load_file(folder / "best" / "model.safetensors") for folder in (whole, run))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert measured(run) == measured(whole)
    assert {"eval_bleu", "eval_bleu_xx-aa", "eval_bleu_xx-bb", "eval_bleu_xx-cc"} <= {row[3] for row in measured(run)}
