"""Random draws that are the same on every version of Python: nothing but `random.Random.random` is used."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A stream of draws that is fixed by the parts of its name."""

    def __init__(self, *name: object):
        digest = hashlib.sha256("|".join(map(str, name)).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big")).random

    def below(self, count: int) -> int:
        return int(self._random() * count)

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self._random() * len(items))]

    def weighted(self, table: Sequence[tuple[float, T]]) -> T:
        """An item of a table of (cumulative share up to 1, item)."""
        point = self._random()
        for bound, item in table:
            if point < bound:
                return item
        return table[-1][1]


def cumulative(weights: dict[T, float]) -> list[tuple[float, T]]:
    """Weights as the table that `Draw.weighted` reads."""
    total, running, table = sum(weights.values()), 0.0, []
    for item, weight in weights.items():
        running += weight
        table.append((running / total, item))
    return table
