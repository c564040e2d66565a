"""YAML by the rules of version 1.2, with scalars left as text until the type of their field is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from hf_nmt.errors import ConfigError


class Plain(str):
    """A scalar written without quotes: its type is that of the field it is for."""


NULL = re.compile(r"null|Null|NULL|~|")
_CORE: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    "int": (
        re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
        lambda text: int(text, 0 if text[:2] in ("0o", "0x") else 10),
    ),
    "float": (
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
    ),
}


def core_scalar(text: str) -> Any:
    """The value of a plain scalar by the core schema of YAML 1.2 (section 10.3.2)."""
    if NULL.fullmatch(text):
        return None
    return next((read(text) for pattern, read in _CORE.values() if pattern.fullmatch(text)), str(text))


class _Loader(yaml.SafeLoader):
    """Leaves plain scalars as text and notes keys written twice."""

    def __init__(self, text: str):
        super().__init__(text)
        self.repeated: list[str] = []

    def read_scalar(self, node: yaml.ScalarNode) -> Any:
        if node.style is not None:
            return str(node.value)
        return None if node.value == "" else Plain(node.value)

    def read_mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a single word", key.start_mark)
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                self.repeated.append(
                    f"line {line}: the key {key.value!r} is written twice (first in line {lines[key.value]})"
                )
            lines[key.value] = line
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def read_sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return [self.construct_object(item, deep=True) for item in node.value]


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.read_mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.read_sequence)
for _tag in ("str", "bool", "int", "float", "null", "timestamp", "value"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.read_scalar)


def parse_yaml(text: str, name: str, findings: list[str]) -> Any:
    """Parse YAML; scalars without quotes come back as `Plain`.

    Args:
        text: one YAML document.
        name: of its source, for messages.
        findings: takes a sentence for each key that is written twice.

    Raises:
        ConfigError: the text is not YAML; with `name` and the line.
    """
    loader = None
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{name}{where}: this is not YAML: {problem}") from error
    finally:
        if loader is not None:
            loader.dispose()
    findings += [f"{name}, {problem}. Keep one of them." for problem in loader.repeated]
    return value


def is_null(value: Any) -> bool:
    """Whether a plain scalar stands for no value."""
    return isinstance(value, Plain) and NULL.fullmatch(value) is not None


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as text; a list of scalars stays on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.Node:
        # Without quotes that escape them, PyYAML does not read back its own line separators (NEL, LS, PS).
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_list(self, data: list[Any]) -> yaml.Node:
        short = not any(isinstance(item, dict | list) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=short)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(list, _Dumper.represent_list)
for _name, (_pattern, _) in _CORE.items():
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern.pattern})$"), None)


def write_yaml(value: Any) -> str:
    """YAML of plain values, keys in their own order; `parse_yaml` reads it back, and YAML 1.1 readers do as well."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
