"""How far a translation is, for whoever waits for it, and what was done."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)


@dataclass
class Statistics:
    """What a translator has done so far.

    Attributes:
        texts, sentences: translated; identical sentences of a window are decoded once.
        decoded_sentences: run through the model.
        target_tokens: of the best translations of these, end-of-sentence symbols included.
        cut_sentences: cut into parts because they were too long.
        truncated_sentences: of which the end was cut off on request.
        length_limited: best translations that ended at the length limit.
        seconds: spent in translating.
    """

    texts: int = 0
    sentences: int = 0
    decoded_sentences: int = 0
    target_tokens: int = 0
    cut_sentences: int = 0
    truncated_sentences: int = 0
    length_limited: int = 0
    seconds: float = 0.0

    def summary(self) -> str:
        """One line for a log."""
        per_second = f"{self.sentences / self.seconds:,.1f} sentences/s" if self.seconds else "nothing to do"
        if not self.texts:
            return "0 texts: the input is empty, there was nothing to do"
        notes = [
            f"{count:,} {what}"
            for count, what in (
                (self.sentences - self.decoded_sentences, "repeated"),
                (self.cut_sentences, "cut into parts"),
                (self.truncated_sentences, "TRUNCATED"),
                (self.length_limited, "ended at the length limit"),
            )
            if count
        ]
        counts = f"{self.texts:,} texts, {self.sentences:,} sentences"
        return f"{counts}{' (' + ', '.join(notes) + ')' if notes else ''} in {self.seconds:,.1f} s: {per_second}"


class Meter:
    """A bar where stderr is a terminal; elsewhere, such as in a log file, a line every few seconds.

    Args:
        total: number of items; None where it is not known before the end.
        unit: what is counted, in the plural.
        name: of what is done, in front of each line.
        done: items of an earlier start, which count for no speed.
        seconds_between_lines: at least so long.
    """

    def __init__(self, total: int | None, unit: str, name: str, *, done: int = 0, seconds_between_lines: float = 10.0):
        self.total, self.unit, self.name = total, unit, name
        self.first = self.last = done
        self.started = self.told = time.monotonic()
        self.seconds_between_lines = seconds_between_lines
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(desc=name, total=total, unit=f" {unit}", initial=done)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def at(self, done: float) -> None:
        """Tell that so many items are done; the last one may be a part."""
        self.last = max(self.last, int(done + 1e-6))
        if self.bar is not None:
            self.bar.update(self.last - self.bar.n)
            return
        now = time.monotonic()
        if now - self.told < self.seconds_between_lines or self.last == self.total:
            return
        self.told = now
        per_second = (self.last - self.first) / (now - self.started)
        text = f"{self.name}: {self.last:,}" + (f"/{self.total:,}" if self.total else "")
        text += f" {self.unit}  {per_second:,.1f} {self.unit}/s"
        if self.total and per_second:
            left = datetime.timedelta(seconds=round((self.total - self.last) / per_second))
            text += f"  {left} left"
        logger.info(text)
