"""Runs of `recipes/train.py` on a mixture: drawn as recorded, and the same after a kill."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import translation_tasks
from recipe_processes import run_distributed, run_recipe
from run_folders import equal, measured, run_named
from safetensors.torch import load_file

from hf_nmt import runs
from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.training.recipe import TrainingRecipe

STAGES = "[{weights: {common: 1, rare: 1, none: 0}, until_step: 4}, {weights: {common: 0, rare: 3, none: 1}}]"


@pytest.fixture
def given(tmp_path):
    """Rows of three origins, one of them unnamed."""
    sources = translation_tasks.make_sources(160, seed=1)
    rows = [
        {
            "source": source, "target": translation_tasks.translated(source, "aa"), "source_language": "xx",
            "target_language": "aa", "origin": ("common", "common", "rare", None)[number % 4],
        }
        for number, source in enumerate(sources)
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "data.source_language=xx", "data.target_language=aa", f"data.train.path={path}", "data.mixing.by=origin",
        "training.eval_strategy=no", "--config", "tiny", f"output_dir={tmp_path / 'runs'}",
    ]  # fmt: skip


def test_a_killed_and_resumed_run_of_a_mixture_equals_one_never_killed(tmp_path, given):
    argv = [*given, f"data.mixing.stages={STAGES}", "tokenizer.dropout=0.1", "training.max_steps=8"]
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    assert run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=7) == -signal.SIGKILL
    whole, run = run_named(tmp_path, "whole"), run_named(tmp_path, "killed")
    assert run_recipe([f"resume={run}"], tmp_path / "second") == 0, (tmp_path / "second.err").read_text()
    assert "continuing at step 6" in (tmp_path / "second.err").read_text()
    assert equal(*(load_file(folder / "best" / "model.safetensors") for folder in (whole, run)))
    assert measured(run) == measured(whole)
    recorded, again = (json.loads(Path(folder, "mixing.json").read_text()) for folder in (whole, run))
    assert recorded["rows"] == {"common": 80, "rare": 40, "none": 40}
    assert [stage["drawn_an_epoch"] for stage in recorded["stages"]] == [
        {"common": 80, "rare": 80, "none": 0}, {"common": 0, "rare": 120, "none": 40},
    ]  # fmt: skip
    assert sum(epoch["updates"] for epoch in recorded["epochs"].values()) == 8
    last = max(recorded["epochs"], key=int)
    assert again["epochs"][last] == recorded["epochs"][last]
    assert (tmp_path / "whole.err").read_text().count(f"epoch {last} drew") == 1


def settings_of(given, *more):
    return load(TrainingRecipe, overrides=[one for one in [*given, *more] if "=" in one])


def test_corpora_are_told_apart_by_their_names(tmp_path, given):
    rows = Path(given[2].partition("=")[2]).read_text().splitlines()
    paths = []
    for name, part in (("big", rows[:100]), ("small", rows[100:])):
        text = "".join(f"{row}\n" for row in part)
        text = text.replace('"source_language": "xx", "target_language": "aa", ', "")
        (tmp_path / f"{name}.jsonl").write_text(text)
        paths += [f"data.pairs.{name}.{key}={value}" for key, value in (
            ("source_language", "xx"), ("target_language", "aa"), ("train.path", tmp_path / f"{name}.jsonl"),
        )]  # fmt: skip
    mixing = ["data.mixing.by=corpus", "data.mixing.stages=[{weights: {big: 1, small: 3}}]"]
    texts = settings_of([], *paths, *mixing).data.load()
    assert texts.train["corpus"][:] == ["big"] * 100 + ["small"] * 60
    assert "origin" not in texts.train.column_names
    mixing = ["data.mixing.by=origin", "data.mixing.stages=[{temperature: 5}]"]
    texts = settings_of([], *paths, *mixing).data.load()
    assert texts.train["origin"][:4] == ["common", "common", "rare", None] and "corpus" not in texts.train.column_names


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.mixing.by=corpus"], r"data.mixing.by: corpus goes by the names of data.pairs, and none are given"),
        (["data.train.streaming=true"], r"data.mixing: the rows of a stream are taken as they come"),
        (["data.sampling_temperature=5"], r"data.sampling_temperature: given beside data.mixing, which settles it"),
        (["data.mixing.by=subject"], r"data.mixing.by: given 'subject', allowed"),
        (["data.mixing.stages=[]"], r"data.mixing.stages: "),
        (["data.mixing.stages=[{wieghts: {a: 1}}]"], r"wieghts: unknown key. Did you mean"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_read(given, more, message):
    with pytest.raises(ConfigError, match=message):
        settings_of(given, f"data.mixing.stages={STAGES}", *more)


def test_a_column_that_is_not_there_is_refused(given):
    with pytest.raises(
        ConfigError, match=r"data.mixing.by: the training text has no column domain\. It has source, t"
    ):
        settings_of(given, f"data.mixing.stages={STAGES}", "data.mixing.by=domain").data.load()


@pytest.mark.slow
def test_a_mixture_is_the_same_whole_and_divided_among_processes(tmp_path, given):
    argv = [*given, f"data.mixing.stages={STAGES}", "model.dropout=0", "training.use_cpu=true"]
    argv += ["training.logging_steps=1", "training.max_steps=12"]
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    halves = ["batching.batch_tokens=128", "training.num_processes=2", "name=divided"]
    assert run_distributed([*argv, *halves], tmp_path / "divided", 2) == [0, 0], (
        tmp_path / "divided-0.err"
    ).read_text()
    whole, divided = (run_named(tmp_path, name) for name in ("whole", "divided"))
    losses = [runs.series(runs.read_metrics(run), "loss")[1] for run in (whole, divided)]
    assert len(losses[0]) == 12 and losses[1] == pytest.approx(losses[0], rel=1e-5, abs=0)
    assert (whole / "mixing.json").read_text() == (divided / "mixing.json").read_text()
