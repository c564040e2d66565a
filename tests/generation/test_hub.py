"""Ids of the Hub: what is told of one that is not there, and of one that cannot be asked for."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from hf_nmt.errors import NmtError
from hf_nmt.generation import hub
from hf_nmt.translators import find_model, load_translator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def answers(monkeypatch):
    """Make the Hub answer with an error, or with nothing special."""
    hub.look_up.cache_clear()

    def answers(error=None):
        def model_info(model, **_):
            if error is not None:
                raise error

        monkeypatch.setattr(huggingface_hub, "model_info", model_info)

    yield answers
    hub.look_up.cache_clear()


def without_response(error_class):
    return error_class.__new__(error_class)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (without_response(RepositoryNotFoundError), ", and no such model on the Hub. Check the name;"),
        (OfflineModeIsEnabled(), "the Hub is not asked, as HF_HUB_OFFLINE is set. Unset it to download"),
        (ConnectionError("Name or service not known"), r"could not be reached \(Name or service not known\)"),
        (TimeoutError(), r"could not be reached \(TimeoutError\). Look at the network"),
    ],
)
def test_why_a_model_is_not_to_be_had(answers, error, message):
    answers(error)
    for call in (find_model, load_translator):
        with pytest.raises(NmtError, match=f"^nobody/nothing: there is no such folder.*{message}"):
            call("nobody/nothing")


def test_what_the_hub_has_or_answers_strangely_is_tried(answers):
    answers()
    assert hub.look_up("some/model") == {} and find_model("some/model") == "some/model"
    hub.look_up.cache_clear()
    answers(without_response(HfHubHTTPError))
    assert hub.look_up("some/model") == {}


def test_what_was_downloaded_earlier_serves_without_a_network(answers, monkeypatch, tmp_path, copy_folder, caplog):
    answers(ConnectionError("Name or service not known"))
    cache = tmp_path / "models--some--model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    shutil.copytree(copy_folder, cache / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO):
        translator = load_translator("some/model", "cpu")
    assert next(translator.translate(["balo delo."]))[0].text == "balo delo."
    assert "could not be reached (Name or service not known); the files downloaded earlier are taken." in caplog.text
    assert "Retry" not in caplog.text


@pytest.mark.parametrize(
    "command",
    [
        ["validate.py", "model=nobody/nothing", "data.test.path=test.jsonl"],
        ["translate.py", "model=nobody/nothing", "input=test.jsonl"],
    ],
    ids=["validate", "translate"],
)
def test_without_a_network_the_recipes_say_so_once_and_before_the_data(command, tmp_path):
    (tmp_path / "test.jsonl").write_text('{"de": "a", "en": "b"}\n')
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / command[0]), *command[1:]],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: model: nobody/nothing: ") and "the Hub could not be reached (" in line
    assert time.monotonic() - started < 30
