"""Batches of encoded sentences through `generate` of any encoder-decoder of Transformers.

Shapes: B sequences, S source positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutput

Result = TypeVar("Result")


class _RowLimits(StoppingCriteria):
    """Ends each sentence at its own length, so that a translation does not depend on its neighbours in the batch."""

    def __init__(self, lengths: torch.LongTensor):
        self.lengths = lengths

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        rows = input_ids.shape[0] // self.lengths.shape[0]  # beams or samples of one sentence follow each other
        return input_ids.shape[1] >= self.lengths.repeat_interleave(rows)


@dataclass(frozen=True)
class DecodedBatch:
    """Translations of some of the sources.

    Attributes:
        indices: which sources, in the order of the rows.
        hypotheses: for each row the n-best token ids, best first, as produced: without start symbol and prompt, with
            the end-of-sentence symbol unless the length limit came first.
        encoder_states: (B, S, D).
        attention_mask: (B, S).
        prompts: for each row the decoder ids it started from.
    """

    indices: list[int]
    hypotheses: list[list[list[int]]]
    encoder_states: torch.Tensor
    attention_mask: torch.Tensor
    prompts: list[list[int]]


def decode(
    model: Any,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    batch_tokens: int,
    prompts: Sequence[Sequence[int]] | None = None,
    share: tuple[int, int] = (0, 1),
    processors_of: Callable[[list[int], int, int], Any] | None = None,
    **generate_kwargs: Any,
) -> Iterator[DecodedBatch]:
    """Translate encoded sources in batches of like length, longest first.

    Args:
        sources: source ids with their special tokens.
        limits: longest translation of each source, in tokens.
        batch_tokens: source positions of a batch, padding and beams counted; one source is always taken.
        prompts: decoder ids to continue from, start symbol included; None for the start symbol alone.
        share: (rank, world_size): of all batches, the same whatever the share, only every `world_size`-th from `rank`.
        processors_of: gives the `logits_processor` of a batch for the indices of its sources, the most tokens that
            any of them may get, and the length of their prompts.
        generate_kwargs: for `model.generate`.
    """
    num_rows = max(
        _setting(model, generate_kwargs, "num_beams") or 1,
        _setting(model, generate_kwargs, "num_return_sequences") or 1,
    )
    start = _setting(model, generate_kwargs, "decoder_start_token_id")
    start = _setting(model, generate_kwargs, "bos_token_id") if start is None else start
    prompts = [[start]] * len(sources) if prompts is None else [list(prompt) for prompt in prompts]

    def decoded(batch: list[int]) -> DecodedBatch:
        own = {}
        if processors_of is not None:
            steps = max(limits[i] for i in batch) + 1
            own["logits_processor"] = processors_of(batch, steps, len(prompts[batch[0]]))
        return _generate(model, sources, limits, prompts, batch, generate_kwargs | own)

    order = sorted(range(len(sources)), key=lambda i: (-len(prompts[i]), -len(sources[i])))
    batches: list[list[int]] = []
    for index in order:
        batch = batches[-1] if batches else []
        longest = max(len(sources[i]) for i in (*batch[:1], index))
        if batch and (
            len(prompts[index]) == len(prompts[batch[0]]) and longest * (len(batch) + 1) * num_rows <= batch_tokens
        ):
            batch.append(index)
        else:
            batches.append([index])
    rank, world_size = share
    for batch in batches[rank::world_size]:
        yield from halved(decoded, batch)


def _setting(model: Any, generate_kwargs: dict[str, Any], name: str) -> Any:
    value = generate_kwargs.get(name)
    return getattr(model.generation_config, name, None) if value is None else value


def halved(run: Callable[[list[Any]], Result], items: list[Any]) -> Iterator[Result]:
    """`run(items)`; where memory does not suffice, `run` of each half, and so on down to one item."""
    try:
        result = run(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    else:
        yield result
        return
    # Not within `except`: while the error lives, so do the tensors of the attempt that failed.
    middle = len(items) // 2
    yield from halved(run, items[:middle])
    yield from halved(run, items[middle:])


def padded(
    rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Rows of ids as one tensor, padded on the right, and its mask: both (B, longest)."""
    ids = torch.full((len(rows), max(map(len, rows))), pad_token_id)
    mask = torch.zeros_like(ids)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(values)
        mask[row, : len(values)] = 1
    return ids.to(device), mask.to(device)


def encoder_states(model: Any, input_ids: torch.LongTensor, attention_mask: torch.LongTensor) -> torch.Tensor:
    """Last states of the encoder, (B, S, D)."""
    outputs = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
    return outputs.last_hidden_state


@torch.inference_mode()
def _generate(model, sources, limits, prompts, batch, generate_kwargs) -> DecodedBatch:
    pad = _setting(model, generate_kwargs, "pad_token_id") or 0
    input_ids, attention_mask = padded([sources[i] for i in batch], pad, model.device)
    states = encoder_states(model, input_ids, attention_mask)
    decoder_ids = torch.tensor([prompts[i] for i in batch], device=model.device)
    prompt_length = decoder_ids.shape[1]
    lengths = torch.tensor([prompt_length + limits[i] for i in batch], device=model.device)
    generate_kwargs = {name: value for name, value in generate_kwargs.items() if name != "stopping_criteria"} | {
        "stopping_criteria": StoppingCriteriaList(
            [*generate_kwargs.get("stopping_criteria", ()), _RowLimits(lengths)]
        ),
        # One more than any row may reach: a forced end of sentence (mBART, Marian) would hide that a row was cut.
        "max_length": int(lengths.max()) + 1,
        "max_new_tokens": None,
    }
    ids = model.generate(
        input_ids,
        attention_mask=attention_mask,
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        decoder_input_ids=decoder_ids,
        # Where the prompts open with another symbol, `generate` would put the model's own in front of them.
        **(generate_kwargs | {"decoder_start_token_id": prompts[batch[0]][0]}),
    )
    ids = getattr(ids, "sequences", ids)[:, prompt_length:].tolist()
    eos = _setting(model, generate_kwargs, "eos_token_id")
    ends = set(eos) if isinstance(eos, list | tuple) else {eos}
    num_sequences = len(ids) // len(batch)
    hypotheses = [
        [_until_end(ids[row * num_sequences + n], ends, limits[i]) for n in range(num_sequences)]
        for row, i in enumerate(batch)
    ]
    return DecodedBatch(list(batch), hypotheses, states, attention_mask, [prompts[i] for i in batch])


def _until_end(ids: list[int], ends: set[int], limit: int) -> list[int]:
    """Cut after the first end of sentence. What follows is filled with the pad symbol, or by beam search with the end
    of sentence where the pad id is 0."""
    length = next((position + 1 for position, token in enumerate(ids) if token in ends), len(ids))
    return ids[: min(length, limit)]
