"""A Trainer that is watched: it measures each update, has it judged before it is made, and does what is decided.

The Trainer calls back between the last backward pass of an update and the step of the optimizer, when the gradients of
all batches and processes are summed and clipped. There an update can still be thrown away: an optimizer leaves alone
what has no gradient, its moments and step counts too, and the schedule and the moving average take it for one that a
loss scaler left out. It counts among the updates of the training all the same. So do those before a roll back: the
weights, the optimizer, the schedule and the random state become those of the checkpoint, and training goes on with the
batches that come next, past all that were seen since.

Where no action needs that moment, updates are judged when something is logged or saved, so that a GPU need not be
waited for in each of them.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState

from hf_nmt import runs
from hf_nmt.errors import NmtError
from hf_nmt.runs import Run
from hf_nmt.training import checkpoints
from hf_nmt.training.callbacks import EarlyStopping
from hf_nmt.training.interrupts import InterruptibleTrainer
from hf_nmt.training.moving_average import MovingAverage
from hf_nmt.training.processes import from_first
from hf_nmt.training.watch import ADVICE, Decision, Watch
from hf_nmt.training.watch_settings import OF_UPDATES

logger = logging.getLogger(__name__)


class WatchedTrainer(InterruptibleTrainer):
    """See above.

    Attributes:
        watch: what was normal so far; it goes into checkpoints and comes out of them.
        run: where decisions are written.
        average: of the weights, where there is one.
    """

    watch: Watch
    run: Run
    average: MovingAverage | None
    _validated_discarded = False  # the training went back after its last validation

    def begin_watch(self, watch: Watch) -> None:
        """Watch the training; called once, when the Trainer is made."""
        self.watch = watch
        self._update_loss: torch.Tensor | None = None  # of the batches of this update so far
        self._loss_before: torch.Tensor | None = None  # the Trainer's sum at the start of the update
        self._norm: Any = None
        self._unjudged: list[tuple[int, torch.Tensor]] = []
        self._going_back: Decision | None = None
        self._rates: list[Any] = []
        self._discarded = False
        self.add_callback(_Watcher(self))

    # Measuring

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        if self._update_loss is None:
            self._loss_before = self._tr_loss.clone()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._update_loss = loss if self._update_loss is None else self._update_loss + loss
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        self._norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return self._norm

    def _get_learning_rate(self) -> float:
        """What the update that is being made, or the next one, is made with."""
        # While the factor is upon the rates of the optimizer, a schedule that reads them there would have it twice.
        return (self._rates[0] if self._rates else super()._get_learning_rate()) * self.watch.factor

    def _maybe_log_save_evaluate(self, *given: Any, **named: Any) -> None:
        # The Trainer logs the mean loss of the updates that were made, and nothing where there is none.
        if self.control.should_log and self._discarded and self._globalstep_last_logged == self.state.global_step:
            if self.is_world_process_zero():
                logger.warning(
                    "step %d/%d  no loss: none of the updates since the last log was made",
                    self.state.global_step, self.state.max_steps,
                )  # fmt: skip
            self.log({"learning_rate": self._get_learning_rate()})
        super()._maybe_log_save_evaluate(*given, **named)

    def measure_update(self) -> None:
        """Note loss and gradient norm of an update that is about to be made, and judge it where that must be now."""
        norm = self._norm.full_tensor() if isinstance(self._norm, DTensor) else self._norm
        loss, self._update_loss = self._update_loss, None
        values = torch.stack([loss.float(), torch.as_tensor(norm, dtype=torch.float32, device=loss.device)])
        self._unjudged.append((self.state.global_step + 1, values))
        if self.watch.acts_on_updates:
            self.judge_updates()

    def judge_updates(self) -> None:
        """Judge all updates that were measured and not judged yet; collective.

        Raises:
            NmtError: the training has to stop.
        """
        if not self._unjudged:
            return
        steps = [step for step, _ in self._unjudged]
        values = torch.stack([values for _, values in self._unjudged])
        if self.args.world_size > 1:  # the loss of an update is the mean; the norm is that of all processes already
            values = self.accelerator.gather(values[None]).mean(0)
        self._unjudged = []
        for step, (loss, norm) in zip(steps, values.tolist(), strict=True):
            # Under fp16 such gradients are usual: the loss scaler leaves out the update, and lowers its scale.
            scaled = self.args.fp16 and not math.isfinite(norm)
            self._carry_out_all(self.watch.judge_update(step, loss, None if scaled else norm))

    def judge_validation(self, metrics: dict[str, float]) -> None:
        """Judge a validation by its metrics `eval_...`.

        Raises:
            NmtError: the training has to stop.
        """
        values = {name.removeprefix("eval_"): value for name, value in metrics.items()}
        self._carry_out_all(self.watch.judge_validation(self.state.global_step, values))
        self._validated_discarded = self._going_back is not None
        self.go_back()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As the Trainer's, but weights that were gone back from are not the best, whatever their scores."""
        if self._validated_discarded:  # early stopping may have been told after the watch
            self._count_back(self._gone_back_to)
            return False
        return super()._determine_best_metric(metrics, trial)

    def _count_back(self, then: TrainerState) -> None:
        """Have early stopping forget the validations since a checkpoint, one of which may have been one too many."""
        self._gone_back_to = then
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStopping):
                callback.return_to(then)
        self.control.should_training_stop = self.state.global_step >= self.state.max_steps

    # Doing

    def _carry_out_all(self, decisions: list[Decision]) -> None:
        """The strongest comes first, and is done last, as it may end the training before the others are told."""
        for decision in reversed(decisions):
            self._carry_out(decision)

    def _carry_out(self, decision: Decision) -> None:
        if decision.action == "roll_back":
            decision = self._with_checkpoint(decision)
        decision = self.watch.take(decision)
        self._tell(decision)
        if decision.action == "stop":
            raise NmtError(f"{decision.told} {ADVICE}; with fp16, use bf16. {self._way_on(decision.check)}")
        if decision.action == "lower_learning_rate" and decision.check in OF_UPDATES:
            self.lower_rates()  # of this update; between updates the rates are those of the schedule, and saved so
        if decision.action == "roll_back":
            self._going_back = decision
        if decision.discards_update:
            self._discard_update()

    def _way_on(self, check: str) -> str:
        """What becomes of a run that this check has stopped."""
        setting = f"another watch.{check}.action or threshold"
        if not runs.list_checkpoints(self.run.checkpoints):
            return f"The run has no checkpoint yet to go on from; start a new one, with other settings or {setting}."
        since = "No checkpoint was written since the loss was last finite. " if check == "not_finite" else ""
        return f"{since}The run can also go on from its last checkpoint with {setting}, given beside resume."

    def _with_checkpoint(self, decision: Decision) -> Decision:
        """The decision to go back with the step of the newest good checkpoint, or another one where there is none."""
        step: Any = None
        if self.args.process_index == 0:
            good = (
                runs.step_of(folder)
                for folder in reversed(runs.list_checkpoints(self.run.checkpoints))
                if checkpoints.is_whole(folder)
                and not checkpoints.is_of_interrupt(folder)
                and self.watch.is_good(runs.step_of(folder), _watched(folder), decision.check)
            )
            step = self.watch.choose([*islice(good, 2)])
        step = from_first(step, self.args.world_size)
        if step is not None:
            return dataclasses.replace(decision, to_step=step)
        instead = "skip" if decision.check in OF_UPDATES else "stop"
        told = f"{decision.told} There is no good checkpoint to go back to."
        return dataclasses.replace(decision, action=instead, told=told)

    def _tell(self, decision: Decision) -> None:
        settings = self.watch.settings
        done = {
            "warn": "",
            "lower_learning_rate": f" The learning rate is lowered to {self.watch.factor:g} times its schedule "
            f"({decision.count} of at most {settings.max_lowerings} times).",
            "skip": f" The update is skipped ({decision.count} of at most {settings.max_skips}).",
            "roll_back": f" The training goes back to the checkpoint of step {decision.to_step} and on with the "
            f"batches after this one ({decision.count} of at most {settings.max_roll_backs} times).",
            "stop": " The training stops.",
        }[decision.action]
        if self.is_world_process_zero():
            logger.warning("watch.%s: %s%s", decision.check, decision.told, done)
        self.run.add_decision(
            {
                "step": decision.step,
                "epoch": self.state.epoch,
                "watch": {
                    name: value for name, value in dataclasses.asdict(decision).items() if name not in ("step", "told")
                }
                | {"told": decision.told + done},
            }
        )

    def _discard_update(self) -> None:
        self.optimizer.zero_grad()
        self._discarded = True
        # Nor does its loss, which may be no number, belong to the mean that is logged.
        self._tr_loss.copy_(self._loss_before)
        self._globalstep_last_logged += 1

    def begin_update(self) -> None:
        """Before the first batch of an update."""
        self._discarded = self.optimizer._is_overflow = False
        self.lower_rates()  # already here: DeepSpeed makes the update in the backward pass

    def end_update(self) -> None:
        """Right after the step of the optimizer, whether it did anything or not."""
        if self._rates:  # the schedule may go on from what it had
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate
            self._rates = []
        if self._discarded:
            # Where accelerate tells the Trainer and the moving average that an update was left out.
            self.optimizer._is_overflow = True

    def lower_rates(self) -> None:
        """Put the factor upon the learning rates of the update that is being made."""
        if self.watch.factor == 1.0:
            return
        groups = self.optimizer.param_groups
        self._rates = self._rates or [group["lr"] for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * self.watch.factor

    def go_back(self) -> None:
        """To the checkpoint, where that was decided; collective."""
        if self._going_back is None:
            return
        step, self._going_back = self._going_back.to_step, None
        assert step is not None
        folder = runs.checkpoint_folder(self.run.checkpoints, step)
        self._load_from_checkpoint(str(folder))
        self.spread()
        self._load_optimizer_and_scheduler(str(folder))
        self._load_scaler(str(folder))
        self._load_rng_state(str(folder))
        if self.average is not None:
            self.average.restore(folder)
        self.watch.return_to(_watched(folder))
        then = TrainerState.load_from_json(str(folder / checkpoints.TRAINER_STATE))
        for name in ("best_metric", "best_global_step", "best_model_checkpoint"):
            setattr(self.state, name, getattr(then, name))
        self._count_back(then)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:  # they were found wanting, and must become neither the best model nor an average
            checkpoints.remove_after(self.run.checkpoints, step)
        self.run.give_up_after(step)


def _watched(folder: Path) -> dict[str, Any]:
    return checkpoints.read_state(folder)["watch"]


class _Watcher(TrainerCallback):
    """Calls the trainer at the moments that matter."""

    def __init__(self, trainer: WatchedTrainer):
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.begin_update()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.measure_update()

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.trainer.end_update()

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.go_back()
        if control.should_log or control.should_evaluate or control.should_training_stop:
            self.trainer.judge_updates()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.trainer.judge_updates()

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.trainer.judge_validation(metrics)
