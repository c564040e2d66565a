"""What a training left in its run folder, as far as two trainings are compared by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hf_nmt import runs
from hf_nmt.training.callbacks import ProgressBar


def only_run(folder: Path) -> Path:
    """The one in `folder`/runs."""
    (found,) = (folder / "runs").iterdir()
    return found


def run_named(folder: Path, name: str) -> Path:
    """The one of that name in `folder`/runs."""
    (found,) = (folder / "runs").glob(f"{name}-*")
    return found


def last_weights(run: Path, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    """Those of the newest checkpoint."""
    return load_file(runs.list_checkpoints(run / "checkpoints")[-1] / file)


def equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def measured(run: Path) -> list[tuple[Any, ...]]:
    """All that was logged, but for what depends on the clock."""
    return [
        (entry["step"], entry["epoch"], entry["tokens"], entry["name"], entry["value"])
        for entry in runs.read_metrics(run)
        if entry["name"] not in ("tokens_per_second", "eval_seconds")
    ]


def stopped_run(train: Callable[[], Any], folder: Path, monkeypatch: pytest.MonkeyPatch, *, after: int) -> Path:
    """The folder of a training in `folder`/runs that is interrupted by Ctrl-C after so many updates."""
    before = set((folder / "runs").iterdir())

    def stop(self, args, state, control, **kwargs):
        if state.global_step == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train()
    (stopped,) = set((folder / "runs").iterdir()) - before
    return stopped


def same_updates(first: Path, second: Path, *, updates: int) -> None:
    """Check that two trainings had the same tokens, losses and gradients, but for what another order of sums makes."""
    logs = [runs.read_metrics(run) for run in (first, second)]
    for name in ("loss", "grad_norm"):
        one, other = (runs.series(log, name)[1] for log in logs)
        assert other == pytest.approx(one, rel=1e-5) and len(one) == updates
    assert [entry["tokens"] for entry in logs[0]] == [entry["tokens"] for entry in logs[1]]
