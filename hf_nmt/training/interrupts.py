"""Ctrl-C and SIGTERM while training: the running update is finished and saved; the second time it ends at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import SaveStrategy

from hf_nmt import runs
from hf_nmt.artifacts import is_complete
from hf_nmt.runs import Run
from hf_nmt.training.optimization import OptimizationTrainer
from hf_nmt.training.processes import from_first

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A launcher that was interrupted itself passes it on to the processes, which heard it from the terminal already.
_ECHO_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Interrupts:
    """Hears the first interrupt and keeps it for the end of the update.

    Args:
        checkpoints: folder of those of the run.

    Attributes:
        asked: the signal that was heard.
    """

    def __init__(self, checkpoints: Path) -> None:
        self._checkpoints = checkpoints
        self.asked: int | None = None
        self._before: dict[int, Any] = {}
        self._heard = 0.0

    @contextmanager
    def held(self, *, several: bool, told: bool) -> Iterator[None]:
        """Interrupts inside are kept, but for the second, which does what the first would have done outside.

        Args:
            several: this is one of several processes; what follows the first within a few seconds is its echo.
            told: this process tells of it.
        """
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            yield
            return
        process = os.getpid()

        def hear(number: int, frame: Any) -> None:
            first = self.asked is None and os.getpid() == process  # and not a worker, which inherited this
            if first:
                self.asked, self._heard = number, time.monotonic()
                if told:
                    logger.warning(
                        "Stopping after this update, with a checkpoint. Once more stops at once, and %s.",
                        "goes back to the last checkpoint"
                        if runs.list_checkpoints(self._checkpoints)
                        else "loses all that was trained, as there is no checkpoint yet",
                    )
            elif not several or time.monotonic() - self._heard > _ECHO_SECONDS:
                self._put_back()
                signal.raise_signal(number)

        # What is ignored, as by nohup, stays so.
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._before = {number: one for number, one in handlers.items() if one not in (signal.SIG_IGN, None)}
        for number in self._before:
            signal.signal(number, hear)
        try:
            yield
        finally:
            self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def end(self) -> None:
        """Do what the signal that was kept would have done."""
        if self.asked is not None:
            number, self.asked = self.asked, None
            self._put_back()
            signal.raise_signal(number)


class InterruptibleTrainer(OptimizationTrainer):
    """A Trainer that ends with a checkpoint of the update in which it was interrupted.

    Whatever else is due after the update, such as a validation, comes first, so that the run goes on from there as one
    that was never interrupted. Without checkpoints, it ends at once.

    Attributes:
        run: has the checkpoints.
        saves_for_interrupt: the checkpoint being written is one that a run that is not interrupted would not have.
    """

    run: Run
    saves_for_interrupt = False
    _epoch_is_over = False
    _updates_of_epoch = 0

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Interrupts inside are kept for the end of an update, and for the end of the block."""
        self._interrupts = Interrupts(self.run.checkpoints)
        if self.args.save_strategy == SaveStrategy.NO:
            yield
            return
        several = self.args.world_size > 1
        with self._interrupts.held(several=several, told=self.args.process_index == 0):
            yield
        self._interrupts.end()

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        self._updates_of_epoch, self._epoch_is_over = kwargs["num_update_steps_per_epoch"], False
        super()._run_epoch(epoch=epoch, **kwargs)

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *more: Any, **named: Any):
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *more, **named)
        # After the last update of an epoch this is called once more, for what is due at its end.
        ends_epoch = self.state.global_step % self._updates_of_epoch == 0
        comes_again, self._epoch_is_over = ends_epoch and not self._epoch_is_over, ends_epoch
        if comes_again or self.control.should_training_stop or not self._is_interrupted():
            return
        folder = runs.checkpoint_folder(self.run.checkpoints, self.state.global_step)
        if not from_first(is_complete(folder), self.args.world_size):
            self.saves_for_interrupt = True
            self._save_checkpoint(model, trial)
            self.saves_for_interrupt = False
        self._interrupts.end()

    def _is_interrupted(self) -> bool:
        """Whether one of the processes is; all find the same."""
        if self.args.world_size > 1:
            asked = torch.tensor([self._interrupts.asked or 0], device=self.args.device)
            self._interrupts.asked = int(self.accelerator.gather(asked).max()) or None
        return self._interrupts.asked is not None
