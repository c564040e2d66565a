"""Every key of every recipe does something: changed alone, it changes what a run does or leaves behind.

The keys come from the settings classes, so a new key fails here until settings_walk/cases.py says how it shows, and a
key that shows nowhere fails for good. Arguments that are passed through to the Trainer are its own business.
"""

from __future__ import annotations

import dataclasses
import functools

import pytest
from pydantic import Field
from settings_walk.cases import CASES
from settings_walk.keys import OF_THE_TRAINER, RECIPES, Case, Recipe, fault, leaf_keys, recipe_module, settings_of
from settings_walk.observing import Workplace

from hf_nmt.config import Settings

KEYS = [(recipe, key) for recipe in RECIPES for key in leaf_keys(settings_of(recipe))]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("every_setting"))


@pytest.fixture(scope="session")
def recipes(workplace) -> dict[str, Recipe]:
    return {
        name: Recipe(
            settings_of(name), workplace.inputs / f"{name}.yaml", getattr(workplace, name, None), CASES.get(name, {})
        )
        for name in RECIPES
    }


@pytest.fixture(scope="session")
def baseline(recipes):
    """(recipe, context, stage) -> what is seen before a change, which must be the same twice."""

    @functools.cache
    def see(name: str, context: tuple[str, ...], stage: str):
        seen, again = (recipes[name].observe(context, stage) for _ in range(2))
        different = sorted(key for key in {*seen, *again} if seen.get(key) != again.get(key))
        assert not different, f"{name} {' '.join(context)}: two runs differ in {', '.join(different)}"
        return seen

    return see


def test_there_are_keys_to_walk():
    assert {"train", "validate", "translate"} <= set(RECIPES)
    assert len(KEYS) > 150
    assert ("train", "training.num_average_checkpoints") in KEYS and ("train", "training.learning_rate") not in KEYS
    assert ("train", "data.validation.source") in KEYS and ("translate", "decoding.num_beams") in KEYS
    assert len(OF_THE_TRAINER) > 80


def test_every_case_is_of_a_key():
    assert sorted((recipe, key) for recipe, cases in CASES.items() for key in cases if (recipe, key) not in KEYS) == []


@pytest.mark.parametrize(("recipe", "key"), KEYS, ids=[f"{recipe}-{key}" for recipe, key in KEYS])
def test_key_changes_something(recipe, key, recipes, baseline):
    found = fault(recipes[recipe], key, functools.partial(baseline, recipe))
    assert found is None, found


def test_a_key_that_does_nothing_is_found(recipes, monkeypatch):
    translate = recipes["translate"]

    class WithIdleKey(translate.settings):
        politeness: int = Field(3, description="Does nothing.")
        size: int = Field(1, description="Has no case.")

    monkeypatch.setattr(recipe_module("translate"), "TranslateRecipe", WithIdleKey)
    planted = dataclasses.replace(
        translate,
        settings=WithIdleKey,
        cases={
            "politeness": Case("4", "stdout"),
            "output_format": Case("jsonl", "stdout"),
            "overwrite": Case("false", "stdout"),
            "device": Case("nowhere", "stdout"),
        },
    )
    assert list(leaf_keys(WithIdleKey))[-2:] == ["politeness", "size"]
    found = {
        key: fault(planted, key, planted.observe) for key in ("output_format", "politeness", "size", *planted.cases)
    }
    assert found["output_format"] is None
    assert found["politeness"] == "politeness: 3 and 4 make no difference to stdout."
    assert found["size"].startswith("size: no case. Add one for it in tests/settings_walk: ")
    assert found["overwrite"].startswith("overwrite: its case changes nothing, as it is False in both runs.")
    assert found["device"].startswith("device: 'nowhere' is refused, so nothing is shown: device is 'nowhere'")


def test_the_walk_goes_into_every_kind_of_section():
    class Inner(Settings):
        leaf: int = 0

    class Holder(Settings):
        plain: Inner = Inner()
        perhaps: Inner | None = None
        several: list[Inner] = []
        named: dict[str, Inner] = {}
        value: list[int] | None = None

    assert list(leaf_keys(Holder)) == ["plain.leaf", "perhaps.leaf", "several[].leaf", "named.<name>.leaf", "value"]
