"""recipes/tune.py: what it refuses before the first trial, and a study of real runs."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import yaml
from settings_walk.keys import ROOT, recipe_module, settings_of

from hf_nmt.config import load
from hf_nmt.errors import ConfigError, NmtError

CONFIGS = sorted((ROOT / "recipes" / "configs" / "tune").glob("*.yaml"))
PLAIN = {"training": {}, "metrics": {"names": ["bleu"]}, "data": {"train": None, "validation": None}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_recipe_takes_what_a_settings_file_searches(path):
    """All ends of intervals and all choices, each once."""
    settings = load(settings_of("tune"), path)
    base = ROOT / "recipes" / "configs" / settings.recipe / f"{settings.base or 'default'}.yaml"
    ranges = {key: one.examples() for key, one in settings.ranges().items()}
    drawn = list(itertools.zip_longest(*ranges.values()))
    assert len(drawn) >= 2
    for values in drawn:
        values = [value or examples[0] for value, examples in zip(values, ranges.values(), strict=True)]
        overrides = [f"{key}={value}" for key, value in zip(ranges, values, strict=True)]
        load(settings_of(settings.recipe), base, [*settings.overrides(), *overrides])


@pytest.mark.parametrize(
    ("arguments", "resolved", "message"),
    [
        (["recipe=distil"], PLAIN, "recipe: given distil, and recipes/ has no distil.py that trains; write train"),
        (["recipe=tune"], PLAIN, "recipe: given tune"),
        (["search={}"], PLAIN, "search: nothing is searched for. Write search.training.learning_rate="),
        (["recipe=translate"], {"decoding": {}}, "recipe: translate does not train, so that no validation tells loss"),
        (
            ["metric=ter"],
            PLAIN,
            "metric: ter is not computed by these runs; add it to settings.metrics.names, now bleu",
        ),
        ([], PLAIN | {"training": {"eval_strategy": "no"}}, "judged by their validations, and there are none"),
        ([], PLAIN | {"data": {"train": {"source": "a"}, "validation": None}}, "settings.data.validation.source"),
    ],
)
def test_refusals(arguments, resolved, message, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    module = recipe_module("tune")
    monkeypatch.setattr(module, "resolve", lambda command: resolved)
    with pytest.raises(ConfigError) as error:
        module.main(["--config", "tiny", f"study={tmp_path / 'study'}", *arguments])
    assert message in str(error.value)
    assert not (tmp_path / "study").exists()


def test_what_the_recipe_refuses_is_told_once(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    module, asked = recipe_module("tune"), []

    def resolve(command):
        asked.append(command[-1])
        raise ConfigError(["training.learning_rat: unknown key.", f"told of {command[-1][:4]}"])

    monkeypatch.setattr(module, "resolve", resolve)
    ranges = "search={a: {low: 1, high: 2}, b: {choices: [x, null, 3]}}"
    with pytest.raises(ConfigError) as error:
        module.main(["--config", "tiny", f"study={tmp_path / 'study'}", ranges])
    assert asked == ['b="x"', "b=null", "b=3"]
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    with pytest.raises(ConfigError):
        module.main(["--config", "tiny", f"study={tmp_path / 'study'}", ranges])
    assert asked[3:] == ['b="x"']  # a study that goes on has been asked
    opening = "recipes/train.py with values of the ranges: "
    told = ['told of b="x', "told of b=nu", "told of b=3"]
    assert error.value.findings == [opening + "training.learning_rat: unknown key.", *(opening + one for one in told)]


def test_without_optuna_the_package_to_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(NmtError, match=r'pip install "hf_nmt\[tune\]"'):
        recipe_module("tune").main(["--config", "tiny", f"study={tmp_path / 'study'}"])


@pytest.mark.slow
def test_a_study_of_real_runs(tmp_path):
    """Two trials; one more when it goes on; the recipe takes what was found."""
    pytest.importorskip("optuna")
    command = [sys.executable, ROOT / "recipes" / "tune.py", "--config", "tiny", "study=study"]
    for trials in (2, 3):
        done = subprocess.run([*command, f"budget.trials={trials}"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "study/best.yaml\n"
    rows = [line.split("\t") for line in (tmp_path / "study" / "trials.tsv").read_text().splitlines()]
    assert len(rows) == 4 and {row[1] for row in rows[1:]} <= {"complete", "pruned"}
    assert all(float(row[5]) > 0 and row[4] == "12" for row in rows[1:] if row[1] == "complete")
    taken = [sys.executable, ROOT / "recipes" / "train.py", "--config", "study/best.yaml", "--dry-run"]
    shown = yaml.safe_load(subprocess.run(taken, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    best = min(rows[1:], key=lambda row: float(row[2]))
    assert shown["training"]["learning_rate"] == pytest.approx(float(best[6]), rel=1e-3)
    assert shown["model"]["norm_position"] == best[7] and shown["output_dir"] == "runs" and shown["name"] is None
    assert len(list((tmp_path / "study" / "trials").glob("*/best/model.safetensors"))) == 1
