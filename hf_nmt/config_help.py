"""What `--help` prints: every key of a recipe with type, meaning and the default that runs."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hf_nmt.config_keys import Key, keys_of, models_of, nearest, pattern_of, shown, type_text
from hf_nmt.errors import ConfigError

WIDTH = 116


@dataclasses.dataclass(frozen=True)
class Call:
    """How a recipe is called.

    Attributes:
        script: as it is typed.
        doc: its docstring.
        configs: the folder of its settings files.
        default_config: name of the settings file that is read where none is given.
        positional: dotted key that takes a bare argument.
        config_file: the settings file of this call.
    """

    script: Path
    doc: str
    configs: Path
    default_config: str | None
    positional: str | None
    config_file: Path | None


def extra(field: FieldInfo) -> dict[str, Any]:
    """What a field says to the help alone, in `json_schema_extra`.

    "in_short": one line in place of type and meaning where all keys are listed, for keys that few need.
    "left_out": of a section, name of a key -> what holds where the key is not given, in words.
    """
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def help_text(
    settings_class: type[pydantic.BaseModel],
    call: Call,
    words: Sequence[str] = (),
    running: pydantic.BaseModel | None = None,
) -> str:
    """The text of `--help`.

    Args:
        settings_class: the settings of the recipe.
        call: the recipe.
        words: sections, or parts of the names of keys, of which alone all is told; empty lists every key.
        running: the settings that this call would run with; None takes the defaults of the class.

    Raises:
        ConfigError: no key has this word in its name.
    """
    listed = _Keys(settings_class, running, call.config_file)
    if words:
        return "\n".join(line for key in listed.found(words) for line in listed.in_full(key)) + "\n"
    lines = [*_opening(call, listed.differ)]
    sections: dict[str, list[Key]] = {}
    for key in listed.keys:
        sections.setdefault(key.path.rpartition(".")[0], []).append(key)
    told: dict[Any, str] = {}
    for section, keys in sections.items():
        heading = f"{section or 'general'}: {listed.meaning_of(section)}".rstrip(": ")
        lines += ["", *textwrap.wrap(heading, WIDTH, subsequent_indent=" " * 4)]
        content = tuple((key.owner, key.name, listed.default(key)) for key in keys)
        if (same := told.setdefault(content, section)) != section:
            paths = ", ".join(key.path for key in keys)
            lines += _wrapped(f"{paths}: each as in {same}, with the same default", indent=2)
            continue
        for key in keys:
            lines += listed.in_full(key) if "in_short" not in extra(key.field) else listed.in_short(key)
    return "\n".join(lines) + "\n"


def _opening(call: Call, differ: bool) -> Iterator[str]:
    names = ", ".join(sorted(path.stem for path in call.configs.glob("*.yaml"))) or "none"
    positional = call.positional
    yield from (textwrap.dedent(call.doc).strip(), "")
    bare = f" [{positional.upper()}]" if positional else ""
    yield from (f"Usage: python {call.script}{bare} [--config FILE|NAME] [key=value ...] [--dry-run]", "")
    if positional:
        yield f"  {positional.upper():<18}  the same as {positional}={positional.rpartition('.')[2].upper()}"
    default = f" (default: {call.default_config})" if call.default_config else ""
    yield from textwrap.wrap(
        f"  --config FILE|NAME  settings file, or one of: {names}{default}", WIDTH, subsequent_indent=" " * 22
    )
    yield "  key=value           change one setting; --key value does the same. A list: [a,b]; no value: null"
    yield "  --dry-run           check and print the resolved settings and stop"
    yield "  --help              print this text; --help WORD: all about a section, or keys with WORD in their names"
    if differ and call.config_file is not None:
        yield from ("", f"The defaults are those of {call.config_file.name} where it sets them, as the key then says.")


class _Keys:
    """All keys that are no sections, with the defaults that run."""

    def __init__(
        self, settings_class: type[pydantic.BaseModel], running: pydantic.BaseModel | None, config_file: Path | None
    ):
        every = list(keys_of(settings_class))
        self.sections = {key.path: key for key in every if models_of(key.field.annotation)}
        self.keys = [key for key in every if key.path not in self.sections]
        self.running = {key.path: key.default for key in keys_of(settings_class, defaults=running)}
        self.file_name = config_file.name if config_file is not None else ""
        self.differ = any(self.running[key.path] != key.default for key in self.keys)

    def meaning_of(self, section: str) -> str:
        key = self.sections.get(section)
        if key is None:
            return ""
        return f"{key.field.description or ''}{' (null unless given)' if self.running[section] is None else ''}"

    def default(self, key: Key) -> str:
        section, _, name = key.path.rpartition(".")
        left_out = extra(self.sections[section].field).get("left_out", {}) if section in self.sections else {}
        if name in left_out and name not in getattr(self.running[section], "model_fields_set", ()):
            return f"default {left_out[name]}"
        value = self.running[key.path]
        if value is PydanticUndefined:
            return "required"
        if value == key.default:
            return f"default {shown(value)}"
        return f"default {shown(value)} ({self.file_name}; without it {shown(key.default)})"

    def in_full(self, key: Key) -> list[str]:
        kind = type_text(key.field.annotation, key.field.metadata)
        meaning = " ".join((key.field.description or "").split())
        return [
            *_wrapped(f"{key.path}: {kind}; {self.default(key)}", indent=2),
            *textwrap.wrap(meaning, 108, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]

    def in_short(self, key: Key) -> list[str]:
        return _wrapped(f"{key.path}: {self.default(key)}. {extra(key.field)['in_short']}", indent=2)

    def found(self, words: Sequence[str]) -> list[Key]:
        """The keys of these sections or with these words in their paths, in their order."""
        chosen: set[str] = set()
        for word in (word.strip("-.").replace("-", "_").lower() for word in words):
            paths = [key.path for key in self.keys]
            matching = [path for path in paths if _is_in(path, word)]
            matching = matching or [path for path in paths if word in path.lower()]
            if not matching:
                names = [*self.sections, *paths, *(path.rpartition(".")[2] for path in paths)]
                near = nearest(word, names)
                hint = f" Did you mean {near}?" if near else ""
                raise ConfigError(f"--help {word}: no section or key has this in its name.{hint}")
            chosen.update(matching)
        return [key for key in self.keys if key.path in chosen]


def _is_in(path: str, section: str) -> bool:
    """Whether a key is this one or in this section, which may name an item or leave out that it is a list."""
    keys, parts = path.split("."), section.split(".")
    return len(parts) <= len(keys) and all(
        pattern_of(key.lower()).fullmatch(part) or key.lower() == f"{part}[]"
        for key, part in zip(keys, parts, strict=False)
    )


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 8), break_on_hyphens=False
    )
