from __future__ import annotations

import pytest

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.metrics import ComparisonSettings, MetricSettings, check_metrics


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("names=[bleu,bleu]", "bleu more than once"),
        ("names=[meteor]", "names"),
        ("names=[]", "names"),
        ("num_bootstrap_samples=30", "set at least 40, or 0"),
        ("confidence=1", "confidence"),
        ("chrf.word_order=-1", "chrf.word_order"),
        ("bleu.tokenise=13a", "bleu.tokenize"),
        ("bootstrap_samples=200", "bootstrap_samples: unknown key.* num_bootstrap_samples"),
    ],
)
def test_refusals(override, text):
    with pytest.raises(ConfigError, match=text):
        load(MetricSettings, None, [override])


def test_refusals_of_a_comparison():
    with pytest.raises(ConfigError, match="num_paired_samples: given 10, allowed: integer >= 100"):
        load(ComparisonSettings, None, ["num_paired_samples=10"])
    with pytest.raises(ConfigError, match="num_paired_samples: unknown key"):
        load(MetricSettings, None, ["num_paired_samples=200"])


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="would tokenise a second time"):
        load(MetricSettings, None, ["pretokenize=both", "bleu.tokenize=13a"])
    with pytest.raises(ConfigError, match="case_sensitive=true has no effect with lowercase=true"):
        load(MetricSettings, None, ["lowercase=true", "ter.case_sensitive=true"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["num_bootstrap_samples=0", "confidence=0.9"],
            "confidence would change nothing with num_bootstrap_samples=0",
        ),
        (["num_bootstrap_samples=0", "seed=1", "confidence=0.9"], "confidence, seed would change nothing with"),
        (["names=[chrf]", "bleu.tokenize=char"], "bleu.tokenize would change nothing: bleu is not among names"),
        (["names=[bleu]", "chrf.word_order=2"], "chrf.word_order would change nothing: chrf is not among names; add"),
        (
            ["names=[bleu]", "ter.normalized=true", "ter.case_sensitive=true"],
            "ter.normalized, ter.case_sensitive would",
        ),
        (["names=[ter]", "lowercase=true"], "lowercase=true has no effect on ter, which ignores case"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(MetricSettings, None, overrides)
    for override in overrides:  # it is the combination, not a value
        load(MetricSettings, None, [override])


def test_the_seed_of_a_comparison_without_intervals_is_read():
    settings = load(ComparisonSettings, None, ["num_bootstrap_samples=0", "seed=1"])
    assert [line.split(":")[0] for line in settings.idle_without_baseline()] == ["metrics.seed"]
    assert load(ComparisonSettings, None, ["seed=1"]).idle_without_baseline() == []
    with pytest.raises(ConfigError, match="confidence would change nothing"):
        load(ComparisonSettings, None, ["num_bootstrap_samples=0", "confidence=0.9"])


def test_the_tokenizer_of_bleu_serves_ter_only_where_words_are_not_written_apart():
    settings = MetricSettings(names=["ter"], bleu={"tokenize": "char"})
    check_metrics(settings, "th")
    with pytest.raises(ConfigError, match="metrics.bleu.tokenize=char would change nothing: bleu is not among"):
        check_metrics(settings, "en")


def test_the_smallest_number_of_resamples_named_is_accepted():
    for confidence, samples in ((0.95, 40), (0.99, 200), (0.9, 20), (0.5, 4)):
        load(MetricSettings, None, [f"confidence={confidence}", f"num_bootstrap_samples={samples}"])
        with pytest.raises(ConfigError, match=f"set at least {samples},"):
            load(MetricSettings, None, [f"confidence={confidence}", f"num_bootstrap_samples={samples - 1}"])
