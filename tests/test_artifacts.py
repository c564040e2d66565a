"""Files and folders that are whole or absent, also when the disk is full or the process is killed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from hf_nmt import artifacts
from hf_nmt.artifacts import (
    append_jsonl,
    atomic_file,
    atomic_folder,
    file_lock,
    hash_file,
    hash_folder,
    is_complete,
    is_held,
    mark_complete,
    may_be_hub_id,
    remove_leftovers,
    verify,
    write_json,
    write_text,
)
from hf_nmt.config import Settings
from hf_nmt.errors import NmtError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


# Files


def test_write_text_makes_folders_and_keeps_line_ends(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "eins\r\nzwei\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"eins\r\nzwei\n"
    assert names(tmp_path / "a") == ["b.txt"]


def test_write_json_takes_settings_dataclasses_and_paths(tmp_path):
    class Some(Settings):
        size: int = 3

    @dataclass
    class Facts:
        name: str

    write_json(tmp_path / "a.json", {"s": Some(), "f": Facts("가"), "p": Path("x/y")})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"s": {"size": 3}, "f": {"name": "가"}, "p": "x/y"}
    assert "가" in text and text.endswith("}\n")
    with pytest.raises(TypeError, match="object .* cannot be written as JSON"):
        write_json(tmp_path / "a.json", object())


def test_a_full_disk_leaves_the_older_file(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(NmtError) as caught:
        write_text(tmp_path / "a.txt", "new")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.txt'} could not be written: the disk is full (")
    assert message.endswith(
        " MiB free). Free space or choose another folder, then run again. Nothing half-written was kept."
    )
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_place_that_takes_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NmtError, match=r"a\.txt could not be written: File exists\. Check the rights of .*file or"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_an_error_of_the_caller_passes_as_it_is(tmp_path):
    with pytest.raises(KeyError), atomic_file(tmp_path / "a.bin"):
        raise KeyError("ours")
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a.bin"):
        (tmp_path / "no-such-input").read_text()
    assert names(tmp_path) == []


def test_append_jsonl_closes_a_torn_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    append_jsonl(file, {"a": 1})
    with file.open("a") as torn:
        torn.write('{"a": 2')
    append_jsonl(file, {"a": 3})
    append_jsonl(file, {"a": "가"})
    assert file.read_text(encoding="utf-8") == '{"a": 1}\n{"a": 2\n{"a": 3}\n{"a": "가"}\n'


def test_append_to_a_full_disk():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(NmtError, match="/dev/full could not be written: the disk is full"):
        append_jsonl("/dev/full", {"a": 1})


def test_a_limit_on_file_size_is_not_told_as_a_full_disk(tmp_path):
    """The system itself refuses the write, in the middle of the file."""
    script = textwrap.dedent(
        """
        import resource, sys
        from hf_nmt.artifacts import write_text
        from hf_nmt.errors import NmtError
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_text(sys.argv[1], "x" * 1_000_000)
        except NmtError as error:
            sys.stdout.write(str(error))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.txt"], capture_output=True, text=True, check=True
    )
    assert "could not be written: it is larger than a file may be here" in done.stdout and "ulimit -f" in done.stdout
    assert "full" not in done.stdout and names(tmp_path) == []


# Folders


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_of_a_folder_have_the_rights_that_the_umask_allows(tmp_path, umask, expected):
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "model") as partial:
            write_text(partial / "inner" / "config.json", "{}")
            (partial / "model.safetensors").write_text("weights")
            (partial / "model.safetensors").chmod(0o600)  # as safetensors leaves it
            (partial / "run.sh").write_text("true")
            (partial / "run.sh").chmod(0o700)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert modes == {"config.json": expected, "model.safetensors": expected, "run.sh": 0o700 | expected}


def test_atomic_folder_appears_when_the_block_ends(tmp_path):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.bin").write_bytes(b"a")
        assert not (tmp_path / "model").exists()
        assert folder.parent == tmp_path and folder.name.startswith(".")
    assert names(tmp_path) == ["model"]
    assert hash_folder(tmp_path / "model") == {"sub/a.bin": hashlib.sha256(b"a").hexdigest()}


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()])
def test_atomic_folder_is_removed_when_the_block_fails(tmp_path, error):
    with pytest.raises(type(error)), atomic_folder(tmp_path / "model") as folder:
        (folder / "a.bin").write_bytes(b"a")
        raise error
    assert names(tmp_path) == []


def test_atomic_folder_refuses_to_overwrite(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(NmtError) as caught, atomic_folder(tmp_path / "model"):
        pytest.fail("the block must not run")
    assert str(caught.value) == (
        f"{tmp_path / 'model'} exists already and is not overwritten. Choose another name or remove it first."
    )


def test_atomic_folder_replaces_only_on_success(tmp_path):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "old").write_text("")
    with pytest.raises(KeyError), atomic_folder(tmp_path / "model", replace=True):
        raise KeyError
    assert names(tmp_path / "model") == ["old"]
    with atomic_folder(tmp_path / "model", replace=True) as folder:
        (folder / "new").write_text("")
    assert names(tmp_path / "model") == ["new"] and names(tmp_path) == ["model"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_no_folder(tmp_path, error):
    with pytest.raises(NmtError, match=r"model could not be written: the disk is full"):
        with atomic_folder(tmp_path / "model") as folder:
            (folder / "half").write_text("")
            raise error
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    script = (
        "import os, signal, sys\nfrom hf_nmt.artifacts import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'half').write_text('')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "model"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists() and len(names(tmp_path)) == 1
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "whole").write_text("")
    assert names(tmp_path) == ["model"]


def test_an_older_folder_outlives_a_kill_between_the_renames(tmp_path):
    script = (
        "import os, signal, sys\nfrom hf_nmt.artifacts import atomic_folder\n"
        "replace, calls = os.replace, []\n"
        "def killed(*names):\n    calls.append(names)\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if len(calls) == 2 else replace(*names)\n"
        "os.replace = killed\n"
        "with atomic_folder(sys.argv[1], replace=True) as folder:\n    (folder / 'new').write_text('')\n"
    )
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "old").write_text("")
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "model"], check=False)
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "model").exists()
    with pytest.raises(KeyError), atomic_folder(tmp_path / "model", replace=True):
        assert names(tmp_path / "model") == ["old"]
        raise KeyError
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["old"]
    subprocess.run([sys.executable, "-c", script, tmp_path / "model"], check=False)
    with pytest.raises(NmtError, match="model exists already"), atomic_folder(tmp_path / "model"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["old"]


def test_an_older_folder_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "old").write_text("")
    replace = os.replace

    def fails_for_the_new(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_for_the_new)
    with pytest.raises(NmtError, match="model could not be written: Input/output error"):
        with atomic_folder(tmp_path / "model", replace=True) as folder:
            (folder / "new").write_text("")
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["old"]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with atomic_file(tmp_path / "a") as outer:
        outer.write_text("outer")
        write_text(tmp_path / "a", "inner")
        assert outer.exists()
    assert (tmp_path / "a").read_text() == "outer"


# The mark


@pytest.fixture
def marked(tmp_path):
    folder = tmp_path / "step-10"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"aaaa")
    (folder / "sub" / "b.bin").write_bytes(b"bb")
    mark_complete(folder)
    return folder


def test_the_mark_lists_bytes_and_hashes(marked):
    mark = json.loads((marked / artifacts.COMPLETE).read_text())
    assert mark["files"] == {
        "a.bin": {"bytes": 4, "sha256": hashlib.sha256(b"aaaa").hexdigest()},
        "sub/b.bin": {"bytes": 2, "sha256": hashlib.sha256(b"bb").hexdigest()},
    }
    assert hash_file(marked / "a.bin") == mark["files"]["a.bin"]["sha256"]
    assert is_complete(marked) and verify(marked) == []


def test_an_unfinished_folder_is_not_complete(marked, tmp_path):
    assert not is_complete(tmp_path / "absent")
    (marked / artifacts.COMPLETE).write_text("{")
    assert not is_complete(marked)
    assert verify(marked) == [f"{marked}: there is no readable COMPLETE file; the folder was not finished."]


def test_each_kind_of_damage_is_told(marked):
    (marked / "a.bin").write_bytes(b"aaab")
    assert is_complete(marked)
    assert verify(marked) == [f"{marked / 'a.bin'}: the contents changed since it was written (SHA-256 differs)."]
    (marked / "a.bin").write_bytes(b"aa")
    (marked / "sub" / "b.bin").unlink()
    assert not is_complete(marked)
    assert verify(marked) == [
        f"{marked / 'a.bin'}: has 2 bytes instead of 4.",
        f"{marked / 'sub' / 'b.bin'}: the file is missing.",
    ]


# The lock


def test_a_lock_keeps_others_out_and_goes_with_the_process(tmp_path):
    script = (
        "import sys, time\nfrom hf_nmt.artifacts import file_lock\n"
        "with file_lock(sys.argv[1]):\n    sys.stdout.write('held\\n'); sys.stdout.flush(); time.sleep(60)\n"
    )
    path = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(NmtError) as caught, file_lock(path):
            pytest.fail("the lock was held twice")
        assert str(caught.value) == (
            f"{path} is in use by another process. Wait until it ends, or choose another folder."
        )
        assert is_held(path)
        holder.kill()
    with file_lock(path, timeout_seconds=5):
        pass
    assert not is_held(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Helsinki-NLP/opus-mt-de-en", True),
        ("owner/model.v1_0", True),
        ("owner/model/best", False),
        ("model", False),
        ("/owner/model", False),
        ("../model", False),
        ("runs/de-en-20260101-120000", False),
        ("here/model", False),
        ("owner/model ", False),
    ],
)
def test_what_may_be_an_id_of_the_hub(tmp_path, monkeypatch, path, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert may_be_hub_id(path) is expected


def test_an_output_in_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    assert artifacts.problems_of_output(tmp_path / "out", None, overwrite=False) == []
    assert not list(tmp_path.iterdir())

    def refused(dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{dir}/x")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    assert artifacts.problems_of_output(tmp_path / "out", None, overwrite=False) == [
        f"output: you may not write in {tmp_path} (Read-only file system). Choose another folder, or have its rights "
        "changed."
    ]


def test_a_lock_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    def refused(self):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    with pytest.raises(NmtError, match="out could not be written: Read-only file system. Check the rights of"):
        with artifacts.file_lock(tmp_path / "out"):
            pass


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    host = socket.gethostname()
    ended = subprocess.Popen(["true"])
    ended.wait()
    gone, alive = f"{host}-{ended.pid}-0123abcd", f"{host}-{os.getpid()}-0123abcd"
    deep = tmp_path / "checkpoints"
    deep.mkdir()
    left = [tmp_path / f".run.json.{gone}.partial", deep / f".log.txt.{gone}.partial"]
    kept = [
        tmp_path / "run.json", tmp_path / ".run.lock", tmp_path / f".run.json.{alive}.partial",
        tmp_path / f".run.json.elsewhere-{ended.pid}-0123abcd.partial", deep / ".mine.partial",
        deep / f"x.{gone}.partial",
    ]  # fmt: skip
    for path in (*left, *kept):
        path.write_text("text")
    for name in (f".step-3.{gone}.partial", f".step-6.{gone}.replaced", f".step-9.{gone}.replaced", "step-9"):
        (deep / name).mkdir()
        (deep / name / "file").write_text(name)
        (deep / name / f".COMPLETE.{gone}.partial").write_text("{")
    remove_leftovers(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        [*kept, deep / "step-6" / "file", deep / "step-9" / "file"]
    )
    # One that had been put aside, and not replaced yet, is back; the other was replaced.
    assert (deep / "step-6" / "file").read_text() == f".step-6.{gone}.replaced"
    assert (deep / "step-9" / "file").read_text() == "step-9"
