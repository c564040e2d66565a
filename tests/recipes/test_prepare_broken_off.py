"""prepare_data.py that is killed, interrupted or finds the disk full at any moment: nothing half-written looks whole,
and the same command goes on to the same version.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hf_nmt.data.versions import verify

RECIPE = Path(__file__).parents[2] / "recipes" / "prepare_data.py"
ROWS_OF_A_TABLE = 12
KINDS = "{normalise: {}}", "{empty: {}}", "{exact_duplicates: {}}", "{near_duplicates: {}}", "{lengths: {}}"
COMMAND = [
    "source_language=de", "target_language=en", f"steps=[{', '.join(KINDS)}]", "inputs.a.path=c.tsv", "raw_dir=raw",
    "splits.sets.test.count=5", "leakage.sets.held.path=held.tsv", "leakage.on_leak=drop",
]  # fmt: skip

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["hf_nmt.cleaning.corpus", "hf_nmt.cleaning.leakage", "test_prepare_broken_off"])


def _child(folder: Path, output: str, arguments: list[str], at: int | None, what: str) -> None:
    """The recipe in a process of its own.

    Args:
        folder: where it runs.
        output: stdout goes to `<output>.out`, stderr to `<output>.err`.
        arguments: beside COMMAND.
        at: moment, from 1, at which something happens; moments are before each file or folder is put on the disk, and
            after each has got its name. None counts them, in `<output>.moments`.
        what: name of a signal that the process gets, or "ENOSPC": the disk is full from then on.
    """
    from hf_nmt import artifacts
    from hf_nmt.cleaning import corpus, leakage, pipeline

    os.chdir(folder)
    for module in (corpus, leakage, pipeline):
        module.ROWS_OF_A_TABLE = ROWS_OF_A_TABLE
    moments = 0

    def moment() -> None:
        nonlocal moments
        moments += 1
        if what == "ENOSPC" and at is not None and moments >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        if moments == at:
            os.kill(os.getpid(), getattr(signal, what))

    def then(function: Any, before: bool) -> Any:
        def called(*given: Any) -> None:
            if before:
                moment()
            function(*given)
            if not before and what != "ENOSPC":
                moment()

        return called

    artifacts._sync = then(artifacts._sync, before=True)
    os.replace, os.rename = then(os.replace, before=False), then(os.rename, before=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(f"{output}.out", "w") as out, open(f"{output}.err", "w") as err:
        with redirect_stdout(out), redirect_stderr(err):
            sys.argv = [str(RECIPE), *COMMAND, *arguments]
            try:
                runpy.run_path(str(RECIPE), run_name="__main__")
            finally:
                Path(f"{output}.moments").write_text(str(moments))


def run(folder: Path, output: str, *arguments: str, at: int | None = None, what: str = "SIGKILL") -> int:
    process = _context.Process(target=_child, args=(folder, output, list(arguments), at, what))
    process.start()
    process.join(300)
    assert process.exitcode is not None, "the recipe did not end"
    return process.exitcode


def text_in(folder: Path) -> Path:
    """A corpus with duplicates, near-duplicates, empty and short sides, and pairs of an evaluation set."""
    draw = random.Random(6)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in ("ara", "eno", "ilu") for c in ("s", "ter", "nd")]
    pairs = [tuple(" ".join(draw.choices(words, k=draw.randint(7, 12))) for _ in range(2)) for _ in range(50)]
    pairs += [pairs[3], pairs[40], ("", "alone"), ("x" * 3000, "y"), (f"{pairs[9][0]} a", pairs[9][1])]
    folder.mkdir()
    table = ["source\ttarget", *("\t".join(pair) for pair in pairs)]
    (folder / "c.tsv").write_text("\n".join(table) + "\n")
    (folder / "held.tsv").write_text("\n".join([table[0], table[8], table[21]]) + "\n")
    return folder


def facts(folder: Path) -> dict[str, Any]:
    """All that a version says, but for when it was made."""
    (version,) = (folder / "processed_data").glob("v*")
    assert verify(version) == []
    manifest = json.loads((version / "manifest.json").read_text())
    del manifest["created"]
    names = ("rejects.parquet", "leakage.json", "leakage.tsv", "split_manifest.json")
    return {"name": version.name, "manifest": manifest} | {name: (version / name).read_bytes() for name in names}


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if re.search(r"\.(partial|replaced)$", path.name)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, int, dict[str, Any]]:
    """A run that nothing disturbs: its folder, how many moments it has, what it made."""
    folder = text_in(tmp_path_factory.mktemp("whole") / "run")
    assert run(folder, "whole", "num_workers=1") == 0, (folder / "whole.err").read_text()
    made = facts(folder)
    steps = {step["name"]: step["dropped"] for step in made["manifest"]["steps"]}
    assert steps["exact_duplicates"] and steps["near_duplicates"] and steps["leakage"]["leaked"] == 2
    return folder, int((folder / "whole.moments").read_text()), made


def test_two_workers_make_the_same(whole, tmp_path):
    folder = text_in(tmp_path / "run")
    assert run(folder, "two", "num_workers=2") == 0, (folder / "two.err").read_text()
    assert facts(folder) == whole[2]


def stopped_at(folder: Path, moment: int, what: str, made: dict[str, Any]) -> None:
    """Start anew, stop at a moment, look at what lies there."""
    shutil.rmtree(folder / "processed_data", ignore_errors=True)
    shutil.rmtree(folder / "raw", ignore_errors=True)
    status = run(folder, "stopped", "num_workers=1", at=moment, what=what)
    told = (folder / "stopped.err").read_text()
    versions = list((folder / "processed_data").glob("v*"))
    if versions:  # stopped after the version had its name
        assert facts(folder) == made
    if what == "SIGKILL":
        assert status == -signal.SIGKILL
        return
    expected = {"SIGINT": (130, "Interrupted."), "SIGTERM": (143, "Interrupted."), "ENOSPC": (2, "the disk is full")}
    assert status == expected[what][0] and expected[what][1] in told and "Traceback" not in told, told
    assert not half_written(folder)


SIGNALS = "SIGINT", "SIGTERM"


def some(count: int, moments: int, seed: int) -> list[int]:
    """Moments over a whole run: the first, the last and some between."""
    between = random.Random(seed).sample(range(2, moments), min(count, moments - 2))
    return sorted({1, moments, *between})


@pytest.mark.parametrize("what", ["SIGKILL", "ENOSPC", *(pytest.param(n, marks=pytest.mark.slow) for n in SIGNALS)])
def test_a_run_that_is_stopped_goes_on_to_the_same_version(whole, tmp_path, what):
    folder = text_in(tmp_path / "run")
    _, moments, made = whole
    for moment in some(3, moments, seed=len(what)):
        stopped_at(folder, moment if what != "ENOSPC" else max(1, moment // 2), what, made)
        assert run(folder, "again", "num_workers=1") == 0, (folder / "again.err").read_text()
        assert facts(folder) == made, moment
        assert not half_written(folder), moment


@pytest.mark.slow
@pytest.mark.parametrize("what", ["SIGKILL", "SIGTERM"])
def test_at_every_moment(whole, tmp_path, what):
    folder = text_in(tmp_path / "run")
    _, moments, made = whole
    for moment in range(1, moments + 1):
        stopped_at(folder, moment, what, made)
        assert run(folder, "again", "num_workers=1") == 0
        assert facts(folder) == made and not half_written(folder), moment


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_goes_on(whole, tmp_path):
    """Each time it gets a little further."""
    folder, made = text_in(tmp_path / "run"), whole[2]
    draw = random.Random(2)
    kills = 0
    while run(folder, "killed", "num_workers=1", at=draw.randint(8, 20 + 10 * kills)) != 0:
        kills += 1
        assert kills < 40
    assert kills > 3 and facts(folder) == made and not half_written(folder)


def test_stories_are_the_same(whole, tmp_path):
    folder = whole[0]
    (version,) = (folder / "processed_data").glob("v*")
    gone = [row for row in pq.read_table(version / "rejects.parquet").to_pylist() if row["step"] != "leakage"]
    other = text_in(tmp_path / "run")
    run(other, "first", "num_workers=1", at=40)
    for number, row in enumerate([gone[0], gone[-1]]):
        outputs = []
        for place in (folder, other):
            assert run(place, f"story{number}", f"explain={row['id']}", "num_workers=1") == 0
            outputs.append((place / f"story{number}.out").read_text())
        assert outputs[0] == outputs[1] and row["step"] in outputs[0]
