"""How much memory a start of training takes, from the first line of text to the first updates."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import zipf_corpus
from recipe_processes import RECIPE

# Small batches: what the updates take does not grow, and must not hide what does.
MODEL = ["--config", "tiny", "tokenizer.vocab_size=8000", "batching.batch_tokens=256", "training.max_steps=4"]


class Peaks(NamedTuple):
    """MiB. Mapped pages of files count in `resident`, and the system takes them back when it needs them."""

    anonymous: int
    resident: int


def processes_under(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from processes_under(int(child))


def peaks_of(command: list[str], **variables: str) -> Peaks:
    """Highest sums over a process and all that it starts, looked at a hundred times a second."""
    anonymous = resident = 0
    process = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        sums = {"RssAnon": 0, "VmRSS": 0}
        for pid in processes_under(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for name in sums:
                found = re.search(rf"{name}:\s+(\d+) kB", status)
                sums[name] += int(found[1]) if found else 0
        anonymous, resident = max(anonymous, sums["RssAnon"]), max(resident, sums["VmRSS"])
        time.sleep(0.01)
    assert process.returncode == 0
    return Peaks(anonymous // 1024, resident // 1024)


def start_of_training(folder: Path, rows: int) -> Peaks:
    folder.mkdir()
    writer = [sys.executable, zipf_corpus.__file__, str(folder), str(rows)]
    data = subprocess.run(writer, capture_output=True, text=True, check=True).stdout.split()
    argv = [*data, *MODEL, "training.eval_strategy=no", f"output_dir={folder / 'runs'}"]
    return peaks_of([sys.executable, str(RECIPE), *argv], HF_DATASETS_CACHE=str(folder / "cache"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_measurement_sees_what_a_child_holds():
    hold = "import time; held = b'1' * 100 * 2**20; time.sleep(0.5)"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    plain = peaks_of([sys.executable, "-c", "import time; time.sleep(0.1)"])
    assert 95 < peaks_of([sys.executable, "-c", inner]).anonymous - plain.anonymous < 130


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_training_grows_little_with_the_corpus(tmp_path):
    """The bound is 200 MiB from 0.1 to 5 million pairs. By a million the tokenizer has the most it reads."""
    few, many = (start_of_training(tmp_path / str(rows), rows) for rows in (100_000, 1_000_000))
    assert sum(path.stat().st_size for path in (tmp_path / "1000000").glob("text.*")) > 100 * 2**20
    assert many.anonymous - few.anonymous < 150, (few, many)
