"""Sampled translations belong to their sentence: batches, windows and neighbours change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import sentences

from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.sampling import KeyedDraw, keyed_processors, row_numbers
from hf_nmt.generation.translator import TorchTranslator

LINES = sentences(30, seed=8)


def sampled(system, lines, **changes):
    settings = DecodingSettings(do_sample=True, num_beams=1, seed=4, **changes)
    return [[one.text for one in n_best] for n_best in TorchTranslator(*system).translate(lines, settings)]


@pytest.mark.parametrize("num_samples", [1, 3])
def test_neither_batches_nor_neighbours_nor_windows_matter(unsure_system, num_samples):
    expected = sampled(unsure_system, LINES, num_return_sequences=num_samples)
    assert len({text for n_best in expected for text in n_best}) > 20 * num_samples
    for batch_tokens, window_size in ((1, 4096), (60, 4096), (8192, 1), (60, 7)):
        changes = {"batch_tokens": batch_tokens, "window_size": window_size, "num_return_sequences": num_samples}
        assert sampled(unsure_system, LINES, **changes) == expected
    assert sampled(unsure_system, LINES[::-1], num_return_sequences=num_samples) == expected[::-1]
    assert sampled(unsure_system, LINES[5:6], num_return_sequences=num_samples) == expected[5:6]


def test_a_sentence_that_comes_again_is_drawn_anew(unsure_system):
    assert len({text for (text,) in sampled(unsure_system, LINES[:1] * 8, temperature=2.0)}) > 4


def test_tokens_are_drawn_as_often_as_the_model_says():
    scores = torch.log(torch.tensor([0.5, 0.2, 0.0, 0.3]))
    numbers = torch.tensor(np.stack([row_numbers(0, (row,), 0, 1) for row in range(4000)]))
    drawn = KeyedDraw(numbers, 1)(torch.zeros(4000, 1, dtype=torch.long), scores.repeat(4000, 1))
    assert torch.isinf(drawn).sum() == 3 * 4000  # one token is left to each row
    shares = drawn.argmax(dim=1).bincount(minlength=4) / 4000
    assert shares.tolist() == pytest.approx([0.5, 0.2, 0.0, 0.3], abs=0.03) and shares[2] == 0


def test_the_last_and_the_first_token_can_be_drawn():
    scores = torch.log(torch.tensor([[0.25, 0.75, 0.0]])).repeat(3, 1)
    draw = KeyedDraw(torch.tensor([[0.0], [0.25], [1 - 1e-9]], dtype=torch.float64), 1)
    assert draw(torch.zeros(3, 1, dtype=torch.long), scores).argmax(dim=1).tolist() == [0, 1, 1]


def test_a_filter_comes_before_the_draw():
    settings = DecodingSettings(do_sample=True, num_beams=1, top_k=2)
    processors = keyed_processors(settings, [("a", row) for row in range(500)], 3, 1)
    scores = torch.tensor([[1.0, 4.0, 3.0, 2.0]]).repeat(500, 1)
    drawn = processors(torch.zeros(500, 1, dtype=torch.long), scores).argmax(dim=1)
    assert set(drawn.tolist()) == {1, 2}
    # softmax over the two that are left: 1 / (1 + e)
    assert (drawn == 2).float().mean().item() == pytest.approx(0.269, abs=0.06)


def test_a_longer_row_opens_with_the_same_numbers():
    assert np.array_equal(row_numbers(3, ("x",), 1, 4), row_numbers(3, ("x",), 1, 9)[:4])
    assert not np.array_equal(row_numbers(3, ("x",), 1, 4), row_numbers(3, ("x",), 2, 4))
