"""Validation: the loss of the references, and the score of what the model itself translates."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence

import torch
from accelerate.utils import reduce
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.translator import TorchTranslator
from hf_nmt.launching import IN_FILE_ONLY
from hf_nmt.metrics import LanguagePair, MetricSettings, Score, score_pairs, with_off_target
from hf_nmt.models.sources_nmt import languages_kept
from hf_nmt.protocols import LANGUAGE_COLUMNS
from hf_nmt.training.processes import from_first
from hf_nmt.training.watch import look_at

logger = logging.getLogger(__name__)

TokenLoss = Callable[[dict[str, torch.Tensor]], torch.Tensor]


@dataclasses.dataclass
class ValidationResult:
    """What one validation found.

    Attributes:
        metrics: "loss" (nats per target token, without label smoothing), "perplexity", "repetition" and "length_ratio"
            (see `watch.look_at`), a score for each metric name, "seconds". Of several language pairs, the score is the
            mean over the pairs, and each pair has its own, such as "bleu_de-en". off_target is missing where the
            language of no translation could be told.
        scores: the records of the scores; of several language pairs, the means and then those of each pair, which
            stands in `data.domain`.
        samples: source, reference and translation of a few sentences.
        translations: of all validation sentences, in order.
    """

    metrics: dict[str, float]
    scores: list[Score]
    samples: list[dict[str, str]]
    translations: list[str]

    def tell_samples(self) -> None:
        """Into the log; on the console the first alone."""
        for number, sample in enumerate(self.samples):
            for name, text in sample.items():
                logger.info("  %-12s %s", f"{name}:", text, extra={IN_FILE_ONLY: number > 0})

    def score_lines(self) -> list[str]:
        """The scores in a line; of several language pairs, one more for each pair."""
        lines: dict[str | None, list[str]] = {}
        for score in self.scores:
            lines.setdefault(score.data.domain, []).append(f"{score.name} {score.text}")
        return [(f"{pair}: " if pair else "") + "  ".join(scores) for pair, scores in lines.items()]


class Validation:
    """Validation texts and how they are translated and scored.

    Every process of a distributed run calls `run`. Batches are shared out whole, the first process computes the
    scores, and all get the same result: that of one process alone, but where translations are sampled.

    Args:
        texts: columns source, target and, where there are several references or languages, references and
            `LANGUAGE_COLUMNS`.
        batches: the encoded pairs as padded batches, the same on every process.
        tokenizer: of the model.
        decoding: how the finished model translates.
        metrics: what is computed.
        languages: source and target language of rows that name none.
        num_samples: sentences to show, spread over the texts.
    """

    def __init__(
        self,
        texts: Dataset,
        batches: Sequence[dict[str, torch.Tensor]],
        tokenizer: PreTrainedTokenizerBase,
        decoding: DecodingSettings,
        metrics: MetricSettings,
        *,
        languages: tuple[str | None, str | None],
        num_samples: int,
    ):
        self.sources = list(texts["source"])
        targets = list(texts["target"])
        several = texts["references"] if "references" in texts.column_names else [None] * len(targets)
        self.references = [list(row) if row else [text] for row, text in zip(several, targets, strict=True)]
        sides = (
            [code or usual for code in texts[name]] if name in texts.column_names else [usual] * len(targets)
            for name, usual in zip(LANGUAGE_COLUMNS, languages, strict=True)
        )
        self.rows_of_pair: dict[LanguagePair, list[int]] = {}
        for row, pair in enumerate(zip(*sides, strict=True)):
            self.rows_of_pair.setdefault(pair, []).append(row)
        self.batches = batches
        self.tokenizer = tokenizer
        self.decoding = decoding
        self.metrics = with_off_target(metrics, self.rows_of_pair)
        count = min(num_samples, len(self.sources))
        self.shown = [index * len(self.sources) // count for index in range(count)]

    def run(
        self,
        model: PreTrainedModel,
        token_loss: TokenLoss,
        *,
        num_beams: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> ValidationResult:
        """Validate a model.

        Args:
            model: in training or evaluation mode; it is given back in the same.
            token_loss: sum of the cross-entropy over the target tokens of one padded batch.
            num_beams: beams; None takes those of the decoding settings.
            rank, world_size: this process and their number.
        """
        began = time.perf_counter()
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                loss = self._loss(token_loss, model.device, rank, world_size)
                translations = self._translate(model, num_beams, rank, world_size)
        finally:
            model.train(was_training)
        scores = self._scores(translations, rank, world_size)
        values: dict[str, float] = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        values |= look_at(translations, [references[0] for references in self.references])
        for name, score in zip(itertools.cycle(self.metrics.names), scores, strict=False):
            if score.value is not None:
                values[name if score.data.domain is None else f"{name}_{score.data.domain}"] = score.value
        values["seconds"] = time.perf_counter() - began
        samples = [
            {"source": self.sources[i], "reference": self.references[i][0], "translation": translations[i]}
            for i in self.shown
        ]
        return ValidationResult(values, scores, samples, translations)

    def _loss(self, token_loss: TokenLoss, device: torch.device, rank: int, world_size: int) -> float:
        """Mean cross-entropy of a target token, in nats."""
        total = torch.zeros(2, dtype=torch.float64, device=device)
        for batch in self.batches[rank::world_size]:
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            total[0] += token_loss(on_device).double()
            total[1] += (on_device["labels"] != -100).sum()
        loss, tokens = (reduce(total, "sum") if world_size > 1 else total).tolist()
        return loss / tokens

    def _translate(self, model: PreTrainedModel, num_beams: int | None, rank: int, world_size: int) -> list[str]:
        settings = self.decoding if num_beams is None else with_beams(self.decoding, num_beams)
        translations = [""] * len(self.sources)
        with languages_kept(self.tokenizer):
            for (source, target), rows in self.rows_of_pair.items():
                translator = TorchTranslator(
                    model,
                    self.tokenizer,
                    source_language=source,
                    target_language=target,
                    with_scores=False,
                    share=(rank, world_size),
                )
                results = translator.translate((self.sources[row] for row in rows), settings)
                for row, best in zip(rows, results, strict=True):
                    translations[row] = best[0].text
        return translations

    def _scores(self, translations: list[str], rank: int, world_size: int) -> list[Score]:
        """Computed by the first process: all must agree on the best checkpoint and on when to stop."""
        scores = None
        if rank == 0:
            scores = score_pairs(translations, self.references, self.rows_of_pair, self.metrics).scores
        return from_first(scores, world_size)


def search_text(settings: DecodingSettings, num_beams: int | None = None) -> str:
    """How translations are searched for, in a word or two: greedy, sampling, beam 5."""
    beams = settings.num_beams if num_beams is None else num_beams
    if settings.do_sample:
        return "sampling"
    return "greedy" if beams == 1 else f"beam {beams}"


def with_beams(settings: DecodingSettings, num_beams: int) -> DecodingSettings:
    """The settings with another number of beams, and without what would then have no meaning."""
    changes = {"num_beams": num_beams, "num_return_sequences": 1}
    return settings.model_copy(update=changes | ({"early_stopping": False} if num_beams == 1 else {}))
