"""What a user sees on a terminal while a model trains."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import struct
import sys
import termios
import threading

import pytest
from toy_training import make_run, make_trainer

pty = pytest.importorskip("pty")

BAR = re.compile(
    r"training: +\d+%\|.*\| \d+/20 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ ?(updates/s|s/ updates)"
    r"(, loss \d+\.\d{3}, [\d,]+ tokens/s)?\]"
)

LOGGED = re.compile(
    r"step (\d+)/20  epoch [\d.]+  loss [\d.]+  learning rate \S+  gradient norm [\d.]+  [\d,]+ tokens/s  \S+ left"
)


def read_all(descriptor: int, into: list[bytes]) -> None:
    try:
        while part := os.read(descriptor, 1 << 16):
            into.append(part)
    except OSError:  # nobody writes any more
        return


def lines_shown(written: str) -> list[str]:
    """The lines that a terminal shows after all was written: a carriage return goes back and overwrites."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown: list[str] = []
        for part in line.split("\r"):
            shown[: len(part)] = part
        lines.append("".join(shown).rstrip())
    return [line for line in lines if line]


def test_the_bar_tells_speed_and_time_left_and_log_lines_stay_whole(tmp_path, monkeypatch):
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    parts: list[bytes] = []
    thread = threading.Thread(target=read_all, args=(reader, parts), daemon=True)
    thread.start()
    log, level = logging.getLogger("hf_nmt"), logging.getLogger("hf_nmt").level
    with open(writer, "w", encoding="utf-8", buffering=1) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        handler = logging.StreamHandler(terminal)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            make_trainer(make_run(tmp_path)).train()
            log.info("the end")
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
    thread.join(10)
    os.close(reader)
    written = b"".join(parts).decode()
    steps = [line for line in lines_shown(written) if line.startswith("step ")]
    form = (
        r"step (\d+)/20  epoch [\d.]+  loss [\d.]+  learning rate \S+  gradient norm [\d.]+  [\d,]+ tokens/s  \S+ left"
    )
    assert [re.fullmatch(form, line)[1] for line in steps] == ["5", "10", "15", "20"]
    course, *others = [line for line in lines_shown(written) if not line.startswith("step ")]
    assert course == "learning rate 0.0005: inverse_sqrt, warm-up 4 updates"
    assert others[-1] == "the end"
    assert others[:-1] and all(BAR.fullmatch(line) for line in others[:-1]), others
    assert "20/20" in others[-2] and "tokens/s" in others[-2]
    assert "12%|" not in others[-2] and len(set(re.findall(r"(\d+)/20 \[", written))) > 3  # it moves
