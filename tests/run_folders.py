"""What a training left in its run folder, as far as two trainings are compared by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from hf_nmt import runs


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
