"""Runs of `recipes/train.py` on several language pairs: what is true of one pair is true of them."""

from __future__ import annotations

import signal

import pytest
import translation_tasks
from recipe_processes import run_distributed, run_recipe
from run_folders import equal, measured, run_named
from safetensors.torch import load_file

from hf_nmt import runs


@pytest.fixture
def given(tmp_path):
    """Pairs of unlike size, drawn by temperature."""
    data = translation_tasks.write_pairs(tmp_path, (90, 40, 10), validation=4)
    return [*data, "data.sampling_temperature=5", "--config", "tiny", f"output_dir={tmp_path / 'runs'}"]


def test_a_killed_and_resumed_run_of_several_pairs_equals_one_never_killed(tmp_path, given):
    argv = [*given, "tokenizer.dropout=0.1", "model.dropout=0.2", "training.max_steps=6"]
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    assert run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=5) == -signal.SIGKILL
    whole, run = run_named(tmp_path, "whole"), run_named(tmp_path, "killed")
    assert run_recipe([f"resume={run}"], tmp_path / "second") == 0, (tmp_path / "second.err").read_text()
    assert "continuing at step 3" in (tmp_path / "second.err").read_text()
    expected, found = (load_file(folder / "best" / "model.safetensors") for folder in (whole, run))
    assert equal(expected, found)
    assert measured(run) == measured(whole)
    assert {"eval_bleu", "eval_bleu_xx-aa", "eval_bleu_xx-bb", "eval_bleu_xx-cc"} <= {row[3] for row in measured(run)}


@pytest.mark.slow
def test_several_pairs_are_trained_alike_whole_accumulated_and_divided_among_processes(tmp_path, given):
    """50 updates of each, drawn by temperature; and validated alike, pair by pair."""
    argv = [*given, "model.dropout=0", "training.use_cpu=true", "training.logging_steps=1", "training.max_steps=50"]
    argv += ["training.eval_steps=25", "training.save_steps=25"]
    half = "batching.batch_tokens=128"
    ways = {"whole": (1, []), "accumulated": (1, [half, "training.gradient_accumulation_steps=2"])}
    ways |= {"divided": (2, [half, "training.num_processes=2"])}
    found = {}
    for name, (count, more) in ways.items():
        told = [*argv, *more, f"name={name}"]
        output = tmp_path / name
        statuses = run_distributed(told, output, 2) if count == 2 else [run_recipe(told, output)]
        assert statuses == [0] * count, (tmp_path / (f"{name}-0.err" if count == 2 else f"{name}.err")).read_text()
        entries = runs.read_metrics(run_named(tmp_path, name))
        kept = {entry["name"] for entry in entries} - {"tokens_per_second", "eval_seconds"}
        found[name] = {series: runs.series(entries, series)[1] for series in kept}
        found[name]["tokens"] = [entry["tokens"] for entry in entries if entry["name"] == "loss"]
    whole = found["whole"]
    assert len(whole["loss"]) == len(whole["grad_norm"]) == 50 and whole["loss"][-1] < whole["loss"][0]
    assert {f"eval_chrf_xx-{target}" for target in translation_tasks.TASKS} <= whole.keys()
    for name in ("accumulated", "divided"):
        assert found[name].keys() == whole.keys() and found[name]["tokens"] == whole["tokens"]
        for series, values in whole.items():
            assert found[name][series] == pytest.approx(values, rel=1e-5, abs=0), (name, series)
