"""Translation and forced scoring with any encoder-decoder of Transformers.

Shapes: B sequences, S source positions, T target positions, D model width, V vocabulary.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from hf_nmt.errors import ConfigError, DataError
from hf_nmt.generation.contexts import sentences_read, shortened
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.inputs import beside, windows
from hf_nmt.generation.meter import Statistics
from hf_nmt.generation.sampling import keyed_processors
from hf_nmt.models.decoding_nmt import DecodedBatch, decode, encoder_states, halved, padded
from hf_nmt.models.sources_nmt import (
    EncodedText,
    Languages,
    LongTextError,
    Selection,
    encode_texts,
    set_languages,
    source_limit,
    target_limit,
)
from hf_nmt.protocols import Translation

logger = logging.getLogger(__name__)

# Logits held at a time when translations are scored: 128 MiB of float32.
_MAX_LOGITS = 2**25


class SourceError(DataError):
    """A source text that cannot be translated.

    Args:
        reason: what is wrong with it, and what to do.
        index: its position in the input, from 0.
    """

    def __init__(self, reason: str, index: int):
        self.reason, self.index = reason, index
        super().__init__(f"Text {index + 1}: {reason}")


class TorchTranslator:
    """A `Translator` and a `Scorer` (hf_nmt.protocols).

    Args:
        model: any encoder-decoder with `generate`.
        tokenizer: its tokenizer.
        device: where to move the model; None leaves it where it is.
        source_language, target_language: codes, for models of several languages; a call may name others.
        with_scores: False leaves `score` NaN and `token_scores` empty where one translation is asked for, and saves a
            pass of the decoder: a third of the time of greedy search, a tenth with 5 beams.
        share: (rank, world_size): of the processes that translate the same texts together. Each decodes every
            `world_size`-th batch, and all get all translations. Needs a process group of torch.distributed.

    Attributes:
        statistics: what it has done so far.
        on_progress: called after each batch with the number of texts that the running `translate` has done, those of
            the window under way by the share of their source tokens; None calls nothing.

    Raises:
        ConfigError: the model does not have the language, or has several and none is named.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        device: str | torch.device | None = None,
        *,
        source_language: str | None = None,
        target_language: str | None = None,
        with_scores: bool = True,
        share: tuple[int, int] = (0, 1),
    ):
        self.model = model if device is None else model.to(device)
        self.tokenizer = tokenizer
        self.source_language = source_language
        self.target_language = target_language
        self.with_scores = with_scores
        self.share = share
        self.statistics = Statistics()
        self.on_progress: Callable[[float], None] | None = None
        self._languages = Languages.of(model.config, tokenizer)
        self._set_to = getattr(tokenizer, "src_lang", None), getattr(tokenizer, "tgt_lang", None)
        eos = model.generation_config.eos_token_id
        self._ends = tuple(eos) if isinstance(eos, list | tuple) else (eos,)
        if source_language is not None or target_language is not None:
            self._select()

    def translate(
        self,
        sources: Iterable[str],
        settings: DecodingSettings | None = None,
        *,
        source_language: str | Sequence[str | None] | None = None,
        target_language: str | Sequence[str | None] | None = None,
        prefixes: Sequence[str] | None = None,
    ) -> Iterator[list[Translation]]:
        """Yield the n-best list of each source, best first, in order; `sources` is read window by window.

        The languages are those of all sources, or a list with that of each (None: that of the translator). A language
        of all that the model does not have is told at once, and so is one of a list.

        A source may be a text of several sentences (see `DecodingSettings.split_sentences`): its tokens are then those
        of all sentences, each with its end-of-sentence symbol, its score is the mean of theirs, and its n-best list
        holds their best combinations. A prefix is for the first sentence. An empty text stays as it is, with score 0.
        Scores are the model's own log-probabilities, whatever the sampling temperature. The score of a prefix is left
        out of `score`, as the search does.

        Raises:
            ConfigError: a language that the model does not have.
            DataError: lists of languages or prefixes with more or fewer entries than there are sources.
            SourceError: a source that is no string, or over the model's limit and not to be split; of a list of
                languages, one that the model does not have.
        """
        columns: dict[str, Any] = {"source_language": source_language, "target_language": target_language}
        several = [codes for codes in columns.values() if codes is not None and not isinstance(codes, str)]
        checked = set()
        for index, (_, *pair) in enumerate(beside(several[0] if several else [""], columns)):
            if tuple(pair) in checked:
                continue
            checked.add(tuple(pair))
            try:
                self._select(*pair)
            except ConfigError as error:
                if not several:
                    raise
                raise SourceError(str(error), index) from error
        columns["prefixes"] = "" if prefixes is None else prefixes
        return self._translate(beside(sources, columns), settings or DecodingSettings())

    def score(self, sources: Iterable[str], targets: Iterable[str]) -> Iterator[list[float]]:
        """Yield the log-probability (natural log) of every target token, the end-of-sentence symbol included.

        Raises:
            SourceError: a source or a target over the model's limit.
        """
        selected = self._select()
        forced = selected.forced_bos_token_id
        settings, done = DecodingSettings(), 0
        for window in windows(zip(sources, targets, strict=True), settings.window_size):
            texts = [source for source, _ in window]
            places = range(done, done + len(window))
            encoded = self._encode(texts, places, settings, selected, split_sentences=False)
            ids = [text.sentences[0] if text.sentences else [self._ends[0]] for text in encoded]
            labels = [self._labels(target, selected) for _, target in window]
            limit = target_limit(0, self.model, 0, 10**9)
            for index, label in enumerate(labels):
                if len(label) > limit:
                    raise SourceError(f"a target of {len(label)} tokens; the model takes {limit}.", done + index)
            scores: list[list[float]] = [[]] * len(window)
            with self._evaluating():
                for index, row in self._forced_scores(ids, labels, self._start(selected), settings.batch_tokens):
                    scores[index] = row if forced is None else row[1:]
            yield from scores
            done += len(window)

    def _select(self, source_language: str | None = None, target_language: str | None = None) -> Selection:
        source, target = source_language or self.source_language, target_language or self.target_language
        if hasattr(self.tokenizer, "src_lang"):  # what an earlier call has set is not meant where none is named
            set_languages(self.tokenizer, *self._set_to)
        try:
            return self._languages.select(source, target)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def _start(self, selected: Selection) -> int:
        """The id that the decoder starts from."""
        own = self.model.generation_config
        ids = selected.decoder_start_token_id, own.decoder_start_token_id, own.bos_token_id
        return next(one for one in ids if one is not None)

    def _translate(self, rows: Iterable[tuple[Any, ...]], settings: DecodingSettings) -> Iterator[list[Translation]]:
        """
        Args:
            rows: source, source language, target language, prefix.
        """
        done = 0
        for window in windows(enumerate(rows), settings.window_size):
            started = time.perf_counter()
            by_pair: dict[tuple[str | None, str | None], list[tuple[int, str, str]]] = {}
            for index, (text, source, target, prefix) in window:
                by_pair.setdefault((source, target), []).append((index, text, prefix))
            found: dict[int, list[Translation]] = {}
            for pair, group in by_pair.items():
                selected = self._select(*pair)  # another call may have changed the tokenizer's languages meanwhile
                with self._evaluating(), self._seeded(settings):
                    translations = self._window(group, done + len(found), settings, selected)
                found |= {n_best[0].source_index: n_best for n_best in translations}
            self.statistics.texts += len(window)
            self.statistics.seconds += time.perf_counter() - started
            done += len(window)
            yield from (found[index] for index, _ in window)

    def _window(
        self, window: list[tuple[int, str, str]], done: int, settings: DecodingSettings, selected: Selection
    ) -> list[list[Translation]]:
        """
        Args:
            window: place in the input, text and prefix of each.
            done: number of texts that are translated already.
        """
        places, texts = [place for place, *_ in window], [text for _, text, _ in window]
        one_by_one = settings.split_sentences and not sentences_read(self.model)
        encoded = self._encode(texts, places, settings, selected, split_sentences=one_by_one)
        start, forced = [self._start(selected)], selected.forced_bos_token_id

        # Which decoding each sentence takes its translations from.
        jobs: dict[Any, int] = {}
        repeated: collections.Counter[Any] = collections.Counter()
        needed: list[list[int]] = []
        for text, (*_, opening) in zip(encoded, window, strict=True):
            needed.append([])
            for position, ids in enumerate(text.sentences):
                prompt = (
                    [*start, *self._forced(forced), *self._target_ids(opening)] if opening and not position else start
                )
                same = tuple(ids), tuple(prompt)
                key = (*same, repeated[same] if settings.do_sample else 0)
                repeated[same] += 1
                needed[-1].append(jobs.setdefault(key, len(jobs)))
        sources, prompts = [list(key[0]) for key in jobs], [list(key[1]) for key in jobs]
        lengths = settings.max_length_ratio, settings.max_length_extra, settings.max_target_length
        limits = [
            target_limit(len(ids), self.model, *lengths, len(prompt))
            for ids, prompt in zip(sources, prompts, strict=True)
        ]
        n_best: list[list[Translation]] = [[]] * len(jobs)
        mine: list[int] = []
        num_done, num_tokens = 0, sum(map(len, sources))
        kwargs = settings.generate_kwargs() | ({} if forced is None else {"forced_bos_token_id": forced})
        if settings.do_sample and settings.num_beams == 1:
            keys = [*jobs]
            kwargs |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}  # these are among the processors
            kwargs["processors_of"] = lambda batch, steps, prompt_length: keyed_processors(
                settings, [keys[index] for index in batch], steps, prompt_length
            )
        for batch in decode(
            self.model,
            sources,
            limits,
            batch_tokens=settings.batch_tokens,
            prompts=prompts,
            share=self.share,
            **kwargs,
        ):
            mine += batch.indices
            for index, hypotheses in zip(batch.indices, self._hypotheses(batch, settings, forced), strict=True):
                n_best[index] = hypotheses
                num_done += len(sources[index])
            if self.on_progress is not None:
                self.on_progress(done + len(window) * num_done / num_tokens)

        if self.share[1] > 1:
            shares: list[dict[int, list[Translation]]] = [{}] * self.share[1]
            torch.distributed.all_gather_object(shares, {index: n_best[index] for index in mine})
            n_best = [hypotheses for _, hypotheses in sorted(collections.ChainMap(*shares).items())]

        self.statistics.sentences += sum(map(len, needed))
        self.statistics.decoded_sentences += len(jobs)
        self.statistics.target_tokens += sum(len(best.tokens) for best, *_ in n_best)
        self.statistics.length_limited += sum(n_best[i][0].finish_reason == "length" for row in needed for i in row)
        return [
            _joined(text, [n_best[i] for i in row], settings.num_return_sequences, place)
            for place, text, row in zip(places, encoded, needed, strict=True)
        ]

    def _encode(self, texts, places, settings, selected: Selection, split_sentences) -> list[EncodedText]:
        for place, text in zip(places, texts, strict=True):
            if not isinstance(text, str):
                raise SourceError(f"a source must be a string, not {type(text).__name__}.", place)
        limits = [source_limit(self.model, self.tokenizer), settings.max_source_length]
        limit = min((limit for limit in limits if limit is not None), default=None)
        if sentences_read(self.model):
            texts = shortened(texts, selected.prefix, self.tokenizer, limit)
        try:
            encoded = encode_texts(
                texts,
                self.tokenizer,
                language=selected.source_language,
                prefix=selected.prefix,
                split_sentences=split_sentences,
                limit=limit,
                truncate=settings.truncate,
            )
        except LongTextError as error:
            raise SourceError(str(error), places[error.index]) from error
        except ValueError as error:
            raise ConfigError(str(error)) from error
        for place, text in zip(places, encoded, strict=True):
            if text.split.num_cut or text.num_truncated:
                done = "truncated" if text.num_truncated else "cut into parts"
                logger.warning("Text %d: a sentence over the limit of %d tokens was %s.", place + 1, limit, done)
            self.statistics.cut_sentences += text.split.num_cut
            self.statistics.truncated_sentences += text.num_truncated
        return encoded

    @torch.inference_mode()
    def _forced_scores(
        self, sources: list[list[int]], labels: list[list[int]], start: int, batch_tokens: int
    ) -> list[tuple[int, list[float]]]:
        """Log-probabilities of `labels`, in batches of like length, with the position of each."""
        config = self.model.generation_config
        lengths = [max(len(source), len(label)) for source, label in zip(sources, labels, strict=True)]
        order = sorted(range(len(sources)), key=lambda index: -lengths[index])
        results: list[tuple[int, list[float]]] = []

        def scored(batch: list[int]) -> list[tuple[int, list[float]]]:
            input_ids, attention_mask = padded(
                [sources[i] for i in batch], config.pad_token_id or 0, self.model.device
            )
            states = encoder_states(self.model, input_ids, attention_mask)
            rows = _log_probabilities(
                self.model, states, attention_mask, list(range(len(batch))), [labels[i] for i in batch], start
            )
            return list(zip(batch, rows, strict=True))

        while order:
            num_rows = max(1, batch_tokens // lengths[order[0]])
            batch, order = order[:num_rows], order[num_rows:]
            for part in halved(scored, batch):
                results.extend(part)
        return results

    def _forced(self, forced: int | None) -> list[int]:
        return [] if forced is None else [forced]

    def _target_ids(self, text: str) -> list[int]:
        return self.tokenizer(text_target=text, add_special_tokens=False)["input_ids"] if text else []

    def _labels(self, text: str, selected: Selection) -> list[int]:
        """Ids that the model is to give for a target, as in training, without a language symbol at their end."""
        ids = list(self.tokenizer(text_target=text)["input_ids"])
        if ids and ids[-1] == selected.decoder_start_token_id:
            ids.pop()
        if not ids or ids[-1] not in self._ends:
            ids.append(self._ends[0])
        return ids if ids[0] == selected.forced_bos_token_id else [*self._forced(selected.forced_bos_token_id), *ids]

    def _hypotheses(
        self, batch: DecodedBatch, settings: DecodingSettings, forced: int | None
    ) -> Iterator[list[Translation]]:
        """The n-best lists of a batch, sentence by sentence."""
        rows = [(row, prompt[1:] + ids) for row, prompt in enumerate(batch.prompts) for ids in batch.hypotheses[row]]
        scores: Iterator[list[float]] = itertools.repeat([])
        if scored := self.with_scores or settings.num_return_sequences > 1:
            scores = iter(
                _log_probabilities(
                    self.model,
                    batch.encoder_states,
                    batch.attention_mask,
                    [row for row, _ in rows],
                    [ids for _, ids in rows],
                    batch.prompts[0][0],
                )
            )
        texts = iter(self.tokenizer.batch_decode([ids for _, ids in rows], skip_special_tokens=True))
        for prompt, hypotheses in zip(batch.prompts, batch.hypotheses, strict=True):
            n_best = []
            for ids in hypotheses:
                searched, ids, token_scores = len(ids), prompt[1:] + ids, next(scores)
                if scored and forced is not None:
                    token_scores[0] = 0.0
                score = sum(token_scores[-searched:]) / searched**settings.length_penalty if scored else math.nan
                ended = ids[-1] in self._ends
                skipped = 0 if forced is None else 1
                n_best.append(
                    Translation(
                        text=next(texts),
                        score=score,
                        tokens=self._tokens(ids[skipped:]),
                        token_scores=token_scores[skipped:],
                        finish_reason="eos" if ended else "length",
                    )
                )
            if settings.do_sample:
                n_best.sort(key=lambda translation: -translation.score)
            yield n_best

    def _tokens(self, ids: list[int]) -> list[str]:
        convert = getattr(self.tokenizer, "convert_target_ids_to_tokens", self.tokenizer.convert_ids_to_tokens)
        return convert(ids)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)

    @contextlib.contextmanager
    def _seeded(self, settings: DecodingSettings) -> Iterator[None]:
        if not settings.do_sample:
            yield
            return
        with torch.random.fork_rng(devices=[self.model.device] if self.model.device.type == "cuda" else []):
            torch.manual_seed(settings.seed)
            yield


def _joined(
    text: EncodedText, n_bests: list[list[Translation]], num_return_sequences: int, index: int
) -> list[Translation]:
    """The n-best list of a text from those of its sentences: the combinations of the highest mean score.

    The mean, not the sum of the log-probabilities by their number: there a longer, worse sentence could raise the
    whole, and the best of several texts be another one than the text that comes alone.
    """
    combinations: list[tuple[float, tuple[Translation, ...]]] = [(0.0, ())]
    for n_best in n_bests:
        combinations = heapq.nlargest(
            num_return_sequences,
            [(total + one.score, (*chosen, one)) for total, chosen in combinations for one in n_best],
            key=lambda combination: combination[0],
        )
    return [
        Translation(
            text=text.split.join([one.text for one in chosen]),
            score=total / max(1, len(chosen)),
            tokens=[token for one in chosen for token in one.tokens],
            token_scores=[score for one in chosen for score in one.token_scores],
            finish_reason="length" if any(one.finish_reason == "length" for one in chosen) else "eos",
            source_index=index,
        )
        for total, chosen in combinations
    ]


@torch.inference_mode()
def _log_probabilities(
    model: Any,
    states: torch.Tensor,
    attention_mask: torch.Tensor,
    source_rows: list[int],
    targets: list[list[int]],
    start: int,
) -> list[list[float]]:
    """Log-probabilities of target ids under the model, by one pass of the decoder.

    Args:
        states: of the encoder, (B, S, D).
        attention_mask: (B, S).
        source_rows: which of the B sources each target belongs to.
        targets: ids without the start symbol.
        start: the start symbol.
    """
    results: list[list[float]] = []
    vocab_size = model.get_output_embeddings().weight.shape[0]
    num_rows = max(1, _MAX_LOGITS // (vocab_size * max(map(len, targets), default=1)))

    def scored(part: list[int]) -> list[list[float]]:
        ids = [targets[i] for i in part]
        labels, _ = padded(ids, 0, states.device)  # (rows, T)
        rows = torch.tensor([source_rows[i] for i in part], device=states.device)
        logits = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states[rows]),
            attention_mask=attention_mask[rows],
            decoder_input_ids=torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1),
            use_cache=False,
        ).logits.float()
        chosen = logits.gather(2, labels[:, :, None]).squeeze(2) - logits.logsumexp(dim=2)  # (rows, T)
        return [row[: len(target)] for row, target in zip(chosen.tolist(), ids, strict=True)]

    for first in range(0, len(targets), num_rows):
        for rows in halved(scored, list(range(first, min(first + num_rows, len(targets))))):
            results.extend(rows)
    return results
