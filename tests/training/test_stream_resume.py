"""A run that streams its text: killed and resumed, in two processes, refused, reported."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from corpora import write_corpus
from recipe_processes import run_distributed, run_recipe
from run_folders import equal, last_weights, measured, run_named, same_updates

from hf_nmt import runs
from hf_nmt.training import checkpoints

# Windows of 17 pairs: several in each of the readings of 120 pairs, and no reading a multiple of them.
STREAM = ["data.train.streaming=true", "batching.streaming_window=17", "batching.batch_tokens=128"]


@pytest.fixture
def corpus(tmp_path):
    data = write_corpus(tmp_path)
    return [*data, *STREAM, "data.validation.max_rows=8", "--config", "tiny", f"output_dir={tmp_path / 'runs'}"]


def state_of(run: Path, step: int) -> dict:
    return checkpoints.read_state(runs.checkpoint_folder(run / "checkpoints", step))["stream"]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_twice_and_resumed_equals_never_killed(tmp_path, corpus, workers):
    argv = [*corpus, "tokenizer.dropout=0.1", "model.dropout=0.2", "training.gradient_accumulation_steps=2"]
    argv += [f"training.dataloader_num_workers={workers}", "training.max_steps=30", "training.eval_steps=15"]
    argv += ["training.save_total_limit=20"]
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, Path(tmp_path / "whole.err").read_text()
    assert run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=5) == -signal.SIGKILL
    whole, run = run_named(tmp_path, "whole"), run_named(tmp_path, "killed")
    assert run_recipe([f"resume={run}"], tmp_path / "second", signal_at=25) == -signal.SIGKILL
    assert run_recipe([f"resume={run}"], tmp_path / "third") == 0, (tmp_path / "third.err").read_text()
    assert "continuing at step 24" in (tmp_path / "third.err").read_text()

    assert equal(last_weights(whole), last_weights(run))
    assert measured(run) == measured(whole)
    assert [state_of(run, step) for step in (3, 24, 30)] == [state_of(whole, step) for step in (3, 24, 30)]
    assert state_of(run, 24)["epoch"] >= 1 and state_of(run, 24)["window"] + state_of(run, 3)["update"] > 0
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (whole, run)]
    assert summaries[0]["stream"] == summaries[1]["stream"] and summaries[0]["stream"]["pairs"] > 120
    assert summaries[0]["epochs"] == summaries[1]["epochs"] == measured(whole)[-1][1] > 1


@pytest.mark.slow
def test_two_processes_killed_and_resumed_equal_two_never_killed_and_one_that_accumulates(tmp_path, corpus):
    argv = [*corpus, "training.use_cpu=true", "training.eval_strategy=no", "training.logging_steps=1"]
    argv += ["model.dropout=0", "training.max_steps=15"]
    two = [*argv, "training.num_processes=2"]
    assert run_recipe([*argv, "name=one", "training.gradient_accumulation_steps=2"], tmp_path / "one") == 0
    assert run_distributed([*two, "name=whole"], tmp_path / "whole", 2) == [0, 0], (
        tmp_path / "whole-0.err"
    ).read_text()
    one, whole = run_named(tmp_path, "one"), run_named(tmp_path, "whole")
    same_updates(one, whole, updates=15)
    assert state_of(one, 15) == state_of(whole, 15)
    killed = run_distributed([*two, "name=killed"], tmp_path / "first", 2, signal_at=8)
    assert killed == [-signal.SIGKILL] * 2
    run = run_named(tmp_path, "killed")
    assert run_distributed([f"resume={run}"], tmp_path / "second", 2) == [0, 0], (
        tmp_path / "second-0.err"
    ).read_text()
    assert "continuing at step 6" in (tmp_path / "second-0.err").read_text()
    assert equal(last_weights(whole), last_weights(run)) and measured(run) == measured(whole)


def test_a_broken_line_stops_the_run_which_goes_on_once_it_is_mended(tmp_path):
    words = write_corpus(tmp_path, 2600)[:2]
    sides = ((tmp_path / f"text.{side}").read_text().splitlines() for side in ("xx", "yy"))
    records = [json.dumps({"source": source, "target": target}) for source, target in zip(*sides, strict=True)]
    path = tmp_path / "text.jsonl"

    def write(line: str, first: str = records[0]) -> None:
        path.write_text("\n".join([first, *records[1:2200], line, *records[2201:]]) + "\n")

    argv = [*words, "data.train.streaming=true", f"data.train.path={path}", "batching.streaming_window=500"]
    argv += ["batching.batch_tokens=1024", "tokenizer.max_training_sentences=400", "training.max_steps=20"]
    argv += ["--config", "tiny", f"output_dir={tmp_path / 'runs'}"]
    write(records[2200])
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    write(records[2200][:-1])
    assert run_recipe([*argv, "name=broken"], tmp_path / "first") == 2
    told = (tmp_path / "first.err").read_text()
    assert f"{path}, line 2201: this is not valid JSON" in told and "Traceback" not in told
    whole, run = run_named(tmp_path, "whole"), run_named(tmp_path, "broken")
    assert runs.load(run).record["status"] == "failed"
    assert 3 <= runs.step_of(checkpoints.latest_whole(run / "checkpoints")) < 20
    # Another text than was trained on so far is refused; another text from there on is told.
    write(records[2200], first=records[1])
    assert run_recipe([f"resume={run}"], tmp_path / "second") == 2
    assert "what comes before the place where it stood has changed" in (tmp_path / "second.err").read_text()
    write(records[2200])
    assert run_recipe([f"resume={run}"], tmp_path / "third") == 0
    assert "The train texts changed since" in (tmp_path / "third.err").read_text()
    assert equal(last_weights(whole), last_weights(run))


def test_what_a_stream_needs_and_what_does_nothing_with_one_is_refused(tmp_path, corpus):
    def told(*changes: str) -> str:
        assert run_recipe([*corpus, *changes, "--dry-run"], tmp_path / "refused") == 2
        return (tmp_path / "refused.err").read_text()

    text = told("training.max_steps=-1", "training.dataloader_num_workers=2", "training.save_strategy=epoch",
                "training.eval_strategy=epoch", "training.dataloader_persistent_workers=true")  # fmt: skip
    assert "training.max_steps: not given, but how long a stream is shows only at its end" in text
    assert "training.eval_strategy: given epoch, but the end of an epoch of a stream is not known beforehand" in text
    assert "training.save_strategy: given epoch" in text
    assert "training.dataloader_num_workers: given 2, but a stream is read by one process" in text
    assert "training.dataloader_persistent_workers: does nothing with streaming" in text
    text = told("data.train.streaming=false")
    assert "batching.streaming_window: does nothing without data.train.streaming=true" in text
    text = told("training.gradient_accumulation_steps=9")
    assert "batching.streaming_window: given 17, but an update has 9 batches" in text
    text = told("data.validation.streaming=true")
    assert "data.validation.streaming" in text


def test_a_stream_is_described_in_the_manifest_by_its_files(tmp_path, corpus):
    assert run_recipe([*corpus, "training.max_steps=3"], tmp_path / "out") == 0, (tmp_path / "out.err").read_text()
    (run,) = (tmp_path / "runs").iterdir()
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["rows"] is None and manifest["splits"]["train"]["rows"] is None
    assert manifest["splits"]["validation"]["rows"] == 8
    assert [Path(file["path"]).name for file in manifest["files"]] == ["text.xx", "text.yy"]
    assert "stream" in (tmp_path / "out.err").read_text()
    # Of the training text only its head was kept, for the tokenizer.
    kept = [path.name.partition("-")[0] for path in (tmp_path / "cache" / "hf_nmt").iterdir() if path.is_dir()]
    assert sorted(kept) == ["encoded", "head", "head", "pairs"]
