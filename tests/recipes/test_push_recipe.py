"""recipes/push.py as it is called, and the other recipes with what it pushed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import TOKEN
from run_records import write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(server, tmp_path):
    """Starts a recipe in a process of its own, with the server as the Hub."""
    inherited = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    own = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

    def call(recipe: str, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), *arguments],
            env=inherited | own | {"HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)} | environment,
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return call


@pytest.fixture
def run(copy_folder, tmp_path):
    return write_run(tmp_path / "runs" / "copy-20260101-000000", copy_folder)


def test_a_push_is_listed_stopped_and_completed(call, server, run):
    process = call("push", str(run), "repo=me/copy", "--dry-run")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0 and "repo: me/copy" in stdout and server.requests == []
    assert "KB  model.safetensors" in stderr and "B  generation_config.json" in stderr
    assert "card  written from the run" in stderr and not (run / "best" / "README.md").exists()

    server.on_request = lambda method, path: time.sleep(60) if "/commit/" in path else None
    process = call("push", str(run), "repo=me/copy")
    deadline = time.monotonic() + 120
    while not any("/commit/" in path for _, path, _ in server.requests):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (130, "") and "Traceback" not in stderr
    assert "Stopped. Nothing of it is in me/copy" in stderr and server.files("me/copy") == {}

    server.on_request = lambda method, path: None
    uploads = [path for _, path, _ in server.requests if path.startswith("/lfs/")]
    process = call("push", str(run), "repo=me/copy")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stdout.startswith(f"{server.endpoint}/me/copy/commit/") and TOKEN not in stdout + stderr
    assert "model.safetensors" in server.files("me/copy")
    assert [path for _, path, _ in server.requests if path.startswith("/lfs/")] == uploads  # what was sent is there


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], ["repo: none is given. Write repo=owner/name", "folder: none is given. Write runs/<id> after"]),
        (["nowhere", "repo=a/b/c"], ["repo: 'a/b/c' is no name of a repository", "nowhere: there is no such folder"]),
        (["{run}", "repo=me/x", "card=keep", "license=mit"], ["license: a card that is kept does not take it."]),
        (["{run}", "repo=me/x", "scores=[nowhere]"], ["nowhere/scores.json: cannot read the scores"]),
        (["{run}", "repo=me/x", "token=secret"], ["token: unknown key."]),
    ],
)
def test_what_is_wrong_is_told_at_once(run, arguments, messages, monkeypatch, tmp_path):
    from settings_walk.keys import recipe_module

    from hf_nmt.errors import ConfigError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        recipe_module("push").main([argument.format(run=run) for argument in arguments])
    text = "\n".join(caught.value.findings)
    assert all(message in text for message in messages), text


@pytest.mark.slow
def test_the_other_recipes_take_the_id(call, server, run, tmp_path):
    """What the local folder gives is what the id gives."""
    texts = ["balo delo.", "kalo felo, nalo?"]
    for side in ("source", "target"):
        (tmp_path / f"test.{side}").write_text("".join(f"{text}\n" for text in texts))
    done = call("push", str(run), "repo=me/copy")
    assert done.wait(120) == 0, done.communicate()
    outputs = []
    for model in (str(run), "me/copy"):
        process = call("translate", f"model={model}", "input=test.source")
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        outputs.append(stdout)
    assert outputs[0] == outputs[1] == "".join(f"{text}\n" for text in texts)
    test = ["data.test.source=test.source", "data.test.target=test.target", "metrics.num_bootstrap_samples=0"]
    process = call("validate", "model=me/copy", "data.source_language=de", "data.target_language=en", *test)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "100.00" in stdout
