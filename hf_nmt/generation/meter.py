"""How far a translation is, for whoever waits for it."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from typing import Any

logger = logging.getLogger(__name__)


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
