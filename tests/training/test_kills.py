"""Ten kills at random moments, of which many fall into the writing of a checkpoint."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from corpora import write_corpus
from recipe_processes import run_recipe, start_recipe
from run_folders import equal, run_named
from safetensors.torch import load_file

from hf_nmt import runs
from hf_nmt.artifacts import verify
from hf_nmt.training import checkpoints

SAVE_STEPS, MAX_STEPS, KILLS, LONGEST_SECONDS = 2, 80, 10, 1.0


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Weights and the state of the optimizer."""
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    moments = {f"{key}.{name}": value for key, values in state.items() for name, value in values.items()}
    return load_file(checkpoint / "model.safetensors") | moments


def same(one: Path, other: Path) -> bool:
    return equal(tensors(one), tensors(other))


def kill_after(argv: list[str], output: Path, seconds: float) -> bool:
    """Start the recipe, and kill it so many seconds after its first update; False where it was done before."""
    process = start_recipe(argv, output)
    deadline = time.monotonic() + 200
    told = Path(f"{output}.err")
    while process.is_alive() and not (told.is_file() and "\nstep " in told.read_text()):
        assert time.monotonic() < deadline, told.read_text()
        time.sleep(0.02)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_ten_kills_lose_no_more_than_was_not_saved_and_change_nothing(tmp_path):
    seed = int(os.environ.get("KILL_SEED", "1"))
    moments = random.Random(seed)
    argv = [
        *write_corpus(tmp_path),
        "data.validation.max_rows=4",
        "--config",
        "tiny",
        f"output_dir={tmp_path / 'runs'}",
    ]
    argv += [f"training.max_steps={MAX_STEPS}", f"training.save_steps={SAVE_STEPS}", "training.logging_steps=1"]
    argv += ["training.eval_steps=20", "training.early_stopping_patience=null", "model.dropout=0.1"]
    argv += ["training.save_total_limit=null", "tokenizer.dropout=0.1"]
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    whole = run_named(tmp_path, "whole")

    kills, inside, seen = 0, 0, set()
    run = None
    while kills < KILLS:
        told = f"seed {seed}, kill {kills + 1}"
        wait = moments.uniform(0, LONGEST_SECONDS)
        assert kill_after(
            [*argv, "name=killed"] if run is None else [f"resume={run}"], tmp_path / f"part-{kills}", wait
        ), f"{told}: it was done before; raise MAX_STEPS"
        kills += 1
        run = run_named(tmp_path, "killed")
        inside += bool([*(run / "checkpoints").glob(".step-*.partial")])
        found = runs.list_checkpoints(run / "checkpoints")
        for checkpoint in found:
            assert verify(checkpoint) == [], f"{told}: {verify(checkpoint)}"
            if checkpoint not in seen:
                assert same(checkpoint, whole / "checkpoints" / checkpoint.name), f"{told}: {checkpoint.name} differs"
                seen.add(checkpoint)
        last = max(entry["step"] for entry in runs.read_metrics(run))
        saved = 0 if not found else runs.step_of(found[-1])
        assert last - saved <= SAVE_STEPS, f"{told}: {last} updates were made, {saved} are saved"
    assert inside, f"seed {seed}: no kill fell into the writing of a checkpoint"

    assert run_recipe([f"resume={run}"], tmp_path / "last") == 0, (tmp_path / "last.err").read_text()
    assert runs.load(run).record["status"] == "finished"
    steps = [folder.name for folder in runs.list_checkpoints(run / "checkpoints")]
    assert steps == [folder.name for folder in runs.list_checkpoints(whole / "checkpoints")]
    assert all(same(run / "checkpoints" / name, whole / "checkpoints" / name) for name in steps)
    assert checkpoints.latest_whole(run / "checkpoints").name == f"step-{MAX_STEPS}"
    best = [load_file(folder / "best" / "model.safetensors") for folder in (whole, run)]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])
    losses = [runs.series(runs.read_metrics(folder), "loss") for folder in (whole, run)]
    assert losses[0] == losses[1]
    # What the kills left half written has gone.
    assert not [path for path in run.rglob(".*") if path.name.endswith((".partial", ".replaced"))]
