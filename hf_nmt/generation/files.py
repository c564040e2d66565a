"""Translate lines of a stream or a file: line by line the same number out, and files go on where they stopped.

An output file grows as `<output>.partial`, with `<output>.partial.json` telling after each window of lines how much of
it is certain. A process that is killed and started again continues there, in the same windows, and so writes the same
bytes. The file gets its name when it is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hf_nmt import artifacts
from hf_nmt.environment import environment
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.generation.contexts import sentences_read, with_context
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.inputs import Input, Line, windows
from hf_nmt.generation.meter import Statistics
from hf_nmt.generation.translator import SourceError, TorchTranslator
from hf_nmt.protocols import LANGUAGE_COLUMNS, Translation, Translator

logger = logging.getLogger(__name__)

REMEDY = "Choose another name, or replace it with overwrite=true."
_ANEW = "Choose another output, or start anew with overwrite=true."

OutputFormat = Literal["text", "jsonl"]

# Lines of the first window; each next one is twice as large, up to DecodingSettings.window_size. Output starts early
# and full batches follow soon.
FIRST_WINDOW = 16

_LINE_BREAKS = re.compile(r"[\r\n]+")
_LINE_BREAKS_AND_TABS = re.compile(r"[\r\n\t]+")


def render(n_best: list[Translation], line: Line, output_format: OutputFormat, index: int, num_best: int) -> str:
    """One line of input as lines of output.

    text: the translation; of several, each on a line of its own as `index TAB score TAB translation`, best first,
    where the index counts the lines of the input from 0. jsonl: one object a line with index, source, the languages
    that the row names, and translations.
    """
    if output_format == "jsonl":
        translations = [
            {
                "text": one.text,
                "score": round(one.score, 6),
                "finish_reason": one.finish_reason,
                "tokens": one.tokens,
                "token_scores": [round(score, 6) for score in one.token_scores],
            }
            for one in n_best
        ]
        named = {name: code for name, code in zip(LANGUAGE_COLUMNS, line.languages, strict=True) if code is not None}
        record = {"index": index, "source": line.text, **named, "translations": translations}
        return json.dumps(record, ensure_ascii=False) + "\n"
    # A line break or a tab that the model produced would move everything after it.
    if num_best == 1:
        return _LINE_BREAKS.sub(" ", n_best[0].text) + line.end
    end = line.end or "\n"
    rows = [f"{index}\t{one.score:.6f}\t{_LINE_BREAKS_AND_TABS.sub(' ', one.text)}" for one in n_best]
    return end.join(rows) + line.end


def translate_lines(
    translator: Translator,
    lines: Iterable[Line],
    settings: DecodingSettings,
    *,
    name: str,
    output_format: OutputFormat = "text",
    rendered: Callable[[list[Translation], Line, int], str] | None = None,
    first_window: int = FIRST_WINDOW,
    index: int = 0,
    read_before: int = 0,
    tell: Callable[[float], None] | None = None,
) -> Iterator[tuple[list[Line], str]]:
    """Yield window by window the lines read and what to write for them.

    Args:
        translator: any system.
        lines: the input.
        settings: how to translate.
        name: of the input, for errors.
        output_format: see `render`.
        rendered: makes the output of a line from its translations and its number from 0, in place of `render`.
        first_window: number of lines in the first window.
        index: number of lines of the input before the first that is translated.
        read_before: how many of these lines were translated before, and are only what stands before the others.
        tell: called with the number of lines done, after each window and, if the translator tells, within it.

    Raises:
        DataError: a line that cannot be translated, with its number.
    """
    if sentences := sentences_read(translator):
        lines = itertools.islice(with_context(lines, sentences), read_before, None)
    for window in windows(lines, settings.window_size, first_window):
        texts = [line.before + line.text for line in window]
        whole = settings.model_copy(update={"window_size": len(window)})
        if tell is not None and hasattr(translator, "on_progress"):
            translator.on_progress = lambda done, before=index: tell(before + done)
        try:
            n_bests = list(translator.translate(texts, whole, **_languages(window)))
        except SourceError as error:
            raise DataError(f"{name}, line {window[error.index].number}: {error.reason}") from error
        written = [
            rendered(n_best, line, index + position)
            if rendered is not None
            else render(n_best, line, output_format, index + position, settings.num_return_sequences)
            for position, (line, n_best) in enumerate(zip(window, n_bests, strict=True))
        ]
        yield window, "".join(written)
        index += len(window)
        if tell is not None:
            tell(index)


def _languages(window: Sequence[Line]) -> dict[str, Any]:
    """The languages that rows name, as arguments; none where no row names any: then those of the run hold."""
    if not any(any(line.languages) for line in window):
        return {}
    return {name: [getattr(line, name) for line in window] for name in LANGUAGE_COLUMNS}


@dataclass
class Progress:
    """How far an output file is certain.

    Attributes:
        num_lines, input_bytes: read and translated.
        output_bytes: written for them.
        num_windows: translated so far.
        statistics: of the translator.
    """

    num_lines: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    num_windows: int = 0
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)


class PartialOutput:
    """An output file that is continued after a stop, and named when it is whole.

    What was begun stays as it is until the first window is written, even where that starts anew. Where its name ends
    in `.gz`, each window is a member of a gzip file, which any reader takes for one text: so it can be cut where the
    journal says and go on there. Where the name is a symbolic link, the file it points to is written.

    Args:
        path: of the whole file.
        identity: what the output depends on (model, settings, input); None where the input cannot be read again and so
            every start is a new one.
        overwrite: replace the whole file, and what was begun with another identity.

    Raises, when it is entered:
        ConfigError: the whole file exists, a file of the user stands where one of ours goes, or something was begun
            under this name with another identity.
        NmtError: another process writes it.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any] | None, *, overwrite: bool = False):
        self.record = path.with_name(path.name + ".json")
        self.packs = path.suffix == ".gz"
        # Beside the file itself, as a link may lead to another disk, where nothing can be renamed to.
        self.path = Path(os.path.realpath(path)) if path.is_symlink() else path
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.journal = self.path.with_name(self.path.name + ".partial.json")
        self.identity = identity
        self.overwrite = overwrite
        self.progress = Progress()

    def __enter__(self) -> PartialOutput:
        self._lock = artifacts.file_lock(self.partial)
        self._lock.__enter__()
        try:
            self._check_names()
            self._before: dict[str, Any] | None = None  # the identity of what goes on
            self._is_ours = not self.partial.exists()  # and goes again if nothing is written
            self._is_cut = False
            if self._is_ours:
                self._write_journal()  # before the file it tells of: a file without a journal is not ours
            else:
                self._read_journal()
            with self._told():
                # No buffer: closing would try again to write what a full disk has refused.
                self._file = open(self.partial, "xb" if self._is_ours else "r+b", buffering=0)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            with contextlib.suppress(OSError):  # what counts was synchronised
                self._file.close()
            if self._is_ours and not self.progress.num_windows and self.partial.exists():  # nothing to go on from
                self._remove(self.partial, self.journal)
        finally:
            self._lock.__exit__(None, None, None)

    def confirm(self, **facts: Any) -> None:
        """Add to the identity what is known only once the model is loaded.

        Raises:
            ConfigError: what would be continued was begun with another.
        """
        if self.identity is not None:
            self.identity = {**self.identity, **facts}
            if self._before is not None:
                self._go_on(self._before, self.progress, self._before.keys() | self.identity.keys())

    def write(self, lines: list[Line], text: str, statistics: Mapping[str, Any]) -> None:
        """Add a window, and note it once it is on the disk.

        Raises:
            NmtError: it cannot be written, such as on a full disk; the windows before it stay.
        """
        data = self._packed(text)
        self._cut()
        self._put(data)
        self.progress.num_lines += len(lines)
        self.progress.input_bytes += sum(line.num_bytes for line in lines)
        self.progress.output_bytes += len(data)
        self.progress.num_windows += 1
        self.progress.statistics = dict(statistics)
        self._write_journal()

    def finish(self) -> None:
        """Give the file its name."""
        self._cut()
        if not self.progress.num_windows:
            self._put(self._packed(""))  # an empty gzip file has a header, too
        with self._told():
            self._file.close()
            os.replace(self.partial, self.path)
        self._remove(self.journal)

    def _cut(self) -> None:
        """Leave what is certain, before the first window; where that is nothing, the journal says so first."""
        if self._is_cut:
            return
        if not self.progress.num_windows:
            self._is_ours = True
            self._write_journal()
        with self._told():
            self._file.truncate(self.progress.output_bytes)
            self._file.seek(self.progress.output_bytes)
        self._is_cut = True

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        with self._told():
            while rest:  # a disk that is nearly full takes a part
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())

    def _remove(self, *files: Path) -> None:
        for file in (*files, self.partial.with_name(f".{self.partial.name}.lock")):
            file.unlink(missing_ok=True)

    def _packed(self, text: str) -> bytes:
        data = text.encode()
        # No time in it: the same texts give the same bytes.
        return gzip.compress(data, mtime=0) if self.packs else data

    def _told(self) -> contextlib.AbstractContextManager[None]:
        kept = "What was written before stays" + (": the same command goes on there." if self.identity else ".")
        return artifacts.failed_writes_told(self.partial, kept=kept)

    def _check_names(self) -> None:
        if self.path.exists() and not self.overwrite:
            raise ConfigError(f"output: {self.path} exists. {REMEDY}")
        begun = _read_object(self.journal, {"identity", "progress"})
        strange = {
            self.partial: begun is None,
            self.journal: begun is None,
            self.record: _read_object(self.record, {"schema_version", "output", "statistics"}) is None,
        }
        findings = [
            f"output: {file} exists and is not from an earlier translation; this one needs the name. Move it, or "
            "choose another output."
            for file, not_ours in strange.items()
            if not_ours and os.path.lexists(file)
        ]
        if findings:
            raise ConfigError(findings)

    def _read_journal(self) -> None:
        begun = _read_object(self.journal, {"identity", "progress"}) or {}
        before = begun["identity"]
        try:
            if not isinstance(before, dict | None):
                raise ValueError("its identity is no object")
            progress = _read_progress(begun["progress"])
        except ValueError as error:
            if self.overwrite:
                return
            raise ConfigError(
                f"output: {self.journal} tells of what was begun in a way that this version cannot read: {error}. "
                f"{_ANEW}"
            ) from error
        size = self.partial.stat().st_size
        if not progress.num_windows:
            self._is_ours = True
        elif before is None:
            logger.info("%s: what was begun read the standard input, so it starts anew.", self.path)
        elif self._go_on(before, progress, (self.identity or {"input": None}).keys()) and size < progress.output_bytes:
            self._before, self.progress = None, Progress()
            logger.warning(
                "%s has %d bytes, fewer than the %d that its journal tells of: the translation starts anew.",
                self.partial, size, progress.output_bytes,
            )  # fmt: skip

    def _go_on(self, before: dict[str, Any], progress: Progress, keys: Iterable[str]) -> bool:
        """Continue what was begun where it has the same identity; tell whether."""
        now = self.identity or {"input": None}
        changed = sorted(key for key in keys if before.get(key) != now.get(key))
        if changed and not self.overwrite:
            raise ConfigError(f"output: {self.partial} was begun with another {', '.join(changed)}. {_ANEW}")
        self._before, self.progress = (None, Progress()) if changed else (before, progress)
        return not changed

    def _write_journal(self) -> None:
        artifacts.write_json(self.journal, {"identity": self.identity, "progress": dataclasses.asdict(self.progress)})


def _read_progress(value: Any) -> Progress:
    """Raises ValueError where it is not what this version writes."""
    if not isinstance(value, dict):
        raise ValueError("its progress is no object")
    keys = {field.name for field in dataclasses.fields(Progress)}
    statistics, known = value.get("statistics"), {field.name for field in dataclasses.fields(Statistics)}
    if strange := sorted(keys ^ value.keys()):
        raise ValueError(f"its progress lacks or adds {', '.join(strange)}")
    if not isinstance(statistics, dict) or (strange := sorted(statistics.keys() - known)):
        raise ValueError(f"its statistics are no object or add {', '.join(strange)}")
    counts = {**statistics, **{key: value[key] for key in keys - {"statistics"}}}
    if strange := sorted(
        key for key, count in counts.items() if not isinstance(count, int if key in keys else int | float) or count < 0
    ):
        raise ValueError(f"{', '.join(strange)} must be numbers from 0")
    return Progress(**value)


def _read_object(path: Path, keys: set[str]) -> dict[str, Any] | None:
    """A JSON object that has these keys; None where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and keys <= value.keys() else None


def open_output(source: Input, output: Path, facts: Mapping[str, Any], *, overwrite: bool = False) -> PartialOutput:
    """The output of a translation, locked and checked when it is entered.

    Args:
        source: what to read; the standard input is always begun anew.
        output: file to write.
        facts: what the output depends on: `model`, `input`, `decoding` and so on. Work that was begun goes on if they
            are the same, but for the size of batches, which may be lowered when memory was short.
        overwrite: replace the output, and what was begun of it otherwise.
    """
    decoding = {name: value for name, value in facts["decoding"].items() if name != "batch_tokens"}
    identity = None if source.path is None else {**facts, "decoding": decoding}
    return PartialOutput(output, identity, overwrite=overwrite)


def translate_file(
    translator: TorchTranslator,
    source: Input,
    output: PartialOutput,
    settings: DecodingSettings,
    *,
    output_format: OutputFormat = "text",
    rendered: Callable[[list[Translation], Line, int], str] | None = None,
    tell: Callable[[float], None] | None = None,
) -> Progress:
    """Translate a file, or go on with it; returns the counts.

    Args:
        source: what to read.
        output: what `open_output` gave, entered.
        output_format: see `render`.
        rendered, tell: see `translate_lines`.
    """
    progress = output.progress
    # A model that reads the sentences before goes through them once more.
    read_before = progress.num_lines if sentences_read(translator) else 0
    done = (0, 0) if read_before else (progress.num_lines, progress.input_bytes)
    with source.lines(*done) as lines:
        if progress.num_lines:
            logger.info("%s: going on after line %d.", output.path, progress.num_lines)
            translator.statistics = Statistics(**progress.statistics)
        for window, text in translate_lines(
            translator,
            lines,
            settings,
            name=source.name,
            output_format=output_format,
            rendered=rendered,
            first_window=FIRST_WINDOW << min(progress.num_windows, 30),
            index=progress.num_lines,
            read_before=read_before,
            tell=tell,
        ):
            output.write(window, text, dataclasses.asdict(translator.statistics))
    output.finish()
    return progress


def write_record(
    output: Path, facts: Mapping[str, Any], progress: Progress, model: str | None, revision: str | None
) -> None:
    """Write `<output>.json`: settings, hashes, counts and versions."""
    record = {
        "schema_version": 1,
        **facts,
        "model": {"path": model, "hash": facts["model"], "revision": revision},
        "output": {"bytes": output.stat().st_size, "sha256": artifacts.hash_file(output), "lines": progress.num_lines},
        "statistics": progress.statistics,
        "environment": environment(),
    }
    artifacts.write_json(output.with_name(output.name + ".json"), record)
