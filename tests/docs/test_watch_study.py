"""docs/benchmarks/watch: the defaults hold on the numbers of real trainings that it kept."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "docs" / "benchmarks" / "watch"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("watch_study", STUDY / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(study):
    return json.loads(study.RESULTS.read_text(encoding="utf-8"))


def test_updates_of_trainings_that_go_well_are_left_alone_by_default(study, results):
    for name in study.HEALTHY:
        for check in ("loss_spike", "gradient_norm"):
            assert study.found(results[f"healthy: {name}"], check) == [], (name, check)


def test_a_learning_rate_far_too_high_is_found_before_half_of_its_peak(study, results):
    result = results["sick: learning rate 30 times too high"]
    assert 100 < study.found(result, "gradient_norm")[0] < 200


def test_text_of_random_letters_is_found_where_it_begins(study, results):
    name = "random letters"
    began = study.fault_began(results, name)
    clean, spoilt = (dict(results[entry]["curves"]["loss"]) for entry in ("healthy: d 64", f"sick: {name}"))
    assert all(clean[step] == spoilt[step] for step in range(1, began))
    assert study.found(results[f"sick: {name}"], "loss_spike")[0] == began
