"""docs/guide/moving.md: its tables name keys that exist, and who types a foreign name is told the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from settings_walk.keys import RECIPES, settings_of

from hf_nmt.config import load
from hf_nmt.config_keys import keys_of
from hf_nmt.errors import ConfigError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.training.familiar_names import FAMILIAR_NAMES
from hf_nmt.training.run_translation import ARGUMENTS, known_arguments

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "moving.md"
OF_OTHERS = ("JoeyNMT", "OpenNMT-py and Eole", "fairseq")


def rows(section: str) -> list[tuple[list[str], list[str]]]:
    """(their names, our keys) of the rows of a table; keys are empty where it says none."""
    text = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)[1]
    found = []
    for line in text.splitlines():
        if line.startswith("| `"):
            theirs, ours, _ = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:4]]
            names = [
                re.split(r"[: ]", name)[0].lstrip("-").replace("-", "_") for name in re.findall(r"`([^`]+)`", theirs)
            ]
            found.append((names, re.findall(r"`([^`]+)`", ours)))
            assert found[-1][1] or ours == "none", line
    return found


TABLES = {section: rows(section) for section in ("run_translation.py", *OF_OTHERS)}
KEYS = {key.path for recipe in RECIPES for key in keys_of(settings_of(recipe))}


def test_the_page_has_its_tables():
    assert {section: len(table) > 20 for section, table in TABLES.items()} == dict.fromkeys(TABLES, True)
    assert len(KEYS) > 150


@pytest.mark.parametrize("section", TABLES)
def test_every_key_of_ours_exists(section):
    named = {key for _, keys in TABLES[section] for key in keys}
    assert len(named) > 20
    assert named - KEYS == set()


def test_every_argument_of_run_translation_is_known_and_lands_where_the_page_says():
    known = known_arguments()
    names = [name for names, _ in TABLES["run_translation.py"] for name in names]
    assert len(names) > 40
    assert [name for name in names if name not in known] == []
    for names, keys in TABLES["run_translation.py"]:
        for name in names:
            entry = known[name]
            if isinstance(entry, str) and not entry.startswith("training."):
                assert entry in keys, name
            assert keys or not isinstance(entry, str), name
    told = PAGE.read_text(encoding="utf-8")
    plain = [name for name, entry in ARGUMENTS.items() if isinstance(entry, str)]
    assert [name for name in plain if f"`{name}`" not in told and not name.endswith("_kwargs")] == []


def answer(name: str) -> str:
    """What the recipe says to a name."""
    with pytest.raises(ConfigError) as error:
        load(settings_of("train"), overrides=[f"{name}=1"])
    return str(error.value)


@pytest.mark.parametrize("section", OF_OTHERS)
def test_a_foreign_name_is_answered_with_a_key_of_its_row(section):
    checked = 0
    for names, keys in TABLES[section]:
        for name in names:
            last = name.rpartition(".")[2]
            if not keys or last in {path.rpartition(".")[2] for path in KEYS} or name.startswith("scripts/"):
                continue
            if name.startswith(("data.", "testing.load")) or last in ("load_model", "path", "test", "criterion"):
                continue  # `data.src.lang`: a section of ours, whose own keys are listed
            told = answer(last)
            assert any(key in told for key in keys), f"{name}: {told}"
            checked += 1
    assert checked > 15


def test_answers_name_keys_that_exist_and_no_name_is_a_key():
    names = FAMILIAR_NAMES | DecodingSettings.renamed_keys
    assert len(names) > 120
    last = {path.rpartition(".")[2] for path in KEYS}
    own_too = {
        "early_stopping",
        "updates",
        "patience",
        "warmup_updates",
        "max_tokens",
        "max_length",
    }  # at the top level they are other toolkits' all the same
    assert [name for name in names if name in last - own_too] == []
    for name, told in names.items():
        keys = re.findall(
            r"\b(?:training|schedule|objective|model|batching|decoding|data|tokenizer|metrics)\.[a-z_0-9.]*[a-z_0-9]",
            told,
        )
        assert [key for key in keys if key not in KEYS] == [], name
        assert keys or re.search(r"write (seed|output_dir)", told), name
        assert told.endswith("."), name
