"""Typed settings from a YAML file and `key=value` overrides, and the command line of every recipe.

A scalar of the file or of the command line stays text until the type of its field is known: `123` is a string in a
string field and a number in a number field, `2e-4` is a float, and `no` is a language code or a switch as the field
asks. YAML's rules are those of version 1.2: only `true` and `false` are booleans, `012` is twelve, `1:30` is text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pydantic

from hf_nmt.config_arguments import Arguments
from hf_nmt.config_help import Call, help_text
from hf_nmt.config_keys import Check, items_of, keys_of, models_of, nearest, pattern_of, shown, with_origins
from hf_nmt.config_yaml import Plain, is_null, parse_yaml, write_yaml
from hf_nmt.errors import ConfigError
from hf_nmt.launching import interrupts_told as interrupts_told
from hf_nmt.launching import launch as launch

logger = logging.getLogger(__name__)


class Settings(pydantic.BaseModel):
    """Base of all settings. Every field is a `Field(default, description="meaning, unit, why this default")`.

    A subclass may name keys of the past or of other toolkits in `renamed_keys` (old key -> what to write instead);
    whoever uses one is told so. `no_section` is the answer to a value in place of the section, such as model=FOLDER.
    `places` names keys that a run that goes on may have otherwise: those that tell where something lies and not what
    it is, and what it is watched for. `chosen_whole` names keys of a recipe of which those that are typed take the
    place of all that the settings file has under them.
    """

    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants", extra="forbid", protected_namespaces=())
    renamed_keys: ClassVar[dict[str, str]] = {}
    no_section: ClassVar[str] = ""
    places: ClassVar[tuple[str, ...]] = ()
    chosen_whole: ClassVar[tuple[str, ...]] = ()

    def check_files(self) -> list[str]:
        """What is wrong with the files that are named, told without reading them, one finding for each.

        `from_command_line` asks for it once the settings are valid, for `--dry-run` too.
        """
        return []

    def doubts(self) -> list[str]:
        """What is allowed and hardly meant, as far as it shows before anything is read.

        `--dry-run` tells it; a run tells it when it comes to it.
        """
        return []


SettingsT = TypeVar("SettingsT", bound=pydantic.BaseModel)


def _read_file(path: Path, findings: list[str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is not UTF-8 text. Save the settings file as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{path}: the settings file cannot be read: {error.strerror}.") from error
    tree = parse_yaml(text, str(path), findings)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a settings file holds `key: value` lines, this one holds {shown(tree)}.")
    return tree


def _assign(tree: dict[str, Any], override: str) -> str | None:
    """Put one `a.b=value` into the tree; returns what is wrong with it, or None."""
    key, equals, value = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        return f"{override!r} is not a setting. Type key=value, such as seed=7."
    node = tree
    for depth, step in enumerate(steps[:-1]):
        child = node.get(step)
        if child is None or is_null(child):
            child = node[step] = {}
        elif not isinstance(child, dict):
            whole = ".".join(steps[: depth + 1])
            return f"{key}: {whole} was given as a whole ({shown(child)}). Change it as a whole: {whole}=VALUE."
        node = child
    node[steps[-1]] = Plain(value)
    return None


def load(
    settings_class: type[SettingsT], config_file: Path | str | None = None, overrides: Sequence[str] = ()
) -> SettingsT:
    """Settings from a YAML file, changed by `key=value` strings; the last one given holds.

    Args:
        settings_class: what to build; its defaults fill what is not given.
        config_file: YAML file, or None.
        overrides: such as `model.d_model=256`, `data.train.source=[a.de,b.de]`, `decoding=null`.

    Raises:
        ConfigError: with all findings, each opening with the dotted path.
    """
    check = Check(settings_class)
    try:
        return _validated(settings_class, check, _tree(check, config_file, overrides))
    except ConfigError as error:
        if config_file is None:
            raise
        in_file: dict[str, Any] = {}
        with contextlib.suppress(ConfigError):
            in_file = _read_file(Path(config_file), [])
        typed = [override.partition("=")[0].strip() for override in overrides]
        raise ConfigError(with_origins(error.findings, in_file, typed, Path(config_file).name)) from error.__cause__


def _tree(check: Check, config_file: Path | str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """What was given, as it was typed; what cannot be read is added to the findings."""
    tree: dict[str, Any] = {}
    if config_file is not None:
        try:
            tree = _read_file(Path(config_file), check.findings)
        except ConfigError as error:
            check.findings += error.findings
    for name in getattr(check.root, "chosen_whole", ()):
        if any(re.match(rf"\s*{name}\s*[.=]", override) for override in overrides):
            tree.pop(name, None)
    check.findings += [problem for override in overrides if (problem := _assign(tree, override))]
    return tree


def _validated(settings_class: type[SettingsT], check: Check, tree: dict[str, Any]) -> SettingsT:
    resolved = check.section(settings_class, tree, "")
    try:
        settings = settings_class.model_validate(resolved)
    except pydantic.ValidationError as error:
        check.refused(error, resolved)
    if check.findings:
        raise ConfigError(list(dict.fromkeys(check.findings)))
    return settings


def continued(
    settings_class: type[SettingsT],
    recorded: Mapping[str, Any],
    config_file: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> SettingsT:
    """Settings of a run that goes on: those it was started with. They may be given again, but not changed.

    Only `places`, such as the path of a file, may be others now; whoever reads them compares the content.

    Args:
        settings_class: has a key `resume`, the one that may be new.
        recorded: what `model_dump(mode="json")` gave when the run was started.
        config_file, overrides: as for `load`, but without what the user did not ask for.

    Raises:
        ConfigError: the recorded settings are not valid in this version, or something else was given now.
    """
    try:
        before = _validated(settings_class, Check(settings_class), dict(recorded)).model_dump(mode="json")
    except ConfigError as error:
        raise ConfigError(
            ["resume: the run was started with another version of hf_nmt; continue it with that one, or start anew."]
            + [f"recorded {finding}" for finding in error.findings]
        ) from error
    places = [pattern_of(key.path) for key in keys_of(settings_class) if key.name in getattr(key.owner, "places", ())]
    check = Check(settings_class)
    tree = _over(settings_class, before, _tree(check, config_file, overrides))
    now = check.section(settings_class, tree, "")
    unknown, refused = list(check.findings), []
    try:
        settings = _validated(settings_class, check, tree)
        now = settings.model_dump(mode="json")
    except ConfigError as error:
        # One changed value may contradict others of the run; that it is changed is the better answer.
        refused = error.findings
    findings = [
        f"{path}: given {shown(new)}, but the run to be continued has {shown(old)}; it keeps its settings. "
        "Leave it out, or leave resume out for a new run."
        for path, old, new in differences(before, now)
        if path != "resume" and not any(place.fullmatch(path) for place in places) and not _spelt_otherwise(old, new)
    ]
    if findings or refused:
        raise ConfigError([*dict.fromkeys(unknown), *findings] if findings else refused)
    return settings


def _spelt_otherwise(before: Any, now: Any) -> bool:
    """Whether two values are the same: a list of one and its entry, two ways to write a path."""
    before, now = (value[0] if isinstance(value, list) and len(value) == 1 else value for value in (before, now))
    return before == now or (
        isinstance(before, str) and isinstance(now, str) and os.path.abspath(before) == os.path.abspath(now)
    )


def _over(model: type[pydantic.BaseModel], below: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The tree `below` with what is given, section by section."""
    tree = dict(below)
    for name, value in given.items():
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        sections, named = models_of(annotation), models_of(items_of(annotation, dict))
        inner = below.get(name)
        if len(sections) == 1 and isinstance(value, dict) and isinstance(inner, Mapping):
            tree[name] = _over(sections[0], inner, value)
        elif named and isinstance(value, dict) and isinstance(inner, Mapping):
            both = {
                key: _over(named[0], inner[key], own) for key, own in value.items() if _is_section(own, inner, key)
            }
            tree[name] = dict(inner) | value | both
        else:
            tree[name] = value
    return tree


def _is_section(value: Any, below: Mapping[str, Any], name: str) -> bool:
    return isinstance(value, dict) and isinstance(below.get(name), Mapping)


def differences(before: Any, after: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves in which two trees of plain values differ: (dotted path, before, after)."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found = []
        for key in [*before, *(key for key in after if key not in before)]:
            found += differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if before == after else [(path, before, after)]


def dump(settings: pydantic.BaseModel) -> str:
    """All settings as YAML, defaults included; `load` gives back what was dumped."""
    return write_yaml(settings.model_dump(mode="json"))


def fingerprint(*parts: Any) -> str:
    """16 hex digits of the SHA-256 of the canonical JSON of settings, paths, sets, dataclasses and plain values."""
    text = json.dumps(parts, default=_plain_value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _plain_value(value: Any) -> Any:
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"No canonical form for {type(value).__name__} {value!r}: pass settings or plain values.")


# The command line


def from_command_line(
    settings_class: type[SettingsT],
    argv: Sequence[str],
    *,
    recipe: str,
    doc: str,
    default_config: str | None = None,
    positional: str | None = None,
    recorded: Callable[[Path], Mapping[str, Any]] | None = None,
) -> SettingsT:
    """Settings of a recipe from its command line.

    Takes `--config FILE|NAME`, `key=value`, `--key value`, `--key=value`, `--dry-run` (prints the resolved settings
    and leaves with status 0) and `--help [WORD ...]`. NAME stands for `configs/<recipe>/NAME.yaml` beside the calling
    script.

    Args:
        settings_class: the settings of the recipe.
        argv: arguments without the script's own name.
        recipe: name of the recipe, which is the folder of its settings files.
        doc: the recipe's docstring, shown by `--help`.
        default_config: NAME that is read where `--config` is not given.
        positional: dotted key that takes a bare argument, or None.
        recorded: for a recipe with the key `resume`: the settings that the run in this folder was started with, as
            plain values. They are those of this call then, see `continued`; default_config is not read.

    Raises:
        ConfigError: with all findings.
        SystemExit: after `--help` and `--dry-run`.
    """
    script = Path(sys._getframe(1).f_globals.get("__file__") or sys.argv[0]).resolve()
    folders = [script.parent / "configs" / recipe, script.parent.parent / "recipes" / "configs" / recipe]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    given = Arguments(settings_class, positional)
    given.read(list(argv))
    config_file = None
    try:
        config_file = _config_file(given.config or default_config, folder)
    except ConfigError as error:
        given.findings += error.findings
        if given.help:
            raise
        # What the file would have set is missing now; only what was typed can be judged.
        given.findings += _findings_of_typed(settings_class, given.overrides)
        raise ConfigError(given.findings) from None
    if given.help:
        short = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
        call = Call(short, doc, folder, default_config, positional, config_file)
        running = None
        with contextlib.suppress(ConfigError):  # it lacks what must be given, say
            running = load(settings_class, config_file)
        sys.stdout.write(help_text(settings_class, call, given.help_words, running))
        raise SystemExit(0)
    try:
        resume = _tree(Check(settings_class), config_file, given.overrides).get("resume")
        if recorded is None or not isinstance(resume, str) or is_null(resume):
            settings = load(settings_class, config_file, given.overrides)
        else:
            config_file = config_file if given.config else None
            settings = continued(settings_class, recorded(Path(resume)), config_file, given.overrides)
    except ConfigError as error:
        raise ConfigError(given.findings + error.findings) from None
    if given.findings:
        raise ConfigError(given.findings)
    if given.dry_run:
        sys.stdout.write(dump(settings))
        sys.stdout.flush()
    if isinstance(settings, Settings) and (findings := settings.check_files()):
        raise ConfigError(findings)
    if given.dry_run:
        for doubt in settings.doubts() if isinstance(settings, Settings) else ():
            logger.warning("%s", doubt)
        raise SystemExit(0)
    return settings


def _findings_of_typed(settings_class: type[pydantic.BaseModel], overrides: Sequence[str]) -> list[str]:
    """What is wrong with the values on the command line, as far as each tells it by itself."""
    typed = {override.partition("=")[0].strip() for override in overrides}
    try:
        load(settings_class, None, overrides)
    except ConfigError as error:
        return [finding for finding in error.findings if finding.partition(":")[0] in typed]
    return []


def _config_file(name: str | None, folder: Path) -> Path | None:
    """The file that `--config` means: a path as it stands, else a name in the recipe's folder."""
    if name is None:
        return None
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"--config {name}: there is no such file (looked from {Path.cwd()}).")
    named = folder / f"{name}.yaml"
    if named.is_file():
        return named
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    near = nearest(name, names)
    hint = f" Did you mean {near}?" if near else ""
    raise ConfigError(f"--config {name}: no file of this name. Available: {', '.join(names) or 'none'}.{hint}")
