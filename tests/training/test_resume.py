from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from corpora import write_corpus
from recipe_processes import run_distributed, run_recipe
from run_folders import equal, last_weights, measured, only_run, run_named
from safetensors.torch import load_file

from hf_nmt import runs
from hf_nmt.training import checkpoints


@pytest.fixture
def corpus(tmp_path):
    data = write_corpus(tmp_path)
    return [*data, "data.validation.max_rows=8", "--config", "tiny", f"output_dir={tmp_path / 'runs'}"]


def test_killed_twice_and_resumed_equals_never_killed(tmp_path, corpus):
    argv = [*corpus, "tokenizer.dropout=0.1", "model.dropout=0.2", "training.gradient_accumulation_steps=2"]
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, Path(tmp_path / "whole.err").read_text()
    killed = run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=5)
    assert killed == -signal.SIGKILL
    whole, run = run_named(tmp_path, "whole"), run_named(tmp_path, "killed")
    assert [path.name for path in runs.list_checkpoints(run / "checkpoints")] == ["step-3"]
    assert run_recipe([f"resume={run}"], tmp_path / "second", signal_at=8) == -signal.SIGKILL
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    assert run_recipe([f"resume={run}"], tmp_path / "third") == 0
    assert "continuing at step 6" in (tmp_path / "third.err").read_text()

    assert equal(last_weights(whole), last_weights(run))
    assert measured(run) == measured(whole)
    histories = [runs.read_validations(folder) for folder in (whole, run)]
    assert [entry["step"] for entry in histories[0]] == [6, 12]
    assert [entry["samples"] for entry in histories[0]] == [entry["samples"] for entry in histories[1]]
    assert (tmp_path / "third.out").read_text() == f"{run / 'best'}\n"
    best = [load_file(folder / "best" / "model.safetensors") for folder in (whole, run)]
    assert equal(*best)


def test_a_run_that_began_in_bf16_goes_on_in_bf16(tmp_path, corpus):
    argv = [*corpus, "training.bf16=true", "training.eval_strategy=no", "training.max_steps=6"]
    for name, more in {"whole": [], "fp32": ["training.bf16=false"]}.items():
        assert run_recipe([*argv, *more, f"name={name}"], tmp_path / name) == 0, (tmp_path / f"{name}.err").read_text()
    assert run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=5) == -signal.SIGKILL
    whole, killed, fp32 = (run_named(tmp_path, name) for name in ("whole", "killed", "fp32"))
    # The environment asks for nothing, as where the run is continued without the launcher.
    assert run_recipe([f"resume={killed}"], tmp_path / "second") == 0
    assert "goes on as before: " in (told := (tmp_path / "second.err").read_text())
    assert ", mixed_precision bf16, batch_tokens 256" in told
    expected, found, other = (last_weights(run) for run in (whole, killed, fp32))
    assert equal(expected, found) and not equal(expected, other)


def test_a_broken_checkpoint_is_passed_over(tmp_path, corpus):
    run_recipe(corpus, tmp_path / "first", signal_at=10)
    run = only_run(tmp_path)
    newest = run / "checkpoints" / "step-9" / "optimizer.pt"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    shutil.copytree(run / "checkpoints" / "step-9", run / "checkpoints" / "step-11")
    (run / "checkpoints" / "step-11" / "COMPLETE").unlink()
    assert run_recipe([f"resume={run}"], tmp_path / "second") == 0
    log = (tmp_path / "second.err").read_text()
    assert "step-11 is not used" in log and "step-9 is not used" in log and "SHA-256 differs" in log
    assert "continuing at step 6" in log
    assert runs.load(run).record["status"] == "finished"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_the_run_to_be_resumed(tmp_path, corpus, number, status):
    assert run_recipe(corpus, tmp_path / "first", signal_at=5, number=number) == status
    run = only_run(tmp_path)
    told = (tmp_path / "first.err").read_text()
    assert f"train.py resume={run}   (goes on at step 5)\nInterrupted.\n" in told and told.count("Interrupted") == 1
    assert runs.load(run).record["status"] == "interrupted"
    assert not list((run / "checkpoints").glob(".*"))
    # The same command starts a new run and points at the old one.
    assert run_recipe(corpus, tmp_path / "second") == 0
    assert f"An unfinished run has the same settings and data: {run}" in (tmp_path / "second.err").read_text()
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_run_goes_on_with_texts_that_were_moved(tmp_path, corpus):
    assert run_recipe(corpus, tmp_path / "first", signal_at=5, number=signal.SIGINT) == 130
    run, elsewhere = only_run(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = dict(argument.split("=") for argument in corpus if argument.startswith("data."))
    files = {key: path for key, path in files.items() if Path(path).is_file()}
    assert {"data.train.source", "data.train.target"} < files.keys()
    for path in set(files.values()):
        shutil.move(path, elsewhere)
    moved = {key: str(elsewhere / Path(path).name) for key, path in files.items()}

    def resume(output: str, settings: dict[str, str]) -> int:
        return run_recipe([f"resume={run}", *(f"{key}={path}" for key, path in settings.items())], tmp_path / output)

    assert resume("second", {}) == 2
    assert (tmp_path / "second.err").read_text().count("there is no such file") == 4
    swapped = {"data.train.source": moved["data.train.target"], "data.train.target": moved["data.train.source"]}
    assert resume("third", moved | swapped) == 2
    assert "resume: the train texts changed since" in (tmp_path / "third.err").read_text()
    assert resume("fourth", moved) == 0
    assert runs.load(run).record["settings"]["data"]["train"]["source"] == moved["data.train.source"]


def test_a_full_disk_while_saving_is_told_and_harms_nothing(tmp_path, corpus):
    run_recipe(corpus, tmp_path / "first", signal_at=4)
    run = only_run(tmp_path)
    largest = max(path.stat().st_size for path in (run / "checkpoints" / "step-3").iterdir())
    status = run_recipe([f"resume={run}"], tmp_path / "second", file_limit=largest - 1)
    assert status == 2
    message = (tmp_path / "second.err").read_text()
    assert "step-6 could not be written" in message and "MiB" in message and "Traceback" not in message
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-3"]
    assert checkpoints.latest_whole(run / "checkpoints").name == "step-3"
    assert runs.load(run).record["status"] == "failed"
    assert run_recipe([f"resume={run}"], tmp_path / "third") == 0
    assert runs.load(run).record["status"] == "finished"


@pytest.mark.slow
def test_two_processes_killed_and_resumed_equal_two_never_killed(tmp_path, corpus):
    argv = [*corpus, "training.use_cpu=true", "training.num_processes=2", "training.eval_strategy=no"]
    argv += ["tokenizer.dropout=0.1", "model.dropout=0.2", "training.max_steps=6"]
    assert run_distributed([*argv, "name=whole"], tmp_path / "whole", 2) == [0, 0], (
        tmp_path / "whole-0.err"
    ).read_text()
    killed = run_distributed([*argv, "name=killed"], tmp_path / "first", 2, signal_at=5)
    assert killed == [-signal.SIGKILL, -signal.SIGKILL]
    whole, run = (run_named(tmp_path, name) for name in ("whole", "killed"))
    assert [path.name for path in runs.list_checkpoints(run / "checkpoints")] == ["step-3"]
    # One process is refused, and told how two are launched.
    assert run_recipe([f"resume={run}"], tmp_path / "alone") == 2
    message = (tmp_path / "alone.err").read_text()
    assert "training.num_processes: given 2, but 1 process runs" in message
    assert "accelerate launch --multi_gpu --num_processes 2 recipes/train.py ... training.use_cpu=true" in message
    assert run_distributed([f"resume={run}"], tmp_path / "second", 2) == [0, 0], (
        tmp_path / "second-0.err"
    ).read_text()
    assert "continuing at step 3" in (tmp_path / "second-0.err").read_text()
    expected, found = last_weights(whole), last_weights(run)
    assert equal(expected, found)
    assert measured(run) == measured(whole)


def test_two_processes_train_as_one_that_accumulates(tmp_path, corpus):
    argv = [*corpus, "model.dropout=0", "training.use_cpu=true", "training.logging_steps=1"]
    assert run_recipe([*argv, "name=one", "training.gradient_accumulation_steps=2"], tmp_path / "one") == 0
    assert run_distributed([*argv, "name=two", "training.num_processes=2"], tmp_path / "two", 2) == [0, 0], (
        tmp_path / "two-0.err"
    ).read_text()
    one, two = (run_named(tmp_path, name) for name in ("one", "two"))
    for name in ("loss", "grad_norm", "eval_loss"):
        values = [runs.series(runs.read_metrics(run), name)[1] for run in (one, two)]
        assert values[1] == pytest.approx(values[0], rel=1e-5) and values[0]
    assert [entry["tokens"] for entry in runs.read_metrics(one)] == [
        entry["tokens"] for entry in runs.read_metrics(two)
    ]
    assert (tmp_path / "two-1.out").read_text() == ""
