"""Ctrl-C and SIGTERM while training: the running update is finished and saved; the second time it ends at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import SaveStrategy

from hf_nmt import runs
from hf_nmt.artifacts import is_complete
from hf_nmt.runs import Run
from hf_nmt.training import checkpoints
from hf_nmt.training.optimization import OptimizationTrainer
from hf_nmt.training.processes import from_first

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A launcher that was interrupted itself passes it on to the processes, which heard it from the terminal already.
_ECHO_SECONDS = 5.0
# Of `TrainerControl`: what may be due after an update beside the log.
_DUE = ("should_evaluate", "should_save", "should_training_stop")

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
                        "Stopping after this update%s or validation, with a checkpoint. Once more stops at once, and "
                        "%s.",
                        ", the next" if several else "",
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

    A validation that is due after that update may take longer than a launcher waits: it is put off until the run goes
    on, which is then as one that was never interrupted. Without checkpoints, it ends at once.

    Of several processes each tells the others of an interrupt with a number that they exchange at the start of every
    update, so that all find the same at its end; one that comes within an update ends the next.

    Attributes:
        run: has the checkpoints.
        saves_for_interrupt: the checkpoint being written is one that a run that is not interrupted would not have.
        put_off: what was due, as `TrainerControl` names it, and is not done in the checkpoint being written.
    """

    run: Run
    saves_for_interrupt = False
    put_off: Sequence[str] = ()
    _epoch_is_over = False
    _updates_of_epoch = 0
    _told: torch.Tensor | None = None  # the signal that any process had heard when this update began
    _told_here: torch.cuda.Event | None = None  # when that is on the processor

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
        self.sum_and_hear(torch.zeros((), dtype=torch.long, device=self.args.device))
        self._is_interrupted()
        self._interrupts.end()

    def sum_and_hear(self, count: torch.Tensor) -> torch.Tensor:
        """The sum of a number over the processes, which by the way tell each other of interrupts; collective."""
        if self.args.world_size == 1:
            return count
        mine = torch.stack([count, count.new_full((), self._interrupts.asked or 0)])
        every = self.accelerator.gather(mine[None])  # (processes, 2)
        # Looked at when the update ends, by when it has long come; the device need not be waited for.
        self._told = every[:, 1].max().to("cpu", non_blocking=True)
        if every.is_cuda:
            self._told_here = torch.cuda.Event()
            self._told_here.record()
        return every[:, 0].sum()

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        if self.control.should_training_stop:  # by what was made up for
            return
        self._updates_of_epoch, self._epoch_is_over = kwargs["num_update_steps_per_epoch"], False
        super()._run_epoch(epoch=epoch, **kwargs)

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *more: Any, **named: Any):
        # After the last update of an epoch this is called once more, for what is due at its end.
        ends_epoch = self.state.global_step % self._updates_of_epoch == 0
        comes_again, self._epoch_is_over = ends_epoch and not self._epoch_is_over, ends_epoch
        due = []
        if self.control.should_evaluate and self._is_interrupted():
            due = [name for name in _DUE if getattr(self.control, name)]
            self.control.should_evaluate = self.control.should_save = False
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *more, **named)
        for name in due:
            setattr(self.control, name, True)
        if comes_again or not self._is_interrupted() or (self.control.should_training_stop and not due):
            return
        folder = runs.checkpoint_folder(self.run.checkpoints, self.state.global_step)
        if due or not from_first(is_complete(folder), self.args.world_size):
            self._save_for_interrupt(due)
        self._interrupts.end()
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *more, **named)  # whoever heard goes on

    def make_up(self, due: Sequence[str]) -> None:
        """Do what an interrupt put off, before the first update of a run that goes on.

        Args:
            due: see `put_off`.
        """
        if not due:
            return
        folder = runs.checkpoint_folder(self.run.checkpoints, self.state.global_step)
        self._load_rng_state(str(folder))
        for name in due:
            setattr(self.control, name, True)
        super()._maybe_log_save_evaluate(self._tr_loss, None, self.model, None, 0.0, None, 0.0)
        made_up = not is_complete(folder) or not checkpoints.read_state(folder)["put_off"]
        if not from_first(made_up, self.args.world_size):
            self._save_for_interrupt()  # the next time it must not be made up for once more

    def _save_for_interrupt(self, put_off: Sequence[str] = ()) -> None:
        self.saves_for_interrupt, self.put_off = True, put_off
        self._save_checkpoint(self.model, None)
        self.saves_for_interrupt, self.put_off = False, ()

    def _is_interrupted(self) -> bool:
        """Whether this process is; of several, whether any was when they last told each other."""
        if self.args.world_size == 1:
            return self._interrupts.asked is not None
        if self._told_here is not None:
            self._told_here.synchronize()
        number = 0 if self._told is None else int(self._told)
        self._interrupts.asked = self._interrupts.asked or number or None
        return number != 0
