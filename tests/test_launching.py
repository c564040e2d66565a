"""How a recipe ends as one of several processes; the launcher is played by the test."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

PROLOGUE = """
import signal, sys, time
from hf_nmt.errors import ConfigError
from hf_nmt.launching import launch
def begin():
    sys.stdout.write("begun\\n")
    sys.stdout.flush()
def main(argv):
"""
REFUSED = "    begin()\n    raise ConfigError('seed: given -1.')\nlaunch(main)\n"
STOPPED = """    try:
        begin()
        time.sleep(60)
    finally:
        time.sleep(1)  # a second signal comes meanwhile
        sys.stdout.write("tidied up\\n")
launch(main)
"""


def start(code: str, **variables: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | variables
    process = subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def test_bitsandbytes_recommends_nothing_to_who_quantizes_nothing():
    importlib.import_module("hf_nmt.launching")
    if (package := find_spec("bitsandbytes")) is not None:
        text = Path(package.origin).with_name("backends").joinpath("cpu", "ops.py").read_text(encoding="utf-8")
        assert "logger = logging.getLogger(__name__)" in text  # it goes by the name that is silent here
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)


def test_the_first_process_of_a_machine_tells_an_error_at_once():
    """RANK is not asked for: the second machine has a terminal of its own."""
    process = start(REFUSED, WORLD_SIZE="4", RANK="2", LOCAL_RANK="0")
    began = time.monotonic()
    assert process.communicate(timeout=30)[1] == "Error: seed: given -1.\n"
    assert process.returncode == 2 and time.monotonic() - began < 3


def test_another_process_leaves_it_to_the_launcher():
    process = start(REFUSED, WORLD_SIZE="2", RANK="1", LOCAL_RANK="1")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)  # as where the first has failed as well
    assert process.communicate(timeout=30) == ("", "") and process.returncode == -signal.SIGTERM


def test_another_process_tells_an_error_that_it_alone_has():
    process = start(REFUSED, WORLD_SIZE="2", RANK="1", LOCAL_RANK="1")
    assert process.communicate(timeout=30)[1] == "Error: seed: given -1.\n" and process.returncode == 2


@pytest.mark.parametrize(("rank", "told"), [("0", "Interrupted.\n"), ("1", "")])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_does_not_disturb_what_the_first_began(rank, told, number, status):
    """The terminal, or whoever sent the signal, and then the launcher."""
    process = start(STOPPED, WORLD_SIZE="2", RANK=rank, LOCAL_RANK=rank)
    process.send_signal(number)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == ("tidied up\n", told) and process.returncode == status


UNFIT = """    from hf_nmt.generation.decoding import DecodingSettings
    begin()
    DecodingSettings(num_beams=2, num_return_sequences=3, top_p=2)
launch(main)
"""


def test_settings_that_are_refused_wherever_they_are_made_are_told_without_a_stack_trace():
    process = start(UNFIT)
    told = process.communicate(timeout=60)[1]
    assert told.startswith("Error: DecodingSettings.top_p: given 2: Input should be less than or equal to 1")
    assert "Traceback" not in told and process.returncode == 2
