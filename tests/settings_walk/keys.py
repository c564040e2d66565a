"""The keys of a settings class, and whether changing one of them changes anything."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml
from transformers import Seq2SeqTrainingArguments

from hf_nmt.config import load

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
OF_THE_TRAINER = frozenset(field.name for field in dataclasses.fields(Seq2SeqTrainingArguments))


# A name for a section that users name: what the cases call it.
NAME = "de-en"


@dataclasses.dataclass(frozen=True)
class Case:
    """How to show that a key does something.

    Attributes:
        changed: another value, as it is typed on the command line.
        sees: where the difference must show: an entry of the observation, or the beginning of its name.
        context: further arguments of both runs, for a key that matters in combination only.
        beside: further settings of the same item of a list of sections, as in `{a: 1, b: 2}`.
        after: further items of that list, as in `{a: 1}, {a: 2}`.
        stage: how far to run.
        name: what a section is called that users name.
    """

    changed: str
    sees: str
    context: tuple[str, ...] = ()
    stage: str = "all"
    beside: str = ""
    name: str = NAME
    after: str = ""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe under observation.

    Attributes:
        settings: its settings class.
        config: a settings file with tiny settings.
        observe: arguments and stage -> name -> what was seen; the same for the same arguments. It is a method of
            `observing.Workplace`, of the recipe's name.
        cases: dotted key -> case.
    """

    settings: type[pydantic.BaseModel]
    config: Path
    observe: Callable[[tuple[str, ...], str], Mapping[str, Any]]
    cases: Mapping[str, Case]

    def value(self, arguments: tuple[str, ...], key: str) -> Any:
        """What the arguments make of a key; None also where its section is null."""
        found: Any = load(self.settings, settings_file(self.config, arguments), arguments)
        for step in key.replace("[]", ".0").split("."):
            found = found[int(step)] if isinstance(found, list) else found
            found = (
                found if step == "0" else found.get(step) if isinstance(found, dict) else getattr(found, step, None)
            )
        return found


def settings_file(config: Path, arguments: tuple[str, ...]) -> Path:
    """The settings file that goes with the arguments: one without a shape where they name a saved model."""
    names_model = any(argument.startswith("model.pretrained=") for argument in arguments)
    return config.with_name(f"{config.stem}_saved.yaml") if names_model else config


def settings_of(recipe: str) -> type[pydantic.BaseModel]:
    return recipe_module(recipe).SETTINGS


def recipe_module(recipe: str) -> types.ModuleType:
    """The script itself, loaded once by its path."""
    name = f"_walked_{recipe}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "recipes" / f"{recipe}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # annotations written as strings are looked up there
        spec.loader.exec_module(module)
    return sys.modules[name]


def sections_in(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """The settings classes inside a type: itself, members of a union, items of a list or dict."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from sections_in(inner)


def leaf_keys(settings: type[pydantic.BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys that hold values and not sections, without those of the Trainer; `<name>` stands for the names
    that a user gives to sections, `[]` for the place of a section in a list.

    The Trainer's are recognised by their name in a section that takes them over; our own keys there are walked.
    """
    names = set(settings.model_fields)
    trainer = OF_THE_TRAINER if len(OF_THE_TRAINER & names) > len(OF_THE_TRAINER) / 4 else frozenset()
    for name, field in settings.model_fields.items():
        sections = list(sections_in(field.annotation))
        marks = {dict: ".<name>", list: "[]"}
        named = marks.get(typing.get_origin(field.annotation), "") if sections else ""
        for section in sections:
            yield from leaf_keys(section, f"{prefix}{name}{named}.")
        if not sections and name not in trainer:
            yield prefix + name


def _list(kind: str | None, case: Case, changed: dict[str, Any]) -> str:
    """A list of sections as it is typed, the first with what stands beside the key and what is changed."""
    first, *others = yaml.safe_load(f"[{{{case.beside}}}, {case.after}]")
    items = [*([{kind: first | changed}] if kind else [first | changed]), *others]
    return yaml.safe_dump(items, default_flow_style=True, width=math.inf).strip()


def fault(recipe: Recipe, key: str, baseline: Callable[[tuple[str, ...], str], Mapping[str, Any]]) -> str | None:
    """What is wrong with a key: None, or that it has no case, that its case is none, or that it changes nothing.

    Args:
        baseline: as `recipe.observe`, and may remember.
    """
    case = recipe.cases.get(key)
    key = key.replace("<name>", case.name if case else NAME)
    if case is None:
        return (
            f"{key}: no case. Add one for it in tests/settings_walk: a changed value, where the difference shows, and "
            "what else must be set for it to matter."
        )
    context, changed = case.context, (*case.context, f"{key}={case.changed}")
    if "[]" in key:  # a list is given as a whole
        items, kind, name = re.fullmatch(r"(.+)\[\]\.(?:(\w+)\.)?(.+)", key).groups()
        context = (*case.context, f"{items}={_list(kind, case, {})}")
        changed = (*case.context, f"{items}={_list(kind, case, yaml.safe_load(f'{{{name}: {case.changed}}}'))}")
    before, after = recipe.value(context, key), recipe.value(changed, key)
    if before == after:
        return f"{key}: its case changes nothing, as it is {before!r} in both runs. Choose another value."
    seen, now = baseline(context, case.stage), recipe.observe(changed, case.stage)
    different = sorted(name for name in {*seen, *now} if seen.get(name) != now.get(name))
    if "refusal" in now and case.sees != "refusal":
        return f"{key}: {after!r} is refused, so nothing is shown: {now['refusal']}"
    if any(name.startswith(case.sees) for name in different):
        return None
    told = f" It changed: {', '.join(different)}." if different else ""
    return f"{key}: {before!r} and {after!r} make no difference to {case.sees}.{told}"
