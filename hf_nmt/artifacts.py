"""Files and folders that are whole or absent: written beside, then renamed; hashed, marked complete, locked."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pydantic

from hf_nmt.errors import NmtError, why_not_written

COMPLETE = "COMPLETE"
# `owner/name` as the Hub has it.
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Writers outside Python (torch, safetensors) tell a failed write in words, without an errno.
_WRITERS_WORDS = ("iostream error", "PytorchStreamWriter", "inline_container", "I/O error", "IoError")


@contextlib.contextmanager
def failed_writes_told(
    path: Path, inside: Path | None = None, kept: str = "Nothing half-written was kept."
) -> Iterator[None]:
    """Turn a failed write into an NmtError with the path, the reason and what to do.

    Args:
        path: what was to be written.
        inside: only errors about files in this folder are ours; None takes every OSError. A full disk and what torch
            and safetensors raise when they cannot write always count.
        kept: a sentence that tells what is on the disk now.
    """
    try:
        yield
    except Exception as error:
        no_room, failed = why_not_written(error), _writers_words(error)
        name = getattr(error, "filename", None)
        ours = inside is None or (isinstance(name, str | os.PathLike) and Path(name).is_relative_to(inside))
        if no_room or failed:
            reason, advice = no_room or (failed, "Free space or choose another folder, then run again.")
            free = shutil.disk_usage(_existing_parent(path)).free / 2**20
            raise NmtError(f"{path} could not be written: {reason} ({free:,.0f} MiB free). {advice} {kept}") from error
        if isinstance(error, OSError) and ours:
            raise NmtError(
                f"{path} could not be written: {error.strerror or error}. Check the rights of "
                f"{_existing_parent(path)} or choose another folder."
            ) from error
        raise


def _writers_words(error: Exception) -> str:
    """What a writer outside Python says of a write that failed; nothing where the error is of something else."""
    text = str(error)
    told = type(error).__name__ == "SafetensorError" or isinstance(error, RuntimeError)
    if not told or not any(words in text for words in _WRITERS_WORDS):
        return ""
    # torch tells of what it finds when it closes the file, not of why.
    return "it was cut short, as where a disk is full" if "inline_container" in text else text.splitlines()[0]


def may_be_hub_id(path: Path | str) -> bool:
    """Whether a path can stand for `owner/name` on the Hub: it has two parts and there is no folder of the first name.

    `runs/<id>` is ours, whether there is a folder `runs` here or not.
    """
    text = str(path)
    return bool(_HUB_ID.fullmatch(text)) and not text.startswith("runs/") and not Path(text).parent.exists()


def problems_of_output(path: Path | str | None, source: Path | str | None, *, overwrite: bool) -> list[str]:
    """Findings on `output`, a file that a recipe is to write from the file `source`; None are the standard streams."""
    if path is None:
        return []
    path = Path(path)
    if not Path(os.path.realpath(path)).parent.is_dir() or (path.exists() and not path.is_file()):
        return [f"output: {path} must be a file, in a folder that exists."]
    if path.exists() and source and Path(source).exists() and path.samefile(source):
        return [f"output: {path} is the input. Choose another name."]
    if path.exists() and not overwrite:
        return [f"output: {path} exists. Choose another name, or replace it with overwrite=true."]
    folder = Path(os.path.realpath(path)).parent
    try:  # rights alone do not tell it of every file system
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        if why_not_written(error) is not None:  # told where it is written, with what there is room for
            return []
        return [
            f"output: you may not write in {folder} ({error.strerror}). Choose another folder, or have its rights "
            "changed."
        ]


def problems_of_folder(key: str, folder: Path | str | None) -> list[str]:
    """Findings on a folder that a recipe is to write in, as far as they can be told without making it.

    Args:
        key: of the settings.
        folder: None where nothing is to be written.
    """
    if folder is None:
        return []
    existing = Path(folder).absolute() if Path(folder).exists() else _existing_parent(Path(folder))
    if not existing.is_dir():
        return [f"{key}: {folder} cannot be made, as {existing} is a file. Choose another."]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f"{key}: you may not write in {existing}. Choose another folder, or have its rights changed."]
    return []


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.exists())


def _beside(path: Path, suffix: str = "partial") -> Path:
    """A new hidden name in the folder of `path` that tells who writes it."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.{suffix}")


def _leftovers(path: Path, suffix: str) -> Iterator[Path]:
    """What killed processes of this machine left beside `path`."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{socket.gethostname()}-*-*.{suffix}"):
        pid = leftover.name.removesuffix(f".{suffix}").split("-")[-2]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            yield leftover
        except (ValueError, OSError):
            continue


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes left; an older folder that one had put aside, but not replaced yet, comes back."""
    for replaced in _leftovers(path, "replaced"):
        if not path.exists():
            os.rename(replaced, path)
        else:
            shutil.rmtree(replaced.rename(_beside(path)))
    for partial in _leftovers(path, "partial"):
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path | str) -> None:
    """Remove what killed processes of this machine left half written anywhere below a folder, and nothing else; an
    older folder that one had put aside, but not replaced yet, comes back."""
    name = re.compile(rf"\.(.+)\.{re.escape(socket.gethostname())}-\d+-[0-9a-f]{{8}}\.(?:partial|replaced)")
    found = [(path, match) for path in Path(folder).rglob(".*") if (match := name.fullmatch(path.name))]
    # The inner ones first: their folders may get another name.
    for path in sorted({path.with_name(match[1]) for path, match in found}, key=lambda path: -len(path.parts)):
        _remove_leftovers(path)


def _sync(path: Path) -> None:
    """Ask for the file or folder to be on the disk before the next step."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _share(file: Path, folder: Path) -> None:
    """Give a file the rights that new files have here: some writers (safetensors) make it for its owner alone.

    They are read from the folder, which was made with them, as the umask cannot be read without changing it.
    """
    mode = file.stat().st_mode
    allowed = mode | folder.stat().st_mode & 0o666
    if file.is_file() and allowed != mode:
        file.chmod(stat.S_IMODE(allowed))


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """A name to write a file under; it becomes `path` when the block ends well, and is removed when it does not.

    Raises:
        NmtError: the file cannot be written; an older file at `path` is unharmed.
    """
    path = Path(path)
    partial = _beside(path)
    with failed_writes_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
    with failed_writes_told(path, inside=partial):
        try:
            yield partial
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 file whole or not at all.

    Raises:
        NmtError: the file cannot be written; an older file at `path` is unharmed.
    """
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON with an indent of two; settings, dataclasses and paths among the values are taken as well."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, default=_plain_value) + "\n")


def append_jsonl(path: Path | str, value: Any) -> None:
    """Add one line of JSON in a single write, so that a kill leaves at most one torn line, the last.

    A torn last line of a killed process is closed first: it stays a line of its own.
    """
    path = Path(path)
    line = json.dumps(value, ensure_ascii=False, default=_plain_value).encode() + b"\n"
    with failed_writes_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                line = b"\n" + line
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "the line was cut", str(path))


def _plain_value(value: Any) -> Any:
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as JSON.")


@contextlib.contextmanager
def atomic_folder(path: Path | str, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill; it becomes `path` when the block ends well, and is removed when it does not.

    Its files can be read by whoever may read new files here. An older folder is put aside for the moment of the
    renaming. Where the process is killed at this moment, the next call for the same path brings it back.

    Args:
        path: the folder to be.
        replace: put it in the place of an older one; without it an existing folder is refused.

    Raises:
        NmtError: the folder exists and `replace` is not set, or it cannot be written.
    """
    path = Path(path)
    partial = _beside(path)
    with failed_writes_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
    if path.exists() and not replace:
        raise NmtError(f"{path} exists already and is not overwritten. Choose another name or remove it first.")
    with failed_writes_told(path, inside=partial):
        try:
            partial.mkdir()
            yield partial
            for entry in sorted(partial.rglob("*")):
                _share(entry, partial)
                _sync(entry)
            _sync(partial)
            if path.exists() and replace:
                old = _beside(path, "replaced")
                os.replace(path, old)
                try:
                    os.replace(partial, path)
                except BaseException:
                    os.replace(old, path)
                    raise
                os.replace(old, partial)  # removed below; half removed it must not come back
            else:
                os.rename(partial, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def quiet_files() -> Iterator[None]:
    """Without the bars that Transformers shows for every model it saves or loads."""
    from transformers.utils import logging  # takes seconds, and most who write files have no model

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def hash_file(path: Path | str) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(path: Path | str) -> dict[str, str]:
    """SHA-256 of every file below a folder by its relative name with `/`, sorted; the COMPLETE mark is left out."""
    return {name: hash_file(file) for name, file in _files(Path(path)).items()}


def hash_model(path: Path | str) -> dict[str, str]:
    """`hash_folder` without the card, README.md: a model stays the same whatever is written about it."""
    return {name: digest for name, digest in hash_folder(path).items() if name != "README.md"}


def _files(folder: Path) -> dict[str, Path]:
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: files[name] for name in sorted(files) if name != COMPLETE}


def mark_complete(folder: Path | str) -> None:
    """Write COMPLETE, the last file of a folder: bytes and SHA-256 of every other file."""
    folder = Path(folder)
    files = {name: {"bytes": file.stat().st_size, "sha256": hash_file(file)} for name, file in _files(folder).items()}
    write_json(folder / COMPLETE, {"schema_version": 1, "files": files})


def is_complete(folder: Path | str) -> bool:
    """Whether COMPLETE is there and every file has its size; contents are for `verify`. The folder need not exist."""
    mark = _read_mark(Path(folder))
    if mark is None:
        return False
    sizes = {name: Path(folder, name).stat().st_size for name in mark["files"] if Path(folder, name).is_file()}
    return sizes == {name: facts["bytes"] for name, facts in mark["files"].items()}


def verify(folder: Path | str) -> list[str]:
    """What differs between a folder and its COMPLETE mark, one sentence each; empty where all is well."""
    folder = Path(folder)
    mark = _read_mark(folder)
    if mark is None:
        return [f"{folder}: there is no readable {COMPLETE} file; the folder was not finished."]
    problems = []
    for name, facts in mark["files"].items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{file}: the file is missing.")
        elif file.stat().st_size != facts["bytes"]:
            problems.append(f"{file}: has {file.stat().st_size} bytes instead of {facts['bytes']}.")
        elif hash_file(file) != facts["sha256"]:
            problems.append(f"{file}: the contents changed since it was written (SHA-256 differs).")
    return problems


def _read_mark(folder: Path) -> dict[str, Any] | None:
    try:
        mark = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return mark if isinstance(mark, dict) and isinstance(mark.get("files"), dict) else None


@contextlib.contextmanager
def file_lock(path: Path | str, timeout_seconds: float = 0.0) -> Iterator[None]:
    """Hold `path` for this process; the lock goes with the process, however it ends.

    Args:
        path: file or folder to hold; the lock itself is a hidden file beside it.
        timeout_seconds: how long to wait for another holder; negative waits without end.

    Raises:
        NmtError: another process holds it.
    """
    path = Path(path)
    with failed_writes_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f".{path.name}.lock")
        file.touch()  # FileLock waits without end where no file can be made
        lock = filelock.FileLock(file, timeout=timeout_seconds)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise NmtError(
                f"{path} is in use by another process. Wait until it ends, or choose another folder."
            ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path | str) -> bool:
    """Whether a process holds `path`; see `file_lock`."""
    try:
        with file_lock(path):
            return False
    except NmtError:
        return True
