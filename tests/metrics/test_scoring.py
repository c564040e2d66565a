"""Scores against sacreBLEU's own API and command line, published examples and closed forms."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import _bootstrap_resample

from hf_nmt.errors import DataError
from hf_nmt.metrics import BleuSettings, ChrfSettings, MetricSettings, TerSettings, compute_scores, score_corpus
from hf_nmt.metrics.scoring import contributions, interval, resample_scores, transpose_references

NO_INTERVAL = {"num_bootstrap_samples": 0}


def test_equal_to_the_api_with_ragged_references(good, references):
    streams = [[row[0] for row in references], [row[1] if len(row) == 2 else None for row in references]]
    scores = compute_scores(good, references, MetricSettings(num_bootstrap_samples=200), "en")
    for score, metric in zip(scores, (BLEU(), CHRF(), TER()), strict=True):
        expected = metric.corpus_score(good, streams, n_bootstrap=200)
        assert score.value == expected.score
        assert score.name == expected.name
        assert score.signature == str(metric.get_signature())
        assert "nrefs:var" in score.signature
        assert score.n == 40
        low, high = score.interval
        assert low <= score.value <= high
        # sacreBLEU keeps half the width of the same interval, in single precision.
        assert 0.5 * (high - low) == pytest.approx(expected._ci, abs=1e-5)


def test_equal_to_the_command_line_with_intervals(good, references, tmp_path):
    (tmp_path / "reference.txt").write_text("".join(f"{row[0]}\n" for row in references))
    (tmp_path / "good.txt").write_text("".join(f"{line}\n" for line in good))
    command = [sys.executable, "-m", "sacrebleu", "reference.txt", "-i", "good.txt", "-m", "bleu", "chrf", "ter"]
    command += ["--chrf-word-order", "2", "--confidence", "--confidence-n", "300", "-w", "13"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"SACREBLEU_SEED": "7"}, capture_output=True, text=True, check=True
    )
    expected = {entry["name"]: entry for entry in json.loads(done.stdout)}
    settings = MetricSettings(chrf=ChrfSettings(word_order=2), num_bootstrap_samples=300, seed=7)
    scores = compute_scores(good, [row[:1] for row in references], settings, "en")
    assert [score.name for score in scores] == ["BLEU", "chrF2++", "TER"] and len(expected) == 3
    for score in scores:
        entry = expected[score.name]
        assert round(score.value, 13) == entry["score"]
        assert score.signature == entry["signature"]
        assert 0.5 * (score.interval[1] - score.interval[0]) == pytest.approx(entry["confidence_var"], abs=1e-5)


def test_papineni_2002_examples():
    """Clipped unigram precision 2/7 (section 2.1); candidate 1 of the same section: 17/18 and 10/17."""
    settings = MetricSettings(names=["bleu"], lowercase=True, bleu=BleuSettings(tokenize="none"), **NO_INTERVAL)
    clipped = score_corpus(
        ["the the the the the the the"], [["the cat is on the mat", "there is a cat on the mat"]], settings, "en"
    ).details["bleu"]
    assert (clipped.counts[0], clipped.totals[0]) == (2, 7)
    candidate = "It is a guide to action which ensures that the military always obeys the commands of the party"
    references = [
        "It is a guide to action that ensures that the military will forever heed Party commands",
        "It is the guiding principle which guarantees the military forces always being under the command of the Party",
        "It is the practical guide for the army always to heed the directions of the party",
    ]
    found = score_corpus([candidate], [references], settings, "en").details["bleu"]
    assert found.counts[:2] == [17, 10] and found.totals[:2] == [18, 17]
    assert found.ref_len == 18  # the closest reference length, so no brevity penalty
    assert found.bp == 1


def test_snover_2006_example():
    """TER's example: one shift, one insertion, two substitutions over 13 words."""
    reference = "SAUDI ARABIA denied THIS WEEK information published in the AMERICAN new york times"
    hypothesis = "THIS WEEK THE SAUDIS denied information published in the new york times"
    (score,) = compute_scores([hypothesis], [[reference]], MetricSettings(names=["ter"], **NO_INTERVAL), "en")
    assert score.value == pytest.approx(100 * 4 / 13, abs=1e-12)
    assert score.unit == "edits per 100 reference words"


def test_chrf_closed_form():
    """abc against abd: 2 of 3 characters and 1 of 2 bigrams match, precision and recall alike."""
    settings = MetricSettings(names=["chrf"], chrf=ChrfSettings(char_order=2), **NO_INTERVAL)
    (score,) = compute_scores(["abc"], [["abd"]], settings, "en")
    assert score.value == pytest.approx(100 * (2 / 3 + 1 / 2) / 2, abs=1e-12)
    assert score.unit == "points of 100"


def test_bleu_closed_form_with_brevity():
    """Seven of nine words, all in order: every precision is 1, so BLEU is the brevity penalty."""
    settings = MetricSettings(names=["bleu"], **NO_INTERVAL)
    (score,) = compute_scores(["a b c d e f g"], [["a b c d e f g h i"]], settings, "en")
    assert score.value == pytest.approx(100 * math.exp(1 - 9 / 7), abs=1e-10)


def test_perfect_and_hopeless(references):
    perfect = [row[-1] for row in references]
    bleu, chrf, ter = compute_scores(perfect, references, MetricSettings(**NO_INTERVAL), "en")
    assert (round(bleu.value, 9), round(chrf.value, 9), ter.value) == (100, 100, 0)
    bleu, chrf, ter = compute_scores([""] * 40, references, MetricSettings(**NO_INTERVAL), "en")
    assert (bleu.value, chrf.value) == (0, 0)
    # All words of the shortest reference are missing; the length is the mean over the references.
    edits = sum(min(len(reference.split()) for reference in row) for row in references)
    words = sum(sum(len(reference.split()) for reference in row) / len(row) for row in references)
    assert ter.value == pytest.approx(100 * edits / words)


def test_every_reference_can_win():
    settings = MetricSettings(names=["chrf"], **NO_INTERVAL)
    for references in (["the right answer", "some other words"], ["some other words", "the right answer"]):
        (score,) = compute_scores(["the right answer"], [references], settings, "en")
        assert score.value == pytest.approx(100)


def test_segment_scores_equal_sentence_scores(good, references):
    segments = score_corpus(good, references, MetricSettings(**NO_INTERVAL), "en").segments
    for row in range(40):
        expected_bleu = sacrebleu.sentence_bleu(good[row], references[row]).score
        expected_chrf = sacrebleu.sentence_chrf(good[row], references[row]).score
        expected_ter = sacrebleu.sentence_ter(good[row], references[row]).score
        assert segments["bleu"][row] == expected_bleu
        assert segments["chrf"][row] == expected_chrf
        assert segments["ter"][row] == expected_ter


def test_bootstrap_equals_sacrebleu_and_is_deterministic(good, references, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    for metric in (BLEU(), CHRF(), TER()):
        statistics = contributions(metric, good, transpose_references(references))
        _, expected = _bootstrap_resample(statistics, metric, 120)
        assert resample_scores(metric, statistics, 120, 99) == sorted(result.score for result in expected)
    settings = MetricSettings(num_bootstrap_samples=120, seed=99)
    assert compute_scores(good, references, settings, "en") == compute_scores(good, references, settings, "en")
    other = MetricSettings(num_bootstrap_samples=120, seed=100)
    assert compute_scores(good, references, settings, "en") != compute_scores(good, references, other, "en")


def test_interval_holds_the_share_of_the_confidence():
    resamples = [float(value) for value in range(1000)]
    assert interval(resamples, 0.95) == (25, 974)
    assert interval(resamples, 0.9) == (50, 949)
    assert interval(resamples, 0.5) == (250, 749)


def test_settings_change_scores(good, references):
    lowered = [line.lower() if row % 4 == 0 else line for row, line in enumerate(good)]
    plain = {
        score.name: score.value for score in compute_scores(lowered, references, MetricSettings(**NO_INTERVAL), "en")
    }
    assert set(plain) == {"BLEU", "chrF2", "TER"}
    for changed, name in (
        ({"lowercase": True}, "BLEU"),
        ({"lowercase": True}, "chrF2"),
        ({"bleu": BleuSettings(tokenize="char")}, "BLEU"),
        ({"chrf": ChrfSettings(char_order=4)}, "chrF2"),
        ({"ter": TerSettings(normalized=True)}, "TER"),
        ({"ter": TerSettings(case_sensitive=True)}, "TER"),
    ):
        found = {
            score.name: score.value
            for score in compute_scores(lowered, references, MetricSettings(**NO_INTERVAL, **changed), "en")
        }
        assert found[name] != plain[name]


@pytest.mark.parametrize(
    ("predictions", "references", "text"),
    [
        ([], [], "nothing to score"),
        (["a"], [["a"], ["b"]], "1 predictions for 2 segments"),
        (["a", None], [["a"], ["b"]], "Prediction 2 is None"),
        (["a", "b"], [["a"], []], "Segment 2 has no reference"),
        (["a"], ["a"], "must be a list of strings"),
        (["a"], [["a", None]], "must be a list of strings"),
    ],
)
def test_texts_that_do_not_fit_are_refused(predictions, references, text):
    with pytest.raises(DataError, match=text):
        compute_scores(predictions, references, target_language="en")
