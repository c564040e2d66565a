"""Losses of the same batches in `TranslationTrainer` and in the plain `Seq2SeqTrainer`, from the same weights."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

from systems import translation_trainer

UPDATES, LAST = 300, 50
EXACT_UPDATES = 100
SETTINGS = (
    "batching.batch_tokens=1024",
    "model.dropout=0",
    "training.label_smoothing_factor=0",  # the Trainer spreads it over the padding entry, too
    "schedule.name=constant",
    "training.max_grad_norm=1",
)


def recorded(trainer: Any) -> tuple[list[float], list[dict[str, Any]]]:
    """Train, and return the losses of the updates and their batches."""
    losses, batches = [], []
    compute = trainer.training_step

    def training_step(model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        batches.append(inputs)
        loss = compute(model, inputs, *arguments, **options)
        losses.append(float(loss))
        return loss

    trainer.training_step = training_step
    trainer.train()
    return losses, batches


def compare(work: Path) -> dict[str, Any]:
    """Relative differences: the largest of the first updates in fp32, that of the mean of the last in bfloat16."""
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

    ours = {}
    for precision in ("fp32", "bf16"):
        trainer = translation_trainer(
            work, *SETTINGS, f"training.max_steps={UPDATES}", f"training.bf16={str(precision == 'bf16').lower()}"
        )
        model = copy.deepcopy(trainer.model)
        arguments = trainer.args
        ours[precision], batches = recorded(trainer)
    model.set_attn_implementation("sdpa")
    plain = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=tempfile.mkdtemp(dir=work),
            per_device_train_batch_size=1,
            train_sampling_strategy="sequential",
            max_steps=UPDATES,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=100,
            adam_beta1=arguments.adam_beta1,
            adam_beta2=arguments.adam_beta2,
            adam_epsilon=arguments.adam_epsilon,
            weight_decay=arguments.weight_decay,
            max_grad_norm=arguments.max_grad_norm,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=batches,
        data_collator=lambda rows: rows[0],
    )
    theirs, same = recorded(plain)
    assert all((one["labels"] == other["labels"]).all() for one, other in zip(batches, same, strict=True))
    exact = list(zip(ours["fp32"], theirs, strict=True))[:EXACT_UPDATES]
    low, high = (sum(losses[-LAST:]) / LAST for losses in (ours["bf16"], theirs))
    return {
        f"fp32: largest relative difference of {EXACT_UPDATES} updates": max(abs(a - b) / b for a, b in exact),
        f"bf16: of the mean loss of updates {UPDATES - LAST} to {UPDATES}": abs(low - high) / high,
        "losses": {**ours, "Seq2SeqTrainer": theirs},
    }
