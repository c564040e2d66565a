"""What a study found: the best settings as a file, a table of its trials, pictures."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import atomic_file, write_text
from hf_nmt.config_yaml import write_yaml
from hf_nmt.errors import need
from hf_nmt.runs import load
from hf_nmt.tuning.studies import Study

# Where a trial has been put, and not what it did.
_OF_THE_TRIAL = ("name", "output_dir", "resume")
# Of fewer, what seems to matter is chance.
_TRIALS_FOR_IMPORTANCE = 10
# More do not fit beside the picture.
_TRIALS_NAMED = 16

logger = logging.getLogger(__name__)


def report(study: Study, resolved: Mapping[str, Any]) -> list[str]:
    """Write best.yaml, trials.tsv and plots/ into the folder of a study, as far as there is something to tell.

    Args:
        resolved: all settings of the recipe, as it prints them; the places of runs are taken from them.

    Returns:
        The table, and what was found, in lines.
    """
    rows = table(study)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    write_text(study.folder / "trials.tsv", "".join("\t".join(row) + "\n" for row in rows))
    spent = study.spent()
    lines.append(
        f"{spent['trials']} trials, {spent['updates']:,} updates, {spent['cpu_minutes']:.1f} CPU minutes in all"
    )
    best = study.best
    if best is None:
        return [*lines, "No trial has run to its end, so that there is no best.yaml."]
    write_best(study, resolved)
    plot(study)
    return [*lines, f"best: trial {best.number}, {study.settings.metric} {best.value:.4f}"]


def table(study: Study) -> list[list[str]]:
    """A row for each trial, the first holding the names of the columns; what was drawn comes last."""
    keys = list(study.ranges)
    rows = [["trial", "state", study.settings.metric, "validations", "updates", "cpu_seconds", *keys, "run", "error"]]
    replaced = {trial.user_attrs.get("instead_of"): trial.user_attrs.get("lost", {}) for trial in study.trials}
    for trial in study.trials:
        seen = trial.intermediate_values.values()
        value = (min(seen) if study.settings.falls else max(seen)) if seen else None
        facts = {"best": value, "validations": len(seen), **trial.user_attrs, **replaced.get(trial.number, {})}
        value = facts["best"]  # of one that has ended without the validations that were given up
        values = study.values(trial)
        rows.append([
            str(trial.number),
            "stopped" if trial.number in replaced else trial.state.name.lower(),
            "" if value is None else f"{value:.4f}",
            str(facts["validations"]),
            str(facts.get("updates", "")),
            str(facts.get("cpu_seconds", "")),
            *(_short(values[key]) if key in values else "" for key in keys),
            facts.get("run") or "",
            " ".join(facts.get("error", "").split()),
        ])  # fmt: skip
    return rows


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def write_best(study: Study, resolved: Mapping[str, Any]) -> Path:
    """All settings of the best trial as a file that the recipe takes, with the places of its runs as they were."""
    best = study.best
    assert best is not None
    run = load(study.folder / "trials" / best.user_attrs["run"])
    settings = run.record["settings"] | {key: resolved.get(key) for key in _OF_THE_TRIAL if key in resolved}
    recipe, path = study.settings.recipe, study.folder / "best.yaml"
    drawn = "".join(f"#   {key}: {json.dumps(value)}\n" for key, value in study.values(best).items())
    heading = (
        f"# The best of {int(study.spent()['trials'])} trials by {study.settings.metric} of the validation: trial "
        f"{best.number}, {best.value:.4f}. Drawn were\n#\n{drawn}#\n"
        f"#   python recipes/{recipe}.py --config {path}\n"
    )
    write_text(path, heading + write_yaml(settings))
    return path


def plot(study: Study) -> list[Path]:
    """The history of the study, its trials' validations, their values side by side and how much each key matters, as
    far as there are trials enough."""
    matplotlib = need("matplotlib", "tune")
    matplotlib.use("Agg")  # the pictures are files; there may be no display
    draw = need("optuna.visualization.matplotlib", "tune")
    whole = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    name = study.settings.metric
    pictures = {"history.png": lambda: draw.plot_optimization_history(study.optuna_study, target_name=name)}
    if any(len(trial.intermediate_values) > 1 for trial in study.trials):
        pictures["validations.png"] = lambda: draw.plot_intermediate_values(study.optuna_study)
    if len(whole) > 1:
        pictures["values.png"] = lambda: draw.plot_parallel_coordinate(study.optuna_study, target_name=name)
        if len(whole) >= _TRIALS_FOR_IMPORTANCE and len({trial.value for trial in whole}) > 1:
            pictures["importance.png"] = lambda: draw.plot_param_importances(study.optuna_study, target_name=name)
    written = []
    for file, drawn in pictures.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each says that it is experimental
            axes = drawn()
            figure = axes.figure
            figure.set_size_inches(max(8.0, 2.0 * len(study.ranges) + 4.0), 4.8)
            if file == "validations.png":
                axes.set(title="Validations of each trial", xlabel="validation", ylabel=name)
                axes.xaxis.get_major_locator().set_params(integer=True)
                if len(study.trials) > _TRIALS_NAMED:
                    axes.get_legend().remove()
            if file == "values.png":  # the palest lines are those of its grid
                for each in figure.axes:
                    each.grid(False)
            written.append(study.folder / "plots" / file)
            with atomic_file(written[-1]) as partial:
                figure.savefig(partial, format="png", dpi=130, bbox_inches="tight")
        matplotlib.pyplot.close(figure)
    return written
