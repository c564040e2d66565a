"""Search for settings of a recipe: a study of trials, each a run with values drawn from ranges.

    python recipes/tune.py
    python recipes/tune.py study=studies/de-en base=de-en_small settings.training.max_steps=1000 \\
        settings.data.train.source=train.de settings.data.train.target=train.en \\
        settings.data.validation.source=val.de settings.data.validation.target=val.en \\
        "search.training.learning_rate={low: 1e-4, high: 5e-3, log: true}" \\
        "search.model.norm_position={choices: [pre, post]}"

Given nothing, it searches for rates that suit the built-in corpus (configs/tune/default.yaml). Any key of the recipe
may have a range; those that are typed are all that is searched. The study ends with its budget. The same line again
goes on with it after Ctrl-C, and after its end with a larger budget; in another terminal it works on the same study at
the same time. A trial that fails is noted and does not end it. Leaves best.yaml, which the recipe takes with --config,
trials.tsv and plots/ in the folder of the study, and prints the path of best.yaml.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hf_nmt.config import from_command_line, launch
from hf_nmt.data.version_reading import Version
from hf_nmt.errors import ConfigError, NmtError, need
from hf_nmt.tuning.report import report
from hf_nmt.tuning.settings import TuningSettings
from hf_nmt.tuning.studies import Study
from hf_nmt.tuning.trials import command_of, resolve

logger = logging.getLogger("hf_nmt.recipes.tune")


class TuneRecipe(TuningSettings):
    def check_files(self) -> list[str]:
        findings = []
        if not self.script.is_file() or self.script.samefile(__file__):
            findings.append(
                f"recipe: given {self.recipe}, and recipes/ has no {self.recipe}.py that trains; write train."
            )
        if not self.search:
            findings.append(
                "search: nothing is searched for. Write search.training.learning_rate={low: 1e-4, high: 1e-2}."
            )
        return findings

    @property
    def script(self) -> Path:
        return Path(__file__).with_name(f"{self.recipe}.py")


SETTINGS = TuneRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(TuneRecipe, argv, recipe="tune", doc=__doc__, default_config="default")
    need("optuna", "tune")
    command = command_of(settings.script, settings.base, settings.overrides())
    resolved = resolve_ranges(settings, command)
    study = Study(settings, resolved, command)
    limits = {name: limit for name, limit in settings.budget.model_dump().items() if limit is not None}
    logger.info(
        "study %s: %s of %s, at most %s", settings.study, settings.metric, settings.recipe,
        " or ".join(f"{limit:g} {name.replace('_', ' ')}" for name, limit in limits.items()),
    )  # fmt: skip
    try:
        study.optimize()
    except KeyboardInterrupt:
        logger.warning("Stopped. The same line goes on with the study.")
        raise
    finally:
        logger.info("\n%s", "\n".join(report(study, resolved)))
    if study.best is None:
        raise NmtError(f"No trial has run to its end: see {study.folder / 'trials.tsv'}.")
    sys.stdout.write(f"{study.folder / 'best.yaml'}\n")
    return 0


def resolve_ranges(settings: TuneRecipe, command: list[str]) -> dict:
    """All settings of the recipe with the first value of each range.

    Raises:
        ConfigError: the recipe refuses the ends of an interval or a choice, or does not tell the metric.
    """
    examples = {key: one.examples() for key, one in settings.ranges().items()}
    resolved, findings = [], []
    # A study that goes on has been through it; that it is the same one is looked at next.
    known = (settings.study / "study.json").is_file()
    for number in range(1 if known else max(map(len, examples.values()))):
        values = {key: values[min(number, len(values) - 1)] for key, values in examples.items()}
        try:
            resolved.append(resolve([*command, *(f"{key}={value}" for key, value in values.items())]))
        except ConfigError as error:
            findings += error.findings
    if findings:
        told = list(dict.fromkeys(findings))
        raise ConfigError([f"recipes/{settings.recipe}.py with values of the ranges: {finding}" for finding in told])
    first = resolved[0]
    data = first.get("data") or {}
    corpora = [data, *(data.get("pairs") or {}).values()]
    in_version = data.get("version") and Version.read(data["version"]).has("validation")
    if "training" not in first:
        raise ConfigError(f"recipe: {settings.recipe} does not train, so that no validation tells {settings.metric}.")
    if first["training"].get("eval_strategy") == "no" or (
        any(corpus.get("train") or corpus.get("version") for corpus in corpora)
        and not (in_version or any(corpus.get("validation") for corpus in corpora))
    ):
        raise ConfigError(
            "metric: trials are judged by their validations, and there are none. Give settings.data.validation.source "
            "and settings.data.validation.target, and leave settings.training.eval_strategy as it is."
        )
    if settings.metric not in ("loss", "perplexity", *first["metrics"]["names"]):
        raise ConfigError(
            f"metric: {settings.metric} is not computed by these runs; add it to settings.metrics.names, now "
            f"{', '.join(first['metrics']['names'])}."
        )
    return first


if __name__ == "__main__":
    launch(main)
