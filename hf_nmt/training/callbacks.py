"""What watches the training loop: the run folder, the progress bar."""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import Self

from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import TrainerState

from hf_nmt.runs import Run

logger = logging.getLogger(__name__)


class Stopwatch:
    """Counts what a run has spent, over all its sessions.

    Attributes:
        tokens: real source and target tokens trained on.
        seconds: wall seconds in the training loop, validations and checkpoints included.
        cpu_seconds: processor seconds of this process in the training loop.
        training_seconds: as `seconds`, without validations and checkpoints: what tokens per second refer to.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = self.cpu_seconds = self.training_seconds = 0.0
        self._wall: float | None = None
        self._cpu = 0.0
        self._paused = False

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def count(self) -> None:
        """Add the time since the last call."""
        if self._wall is None:
            return
        wall, cpu = time.perf_counter(), time.process_time()
        self.seconds += wall - self._wall
        if not self._paused:
            self.training_seconds += wall - self._wall
            self.cpu_seconds += cpu - self._cpu
        self._wall, self._cpu = wall, cpu

    def __enter__(self) -> Self:
        """Time inside the block is not training time."""
        self.count()
        self._paused = True
        return self

    def __exit__(self, *_: object) -> None:
        self.count()
        self._paused = False

    def state_dict(self) -> dict[str, float]:
        self.count()
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "training_seconds": self.training_seconds,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.tokens = int(state["tokens"])
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]
        self.training_seconds = state["training_seconds"]


class RunRecorder(TrainerCallback):
    """Writes what the Trainer logs into the run folder."""

    def __init__(self, run: Run, stopwatch: Stopwatch):
        self.run = run
        self.stopwatch = stopwatch

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "train_runtime" in logs:  # the Trainer's own summary; ours is in summary.json
            return
        values = {name: float(value) for name, value in logs.items() if name != "epoch"}
        if state.is_world_process_zero:
            self.run.add_metrics(
                state.global_step,
                {name: value for name, value in values.items() if math.isfinite(value)},
                epoch=state.epoch or 0.0,
                tokens=self.stopwatch.tokens,
                seconds=self.stopwatch.seconds,
                cpu_seconds=self.stopwatch.cpu_seconds,
            )


class EarlyStopping(EarlyStoppingCallback):
    """Ends training after so many validations without a new best; says so."""

    def on_train_begin(self, args, state, control, **kwargs):
        # The parent asks for load_best_model_at_end here; the best model is chosen after training in any case.
        pass

    def return_to(self, state: TrainerState) -> None:
        """Count on from a checkpoint; the validations since do not count any more.

        Args:
            state: the Trainer's, in the checkpoint.
        """
        kept = state.stateful_callbacks.get(type(self).__name__, {"attributes": {}})["attributes"]
        self.early_stopping_patience_counter = kept.get("early_stopping_patience_counter", 0)

    def on_train_end(self, args, state, control, **kwargs):
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            logger.info(
                "Training ends: %d validations in a row brought no better %s.",
                self.early_stopping_patience_counter,
                args.metric_for_best_model,
            )


class ProgressBar(TrainerCallback):
    """A bar on a terminal, with loss, tokens per second and the time left; a line in the log at each logged step."""

    def __init__(self, show_bar: bool):
        self.show_bar = show_bar and sys.stderr.isatty()
        self.bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.began, self.first_step = time.perf_counter(), state.global_step
        if state.is_world_process_zero and self.show_bar:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                file=sys.stderr,
                dynamic_ncols=True,
                unit=" updates",
                desc="training",
            )

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in logs:
            return
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}, {logs['tokens_per_second']:,.0f} tokens/s")
        done = state.global_step - self.first_step
        left = (time.perf_counter() - self.began) / max(done, 1) * (state.max_steps - state.global_step)
        logger.info(
            "step %d/%d  epoch %.2f  loss %.4f  learning rate %.3g  gradient norm %.3f  %s tokens/s  %s left",
            state.global_step,
            state.max_steps,
            logs["epoch"],
            logs["loss"],
            logs["learning_rate"],
            logs.get("grad_norm", float("nan")),
            f"{logs['tokens_per_second']:,.0f}",
            _duration(left),
        )

    def on_train_end(self, args, state, control, **kwargs):
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
