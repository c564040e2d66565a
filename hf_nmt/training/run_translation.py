"""What the arguments of Transformers' example run_translation.py are here.

The script knows three groups, of Transformers 5 and of 4: ModelArguments, DataTrainingArguments and
Seq2SeqTrainingArguments. `ARGUMENTS` tells what becomes of those of the first two, and of those of the third that mean
something else here. The other arguments of the Trainer have their own name in the `training` section, or are refused
there with a reason (`settings.REFUSED`, `settings.RENAMED`), which holds here too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import Seq2SeqTrainingArguments

from hf_nmt.config_keys import nearest, shown
from hf_nmt.errors import ConfigError
from hf_nmt.training.familiar_names import FAMILIAR_NAMES
from hf_nmt.training.settings import REFUSED, RENAMED, TrainingSettings

logger = logging.getLogger(__name__)

OPTION = "--from-run-translation"

Given = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Converted:
    """An argument whose value is another one here.

    Attributes:
        convert: value and all given arguments -> our keys with their values; none where the value asks for nothing.
        why: a remark for the report.
    """

    convert: Callable[[Any, Given], Mapping[str, Any]]
    why: str = ""


@dataclasses.dataclass(frozen=True)
class NoCounterpart:
    """An argument that does nothing here.

    Attributes:
        why: the reason, and what to do instead.
    """

    why: str


@dataclasses.dataclass(frozen=True)
class Mapped:
    """One line of the report: an argument of the script, what it is here, and a remark."""

    argument: str
    settings: Mapping[str, Any]
    why: str

    def __str__(self) -> str:
        ours = ", ".join(f"{key}={_text(value)}" for key, value in self.settings.items()) or "no counterpart"
        return f"{self.argument}: {ours}{f' ({self.why})' if self.why else ''}"


def _validates(given: Given) -> bool:
    return bool(given.get("validation_file") or (given.get("dataset_name") and given.get("do_eval")))


def _corpora(values: Mapping[str, Any], given: Given) -> dict[str, Any]:
    """The same for the corpora that there are."""
    splits = ["train", *(["validation"] if _validates(given) else [])]
    return {f"data.{split}.{name}": value for split in splits for name, value in values.items()}


def _language(side: str) -> Converted:
    def convert(code: Any, given: Given) -> dict[str, Any]:
        # The script looks for the language alone inside `translation`: `en` for en_XX and eng_Latn's `eng`.
        short = str(code).split("_")[0]
        columns = {} if short == code else _corpora({f"{side}_column": f"translation.{short}"}, given)
        return {f"data.{side}_language": code, **columns}

    return Converted(convert)


def _dataset(name: Any, given: Given) -> dict[str, Any]:
    where = {"path": name} if Path(str(name)).exists() else {"path": name, "format": "hub"}
    validation = {"data.validation.split": "validation"} if _validates(given) else {}
    return {**_corpora(where, given), "data.train.split": "train", **validation}


def _batch(pairs: Any, given: Given) -> dict[str, Any]:
    """As many pairs as the script takes, and room for the longest of them."""
    longest = max(
        _number(given.get("max_source_length"), 256), _number(given.get("max_target_length"), LONGEST_TARGET)
    )
    tokens = {"batching.batch_tokens": pairs * longest} if isinstance(pairs, int) else {}
    return {"batching.max_sentences": pairs, **tokens}


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _warmup(value: Any, given: Given) -> dict[str, Any]:
    """Below 1 it is a share of all updates, in the script as well."""
    shared = isinstance(value, int | float) and 0 < value < 1
    return {"schedule.warmup_steps": None if shared else value, "schedule.warmup_share": value if shared else None}


# What Transformers names otherwise; what a schedule does there where its options do not tell.
_SCHEDULES: dict[str, dict[str, Any]] = {
    "constant_with_warmup": {"name": "constant"},
    "cosine_with_min_lr": {"name": "cosine"},
    "cosine_warmup_with_min_lr": {"name": "cosine"},
    "cosine_with_restarts": {"T_0_share": 1, "T_mult": 1, "min_learning_rate": 0},
    "reduce_lr_on_plateau": {"name": "reduce_on_plateau", "gamma": 0.1},
    "warmup_stable_decay": {"decay_type": "cosine"},
    "polynomial": {"power": 1, "min_learning_rate": 1e-7},
}
_SCHEDULE_OPTIONS = {
    "min_lr": "min_learning_rate",
    "lr_end": "min_learning_rate",
    "num_decay_steps": "decay_steps",
    "timescale": "timescale_steps",
    "factor": "gamma",
    "patience": "patience_validations",
    "cooldown": "cooldown_validations",
}


def _schedule(value: Any, given: Given) -> dict[str, Any]:
    settings = {"name": value, **_SCHEDULES.get(value, {})}
    told = {key.partition(".")[2] for key in _schedule_options(given.get("lr_scheduler_kwargs") or {}, given)}
    return {f"schedule.{key}": setting for key, setting in settings.items() if key not in told}


def _schedule_options(value: Any, given: Given) -> dict[str, Any]:
    """Of any schedule; those that have no counterpart keep their name, and are refused by it."""
    options = json.loads(value) if isinstance(value, str) else value
    settings = {}
    for name, option in options.items():
        if name in ("min_lr_rate", "min_lr_ratio"):
            settings["min_learning_rate"] = option * (given.get("learning_rate") or NOT_GIVEN["learning_rate"])
        elif name == "num_cycles" and given.get("lr_scheduler_type") == "cosine_with_restarts":
            settings["T_0_share"] = 1 / option
        elif name != "mode":  # the metric tells it
            settings[_SCHEDULE_OPTIONS.get(name, name)] = option
    return {f"schedule.{name}": option for name, option in settings.items()}


def _is(key: str, convert: Callable[[Any], Any] = lambda value: value, why: str = "") -> Converted:
    return Converted(lambda value, given: {key: convert(value)}, why)


def _where_true(settings: Mapping[str, Any], why: str = "") -> Converted:
    return Converted(lambda value, given: settings if value else {}, why)


def _unless_given(other: str, settings: Callable[[Any], Mapping[str, Any]], why: str) -> Converted:
    """For an argument that `other` takes the place of, where it is given too."""
    return Converted(lambda value, given: {} if given.get(other) is not None else settings(value), why)


# What the script does where an argument is not given, as far as it makes a different training.
LONGEST_TARGET = 128
NOT_GIVEN: dict[str, Any] = {
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "num_train_epochs": 3.0,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "label_smoothing_factor": 0.0,
    "per_device_train_batch_size": 8,
    "max_target_length": LONGEST_TARGET,
}
# Of these, what another argument sets as well.
_SET_BY = {
    "warmup_steps": ("warmup_ratio",),
    "num_train_epochs": ("max_steps",),
    "per_device_train_batch_size": ("per_gpu_train_batch_size",),
}

_TESTS = "training ends with the best model; score a test set with recipes/validate.py model=runs/<id>/best"
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN in the environment"
_CACHE = "texts and token ids are kept in the datasets cache and read again where their content is the same"
_SHAPE = "the shape of a new model is in the `model` section; a trained one brings its own"

# Their values stay out of the log.
SECRETS = {"token", "use_auth_token", "hub_token", "push_to_hub_token"}

ARGUMENTS: dict[str, str | Converted | NoCounterpart] = {
    # ModelArguments
    "model_name_or_path": "model.pretrained",
    "config_name": NoCounterpart(_SHAPE),
    "tokenizer_name": NoCounterpart("a trained model brings its tokenizer, and a new one gets one of `tokenizer`"),
    "cache_dir": NoCounterpart("set HF_HOME in the environment"),
    "use_fast_tokenizer": NoCounterpart("each family has one tokenizer in Transformers 5"),
    "model_revision": "model.revision",
    "token": NoCounterpart(_LOGIN),
    "use_auth_token": NoCounterpart(_LOGIN),
    "trust_remote_code": NoCounterpart(
        "models that Transformers or hf_nmt know are trained, no code of others is run"
    ),
    # DataTrainingArguments
    "source_lang": _language("source"),
    "target_lang": _language("target"),
    "dataset_name": Converted(_dataset),
    "dataset_config_name": Converted(lambda value, given: _corpora({"subset": value}, given)),
    "train_file": "data.train.path",
    "validation_file": "data.validation.path",
    "test_file": NoCounterpart(f"{_TESTS} data.test.path=FILE"),
    "overwrite_cache": NoCounterpart(_CACHE),
    "preprocessing_num_workers": NoCounterpart(_CACHE),
    "max_source_length": Converted(
        lambda value, given: {"batching.max_source_length": value, "batching.too_long": "truncate"}
    ),
    "max_target_length": Converted(
        lambda value, given: {"batching.max_target_length": value, "batching.too_long": "truncate"}
    ),
    "val_max_target_length": _unless_given(
        "generation_max_length", lambda value: {"decoding.max_target_length": value}, "of the translations"
    ),
    "pad_to_max_length": NoCounterpart(
        "batches are padded to their own longest pair; batching.pad_to_multiple_of keeps their shapes few"
    ),
    "max_train_samples": "data.train.max_rows",
    "max_eval_samples": Converted(
        lambda value, given: {"data.validation.max_rows": value} if _validates(given) else {},
        "where there is a validation corpus",
    ),
    "max_predict_samples": NoCounterpart(f"{_TESTS} data.test.max_rows=N"),
    "num_beams": "decoding.num_beams",
    "ignore_pad_token_for_loss": NoCounterpart("padding never counts in the loss"),
    "source_prefix": "model.source_prefix",
    "forced_bos_token": Converted(
        lambda value, given: {"data.target_language": value},
        "translations open with the token of the target language, in training and in the saved model",
    ),
    # Seq2SeqTrainingArguments with another name or another form here
    "output_dir": _is("output_dir", why="each run gets a folder of its own in it"),
    "run_name": "name",
    "seed": "seed",
    "per_device_train_batch_size": Converted(
        _batch,
        "as many pairs as the script takes, and room for the longest; batching.max_sentences=null fills batches by "
        "tokens alone",
    ),
    "per_gpu_train_batch_size": Converted(_batch, "dropped in Transformers 5"),
    "per_device_eval_batch_size": NoCounterpart(
        "batches of translation are filled by decoding.batch_tokens; lower it where memory is short"
    ),
    "predict_with_generate": NoCounterpart("validation always translates"),
    "generation_max_length": "decoding.max_target_length",
    "generation_num_beams": _unless_given(
        "num_beams", lambda value: {"decoding.num_beams": value}, "num_beams goes before it"
    ),
    "gradient_checkpointing": "training.activation_checkpointing",
    "gradient_checkpointing_kwargs": "training.activation_checkpointing_kwargs",
    "evaluation_strategy": "training.eval_strategy",
    # Transformers 4 takes the ratio only where there are no steps.
    "warmup_ratio": Converted(lambda value, given: {} if given.get("warmup_steps") else _warmup(value, given)),
    "warmup_steps": Converted(_warmup),
    "lr_scheduler_type": Converted(_schedule),
    "lr_scheduler_kwargs": Converted(_schedule_options),
    "no_cuda": _where_true({"training.use_cpu": True}),
    "adafactor": _where_true({"training.optim": "adafactor"}, "dropped in Transformers 5"),
    "optim": _is("training.optim", lambda name: "adamw_torch" if name == "adamw_hf" else name),
    "metric_for_best_model": _is("training.metric_for_best_model", lambda name: str(name).removeprefix("eval_")),
    "resume_from_checkpoint": NoCounterpart(
        "checkpoints of the script cannot be continued; take its model as model_name_or_path. A run of this recipe "
        "goes on with resume=runs/<id>"
    ),
    "do_train": NoCounterpart("this recipe trains"),
    "do_eval": NoCounterpart("the recipe validates where there is a validation corpus"),
    "do_predict": NoCounterpart(_TESTS),
}


def known_arguments() -> dict[str, str | Converted | NoCounterpart]:
    """All arguments of the script, of Transformers 4 and 5."""
    of_the_trainer = {name: f"training.{name}" for name in _names_of_the_trainer()}
    dropped = {name: NoCounterpart(reason) for name, reason in (REFUSED | RENAMED).items()}
    return {**of_the_trainer, **dropped, **ARGUMENTS}


def _names_of_the_trainer() -> list[str]:
    names = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    return [name for name in TrainingSettings.model_fields if name in names]


def read_arguments(path: Path | str) -> dict[str, Any]:
    """The arguments in a JSON or YAML file, as the script's own parser takes them.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        given = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except OSError as error:
        raise ConfigError(f"{OPTION} {path}: the file cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        kind = "YAML" if path.suffix in (".yaml", ".yml") else "JSON (a YAML file is named .yaml)"
        raise ConfigError(f"{OPTION} {path}: this is not {kind}: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ConfigError(
            f"{OPTION} {path}: a file of arguments holds names and values, as "
            f'{{"model_name_or_path": "t5-small", ...}}; this one holds {shown(given)}.'
        )
    return given


def map_arguments(given: Given) -> list[Mapped]:
    """Our settings for arguments of the script; those that are not given and make a different training come last.

    Raises:
        ConfigError: names that the script does not have, with the nearest that it has; two arguments that give one
            setting different values.
    """
    known = known_arguments()
    if findings := [_unknown(name, list(known)) for name in given if name not in known]:
        raise ConfigError(findings)
    mapped = []
    for name, value in given.items():
        entry, argument = known[name], f"{name}={'***' if name in SECRETS else _text(value)}"
        if isinstance(entry, NoCounterpart):
            mapped.append(Mapped(argument, {}, entry.why))
        elif value is None:
            mapped.append(Mapped(argument, {}, "null leaves it to the default"))
        elif isinstance(entry, str):
            mapped.append(Mapped(argument, {entry: value}, ""))
        else:
            mapped.append(Mapped(argument, _converted(entry, name, value, given), entry.why))
    for name, value in NOT_GIVEN.items():
        if all(given.get(other) is None for other in (name, *_SET_BY.get(name, ()))):
            entry = known[name]
            settings = entry.convert(value, given) if isinstance(entry, Converted) else {str(entry): value}
            mapped.append(Mapped(f"{name} (not given)", settings, f"{_text(value)} is the script's own"))
    if findings := _contradictions(mapped):
        raise ConfigError(findings)
    return [*mapped, *_fitted(mapped)]


def _contradictions(mapped: Sequence[Mapped]) -> list[str]:
    """Arguments that the script keeps apart, or of which it takes one in silence, with two values for one setting."""
    asked: dict[str, dict[str, str]] = {}
    for line in mapped:
        for key, value in line.settings.items():
            asked.setdefault(key, {}).setdefault(_text(value), line.argument)
    return [
        f"{' and '.join(by_value.values())}: both are {key} here, with the values {' and '.join(by_value)}. Take the "
        "one out that is not meant."
        for key, by_value in asked.items()
        if len(by_value) > 1
    ]


def _converted(entry: Converted, name: str, value: Any, given: Given) -> Mapping[str, Any]:
    try:
        return entry.convert(value, given)
    except TypeError:  # a list where a number is needed, say; the settings tell what is allowed
        return {next(iter(entry.convert(0, given)), name): value}


def _fitted(mapped: Sequence[Mapped]) -> list[Mapped]:
    """Checkpoints have to be where validations are here; the script keeps the two apart."""
    settings = {key: value for line in mapped for key, value in line.settings.items()}
    strategy, saved = settings.get("training.eval_strategy", "steps"), settings.get("training.save_strategy")
    changed: dict[str, Any] = {}
    if strategy != "no" and saved not in (strategy, "best") and (saved is not None or strategy != "steps"):
        changed["training.save_strategy"] = strategy
    intervals = ("training.eval_steps", "training.save_steps")
    given = [settings[key] for key in intervals if key in settings]
    if strategy == "steps" and given:
        changed |= {key: given[0] for key in intervals if settings.get(key) != given[0]}
    if not changed:
        return []
    return [Mapped("checkpoints", changed, "the best model is chosen among them, so that each is validated")]


def _unknown(name: str, known: list[str]) -> str:
    if name in FAMILIAR_NAMES and not nearest(name, known, cutoff=0.8):
        return f"{name}: unknown argument of run_translation.py. Here {FAMILIAR_NAMES[name]}"
    near = nearest(name, known)
    meant = f"Did you mean {near}?" if near else "Take it out; settings of this recipe follow the file as key=value."
    return f"{name}: unknown argument of run_translation.py. {meant}"


def _text(value: Any) -> str:
    """A value as it stands on the command line; text that would be read as something else is quoted."""
    if isinstance(value, str) and value == value.strip() and value[:1] not in ("", "[", "{", "'", '"'):
        return value if value.lower() not in ("null", "true", "false", "~") else json.dumps(value)
    return json.dumps(value, ensure_ascii=False)


@dataclasses.dataclass
class CommandLine:
    """A command line with the file of arguments written out as settings.

    Attributes:
        arguments: for `config.from_command_line`.
        mapped: what became of each argument of the file; empty where there is no file.
        path: the file.
        findings: names in the file that the script does not have; told with what else is wrong, see `told`.
    """

    arguments: list[str]
    mapped: list[Mapped] = dataclasses.field(default_factory=list)
    path: str = ""
    findings: list[str] = dataclasses.field(default_factory=list)

    def report(self) -> str:
        heading = f"{self.path}: arguments of run_translation.py, and what they are here"
        return "\n".join([heading, *(f"  {line}" for line in self.mapped)])

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Findings about a setting of the file say which of its arguments set it.

        Raises:
            ConfigError: with them, and the unknown names in the file.
        """
        try:
            yield
        except ConfigError as error:
            findings = [self._with_origin(finding) for finding in error.findings]
            raise ConfigError([*self.findings, *findings]) from error
        if self.findings:
            raise ConfigError(self.findings)

    def _with_origin(self, finding: str) -> str:
        key = finding.partition(":")[0]
        origins = [line.argument for line in self.mapped if key in line.settings]
        typed = any(argument.lstrip("-").startswith(f"{key}=") for argument in self.arguments[self.count :])
        return f"{finding} ({self.path}: {' and '.join(origins)})" if origins and not typed else finding

    @property
    def count(self) -> int:
        """How many of the arguments come from the file; they stand first, so that what is typed holds."""
        return sum(len(line.settings) for line in self.mapped)


def command_line(argv: Sequence[str]) -> CommandLine:
    """Write out `--from-run-translation FILE` as `key=value` in front of the other arguments; tell in the log what
    becomes of each argument in the file.

    Raises:
        ConfigError: the file is missing or cannot be read, or its arguments contradict each other.
    """
    rest, path = [], None
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") != OPTION:
            rest.append(argument)
        elif not equals and (not waiting or waiting[0].startswith("-") or "=" in waiting[0]):
            raise ConfigError(f"{OPTION}: a JSON or YAML file with the arguments must follow.")
        else:
            path = value if equals else waiting.pop(0)
    if path is None or {"--help", "-h"} & {*rest}:
        return CommandLine(rest)
    given = read_arguments(path)
    known = known_arguments()
    findings = [_unknown(name, list(known)) for name in given if name not in known]
    mapped = map_arguments({name: value for name, value in given.items() if name in known})
    if findings:  # nothing is printed that looks like settings
        rest = [argument for argument in rest if argument not in ("--dry-run", "--dry_run")]
    settings = [f"{key}={_text(value)}" for line in mapped for key, value in line.settings.items()]
    whole = CommandLine([*settings, *rest], mapped, path, findings)
    logger.info("%s", whole.report())
    return whole
