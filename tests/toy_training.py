"""A tiny model, tokenizer and batches for tests of the training loop."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import Sampler
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast, TrainerCallback

from hf_nmt import runs
from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.training import checkpoints
from hf_nmt.training.objectives import ObjectiveSettings
from hf_nmt.training.schedule_settings import ScheduleSettings
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.trainer import TranslationTrainer

VOCABULARY = 40


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<pad>", "<s>", "</s>", *(f"w{number}" for number in range(VOCABULARY - 4))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def make_model(seed: int = 1, **changes) -> NmtForConditionalGeneration:
    torch.manual_seed(seed)
    shape = {
        "vocab_size": VOCABULARY,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 64,
    }
    return NmtForConditionalGeneration(NmtConfig(**(shape | changes)))


def make_marian(dropout: float = 0.0) -> MarianMTModel:
    torch.manual_seed(0)
    return MarianMTModel(
        MarianConfig(
            vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, dropout=dropout,
            max_position_embeddings=32,
            pad_token_id=1, eos_token_id=3, decoder_start_token_id=2, bos_token_id=2, forced_eos_token_id=3,
        )
    )  # fmt: skip


def make_pairs(count: int, seed: int = 0) -> Dataset:
    """Encoded pairs of 2 to 12 tokens whose target is the source backwards."""
    generator = numpy.random.default_rng(seed)
    rows = [generator.integers(4, VOCABULARY, size=generator.integers(1, 12)).tolist() for _ in range(count)]
    return Dataset.from_dict({"input_ids": [[*row, 3] for row in rows], "labels": [[*row[::-1], 3] for row in rows]})


class GroupSampler(Sampler):
    """Batches of `size` neighbours, in a new order each epoch."""

    batch_size, drop_last, mixture = None, False, None

    def __init__(self, count: int, size: int, *, shuffle: bool = True):
        self.groups = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
        self.shuffle, self.epoch = shuffle, 0
        self.fingerprint = f"{count}-{size}"

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self):
        order = numpy.random.default_rng((5, self.epoch)).permutation(len(self)) if self.shuffle else range(len(self))
        return iter([self.groups[index] for index in order])


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    def pad(name: str, value: int) -> torch.Tensor:
        width = max(len(row[name]) for row in rows)
        return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])

    inputs, labels = pad("input_ids", 1), pad("labels", -100)
    decoder = torch.cat([torch.full((len(rows), 1), 2), labels[:, :-1]], 1)
    return {
        "input_ids": inputs,
        "attention_mask": (inputs != 1).long(),
        "labels": labels,
        "decoder_input_ids": decoder.masked_fill(decoder == -100, 1),
    }


def make_run(folder, **changes) -> runs.Run:
    return runs.start(
        "train", {"seed": 1, **changes}, folder, "toy", data={"hash": "0"}, seeds={"seed": 1}, device={"type": "cpu"}
    )


def make_trainer(
    run,
    *,
    model=None,
    pairs=None,
    sampler=None,
    collator=None,
    validation=None,
    validation_sample=None,
    objective=None,
    schedule=None,
    watch=None,
    **settings,
) -> TranslationTrainer:
    pairs = make_pairs(64) if pairs is None else pairs
    defaults = {"max_steps": 20, "eval_strategy": "no", "save_steps": 10, "logging_steps": 5}
    training = TrainingSettings(**(defaults | settings))
    return TranslationTrainer(
        model if model is not None else make_model(),
        training.arguments(seed=3, run_name="toy", validate=validation is not None),
        training,
        run,
        tokenizer=make_tokenizer(),
        sampler=sampler if sampler is not None else GroupSampler(len(pairs), 8),
        collator=collate if collator is None else collator,
        train_dataset=pairs,
        validation=validation,
        validation_sample=validation_sample,
        objective=objective or ObjectiveSettings(),
        schedule=ScheduleSettings(**({"warmup_steps": 4} if schedule is None else schedule)),
        watch=watch,
    )


class StopAfter(TrainerCallback):
    """Interrupts the process after an update."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def train_until(step: int, run: runs.Run, **settings) -> None:
    """A training of `make_trainer` that is interrupted after this update."""
    with pytest.raises(KeyboardInterrupt), run:
        trainer = make_trainer(run, **settings)
        trainer.add_callback(StopAfter(step))
        trainer.train()


def resumed_and_whole(folder: Path, **settings) -> tuple[TranslationTrainer, TranslationTrainer]:
    """Of a training interrupted after update 8 and resumed from the checkpoint of update 5; of one that was not."""
    with make_run(folder / "whole") as run:
        whole = make_trainer(run, model=make_model(dropout=0.2), **settings)
        whole.train()
    run = make_run(folder / "parts")
    train_until(8, run, model=make_model(dropout=0.2), **settings)
    with runs.resume(run.folder, "train") as again:
        again.forget_after(5)
        trainer = make_trainer(again, model=make_model(dropout=0.2), **settings)
        trainer.train(checkpoints.latest_whole(again.checkpoints))
    return trainer, whole


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All of them in a row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
