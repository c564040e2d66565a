"""The share of translations in another language: planted ones are found, short ones are left out."""

from __future__ import annotations

import json
import re

import pytest

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.metrics import (
    ComparisonSettings,
    MetricSettings,
    compare,
    dump_scores,
    load_scores,
    score_corpus,
    score_pairs,
    score_table,
)

pytest.importorskip("py3langid")
GERMAN = ["Ein Hund rennt durch den Schnee.", "Zwei Kinder spielen im Garten.", "Die Katze schläft auf dem Sofa."]
ENGLISH = ["A dog runs through the snow.", "Two children play in the garden.", "The cat sleeps on the sofa."]
SETTINGS = MetricSettings(names=["off_target"], off_target={"candidates": ["de", "en"]}, num_bootstrap_samples=100)


def scored(texts, settings=SETTINGS, target_language="de"):
    return score_corpus(texts, [["x"]] * len(texts), settings, target_language)


@pytest.mark.parametrize("wrong", range(4))
def test_the_planted_share_is_found(wrong):
    score = scored(ENGLISH[:wrong] + GERMAN[wrong:]).scores[0]
    assert (score.name, score.unit, score.n) == ("off-target", "%", 3)
    assert score.value == pytest.approx(100 * wrong / 3)
    assert score.interval[0] <= score.value <= score.interval[1]
    assert score.signature.endswith("|candidates:de.en|least:0.6|bs:100|seed:12345")


def test_texts_too_short_to_tell_are_not_counted(caplog):
    caplog.set_level("INFO", logger="hf_nmt")
    scoring = scored([*GERMAN, "", "12", ENGLISH[0]])
    assert scoring.scores[0].value == 25 and scoring.scores[0].n == 4
    assert scoring.details["off_target"].undecided == 2 and scoring.segments["off_target"] == [
        0,
        0,
        0,
        None,
        None,
        100,
    ]
    assert "off-target: 2 of 6 translations are too short to tell their language." in caplog.text


def test_undecided_is_not_right(tmp_path, caplog):
    """A pair of which no translation is long enough has no rate: not in the mean, in no table, in no comparison."""
    texts = ["1", "", *GERMAN, ENGLISH[0]]
    pairs = {("en", "fr"): [0, 1], ("en", "de"): [2, 3, 4, 5]}
    references = [["x"]] * len(texts)
    found = score_pairs(texts, references, pairs, SETTINGS)
    assert [(score.data.domain, score.value, score.n) for score in found.scores] == [
        (None, 25, 4), ("en-fr", None, 0), ("en-de", 25, 4),
    ]  # fmt: skip
    assert found.scores[0].signature.startswith("mean:1|") and found.scores[1].interval is None
    assert found.segments["off_target"] == [None, None, 0, 0, 0, 100]
    assert re.search(r"en-fr +- +- +0$", score_table(found.scores, confidence=0.95), re.MULTILINE)
    (tmp_path / "scores.json").write_text(json.dumps(dump_scores(found.scores), allow_nan=False))
    assert load_scores(tmp_path / "scores.json") == found.scores
    (nothing,) = score_pairs(["1", ""], references[:2], {("en", "fr"): [0], ("en", "de"): [1]}, SETTINGS).scores[:1]
    assert (nothing.value, nothing.text, nothing.n) == (None, "-", 0)
    settings = ComparisonSettings(names=["off_target"], off_target={"candidates": ["de", "en"]})
    assert compare({"mute": ["1"] * 3, "good": GERMAN}, [["x"]] * 3, settings, "de", baseline="good") == []
    assert "off_target is not compared: the language of no translation of mute could be told." in caplog.text


def test_resamples_without_a_decided_text_do_not_count():
    """One decided text of four: about a third of the resamples lack it, and in all others the rate is 100."""
    score = scored([ENGLISH[0], "1", "2", "3"]).scores[0]
    assert (score.value, score.n, score.interval) == (100, 1, (100, 100))


def test_the_candidates_decide_what_a_translation_can_be_taken_for():
    """Dutch is told as Dutch among all; where it cannot be chosen, it is the nearest of those that can."""
    dutch = ["De kinderen spelen in de tuin met een hond.", "Een man leest de krant in het park."]

    def rate(candidates):
        settings = MetricSettings(names=["off_target"], off_target={"candidates": candidates})
        return scored(dutch, settings, "nl").scores[0]

    everything = rate(None)
    assert (everything.value, everything.n) == (0, 2) and "|candidates:all|" in everything.signature
    assert "|candidates:en.nl|" in rate(["eng_Latn"]).signature, "the target language is always one of them"
    german = MetricSettings(names=["off_target"], off_target={"candidates": ["en"]})
    told_wrong = scored(dutch, german, "de").scores[0]
    assert "|candidates:de.en|" in told_wrong.signature and told_wrong.value < 100, "Dutch is taken for German"
    german = MetricSettings(names=["off_target"], off_target={"candidates": ["en", "nl"]})
    assert scored(dutch, german, "de").scores[0].value == 100


def test_the_order_of_the_scores_is_that_of_the_names_and_codes_are_in_any_spelling():
    settings = MetricSettings(
        names=["off_target", "chrf"], off_target={"candidates": ["deu_Latn", "eng_Latn"]}, num_bootstrap_samples=0
    )
    scores = score_corpus(ENGLISH, [[text] for text in ENGLISH], settings, "de_DE").scores
    assert [(score.name, score.value) for score in scores] == [("off-target", 100), ("chrF2", 100)]


def test_systems_are_compared_by_it():
    settings = ComparisonSettings(
        names=["off_target"], off_target={"candidates": ["de", "en"]}, num_paired_samples=100
    )
    (found,) = compare({"good": GERMAN * 9, "bad": ENGLISH * 9}, [["x"]] * 27, settings, "de", baseline="good")
    assert (found.value, found.baseline_value) == (100, 0) and found.p_value < 0.05


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(
        ConfigError, match="metrics.names: off_target is the share of translations in another language"
    ):
        scored(GERMAN, target_language=None)
    with pytest.raises(ConfigError, match="off_target.candidates: given 'german', which is no code of a language.*de"):
        load(MetricSettings, overrides=["names=[off_target]", "off_target.candidates=[german,en]"])
    with pytest.raises(ConfigError, match="The detector does not know xx"):
        scored(GERMAN, target_language="xx")
    with pytest.raises(ConfigError, match="metrics.off_target.candidates: de alone is the language of every text"):
        scored(GERMAN, MetricSettings(names=["off_target"], off_target={"candidates": ["de"]}))
    with pytest.raises(ConfigError, match="off_target.candidates would change nothing: off_target is not among names"):
        load(MetricSettings, overrides=["off_target.candidates=[de,en]"])
