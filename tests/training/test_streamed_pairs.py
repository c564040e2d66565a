"""Runs that stream several language pairs: as one that reads them whole, killed and resumed, in two processes."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter

import pytest
import translation_tasks
from recipe_processes import run_distributed, run_recipe
from run_folders import equal, last_weights, measured, run_named, same_updates

from hf_nmt import runs
from hf_nmt.batching import drawn_rows
from hf_nmt.data.streams import PairStream
from hf_nmt.training import checkpoints
from hf_nmt.training.recipe import TrainingRecipe

SIZES = (90, 40, 10)


@pytest.fixture
def given(tmp_path):
    data = translation_tasks.write_pairs(tmp_path, SIZES, validation=4)
    data += [f"data.pairs.{name}.train.streaming=true" for name in translation_tasks.PAIRS]
    data += ["batching.streaming_window=37", "batching.batch_tokens=128", "--config", "tiny"]
    return [*data, f"output_dir={tmp_path / 'runs'}"]


@pytest.mark.parametrize("temperature", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_twice_and_resumed_equals_never_killed(tmp_path, given, temperature):
    argv = [*given, f"data.sampling_temperature={temperature}", "tokenizer.dropout=0.1", "model.dropout=0.2"]
    argv += ["training.max_steps=27", "training.eval_steps=27", "training.save_total_limit=20"]
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    assert run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=5) == -signal.SIGKILL
    whole, run = run_named(tmp_path, "whole"), run_named(tmp_path, "killed")
    # In the second epoch of the three that there are.
    assert run_recipe([f"resume={run}"], tmp_path / "second", signal_at=22) == -signal.SIGKILL
    assert run_recipe([f"resume={run}"], tmp_path / "third") == 0, (tmp_path / "third.err").read_text()
    assert "continuing at step 21" in (tmp_path / "third.err").read_text()
    assert equal(last_weights(whole), last_weights(run)) and measured(run) == measured(whole)
    stream = checkpoints.read_state(runs.checkpoint_folder(run / "checkpoints", 21))["stream"]
    assert stream["epoch"] >= 1 and (stream["source"]["places"] != [[0, ""]] * 3) == (temperature != 1)
    assert {"eval_bleu_xx-aa", "eval_bleu_xx-bb", "eval_bleu_xx-cc"} <= {row[3] for row in measured(run)}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["splits"]["train"]["rows"] is None and len(manifest["files"]) == 12


@pytest.mark.slow
def test_two_processes_killed_and_resumed_equal_two_never_killed_and_one_that_accumulates(tmp_path, given):
    argv = [*given, "data.sampling_temperature=5", "training.use_cpu=true", "training.eval_strategy=no"]
    argv += ["training.logging_steps=1", "model.dropout=0", "training.max_steps=18"]
    two = [*argv, "training.num_processes=2"]
    assert run_recipe([*argv, "name=one", "training.gradient_accumulation_steps=2"], tmp_path / "one") == 0
    assert run_distributed([*two, "name=whole"], tmp_path / "whole", 2) == [0, 0], (
        tmp_path / "whole-0.err"
    ).read_text()
    one, whole = run_named(tmp_path, "one"), run_named(tmp_path, "whole")
    same_updates(one, whole, updates=18)
    states = [
        checkpoints.read_state(runs.checkpoint_folder(run / "checkpoints", 18))["stream"] for run in (one, whole)
    ]
    assert states[0] == states[1] and states[0]["epoch"] >= 1
    assert run_distributed([*two, "name=killed"], tmp_path / "first", 2, signal_at=16) == [-signal.SIGKILL] * 2
    run = run_named(tmp_path, "killed")
    assert run_distributed([f"resume={run}"], tmp_path / "second", 2) == [0, 0], (
        tmp_path / "second-0.err"
    ).read_text()
    assert equal(last_weights(whole), last_weights(run)) and measured(run) == measured(whole)


def settings_of(given: list[str], *more: str) -> TrainingRecipe:
    values: dict = {}
    for argument in [*given, *more]:
        key, separator, value = argument.partition("=")
        if separator and key.startswith("data."):
            *path, last = key.removeprefix("data.").split(".")
            place = values
            for name in path:
                place = place.setdefault(name, {})
            place[last] = value
    return TrainingRecipe(data=values, training={"max_steps": 5})


@pytest.mark.parametrize(
    ("temperature", "expected"), [("1", SIZES), ("5", None), (".inf", (47, 47, 47))], ids=["as they are", "5", "equal"]
)
def test_an_epoch_draws_what_it_draws_of_pairs_that_are_read_whole(given, temperature, expected):
    """The counts of `drawn_rows`, whose formula has tests of its own."""
    value = str(float(temperature.removeprefix(".")))
    texts = settings_of(given, f"data.sampling_temperature={value}").data.load()
    wanted = drawn_rows(SIZES, float(value))
    found = Counter(row["target_language"] for row in texts.train)
    assert [found[target] for target in ("aa", "bb", "cc")] == wanted
    assert expected is None or all(abs(count - planned) <= 1 for count, planned in zip(wanted, expected, strict=True))


def test_two_corpora_of_one_language_pair_share_what_it_draws(tmp_path, given):
    paths = [f"data.pairs.more.train.{side}={tmp_path / f'xx-cc.train.{side}'}" for side in ("source", "target")]
    paths += ["data.pairs.more.source_language=xx", "data.pairs.more.target_language=cc"]
    paths += ["data.pairs.more.train.streaming=true", "data.sampling_temperature=inf"]
    texts = settings_of(given, *paths).data.load()
    found = Counter(row["target_language"] for row in texts.train)
    assert found == {"aa": 50, "bb": 50, "cc": 50}


def test_what_cannot_act_is_refused_with_the_reason(tmp_path, given):
    def told(*changes: str) -> str:
        assert run_recipe([*given, *changes, "--dry-run"], tmp_path / "refused") == 2
        return (tmp_path / "refused.err").read_text()

    text = told("data.pairs.xx-bb.train.streaming=false", "training.max_steps=-1")
    assert "pairs.xx-bb.train.streaming: false, but xx-aa, xx-cc is streamed, and rows can be mixed only where" in text
    assert "training.max_steps: not given, but how long a stream is shows only at its end" in told(
        "training.max_steps=-1"
    )
    whole = [f"data.pairs.{name}.train.streaming=false" for name in translation_tasks.PAIRS]
    assert "batching.streaming_window: does nothing without data.train.streaming=true (or that" in told(*whole)
    assert "data.pairs.xx-aa.validation.streaming" in told("data.pairs.xx-aa.validation.streaming=true")


def test_a_corpus_that_does_not_tell_its_size_is_refused(monkeypatch, given):
    monkeypatch.setattr(PairStream, "count", lambda stream: None)  # as of a dataset that is read over the network
    with pytest.raises(
        ValueError, match=r"data\.pairs\.xx-bb\.train: .* does not tell how many rows it has.*train\.max_rows"
    ):
        settings_of(given).data.load()


@pytest.mark.parametrize("form", ["lines", "tmx"])
def test_an_empty_corpus_is_refused_by_its_name(tmp_path, given, form):
    changes = []
    if form == "tmx":
        (tmp_path / "empty.tmx").write_text("<tmx><body></body></tmx>")
        files = tuple(f"data.pairs.xx-bb.train.{side}=" for side in ("source", "target"))
        given = [argument for argument in given if not argument.startswith(files)]
        changes = [f"data.pairs.xx-bb.train.path={tmp_path / 'empty.tmx'}"]
    else:
        for side in ("source", "target"):
            (tmp_path / f"xx-bb.train.{side}").write_text("")
    name = "empty.tmx" if form == "tmx" else "xx-bb.train.source"
    with pytest.raises(ValueError, match=rf"^data\.pairs\.xx-bb\.train: .*{re.escape(name)} is empty\. Give a file"):
        settings_of(given, *changes).data.load()
