from __future__ import annotations

import pytest

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.metrics import ComparisonSettings, MetricSettings


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("names=[bleu,bleu]", "bleu more than once"),
        ("names=[meteor]", "names"),
        ("names=[]", "names"),
        ("bootstrap_samples=30", "set at least 40, or 0"),
        ("confidence=1", "confidence"),
        ("chrf.word_order=-1", "chrf.word_order"),
        ("bleu.tokenise=13a", "bleu.tokenize"),
    ],
)
def test_refusals(override, text):
    with pytest.raises(ConfigError, match=text):
        load(MetricSettings, None, [override])


def test_refusals_of_a_comparison():
    with pytest.raises(ConfigError, match="paired_samples: given 10, allowed: integer >= 100"):
        load(ComparisonSettings, None, ["paired_samples=10"])
    with pytest.raises(ConfigError, match="paired_samples: unknown key"):
        load(MetricSettings, None, ["paired_samples=200"])


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="would tokenise a second time"):
        load(MetricSettings, None, ["pretokenize=both", "bleu.tokenize=13a"])
    with pytest.raises(ConfigError, match="case_sensitive=true has no effect with lowercase=true"):
        load(MetricSettings, None, ["lowercase=true", "ter.case_sensitive=true"])


def test_the_smallest_number_of_resamples_named_is_accepted():
    for confidence, samples in ((0.95, 40), (0.99, 200), (0.9, 20), (0.5, 4)):
        load(MetricSettings, None, [f"confidence={confidence}", f"bootstrap_samples={samples}"])
        with pytest.raises(ConfigError, match=f"set at least {samples},"):
            load(MetricSettings, None, [f"confidence={confidence}", f"bootstrap_samples={samples - 1}"])
