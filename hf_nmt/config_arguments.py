"""The words of a recipe's command line, sorted by what they ask for."""

from __future__ import annotations

import json
import re
from typing import get_origin

import pydantic

from hf_nmt.config_keys import keys_of, members_of, nearest


class Arguments:
    """The arguments of one call.

    Attributes:
        keys: all keys of the recipe by path.
        config: what `--config` names, or None.
        overrides: the settings, each as `key=value`.
        dry_run, help: whether they were asked for.
        help_words: what `--help` is about.
        findings: what is wrong with the rest.
    """

    def __init__(self, settings_class: type[pydantic.BaseModel], positional: str | None):
        self.keys = {key.path: key for key in keys_of(settings_class)}
        self.positional = positional
        self.config: str | None = None
        self.overrides: list[str] = []
        self.dry_run = self.help = False
        self.help_words: list[str] = []
        self.findings: list[str] = []

    def read(self, waiting: list[str]) -> None:
        bare = []
        while waiting:
            argument = waiting.pop(0)
            name, equals, value = argument.partition("=")
            key = self.spelt(name.lstrip("-"))
            if name in ("--help", "-h") or (argument == "help" and self.positional is None):
                self.help = True
                self.help_words += [value] if value else []
                while waiting and not waiting[0].startswith("-") and "=" not in waiting[0]:
                    self.help_words.append(waiting.pop(0))
            elif argument in ("--dry-run", "--dry_run"):
                self.dry_run = True
            elif name.startswith("--") and key:
                if not equals and (not waiting or re.match(r"-[^\d.]", waiting[0])):
                    self.findings.append(self.no_value(name, key))
                    continue
                value = value if equals else waiting.pop(0)
                if key == "config":
                    self.config = value
                elif key not in self.keys and nearest(key, ["config"], cutoff=0.8):
                    self.findings.append(f"{name}: unknown option. Did you mean --config {value}?")
                else:
                    self.overrides.append(f"{key}={value}")
            elif equals and not name.startswith("-"):
                if name in ("config", "dry_run"):
                    self.findings.append(
                        f"{argument}: type --{name.replace('_', '-')}{' ' + value if key == 'config' else ''}."
                    )
                else:
                    self.overrides.append(argument)
            elif name.startswith("-") and key:
                value = value if equals else waiting.pop(0) if waiting and "=" not in waiting[0] else "VALUE"
                path = self.full(key)
                advice = f"Type {path}={value} or --{path} {value}." if path in self.keys else "--help lists all keys."
                self.findings.append(f"{name}: unknown option. {advice}")
            else:
                bare.append(argument)
        if self.positional and bare:
            members = [*members_of(self.keys[self.positional].field.annotation)]
            is_list = any(get_origin(member) is list for member in members)
            if is_list and (len(bare) > 1 or str not in members):  # it takes them all
                self.overrides.append(f"{self.positional}={json.dumps(bare, ensure_ascii=False)}")
                bare = []
            else:
                self.overrides.append(f"{self.positional}={bare.pop(0)}")
        self.findings += [f"{argument!r}: {self.bare(argument)}" for argument in bare]

    def spelt(self, key: str) -> str:
        """A key with `_` in place of `-`, but for the names that the user chose, such as `de-en`."""
        steps: list[str] = []
        for step in key.split("."):
            chosen = f"{'.'.join(steps)}.<name>."
            steps.append("<name>" if any(path.startswith(chosen) for path in self.keys) else step.replace("-", "_"))
        return ".".join(given if step == "<name>" else step for given, step in zip(key.split("."), steps, strict=True))

    def full(self, key: str) -> str:
        """The path of a known key, or of the nearest one; the key itself where none is near."""
        return (
            next((path for path in self.keys if path.rpartition(".")[2] == key), None)
            or nearest(key, [*self.keys])
            or key
        )

    def no_value(self, name: str, key: str) -> str:
        if key == "config":
            return "--config: a file or a name must follow. Type --config FILE or --config NAME."
        known = self.keys.get(self.full(key))
        if key not in self.keys and (near := nearest(key, ["help", "dry_run", "config"])):
            return f"{name}: unknown option. Type --{near.replace('_', '-')}."
        if known is None:
            return f"{name}: unknown option. Type key=value; --help lists all keys."
        value = "true" if bool in (known.field.annotation,) else "VALUE"
        return f"{name}: a value must follow. Type {known.path}={value} or --{known.path} {value}."

    def bare(self, argument: str) -> str:
        if argument.endswith((".yaml", ".yml")):
            return f"settings are key=value. For a settings file type --config {argument}."
        if near := nearest(argument.replace("-", "_"), ["help", "dry_run"], cutoff=0.8):
            return f"settings are key=value. Type --{near.replace('_', '-')}."
        if self.full(argument) in self.keys:
            return f"settings are key=value. Type {self.full(argument)}=VALUE."
        return "settings are key=value, such as seed=7; --help lists all keys."
