"""Output files that grow, stop and go on."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import resource

import pytest

from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.generation.files import Line, PartialOutput

IDENTITY = {"model": "one", "input": {"lines": 3}}


class Stop(Exception):
    pass


def write(output: PartialOutput, text: str) -> None:
    output.write([Line("x", "\n", 2)] * text.count("\n"), text, {"texts": output.progress.num_lines})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def begun(path):
    """Two windows of a translation that was stopped; returns what lies on the disk."""
    with pytest.raises(Stop), PartialOutput(path, IDENTITY) as output:
        output.confirm(revision="a")
        write(output, "1\n2\n")
        write(output, "3\n")
        raise Stop
    return contents(path)


def contents(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith(".lock")}


@contextlib.contextmanager
def room(num_bytes: int):
    """Let no file become larger, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_small_window_that_the_disk_refuses_is_told_and_the_lock_is_free_again(path):
    first, second = "a" * 999 + "\n", "b" * 999 + "\n"
    with (
        pytest.raises(NmtError, match=r"out.partial could not be written: .*What was written before stays: the same"),
        PartialOutput(path, IDENTITY) as output,
    ):
        write(output, first)
        with room(1500):
            write(output, second)
    with PartialOutput(path, IDENTITY) as output:
        assert (output.progress.num_windows, output.progress.output_bytes) == (1, 1000)
        write(output, second)
        output.finish()
    assert contents(path) == {"out": (first + second).encode()}


def test_a_stopped_translation_goes_on(path, begun):
    with pytest.raises(Stop), PartialOutput(path, IDENTITY):
        raise Stop  # such as a model that cannot be loaded
    assert contents(path) == begun
    with open(path.with_name("out.partial"), "ab") as file:
        file.write(b"torn")
    with PartialOutput(path, IDENTITY) as output:
        output.confirm(revision="a")
        assert (output.progress.num_lines, output.progress.num_windows) == (3, 2)
        output.finish()
    assert contents(path) == {"out": b"1\n2\n3\n"}


def test_another_revision_is_not_mixed_in(path, begun):
    with (
        pytest.raises(ConfigError, match="out.partial was begun with another revision. Choose another output, or"),
        PartialOutput(path, IDENTITY) as output,
    ):
        output.confirm(revision="b")
    assert contents(path) == begun
    with PartialOutput(path, IDENTITY, overwrite=True) as output:
        assert output.progress.num_lines == 3
        output.confirm(revision="b")
        assert output.progress.num_lines == 0 and contents(path) == begun
        write(output, "new\n")
        output.finish()
    assert contents(path) == {"out": b"new\n"}


def test_overwrite_leaves_what_was_begun_until_the_first_window(path, begun):
    with pytest.raises(Stop), PartialOutput(path, IDENTITY | {"model": "two"}, overwrite=True) as output:
        output.confirm(revision="a")
        raise Stop
    assert contents(path) == begun
    with pytest.raises(Stop), PartialOutput(path, IDENTITY | {"model": "two"}, overwrite=True) as output:
        output.confirm(revision="a")
        write(output, "new\n")
        raise Stop
    assert contents(path)["out.partial"] == b"new\n"
    with PartialOutput(path, IDENTITY | {"model": "two"}) as output:
        assert output.progress.num_lines == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": "one"}, "its identity is no object"),
        ({"progress": [1]}, "its progress is no object"),
        ({"progress": {"old": 1}}, "its progress lacks or adds .*, old, output_bytes"),
        ({"progress": {"num_lines": None}}, "num_lines must be numbers from 0"),
        ({"progress": {"output_bytes": -1}}, "output_bytes must be numbers from 0"),
        ({"progress": {"statistics": {"strange": 1}}}, "its statistics are no object or add strange"),
        ({"progress": {"statistics": {"texts": "3"}}}, "texts must be numbers from 0"),
    ],
)
def test_a_journal_of_another_version_is_refused(path, begun, change, message):
    journal = path.with_name("out.partial.json")
    value = json.loads(begun["out.partial.json"])
    progress = change.get("progress")
    if isinstance(progress, dict) and "old" not in progress:
        change = {"progress": value["progress"] | progress}
    journal.write_text(json.dumps(value | change))
    changed = contents(path)
    with (
        pytest.raises(ConfigError, match=f"out.partial.json .* cannot read: {message}.* anew with overwrite=true"),
        PartialOutput(path, IDENTITY),
    ):
        pass
    assert contents(path) == changed
    with PartialOutput(path, IDENTITY, overwrite=True) as output:
        write(output, "new\n")
        output.finish()
    assert contents(path) == {"out": b"new\n"}


def test_a_partial_that_is_shorter_than_its_journal_starts_anew_with_a_warning(path, begun, caplog):
    path.with_name("out.partial").write_bytes(b"1\n")
    with caplog.at_level(logging.WARNING), PartialOutput(path, IDENTITY) as output:
        output.confirm(revision="b")
        assert output.progress.num_lines == 0
        write(output, "new\n")
        output.finish()
    assert "out.partial has 2 bytes, fewer than the 6 that its journal tells of: the translation" in caplog.text
    assert contents(path) == {"out": b"new\n"}


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path, exists):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link.gz"
    if exists:
        target.write_text("old")
    link.symlink_to(os.path.join("elsewhere", "target"))
    with PartialOutput(link, IDENTITY, overwrite=exists) as output:
        write(output, "new\n")
        output.finish()
    assert link.is_symlink() and gzip.decompress(target.read_bytes()) == b"new\n"
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["elsewhere", "link.gz", "target"]
