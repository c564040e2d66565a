"""The share of translations in another language: planted ones are found, short ones are left out."""

from __future__ import annotations

import pytest

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.metrics import ComparisonSettings, MetricSettings, compare, score_corpus

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
    assert scoring.details["off_target"].undecided == 2 and scoring.segments["off_target"] == [0, 0, 0, 0, 0, 100]
    assert "off-target: 2 of 6 translations are too short to tell their language." in caplog.text
    nothing = scored(["1", ""]).scores[0]
    assert (nothing.value, nothing.n) == (0, 0)


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
    with pytest.raises(ConfigError, match="The detector does not know xx"):
        scored(GERMAN, target_language="xx")
    with pytest.raises(ConfigError, match="metrics.off_target.candidates: de alone is the language of every text"):
        scored(GERMAN, MetricSettings(names=["off_target"], off_target={"candidates": ["de"]}))
    with pytest.raises(ConfigError, match="off_target.candidates would change nothing: off_target is not among names"):
        load(MetricSettings, overrides=["off_target.candidates=[de,en]"])
