"""Language models over a corpus: garbled texts, and texts of another domain."""

from __future__ import annotations

import math
import random

import numpy as np
import pyarrow as pa
import pytest
from steps_run import fates, run, step_of, table_of

from hf_nmt.cleaning.alignment_model import priorities_of, sentences_of, words_of
from hf_nmt.cleaning.ngram_model import NgramModel, vocabulary
from hf_nmt.errors import DataError

NEWS = "the president said that the new law of the state will be read in the house on {day} after the vote of {day}"
NEWS = NEWS.split()
TALK = "well you know what i mean {day} was just so good when we all went to see my mother on {day} oh yes".split()
DAYS = ["monday", "tuesday", "friday"]


def sentences(words: list[str], count: int, seed: int) -> list[str]:
    """Pieces of a text, in its order, of 6 to 12 words."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        start, length = chance.randrange(len(words) - 6), chance.randint(6, 12)
        found.append(" ".join(words[start : start + length]).format(day=chance.choice(DAYS)))
    return found


def model_of(lines: list[str], order: int) -> NgramModel:
    given = sentences_of(words_of(pa.array(lines), endings=True))
    return NgramModel.trained(given, vocabulary(given), order)


@pytest.fixture
def news(tmp_path):
    (tmp_path / "news.txt").write_text("\n".join(sentences(NEWS, 300, 1)) + "\n")
    return tmp_path / "news.txt"


def garbled(text: str, seed: int) -> str:
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def test_perplexity_of_given_text(news):
    good = sentences(NEWS, 20, 2)
    bad = [garbled(text, n) for n, text in enumerate(good)] + ["xq zt vv kk"]
    step = step_of("perplexity", text=str(news), side="source", max_perplexity=40)
    found = fates(step, [(text, "x") for text in good + bad])
    assert found[:20] == [None] * 20 and found[20:].count("source_perplexity") >= 18
    _, gone = run(step, [table_of([(text, "x") for text in bad])])
    model = model_of(sentences(NEWS, 300, 1), 3)
    for row in gone:
        expected = model.cross_entropies(sentences_of(words_of(pa.array([row["source"]]), endings=True)))[0]
        assert float(row["detail"]) == pytest.approx(math.exp(expected), rel=1e-3)
    first = step_of("perplexity", text=str(news), side="source", max_perplexity=1.01, sample_sentences=40)
    _, gone = run(first, [table_of([(good[0], "x")])])
    found = model_of(sentences(NEWS, 300, 1)[:40], 3).cross_entropies(
        sentences_of(words_of(pa.array(good[:1]), endings=True))
    )
    assert float(gone[0]["detail"]) == pytest.approx(math.exp(found[0]), rel=1e-3)


def test_perplexity_of_the_corpus_itself_in_any_order():
    good, strange = sentences(NEWS, 300, 3), [garbled(text, n) for n, text in enumerate(sentences(NEWS, 6, 4))]
    pairs = [("x", text) for text in good + strange]
    table = table_of(pairs)
    step = step_of("perplexity", keep=0.98)
    found = []
    for seed, size in ((0, 400), (1, 400), (2, 90)):
        mixed = table.take(random.Random(seed).sample(range(len(table)), len(table)))
        _, gone = run(step, [mixed.slice(n, size) for n in range(0, len(mixed), size)])
        found.append(sorted((row["id"], row["detail"]) for row in gone))
    assert found[0] == found[1] == found[2]
    gone = {int(row, 16) for row, _ in found[0]}
    assert 4 <= len(gone) <= 6 and len(gone & set(range(300, 306))) >= 4


def test_what_a_text_taught_does_not_count_for_it():
    # A sentence that stands once is as strange as it is, though the corpus holds it.
    pairs = [("x", text) for text in sentences(NEWS, 300, 3)] + [("x", "colourless green ideas sleep furiously")]
    assert fates(step_of("perplexity", keep=0.995), pairs)[-1] == "target_perplexity"


def test_difference_tells_the_domain(news):
    pairs = [
        (text, "x") for part in zip(sentences(NEWS, 100, 5), sentences(TALK, 100, 6), strict=True) for text in part
    ]
    step = step_of("cross_entropy_difference", in_domain=str(news), side="source")
    found = fates(step, pairs)
    assert found[::2].count(None) >= 80 and found[1::2].count("source_out_of_domain") >= 97
    half = fates(
        step_of("cross_entropy_difference", in_domain=str(news), side="source", max_difference=None, keep=0.25), pairs
    )
    assert half.count(None) >= 50 and half[1::2].count(None) == 0
    # The limit of 0 is a default that does not hold beside a share.
    most = fates(step_of("cross_entropy_difference", in_domain=str(news), side="source", keep=0.95), pairs)
    assert most.count(None) >= 190


def test_a_text_that_is_not_there_is_told():
    with pytest.raises(DataError, match="nowhere.txt: there is no such file or folder; the step step needs it"):
        fates(step_of("perplexity", text="nowhere.txt", keep=0.5), [("x", "y")])


def test_difference_is_that_of_both_models(news):
    pairs = [(text, "x") for text in sentences(NEWS, 30, 5) + sentences(TALK, 30, 6)]
    step = step_of("cross_entropy_difference", in_domain=str(news), side="source", max_difference=-1e9, order=2)
    _, gone = run(step, [table_of(pairs)])
    domain = model_of(sentences(NEWS, 300, 1), 2)
    table = table_of(pairs)
    folds = priorities_of(table) % 3
    texts = sentences_of(words_of(table["source"], endings=True))
    for row in gone:
        place = int(row["id"], 16)
        others = NgramModel.trained(texts.take(np.flatnonzero(folds != folds[place])), domain.words, 2)
        this = texts.take(np.array([place]))
        expected = domain.cross_entropies(this) - others.cross_entropies(this)
        assert float(row["detail"]) == pytest.approx(expected[0], abs=1e-3)
    assert len(gone) == len(pairs)


def test_texts_without_words_have_no_score_and_stay(news):
    assert fates(step_of("perplexity", text=str(news), max_perplexity=1.01), [("x", ""), ("x", "y")]) == [
        None,
        "target_perplexity",
    ]


def test_each_language_is_its_own(news):
    good, talk = sentences(NEWS, 200, 3), sentences(TALK, 200, 4)
    first, second = table_of([("x", text) for text in good]), table_of([("x", text) for text in talk], ("de", "fr"))
    second = second.set_column(0, second.schema.field("id"), pa.array([f"{n:032x}" for n in range(900, 1100)]))
    alone = [run(step_of("perplexity", max_perplexity=3), [table])[1] for table in (first, second)]
    _, both = run(step_of("perplexity", max_perplexity=3), [first, second])
    assert both and sorted((r["id"], r["detail"]) for r in both) == sorted(
        (r["id"], r["detail"]) for rows in alone for r in rows
    )


def test_settings_that_say_nothing_to_a_model_are_refused():
    with pytest.raises(ValueError, match="order and text: for n-grams, of which model takes the place"):
        step_of("perplexity", model="m", text="t", order=2, keep=0.5)
