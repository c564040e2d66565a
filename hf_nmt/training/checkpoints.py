"""Checkpoints on disk: written beside and renamed, hashed, found again, thinned out, averaged.

A checkpoint is `checkpoints/step-<n>/`: a model folder that `from_pretrained` opens, or the adapter alone where only
that is trained, the Trainer's own state, and `run_state.json` with what the Trainer does not keep. COMPLETE, with the
hashes of all files, is written last.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from hf_nmt.artifacts import atomic_folder, mark_complete, quiet_files, verify
from hf_nmt.errors import NmtError
from hf_nmt.generation.adapters import ADAPTER_WEIGHTS, is_adapter
from hf_nmt.runs import list_checkpoints, step_of
from hf_nmt.training.saved import WEIGHTS

RUN_STATE = "run_state.json"
TRAINER_STATE = "trainer_state.json"

logger = logging.getLogger(__name__)


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A folder to write a checkpoint into; it takes its name only when whole.

    Raises:
        NmtError: it could not be written, such as on a full disk. Nothing of it stays.
    """
    with quiet_files(), atomic_folder(folder, replace=True) as partial:
        yield partial
        mark_complete(partial)


def latest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint whose files are all as they were written; broken ones are reported and passed over."""
    return next(iter(newest_whole(checkpoints, 1)), None)


def newest_whole(checkpoints: Path, count: int, *, planned: bool = False) -> list[Path]:
    """The newest checkpoints whose files are all as they were written, oldest first; broken ones are reported and
    passed over.

    Args:
        checkpoints: their folder.
        count: how many at most.
        planned: pass over those that interrupts left, too.
    """
    whole = filter(is_whole, reversed(list_checkpoints(checkpoints)))
    return list(islice((folder for folder in whole if not (planned and is_of_interrupt(folder))), count))[::-1]


def is_whole(folder: Path) -> bool:
    """Whether all files of a checkpoint are as they were written; what is not is reported. Reads every byte."""
    problems = verify(folder)
    if problems:
        logger.warning("%s is not used: %s", folder, problems[0])
    return not problems


def is_of_interrupt(folder: Path) -> bool:
    """Whether a run that was never interrupted would not have this checkpoint, nor average it or go back to it."""
    return (folder / RUN_STATE).is_file() and bool(read_state(folder).get("saved_for_interrupt"))


def read_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RUN_STATE).read_text(encoding="utf-8"))


def thin_out(checkpoints: Path, *, keep_newest: int | None, keep_steps: Iterable[int | None]) -> None:
    """Remove old checkpoints, and those that interrupts left, but for the newest.

    Args:
        checkpoints: their folder.
        keep_newest: how many of the newest stay, that of an interrupt not counted; None keeps all.
        keep_steps: steps that stay besides, such as that of the best.
    """
    folders = list_checkpoints(checkpoints)
    of_interrupts = [folder for folder in folders if is_of_interrupt(folder)]
    for folder in of_interrupts:
        if folder != folders[-1]:
            shutil.rmtree(folder, ignore_errors=True)
    if keep_newest is None:
        return
    folders = [folder for folder in folders if folder not in of_interrupts]
    kept = set(keep_steps)
    for folder in folders[: max(len(folders) - keep_newest, 0)]:
        if step_of(folder) not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def remove_after(checkpoints: Path, step: int | None) -> None:
    """Remove the checkpoints later than `step`; all of them where it is None."""
    for folder in list_checkpoints(checkpoints):
        if step is None or step_of(folder) > step:
            shutil.rmtree(folder, ignore_errors=True)


def average_weights(folders: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of the weights of several checkpoints, summed in float64 and given back in their own types.

    Of adapters it is the mean of A and that of B, whose product is close to the mean of the products where the
    checkpoints are close to each other.

    Raises:
        NmtError: the checkpoints do not hold the same weights.
    """
    total: dict[str, torch.Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for folder in folders:
        with safe_open(folder / (ADAPTER_WEIGHTS if is_adapter(folder) else WEIGHTS), framework="pt") as weights:
            names = set(weights.keys())
            if total and names != set(total):
                raise NmtError(f"{folder} does not hold the same weights as {folders[0]}; they cannot be averaged.")
            for name in names:
                tensor = weights.get_tensor(name)
                types[name] = tensor.dtype
                total[name] = total[name].add_(tensor) if name in total else tensor.to(torch.float64)
    return {name: (tensor / len(folders)).to(types[name]) for name, tensor in total.items()}
