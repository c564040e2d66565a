"""What is told of a long translation, on a terminal and in a log."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from hf_nmt.generation import meter as meter_module
from hf_nmt.generation.meter import Meter


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: now[0])
    return now


def lines_of(meter, clock, steps, caplog):
    """The lines logged while `steps` (seconds since the start, items done) go by."""
    with caplog.at_level(logging.INFO, logger="hf_nmt"), meter:
        for seconds, done in steps:
            clock[0] = 100.0 + seconds
            meter.at(done)
    return caplog.messages


def test_a_log_gets_a_line_every_ten_seconds_with_speed_and_time_left(clock, caplog):
    steps = [(second, 5 * second + 0.5) for second in range(1, 31)] + [(40, 8000)]
    assert lines_of(Meter(8000, "lines", "translating"), clock, steps, caplog) == [
        "translating: 50/8,000 lines  5.0 lines/s  0:26:30 left",
        "translating: 100/8,000 lines  5.0 lines/s  0:26:20 left",
        "translating: 150/8,000 lines  5.0 lines/s  0:26:10 left",
    ]  # and none at the end, where the summary follows


def test_without_a_total_no_time_left_and_an_earlier_start_counts_for_no_speed(clock, caplog):
    assert lines_of(Meter(None, "lines", "a.de"), clock, [(20, 64)], caplog) == ["a.de: 64 lines  3.2 lines/s"]
    caplog.clear()
    clock[0] = 100.0
    assert lines_of(Meter(1100, "lines", "a.de", done=1000), clock, [(20, 1040)], caplog) == [
        "a.de: 1,040/1,100 lines  2.0 lines/s  0:00:30 left"
    ]


def test_nothing_done_yet_is_told_too(clock, caplog):
    assert lines_of(Meter(9, "lines", "a.de"), clock, [(12, 0)], caplog) == ["a.de: 0/9 lines  0.0 lines/s"]


def test_a_terminal_gets_a_bar(monkeypatch, clock, caplog):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert lines_of(Meter(80, "lines", "a.de"), clock, [(20, 40), (40, 80)], caplog) == []
    assert "a.de: 100%" in terminal.getvalue() and "80/80" in terminal.getvalue()
