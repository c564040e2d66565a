"""Settings of a search: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from hf_nmt.config import dump, load
from hf_nmt.errors import ConfigError
from hf_nmt.tuning.settings import SearchRange, TuningSettings


def test_ranges_are_found_in_sections_and_by_dotted_keys(tmp_path):
    file = tmp_path / "tune.yaml"
    file.write_text(
        "search:\n"
        "  training:\n"
        "    learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
        "  model.dropout: {low: 0.0, high: 0.4}\n"
        "  model:\n"
        "    decoder_layers: {low: 1, high: 6}\n"
        "  model.norm_position: {choices: [pre, post]}\n"
    )
    settings = load(TuningSettings, file)
    assert {key: one.model_dump(exclude_defaults=True) for key, one in settings.ranges().items()} == {
        "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "model.dropout": {"low": 0.0, "high": 0.4},
        "model.decoder_layers": {"low": 1, "high": 6},
        "model.norm_position": {"choices": ["pre", "post"]},
    }
    again = tmp_path / "again.yaml"
    again.write_text(dump(settings))
    assert load(TuningSettings, again) == settings


def test_ranges_that_are_typed_are_all(tmp_path):
    file = tmp_path / "tune.yaml"
    file.write_text("search:\n  training:\n    learning_rate: {low: 1, high: 2}\nsettings: {seed: 3}\n")
    assert [*load(TuningSettings, file, ["seed=1"]).ranges()] == ["training.learning_rate"]
    for given in (["search.model.d_model.low=16", "search.model.d_model.high=64"],
                  ["search={model: {d_model: {low: 16, high: 64}}}"]):  # fmt: skip
        settings = load(TuningSettings, file, given)
        assert [*settings.ranges()] == ["model.d_model"] and settings.settings == {"seed": 3}
    both = ["search.training.learning_rate={low: 1, high: 2}", "search.model.d_model={low: 16, high: 64}"]
    assert [*load(TuningSettings, file, both).ranges()] == ["training.learning_rate", "model.d_model"]


def test_fixed_settings_become_overrides():
    given = ["settings.training.max_steps=5", "settings.data.train.source=[a.de,b.de]", "settings.model.adapter=null"]
    overrides = load(TuningSettings, None, [*given, "settings.data.source_language=no"]).overrides()
    assert overrides == [
        "training.max_steps=5", 'data.train.source=["a.de", "b.de"]', 'data.source_language="no"', "model.adapter=null"
    ]  # fmt: skip


def test_examples_are_the_ends_and_the_choices():
    assert SearchRange(low=1, high=6).examples() == ["1", "6"]
    assert SearchRange(choices=["pre", None, [1, 2]]).examples() == ['"pre"', "null", "[1, 2]"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.a=3"], r"search.a: given 3; write \{low: 1, high: 2\} or \{choices: \[1, 2\]\}"),
        (["search.a={low: x, high: 2}"], "search.a.low: given 'x', but a number is needed"),
        (["search.a={low: true, high: 2}"], "search.a.low: given true, but a number is needed"),
        (["search.a={low: 2}"], "search.a: give low and high, or choices"),
        (["search.a={low: 2, high: 1}"], r"search.a: low \(2\) must be below high \(1\)"),
        (["search.a={low: 0, high: 1, log: true}"], "low must be above 0 and step left out"),
        (["search.a={low: 0, high: 1, step: 0.5}"], "whole numbers are drawn; write low as 0.0"),
        (["search.a={low: 0.0, high: 1.0, step: -1}"], "step is -1; it must be above 0"),
        (["search.a={choices: [1, 2], low: 1}"], "choices stand alone; leave low out"),
        (["search.a={choices: [1, 1]}"], "choices needs two different values or more"),
        (["search.a={low: 1, hihg: 2}"], "hihg"),
        (["search.name={choices: [a, b]}"], "search.name: each trial gets its own"),
        (["settings.output_dir=x"], "settings.output_dir: each trial gets its own"),
        (["settings.a.b=1", "search.a.b={low: 1, high: 2}"], "settings.a.b: it is searched for; leave it out here"),
        (["pruning.method=none", "pruning.startup_trials=2"], "pruning.startup_trials: is for pruning.method=median"),
        (["pruning.halving_factor=2"], "pruning.halving_factor: is for pruning.method=successive_halving"),
        (["sampler=random", "startup_trials=2"], "startup_trials: is for sampler=tpe"),
        (["budget.trials=null"], "nothing ends the study; give trials, updates or cpu_minutes"),
        (["metric=bleurt"], "metric: given 'bleurt', allowed: loss"),
    ],
)
def test_refusals(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(TuningSettings, None, overrides)
