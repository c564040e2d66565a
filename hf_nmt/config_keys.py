"""What a tree of settings holds: its keys, their types in words, and why a given tree cannot be used."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import types
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

from hf_nmt.config_yaml import Plain, core_scalar, parse_yaml
from hf_nmt.errors import ConfigError


def members_of(annotation: Any) -> Iterator[Any]:
    """The alternatives of a union, without `Annotated`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members_of(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from members_of(member)
    else:
        yield annotation


def models_of(annotation: Any) -> list[type[pydantic.BaseModel]]:
    return [m for m in members_of(annotation) if isinstance(m, type) and issubclass(m, pydantic.BaseModel)]


def items_of(annotation: Any, container: type) -> Any:
    """The type of the values of the first list (or dict) among the members, else Any."""
    for member in members_of(annotation):
        origin, arguments = get_origin(member), get_args(member)
        if isinstance(origin, type) and arguments and issubclass(origin, dict) == (container is dict):
            return arguments[1] if container is dict else arguments[0]
    return Any


_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", type(None): "null"}
_LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of", "min_length": "length >="}


def type_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in words: `integer >= 1`, `relu | gelu`, `[text, ...]`."""
    if get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        return type_text(annotation, [*inner, *metadata])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        limited = next((member for member in arguments if member is not type(None)), None)
        return " or ".join(dict.fromkeys(type_text(m, metadata if m is limited else ()) for m in arguments))
    elif origin is Literal:
        text = " | ".join(shown(value).strip("'") for value in arguments)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        text = " | ".join(str(member.value) for member in annotation)
    elif isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        text = "section"
    elif origin is dict or annotation is dict:
        text = f"{{name: {type_text(arguments[1]) if arguments else 'any value'}}}"
    elif isinstance(origin, type) and arguments:
        text = f"[{type_text(arguments[0])}, ...]"
    else:
        text = _WORDS.get(
            annotation, "any value" if annotation is Any else getattr(annotation, "__name__", "any value")
        )
    limits = [(word, getattr(mark, name, None)) for mark in metadata for name, word in _LIMITS.items()]
    return f"{text} {', '.join(f'{word} {limit}' for word, limit in limits if limit is not None)}".strip()


def shown(value: Any) -> str:
    """A value as one would write it in YAML; long ones are cut."""
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump(mode="json")
    elif isinstance(value, list):
        value = [one.model_dump(mode="json") if isinstance(one, pydantic.BaseModel) else one for one in value]
    elif isinstance(value, str) and not isinstance(value, Enum):
        value = str(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = repr(value if not isinstance(value, Enum | Path) else str(getattr(value, "value", value)))
    return text if len(text) <= 200 else f"{text[:200]}..."


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a settings tree: its dotted path, its field, the class that holds it and its default."""

    path: str
    field: FieldInfo
    owner: type[pydantic.BaseModel]
    default: Any

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def default_of(field: FieldInfo) -> Any:
    return (
        field.default
        if field.default_factory is None
        else field.get_default(call_default_factory=True, validated_data={})
    )


def keys_of(
    settings_class: type[pydantic.BaseModel], prefix: str = "", defaults: Any = None, depth: int = 0
) -> Iterator[Key]:
    """All keys, sections before what they hold; `[]` and `<name>` stand for items of lists and dicts of sections."""
    for name, field in settings_class.model_fields.items():
        default = getattr(defaults, name) if isinstance(defaults, settings_class) else default_of(field)
        yield Key(prefix + name, field, settings_class, default)
        if depth > 8:  # a section that holds itself
            continue
        for model in models_of(field.annotation):
            yield from keys_of(model, f"{prefix}{name}.", default, depth + 1)
        for container, mark in ((list, "[]"), (dict, ".<name>")):
            for model in models_of(items_of(field.annotation, container)):
                yield from keys_of(model, f"{prefix}{name}{mark}.", None, depth + 1)


def pattern_of(path: str) -> re.Pattern[str]:
    """What the paths of one key look like where it is that of an item of a list or a dict."""
    return re.compile(re.escape(path).replace(r"\[\]", r"\[\d+\]").replace("<name>", "[^.]+"))


# Words of which a message does not list all.
_MANY = 16


def _listed(words: Sequence[str]) -> str:
    """The first three, as a choice."""
    return " or ".join(words[:3])


def _nearest_few(word: str, words: Sequence[str]) -> list[str]:
    """Those that open as a word does, the longer the better, of like ones the shortest; then those spelt nearly so."""
    alike = {one: len(os.path.commonprefix([one, word])) for one in words}
    opening = sorted((one for one in words if alike[one] >= 3), key=lambda one: (-alike[one], len(one)))
    return list(dict.fromkeys([*opening, *difflib.get_close_matches(word, words)]))


def nearest(word: str, words: Sequence[str], cutoff: float = 0.6) -> str | None:
    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=cutoff)), None)


class Check:
    """Gives the scalars of a tree the types of their fields and collects what cannot be used."""

    def __init__(self, root: type[pydantic.BaseModel]):
        self.root = root
        self.findings: list[str] = []

    def section(
        self, model: type[pydantic.BaseModel], tree: dict[str, Any], path: str, defaults: Any = None
    ) -> dict[str, Any]:
        """Give the values of one section their types.

        Args:
            model: class of the section.
            tree: what was given; scalars without quotes are `Plain`.
            path: dotted path of the section, "" for the root.
            defaults: the section as its holder sets it by default: what it sets holds for the keys not given.
        """
        defaults = defaults if isinstance(defaults, model) else None
        known = {name: getattr(defaults, name) for name in (defaults.model_fields_set if defaults else ())}
        for name, value in tree.items():
            key = f"{path}.{name}" if path else name
            if name in model.model_fields:
                field = model.model_fields[name]
                default = getattr(defaults, name) if defaults else default_of(field)
                known[name] = self.value(field.annotation, value, key, default)
            elif model.model_config.get("extra") == "allow":
                known[name] = self.value(Any, value, key)
            else:
                self.findings.append(f"{key}: {self.unknown(model, name, path)}")
        return known

    def value(self, annotation: Any, value: Any, path: str, default: Any = None) -> Any:
        members = list(members_of(annotation))
        models = models_of(annotation)
        if isinstance(value, Plain):
            value = self.scalar(members, value, path)
        if isinstance(value, bool) and {int, float} & {*members} and not {bool, Any} & {*members}:
            # Pydantic would take it for 1 or 0.
            self.findings.append(f"{path}: given {str(value).lower()}, but a number is needed.")
            return default
        if value is None and models and type(None) not in members:
            value = {}  # a section with nothing under it
        if isinstance(value, dict):
            if len(models) == 1:
                return self.section(models[0], value, path, default)
            item = items_of(annotation, dict)
            return {name: self.value(item, inner, f"{path}.{name}") for name, inner in value.items()}
        if isinstance(value, list):
            item = items_of(annotation, list)
            return [self.value(item, inner, f"{path}[{index}]") for index, inner in enumerate(value)]
        return value

    def scalar(self, members: Sequence[Any], text: Plain, path: str) -> Any:
        literals = [value for member in members if get_origin(member) is Literal for value in get_args(member)]
        plain = [get_origin(member) or member for member in members] + [type(value) for value in literals]
        takes_text = any(isinstance(kind, type) and issubclass(kind, str | Path) for kind in plain)
        quoted = len(text) > 1 and text[0] in "\"'" and text[0] == text[-1]
        takes_more = Any in plain or any(
            isinstance(kind, type) and not issubclass(kind, str | Path | int | float | type(None)) for kind in plain
        )
        if quoted or (text[:1] in ("[", "{") and takes_more):
            try:
                return parse_yaml(text, path, self.findings)
            except ConfigError:
                if not takes_text:
                    self.findings.append(f"{path}: {str(text)!r} is not a list like [a, b] nor a dict like {{a: 1}}.")
                    return []
                return str(text)
        if str(text) in literals or (text == "" and takes_text and type(None) not in plain):
            return str(text)
        value = core_scalar(text)
        if value is None or Any in plain or type(value) in plain or not takes_text:
            return value
        return value if isinstance(value, int) and float in plain and not isinstance(value, bool) else str(text)

    def unknown(self, model: type[pydantic.BaseModel], name: str, path: str) -> str:
        """Why a key is refused, and what to write."""
        prefix = f"{path}." if path else ""
        if advice := getattr(model, "renamed_keys", {}).get(name):
            return advice
        if "." in name:
            return "write sections one under another in a file; a dotted key is for the command line."
        keys = list(keys_of(self.root))
        renamed = {key.path.removesuffix(key.name): getattr(key.owner, "renamed_keys", {}) for key in keys}
        if elsewhere := [f"unknown key. {where}{name}: {old[name]}" for where, old in renamed.items() if name in old]:
            return elsewhere[0]
        if same := [key.path for key in keys if key.name == name]:
            return f"unknown key here. It is written {_listed(same)}."
        if near := nearest(name, list(model.model_fields)):
            return f"unknown key. Did you mean {prefix}{near}?"
        if same := [key for key in model.model_fields if name in key.split("_") or key.startswith(name)]:
            return f"unknown key. Did you mean {_listed([prefix + key for key in same])}?"
        if near := nearest(name, [key.name for key in keys], cutoff=0.75):
            return f"unknown key. Did you mean {next(key.path for key in keys if key.name == near)}?"
        if same := [key.path for key in keys if name in key.name.split("_")]:
            return f"unknown key. Did you mean {_listed(same)}?"
        return f"unknown key. Allowed {'in ' + path if path else 'here'}: {', '.join(sorted(model.model_fields))}."

    def refused(self, error: pydantic.ValidationError, tree: dict[str, Any]) -> None:
        """Add what pydantic found; the alternatives of a union make one finding."""
        fields = [(pattern_of(key.path), key.field) for key in keys_of(self.root)]
        places: dict[str, list[Any]] = {}
        for problem in error.errors(include_url=False):
            path = ""
            node: Any = tree
            for step in problem["loc"]:
                if isinstance(node, dict) and (
                    step in node or problem["type"] == "missing" and step == problem["loc"][-1]
                ):
                    path, node = f"{path}.{step}" if path else str(step), node.get(step)
                elif isinstance(node, list) and isinstance(step, int) and step < len(node):
                    path, node = f"{path}[{step}]", node[step]
            places.setdefault(path, []).append(problem)
        for path, problems in places.items():
            field = next((field for pattern, field in fields if pattern.fullmatch(path)), None)
            self.findings += _refusal(path, problems, field)


def with_origins(findings: Sequence[str], in_file: dict[str, Any], typed: Sequence[str], name: str) -> list[str]:
    """Findings in which something that was typed does not fit what the settings file holds say so.

    Args:
        findings: each opens with the dotted path of a key.
        in_file: the tree of the settings file.
        typed: dotted paths of what the command line sets.
        name: of the file.
    """
    held = {path: value for path, value in _leaves(in_file) if path not in typed}
    told = []
    for finding in findings:
        section = finding.partition(":")[0].rpartition(".")[0]
        words = dict.fromkeys(re.findall(r"[a-z]\w*(?:\.\w[\w-]*)*", finding))
        # A word alone may be one of the sentence; in a section it is taken for the name of a neighbour.
        paths = [word if "." in word else f"{section}.{word}" for word in words if "." in word or section]
        origins = [f"{path}={held[path]}" for path in dict.fromkeys(paths) if path in held]
        # What is said of an unknown key names others that have nothing to do with it.
        fits = origins and any(path in typed for path in paths) and ": unknown key" not in finding
        listed = f"{' and '.join(origins)} comes" if len(origins) < 4 else f"{len(origins)} of these keys come"
        told.append(f"{finding} ({listed} from {name}.)" if fits else finding)
    return told


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# Problems that "allowed: integer >= 1" explains in full.
_SAID_BY_TYPE = ("_type", "_parsing", "_than", "_equal", "multiple_of", "literal_error", "enum", "int_from_float")


def findings_of(error: pydantic.ValidationError, section: str = "") -> list[str]:
    """What pydantic found in values that were given from Python or a record, a sentence each.

    Args:
        section: dotted path of the settings; "" takes the name of their class.
    """
    places: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        places.setdefault(".".join([section or error.title, *map(str, problem["loc"])]), []).append(problem)
    return [finding for path, problems in places.items() for finding in _refusal(path, problems, None)]


_OPENS_WITH_KEY = re.compile(r"[A-Za-z_]\w*(\[\d+\])?(\.[\w-]+(\[\d+\])?)*: ")


def _refusal(path: str, problems: list[Any], field: FieldInfo | None) -> list[str]:
    """What to say about the problems that pydantic found at one place."""
    problem, opening = problems[0], f"{path}: " if path else ""
    context = problem.get("ctx") or {}
    if problem["type"] in ("value_error", "assertion_error"):
        error = context["error"]
        # A section opens what it finds in itself with the name of its key, `eval_steps: ...`.
        section = isinstance(problem["input"], dict | pydantic.BaseModel) and path
        return [
            f"{path}.{finding}" if section and _OPENS_WITH_KEY.match(finding) else f"{opening}{finding}"
            for finding in (error.findings if isinstance(error, ConfigError) else [str(error)])
        ]
    if problem["type"] == "missing":
        meaning = f" ({field.description.rstrip('.')})" if field and field.description else ""
        return [f"{path}: required and not given{meaning}. Write it in the settings file or type {path}=VALUE."]
    given = problem["input"]
    models = models_of(field.annotation) if field else []
    if models and not isinstance(given, dict):
        if advice := getattr(models[0], "no_section", ""):
            return [f"{path}: given {shown(given)}, but this is a section. {advice}"]
        example = f"{path}.{next(iter(models[0].model_fields), 'key')}"
        return [f"{path}: given {shown(given)}, but this is a section. Set its keys, such as {example}=VALUE."]
    allowed = type_text(field.annotation, field.metadata) if field else str(context.get("expected", ""))
    words = re.split(r" \| | or ", allowed)
    if field and len(words) > _MANY:
        few = _nearest_few(str(given), words)
        hint = f" Did you mean {_listed(few)}?" if few else ""
        return [f"{opening}given {shown(given)}.{hint} Allowed are {len(words)} words; --help {path} lists them."]
    text = f"{opening}given {shown(given)}" + (f", allowed: {allowed}." if allowed else f": {problem['msg']}.")
    if allowed and len(problems) == 1 and not problem["type"].endswith(_SAID_BY_TYPE):
        text += f" {problem['msg']}."
    if allowed and isinstance(given, str) and (near := nearest(given, words)):
        text += f" Did you mean {near}?"
    if problem["type"] in ("list_type", "tuple_type", "set_type"):
        text += " Write a list as [a, b]."
    return [f"{text} For no value write null." if given == "None" else text]
