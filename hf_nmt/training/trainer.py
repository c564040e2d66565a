"""`Seq2SeqTrainer` for translation: token batches, a token-exact loss, generated validation, checkpoints that resume
bit by bit."""

from __future__ import annotations

import dataclasses
import logging
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)
from transformers.trainer_callback import ExportableState, TrainerState

from hf_nmt import runs
from hf_nmt.artifacts import write_json
from hf_nmt.batching.streaming import Position, StreamedBatches, StreamLoader
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.generation.adapters import adapter_weights, has_adapter, load_adapter_weights, write_adapter
from hf_nmt.runs import Run
from hf_nmt.training import checkpoints
from hf_nmt.training.adapters import load_checkpoint
from hf_nmt.training.callbacks import EarlyStopping, ProgressBar, RunRecorder, Stopwatch
from hf_nmt.training.checkpoints import TRAINER_STATE
from hf_nmt.training.cross_entropy import CrossEntropy
from hf_nmt.training.layerdrop import prepare_for_processes
from hf_nmt.training.mixing import record_mixture, tell_stages
from hf_nmt.training.moving_average import AverageEachUpdate, MovingAverage
from hf_nmt.training.objectives import ObjectiveSettings
from hf_nmt.training.rescue import WatchedTrainer
from hf_nmt.training.saved import check_checkpoint, made_anew
from hf_nmt.training.schedule_settings import ScheduleSettings
from hf_nmt.training.schedules import PlateauWatch
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.sharding import OPTIMIZER, SCHEDULER, is_asked_for
from hf_nmt.training.validation import Validation, ValidationResult, search_text
from hf_nmt.training.watch import Watch
from hf_nmt.training.watch_settings import WatchSettings

if TYPE_CHECKING:
    from hf_nmt.batching import TokenBatchSampler, TranslationCollator

logger = logging.getLogger(__name__)


class TranslationTrainer(WatchedTrainer):
    """Trains a translation model of any family into a run folder.

    The loss of an update is the label-smoothed cross-entropy summed over all target tokens of the update, on all
    processes and over all accumulated batches, divided by their number: the same whether a batch is computed whole or
    in parts. The Trainer's own loss is not (it assumes that a model which takes `**kwargs` divides by
    `num_items_in_batch`; Marian, M2M100, mBART and T5 do not).

    Args:
        model: the model to train.
        args: from `TrainingSettings.arguments`.
        settings: our own settings.
        run: where everything goes.
        tokenizer: saved with the model.
        sampler: makes the batches; not of a stream.
        collator: makes tensors of them.
        train_dataset: encoded pairs, or the batches of a stream.
        objective: what is learned, beside the cross-entropy.
        validation: texts to validate on, or None.
        validation_sample: those of them to validate on while training; None takes all.
        schedule: of the learning rate.
        watch: what goes wrong and what is done about it.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel,
        args: Seq2SeqTrainingArguments,
        settings: TrainingSettings,
        run: Run,
        *,
        tokenizer: PreTrainedTokenizerBase,
        sampler: TokenBatchSampler | None,
        collator: TranslationCollator,
        train_dataset: Dataset | StreamedBatches,
        objective: ObjectiveSettings,
        validation: Validation | None = None,
        validation_sample: Validation | None = None,
        schedule: ScheduleSettings | None = None,
        watch: WatchSettings | None = None,
    ):
        args.output_dir = str(run.folder)
        self.settings = settings
        self.run = run
        self.sampler = sampler
        self.stream = train_dataset if isinstance(train_dataset, StreamedBatches) else None
        if self.stream is not None:
            args.ignore_data_skip = True  # a stream goes on from its position by itself
        self.validation, self.validation_sample = validation, validation_sample
        self.schedule = ScheduleSettings() if schedule is None else schedule
        self.stopwatch = Stopwatch()
        self.objective = objective.build(model, tokenizer, args)
        self._interval_tokens: torch.Tensor | int = 0
        self._last_log = (0, 0.0)  # tokens and training seconds at the last log
        if settings.matmul_precision != "auto":
            torch.set_float32_matmul_precision(settings.matmul_precision)
        self._progress = ProgressBar(not args.disable_tqdm)
        prepare_for_processes(model, args, divided=is_asked_for())
        recorder = RunRecorder(run, self.stopwatch)
        callbacks: list[TrainerCallback] = [_BringBack(self), PlateauWatch(), recorder, self._progress]
        if validation is not None and args.eval_strategy != "no" and settings.early_stopping_patience is not None:
            callbacks.append(EarlyStopping(settings.early_stopping_patience))
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=train_dataset if validation is not None else None,  # only asked whether there is one
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        for callback in self.callback_handler.callbacks:
            if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
                callback.logging_dir = str(run.folder / "tensorboard")
        for unused in (ProgressCallback, PrinterCallback):  # both write to stdout
            self.remove_callback(unused)
        self.begin_watch(Watch(watch or WatchSettings()))
        self.model.config.use_cache = True  # the Trainer switches it off, and the saved model would keep that
        self._num_weights = self.model.num_parameters(exclude_embeddings=True)
        self.average = None if objective.ema is None else MovingAverage(self.model, objective.ema)
        if self.average is not None:
            self.add_callback(AverageEachUpdate(self.average, self.accelerator))

    # Batches

    def get_train_dataloader(self) -> Iterable:
        if self.stream is not None:
            return StreamLoader(
                self.stream,
                device=self.args.device,
                num_workers=self.args.dataloader_num_workers,
                pin_memory=self.args.dataloader_pin_memory,
                prefetch_factor=self.args.dataloader_prefetch_factor,
                multiprocessing_context=self.args.dataloader_multiprocessing_context,
            )
        pairs = self.train_dataset
        if isinstance(pairs, Dataset):  # read what the collator takes only
            pairs = pairs.select_columns(["input_ids", "labels"])
        loader = DataLoader(
            pairs,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            in_order=self.args.dataloader_in_order,
        )
        return self.accelerator.prepare(loader)

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        # In a resumed epoch the sampler of a distributed run sits under two wrappers, deeper than the Trainer looks.
        if self.sampler is not None:
            self.sampler.set_epoch(epoch)
            tell_stages(self.sampler, epoch)
        super()._run_epoch(epoch=epoch, **kwargs)
        if self.sampler is not None and self.is_world_process_zero():
            record_mixture(self.sampler, epoch, self.state.global_step, self.run.folder)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        samples, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in samples:
            self._interval_tokens = self._interval_tokens + batch["attention_mask"].sum()
            self._interval_tokens = self._interval_tokens + (batch["labels"] != -100).sum()
        return samples, num_items

    # Loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """Target tokens of the update, on all processes."""
        if not batch_samples:
            return None
        count = sum((batch["labels"] != -100).sum() for batch in batch_samples).to(device)
        return self.sum_and_hear(count)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if num_items_in_batch is None:
            num_items_in_batch = (inputs["labels"] != -100).sum()
        loss = self.objective(model, inputs, self.state.global_step)
        # Data-parallel processes average their gradients; the sum is what is wanted.
        return loss * (self.args.world_size / num_items_in_batch)

    def floating_point_ops(self, inputs: Mapping[str, torch.Tensor]) -> int:
        """As the Trainer's, which counts the weights anew for every batch."""
        return 6 * inputs["input_ids"].numel() * self._num_weights

    # Validation

    def validate(self, *, num_beams: int | None = None, validation: Validation | None = None) -> ValidationResult:
        """Translate and score the validation texts with the weights as they are.

        Args:
            num_beams: None takes those of the decoding settings.
            validation: in place of that of all texts.
        """
        if (validation := validation or self.validation) is None:
            raise NmtError("There are no validation texts; give data.validation.")
        with self.whole_model(), self.accelerator.autocast():
            return validation.run(
                self.model,
                lambda batch: CrossEntropy(self.model, smoothing=0.0)(self.model, batch),
                num_beams=num_beams,
                rank=self.args.process_index,
                world_size=self.args.world_size,
            )

    def evaluate(
        self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval", **gen_kwargs
    ) -> dict[str, float]:
        """Validation while training: eval_loss, eval_perplexity, eval_bleu, eval_chrf ..., eval_seconds."""
        averaged = self.average is not None and self.average.settings.use_for_validation and self.average.updates
        with self.stopwatch, self.average.in_use() if averaged else nullcontext():
            result = self.validate(num_beams=self.settings.validation_num_beams, validation=self.validation_sample)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in result.metrics.items()}
        self._show_validation(result)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _show_validation(self, result: ValidationResult) -> None:
        if not self.is_world_process_zero() or self.validation is None:
            return
        scores, *of_pairs = result.score_lines()
        logger.info(
            "validation at step %d: loss %.4f  perplexity %.2f  %s  (%s, %.1f s)",
            self.state.global_step, result.metrics["loss"], result.metrics["perplexity"], scores,
            search_text(self.validation.decoding, self.settings.validation_num_beams), result.metrics["seconds"],
        )  # fmt: skip
        for line in of_pairs:
            logger.info("  %s", line)
        result.tell_samples()
        self.run.add_validation(
            {
                "step": self.state.global_step,
                "epoch": self.state.epoch,
                "tokens": self.stopwatch.tokens,
                "seconds": round(self.stopwatch.seconds, 3),
                "sentences": len(result.translations),
                "metrics": result.metrics,
                "samples": result.samples,
            }
        )

    # Log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._count_tokens()
        if "loss" in logs:
            tokens, seconds = self.stopwatch.tokens, self.stopwatch.training_seconds
            logs["tokens_per_second"] = (tokens - self._last_log[0]) / max(seconds - self._last_log[1], 1e-9)
            self._last_log = tokens, seconds
            logs |= self.objective.log_values(self.state.global_step, self.accelerator.reduce)
        super().log(logs, start_time)

    def _count_tokens(self) -> None:
        """Add the tokens since the last call to the stopwatch; the only wait for the device besides the loss."""
        count = torch.as_tensor(self._interval_tokens, device=self.args.device)
        if self.args.world_size > 1:
            count = self.accelerator.gather(count.reshape(1)).sum()
        self.stopwatch.tokens += int(count)
        self.stopwatch.count()
        self._interval_tokens = 0

    # Training and resuming

    def train(self, resume_from_checkpoint: str | Path | None = None, **kwargs: Any) -> Any:
        """Train to the end; from a checkpoint that was written at the end, only its weights and state are loaded."""
        if resume_from_checkpoint is None:
            self._restored: dict[str, Any] | None = None
            return self._train(None, **kwargs)
        folder = Path(resume_from_checkpoint)
        self._restored = checkpoints.read_state(folder)
        self._check_restored(folder)
        if self.average is not None:
            self.average.restore(folder)
        state = TrainerState.load_from_json(str(folder / TRAINER_STATE))
        stopped = state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]
        if stopped and not self._restored.get("put_off"):
            self._load_from_checkpoint(str(folder))
            self.state = state
            self.stopwatch.load_state_dict(self._restored["stopwatch"])
            return None
        self.args.eval_on_start = False
        return self._train(str(folder), **kwargs)

    def _train(self, checkpoint: str | None, **kwargs: Any) -> Any:
        # The log must not write into the line of the bar.
        logs = [logging.getLogger(name) for name in ("hf_nmt", "transformers")]
        beside_bar = logging_redirect_tqdm(logs) if self._progress.show_bar else nullcontext()
        try:
            with beside_bar, self.interruptible():
                output = super().train(resume_from_checkpoint=checkpoint, **kwargs)
            self.join()
            return output
        finally:
            self._progress.close()
            if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
                with redirect_stdout(sys.stderr):  # left to itself it ends at exit and writes to stdout
                    wandb.finish(exit_code=int(sys.exc_info()[0] is not None))

    def _check_restored(self, folder: Path) -> None:
        restored = self._restored
        if restored["world_size"] != self.args.world_size:
            raise ConfigError(
                f"resume: {folder} was written by {restored['world_size']} processes, now {self.args.world_size} run; "
                "the batches would not be the same. Launch as many as before."
            )
        if restored["sampler"] != (self.stream or self.sampler).fingerprint:
            raise ConfigError(f"resume: the training data or the batching are not those {folder} was written with.")
        if self.stream is not None:
            self.stream.position = Position.from_json(restored["stream"])

    def bring_back(self) -> None:
        """Restore what the Trainer forgets: the loss since the last log, and the stopwatch."""
        self.objective.begin(self.state.max_steps)
        if self._restored is not None:
            self._tr_loss += self._restored["unlogged_loss"][self.args.process_index]
            self._globalstep_last_logged = self._restored["last_logged_step"]
            self.stopwatch.load_state_dict(self._restored["stopwatch"])
            self._last_log = tuple(self._restored["last_log"])
            self.watch.load_state_dict(self._restored["watch"])
        self.stopwatch.start()
        self.make_up(self._restored.get("put_off", ()) if self._restored is not None else ())

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        if has_adapter(self.model):
            load_checkpoint(self.model, Path(resume_from_checkpoint))
            return
        super()._load_from_checkpoint(str(resume_from_checkpoint), model)
        self._tie(model or self.model)

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """A copy of what a checkpoint holds: all weights, or those of the adapter."""
        weights = adapter_weights(self.model) if has_adapter(self.model) else self.model.state_dict()
        return {name: tensor.detach().clone() for name, tensor in weights.items()}

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take what checkpoints hold, or a mean of it.

        Raises:
            NmtError: it does not fit the model.
        """
        if has_adapter(self.model):
            load_adapter_weights(self.model, weights)
        else:
            self._issue_warnings_after_load(self.model.load_state_dict(weights, strict=False))
            self._tie(self.model)

    @staticmethod
    def _tie(model: PreTrainedModel) -> None:
        # As it was loaded: by its class alone, mT5 and T5 1.1 would lose the output projection that they have.
        model.tie_weights(recompute_mapping=False)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Tied weights are saved once, and some are made anew; any other difference is an error."""
        expected = {*(self.model.all_tied_weights_keys or ()), *made_anew(self.model)}
        missing = [name for name in load_result.missing_keys if name not in expected]
        if missing or load_result.unexpected_keys:
            raise NmtError(
                f"The checkpoint does not fit the model: missing {missing}, unknown {load_result.unexpected_keys}."
            )

    # Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write `checkpoints/step-<n>/` whole, then remove what is not kept."""
        self.store_flos()
        self._count_tokens()
        random_states = self._random_states()
        unlogged = [float(self._tr_loss)]
        if self.args.world_size > 1:
            unlogged = gather_object(unlogged)
        # Before the good checkpoints are thinned out to make room for this one.
        self.judge_updates()
        with self.stopwatch:
            self.gather()
            optimizer_state = self.whole_optimizer_state()
        if self.args.should_save:
            with self.stopwatch:
                self._write_checkpoint(random_states, unlogged, optimizer_state)
                checkpoints.thin_out(
                    self.run.checkpoints,
                    keep_newest=self._kept_checkpoints(),
                    keep_steps=[self.state.best_global_step],
                )
        self.accelerator.wait_for_everyone()

    def _write_checkpoint(
        self, random_states: dict[str, bytes], unlogged: list[float], optimizer_state: dict[str, Any]
    ) -> None:
        folder = runs.checkpoint_folder(self.run.checkpoints, self.state.global_step)
        with checkpoints.writing(folder) as partial:
            self._save(str(partial))
            check_checkpoint(self.accelerator.unwrap_model(self.model), self.processing_class, partial)
            torch.save(optimizer_state, partial / OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), partial / SCHEDULER)
            self._save_scaler(str(partial))
            if self.average is not None:
                self.average.write(partial)
            for name, content in random_states.items():
                (partial / name).write_bytes(content)
            for callback in [*self.callback_handler.callbacks, self.control]:
                if isinstance(callback, ExportableState):
                    self.state.stateful_callbacks[type(callback).__name__] = callback.state()
            self.state.save_to_json(str(partial / TRAINER_STATE))
            write_json(
                partial / checkpoints.RUN_STATE,
                {
                    "step": self.state.global_step,
                    "world_size": self.args.world_size,
                    "sampler": (self.stream or self.sampler).fingerprint,
                    "stream": None if self.stream is None else dataclasses.asdict(self.stream.position),
                    "unlogged_loss": unlogged,
                    "last_logged_step": self._globalstep_last_logged,
                    "last_log": list(self._last_log),
                    "stopwatch": self.stopwatch.state_dict(),
                    "watch": self.watch.state_dict(),
                    "saved_for_interrupt": self.saves_for_interrupt,
                    "put_off": list(self.put_off),
                },
            )

    def _kept_checkpoints(self) -> int | None:
        limit = self.args.save_total_limit
        return None if limit is None else max(limit, self.settings.num_average_checkpoints, 1)

    def _random_states(self) -> dict[str, bytes]:
        """The files with the random states of all processes, on the first of them."""
        with tempfile.TemporaryDirectory() as folder:
            self._save_rng_state(folder)
            mine = [(path.name, path.read_bytes()) for path in Path(folder).iterdir()]
        return dict(gather_object(mine) if self.args.world_size > 1 else mine)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Model, or its adapter alone, and tokenizer; not the arguments, which the Trainer would pickle."""
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        model = self.accelerator.unwrap_model(self.model)
        if has_adapter(model):
            write_adapter(model, folder)
        else:
            model.save_pretrained(folder, state_dict=state_dict)
        self.processing_class.save_pretrained(folder)


class _BringBack(TrainerCallback):
    """Calls the trainer back at the one point between its own resets and the first update."""

    def __init__(self, trainer: TranslationTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.bring_back()

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.stream is not None:  # the Trainer takes all updates of a stream for one epoch
            state.epoch = self.trainer.stream.position.epochs
