"""Runs of a recipe as processes: a small script stands for the recipe, with the run folder that all recipes leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from hf_nmt import runs
from hf_nmt.artifacts import mark_complete
from hf_nmt.errors import ConfigError
from hf_nmt.tuning.trials import command_of, cost_of, goes_on_at, resolve, run_trial

# Takes `key=value` as recipes do; writes three validations, a tenth of a second apart.
SCRIPT = """
import json, signal, sys, time
from pathlib import Path
given = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
if "--dry-run" in sys.argv:
    if given.get("rate") == "-1":
        sys.stderr.write("2 settings cannot be used:\\n  rate: too low.\\n  size: too small.\\n")
        sys.exit(2)
    sys.stdout.write(f"rate: {given['rate']}\\ncode: 'no'\\n")
    sys.exit(0)
if given.get("fault") == "before":
    sys.stderr.write("Error: no such text.\\n")
    sys.exit(2)
if "resume" in given:
    folder = Path(given["resume"])
    given |= json.loads((folder / "run.json").read_text())["settings"]
else:
    folder = Path(given["output_dir"], given["name"] + "-20260101-000000")
    folder.mkdir()
record = {"schema_version": 1, "recipe": "train", "status": "running", "settings": {"rate": float(given["rate"])}}
def write(**more):
    folder.joinpath("record").write_text(json.dumps(record | more))
    folder.joinpath("record").rename(folder / "run.json")
write()
def stop(*_):
    write(status="interrupted")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
file = folder / "validation_history.json"
history = json.loads(file.read_text()) if file.exists() else []
for step in (10, 20, 30)[len(history):]:
    time.sleep(0.1)
    history.append({"step": step, "metrics": {"loss": float(given["rate"]) / step}})
    folder.joinpath("history").write_text(json.dumps(history))
    folder.joinpath("history").rename(folder / "validation_history.json")
    if given.get("fault") == "within":
        write(status="failed", error="NmtError: The training loss is nan at step 10.")
        sys.exit(2)
    if given.get("fault") == "endless":
        time.sleep(60)
if given.get("fault") == "killed":
    import os
    os.kill(os.getpid(), signal.SIGKILL)
sum(i * i for i in range(2_000_000))
write(status="finished")
"""


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def test_a_run_to_its_end(script, tmp_path):
    seen = []
    command = command_of(script, "small", ["rate=60"])
    assert command == [sys.executable, str(script), "--config", "small", "rate=60"]
    outcome = run_trial(command, tmp_path / "trials", "trial-0001", lambda one: seen.append(one) or True)
    assert [(one.step, one.metrics["loss"]) for one in seen] == [(10, 6.0), (20, 3.0), (30, 2.0)]
    assert outcome.error is None and not outcome.pruned and outcome.updates == 30 and outcome.cpu_seconds > 0.02
    assert outcome.folder == tmp_path / "trials" / "trial-0001-20260101-000000"


def test_a_run_goes_on_and_costs_what_it_did_since(script, tmp_path):
    command = command_of(script, None, ["rate=60", "fault=endless"])
    first = run_trial(command, tmp_path, "trial-0001", lambda one: False)
    assert goes_on_at(first.folder) is None  # it has no checkpoint
    checkpoint = first.folder / "checkpoints" / "step-10"
    checkpoint.mkdir(parents=True)
    assert goes_on_at(first.folder) is None
    mark_complete(checkpoint)
    assert goes_on_at(first.folder) == 10
    seen = []
    outcome = run_trial(
        command, tmp_path, "trial-0002", lambda one: seen.append(one.step) or True, resume=(first.folder, 10)
    )
    assert seen == [10, 20, 30] == [one.step for one in outcome.validations] and outcome.updates == 20
    assert outcome.folder == first.folder and outcome.error is None and cost_of(first.folder) == (30, 0.0)
    assert goes_on_at(first.folder) is None  # it is finished


def test_validations_that_were_given_up_do_not_count(script, tmp_path):
    outcome = run_trial(command_of(script, None, ["rate=60"]), tmp_path, "trial-0001", lambda one: True)
    history = json.loads((outcome.folder / "validation_history.json").read_text())
    history[1]["given_up"] = True
    (outcome.folder / "validation_history.json").write_text(json.dumps(history))
    again = run_trial(command_of(script, None, []), tmp_path, "x", lambda one: True, resume=(outcome.folder, 30))
    assert [one.step for one in again.validations] == [10, 30]


def test_the_trial_of_another_number_is_another(script, tmp_path):
    for number in (1, 10):
        outcome = run_trial(command_of(script, None, ["rate=1"]), tmp_path, f"trial-{number:04d}", lambda one: True)
        assert outcome.folder is not None and outcome.folder.name.startswith(f"trial-{number:04d}-")


def test_a_run_is_ended_where_it_is_told_so(script, tmp_path):
    began = time.monotonic()
    command = command_of(script, None, ["rate=60", "fault=endless"])
    outcome = run_trial(command, tmp_path, "trial-0001", lambda one: False)
    assert outcome.pruned and outcome.error is None and outcome.updates == 10
    assert runs.load(outcome.folder).record["status"] == "interrupted"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("fault", "error", "has_folder"),
    [
        ("before", "it left with status 2: no such text.", False),
        ("within", "NmtError: The training loss is nan at step 10.", True),
        ("killed", "it was ended by signal 9.", True),
    ],
)
def test_why_a_run_failed(script, tmp_path, fault, error, has_folder):
    outcome = run_trial(command_of(script, None, ["rate=1", f"fault={fault}"]), tmp_path, "trial-0001", lambda _: True)
    assert outcome.error == error and not outcome.pruned and (outcome.folder is not None) == has_folder


def test_an_interrupt_ends_the_run_too(script, tmp_path):
    def interrupt(_):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        return True

    with pytest.raises(KeyboardInterrupt):
        run_trial(command_of(script, None, ["rate=1", "fault=endless"]), tmp_path, "trial-0001", interrupt)
    assert runs.load(next(tmp_path.glob("trial-0001-*"))).record["status"] == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells only there")
def test_a_run_ends_with_the_process_that_watches_it(script, tmp_path):
    watching = f"""
import sys
from pathlib import Path
from hf_nmt.tuning.trials import command_of, run_trial
command = command_of(Path({str(script)!r}), None, ["rate=1", "fault=endless"])
run_trial(command, Path({str(tmp_path)!r}), "trial-0001", lambda one: print("seen", flush=True) or True)
"""
    with subprocess.Popen([sys.executable, "-c", watching], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"seen\n"
        process.kill()
    run = next(tmp_path.glob("trial-0001-*"))
    for _ in range(100):
        if runs.load(run).record["status"] != "running":
            break
        time.sleep(0.1)
    assert runs.load(run).record["status"] == "interrupted"


def test_settings_are_asked_of_the_recipe(script):
    assert resolve(command_of(script, None, ["rate=3"])) == {"rate": 3, "code": "no"}
    with pytest.raises(ConfigError) as error:
        resolve(command_of(script, None, ["rate=-1"]))
    assert error.value.findings == ["rate: too low.", "size: too small."]


def test_what_the_recipe_doubts_is_passed_on_once(tmp_path, caplog):
    script = tmp_path / "doubting.py"
    script.write_text("import sys\nprint('seed: 1')\nprint('The warm-up is long.', file=sys.stderr)\n")
    for _ in range(2):
        assert resolve(command_of(script, None, [])) == {"seed": 1}
    assert caplog.messages == ["The warm-up is long."]
