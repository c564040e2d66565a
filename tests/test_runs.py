from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from hf_nmt import runs
from hf_nmt.artifacts import file_lock, mark_complete, write_text
from hf_nmt.errors import ConfigError, NmtError

ROOT = Path(__file__).parents[1]
SETTINGS = {"seed": 1, "name": None, "output_dir": "runs", "resume": None, "model": {"d_model": 8}}


def start(folder, settings=SETTINGS, name="de-en", data=None):
    return runs.start(
        "train", settings, folder, name, data=data or {"train": "abc"}, seeds={"seed": 1}, device={"type": "cpu"}
    )


def test_a_run_has_its_own_folder_and_record(tmp_path):
    with start(tmp_path) as run:
        assert run.folder.name.startswith("de-en-2") and run.folder.parent == tmp_path
        assert json.loads((run.folder / "run.json").read_text())["status"] == "running"
        logging.getLogger("hf_nmt.runs").warning("a line")
    record = json.loads((run.folder / "run.json").read_text())
    assert record["status"] == "finished" and record["schema_version"] == 1
    assert record["settings"] == SETTINGS and record["seeds"] == {"seed": 1} and record["data"] == {"train": "abc"}
    assert {"python", "platform", "processor", "cores", "packages", "command"} <= record["environment"].keys()
    assert "a line" in (run.folder / "log.txt").read_text()


def test_no_empty_folder_stays_where_the_record_cannot_be_written(tmp_path, monkeypatch):
    def fail(*args):
        raise NmtError("the disk is full")

    monkeypatch.setattr(runs, "write_json", fail)
    with pytest.raises(NmtError, match="the disk is full"):
        start(tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_of_the_same_second_do_not_meet(tmp_path):
    assert len({start(tmp_path).folder for _ in range(3)}) == 3


def test_the_log_rotates(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LOG_BYTES", 2000)
    with start(tmp_path) as run:
        for number in range(100):
            logging.getLogger("hf_nmt.runs").warning("line %d of the log", number)
    files = sorted(path.name for path in run.folder.glob("log.txt*"))
    assert files == ["log.txt", "log.txt.1", "log.txt.2", "log.txt.3"]
    assert all((run.folder / name).stat().st_size <= 2000 for name in files)


def test_the_fingerprint_is_of_settings_and_data(tmp_path):
    first = start(tmp_path).record["fingerprint"]
    elsewhere = SETTINGS | {"name": "other", "output_dir": "else", "resume": "x"}
    assert start(tmp_path, elsewhere, name="other").record["fingerprint"] == first
    assert start(tmp_path, SETTINGS | {"seed": 2}).record["fingerprint"] != first
    assert start(tmp_path, data={"train": "abd"}).record["fingerprint"] != first


def test_an_unfinished_run_is_pointed_out(tmp_path, caplog):
    stale = start(tmp_path)
    with start(tmp_path):
        assert f"An unfinished run has the same settings and data: {stale.folder}" in caplog.text
    caplog.clear()
    with file_lock(stale.folder / "run"):  # somebody is writing it
        assert stale.folder not in runs.unfinished(tmp_path, stale.record["fingerprint"])
    start(tmp_path, SETTINGS | {"seed": 2})
    assert "unfinished" not in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("broken"), "failed"), (NmtError("full"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_how_a_run_ended_is_recorded(tmp_path, caplog, error, status):
    with pytest.raises(type(error)), start(tmp_path) as run:
        raise error
    assert runs.load(run.folder).record["status"] == status
    if status == "failed":
        assert runs.load(run.folder).record["error"] == f"{type(error).__name__}: {error}"
        log = (run.folder / "log.txt").read_text()
        assert f"The run failed: {error}" in log and ("Traceback" in log) == (not isinstance(error, NmtError))
        assert "failed" not in caplog.text  # once, by whoever catches it
    else:
        hint = f"To go on: python recipes/train.py resume={run.folder}   (begins anew: there is no checkpoint yet)"
        assert hint in caplog.text and "Interrupted" not in caplog.text
    with runs.resume(run.folder, "train") as again:
        record = runs.load(run.folder).record
        assert (again.folder, record["status"]) == (run.folder, "running") and not record.keys() & {"ended", "error"}


def test_a_run_that_failed_tells_how_to_go_on_where_it_has_a_checkpoint(tmp_path, caplog):
    with pytest.raises(NmtError), start(tmp_path) as run:
        write_text(run.checkpoints / "step-9" / "model", "x")
        mark_complete(run.checkpoints / "step-9")
        raise NmtError("the disk is full")
    hint = f"Once what failed is mended, to go on: python recipes/train.py resume={run.folder}   (goes on at step 9)"
    assert hint in caplog.messages


def test_the_hint_is_a_whole_command_and_names_the_step_that_is_kept(tmp_path, monkeypatch):
    run = start(tmp_path, name="a")
    for step in (9, 20, 30):
        write_text(run.checkpoints / f"step-{step}" / "model", "x")
    for step in (9, 20):
        mark_complete(run.checkpoints / f"step-{step}")
    assert run.resume_hint() == f"python recipes/train.py resume={run.folder}   (goes on at step 20)"
    monkeypatch.setattr("sys.argv", ["../my recipes/train.py", "seed=1"])
    run.record["device"]["processes"] = 2
    assert run.resume_hint() == (
        f"accelerate launch --multi_gpu --num_processes 2 '../my recipes/train.py' resume={run.folder}   "
        "(goes on at step 20)"
    )
    for sharding, launched in (("fsdp", "fsdp.yaml'"), ("zero1", "deepspeed_zero2.yaml' --zero_stage 1")):
        run.record["device"]["sharding"] = sharding
        assert f"launch --config_file '../my recipes/launch/{launched} --num_processes 2 '../my" in run.resume_hint()


def test_what_cannot_be_resumed_is_refused(tmp_path):
    with start(tmp_path) as run:
        with pytest.raises(NmtError, match="in use by another process"), runs.resume(run.folder, "train"):
            pass
    with pytest.raises(
        ConfigError, match=r"is finished: .*best. It cannot be trained longer: leave resume out for a new"
    ):
        runs.resume(run.folder, "train")
    with pytest.raises(ConfigError, match=r"is a run of recipes/train.py; resume it there"):
        runs.resume(start(tmp_path).folder, "distill")
    with pytest.raises(ConfigError, match=r"resume: .*nowhere is not a run folder: it does not exist\.$"):
        runs.resume(tmp_path / "nowhere" / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    other = start(tmp_path / "others")
    with pytest.raises(ConfigError, match=r"resume: .*empty is not a run folder: no readable run.json in it"):
        runs.resume(tmp_path / "empty", "train")
    with pytest.raises(ConfigError) as error:
        runs.resume(tmp_path / "others" / "nowhere", "train")
    assert f"it does not exist. Not finished in {tmp_path / 'others'}, the newest first: {other.folder}." in str(
        error.value
    )
    run.update(schema_version=7)
    with pytest.raises(ConfigError, match="has a run.json of version 7; this hf_nmt reads 1"):
        runs.load(run.folder)


def test_metrics_are_kept_up_to_the_checkpoint(tmp_path):
    with start(tmp_path) as run:
        for step in (5, 10, 15):
            run.add_metrics(step, {"loss": step / 10, "rate": 0.1}, epoch=step / 7, tokens=step * 100, seconds=1.5)
            run.add_validation({"step": step, "metrics": {"bleu": 1.0}})
        with open(run.folder / "metrics.jsonl", "a") as stream:
            stream.write('{"step": 16, "na')  # the process was killed here
        assert [entry["step"] for entry in runs.read_metrics(run.folder)] == [5, 5, 10, 10, 15, 15]
        assert runs.read_metrics(run.folder)[0] == {
            "step": 5, "epoch": 0.714286, "tokens": 500, "seconds": 1.5, "name": "loss", "value": 0.5,
        }  # fmt: skip
        run.forget_after(10)
        run.add_metrics(15, {"loss": 2.0}, epoch=2, tokens=1500, seconds=2)
        assert runs.series(runs.read_metrics(run.folder), "loss") == ([5, 10, 15], [0.5, 1.0, 2.0])
        assert [entry["step"] for entry in runs.read_validations(run.folder)] == [5, 10]
        run.add_validation({"step": 15, "metrics": {"bleu": 2.0}})
        run.give_up_after(5)
        run.add_validation({"step": 20, "metrics": {"bleu": 1.5}})
        assert [entry["step"] for entry in runs.read_validations(run.folder)] == [5, 20]
        assert [entry["step"] for entry in runs.read_validations(run.folder, given_up=True)] == [5, 10, 15, 20]
        run.forget_after(None)
        assert runs.read_metrics(run.folder) == runs.read_validations(run.folder, given_up=True) == []


def test_a_validation_that_is_still_to_come_is_forgotten_with_what_was_decided_about_it(tmp_path):
    run = start(tmp_path)
    for step in (5, 10):
        run.add_decision({"step": step, "watch": {"check": "loss_spike"}})
        run.add_metrics(step, {"loss": 1.0}, epoch=1, tokens=100, seconds=1)
        run.add_validation({"step": step, "metrics": {"bleu": 1.0}})
        run.add_metrics(step, {"eval_bleu": 1.0}, epoch=1, tokens=100, seconds=1)
        run.add_decision({"step": step, "watch": {"check": "repetition"}})
    run.forget_after(10, validates=True)
    assert [entry["step"] for entry in runs.read_validations(run.folder)] == [5]
    decisions = [(entry["step"], entry["watch"]["check"]) for entry in runs.read_decisions(run.folder)]
    assert decisions == [(5, "loss_spike"), (5, "repetition"), (10, "loss_spike")]
    entries = runs.read_metrics(run.folder)
    assert runs.series(entries, "loss")[0] == [5, 10] and runs.series(entries, "eval_bleu")[0] == [5]


def test_other_processes_do_not_write(tmp_path):
    folder = start(tmp_path).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with runs.load(folder) as reader:
        reader.add_metrics(1, {"loss": 1.0}, epoch=0, tokens=0, seconds=0)
        reader.add_validation({"step": 1})
        reader.choose(matmul_precision="high")
        reader.forget_after(None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_choices_add_up(tmp_path):
    run = start(tmp_path)
    run.choose(matmul_precision="high")
    run.choose(attention="eager")
    assert runs.load(run.folder).record["choices"] == {"matmul_precision": "high", "attention": "eager"}


def test_of_many_unfinished_runs_the_newest_are_offered_and_files_of_others_are_passed_over(tmp_path):
    for number in range(7):
        path = tmp_path / f"run-{number}" / "run.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"status": "failed"}))
        os.utime(path, (number, number))
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "run.json").write_text("[1]")
    for given, why in ((tmp_path / "none", "it does not exist"), (strange, "no readable run.json in it")):
        with pytest.raises(ConfigError) as error:
            runs.load(given)
        newest = ", ".join(str(tmp_path / f"run-{number}") for number in (6, 5, 4, 3, 2))
        assert f"{given} is not a run folder: {why}." in str(error.value)
        assert str(error.value).endswith(f"Not finished in {tmp_path}, the newest first: {newest} and more.")
