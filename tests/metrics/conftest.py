"""Two systems of known faults over forty sentences; deterministic, without a random generator."""

from __future__ import annotations

import pytest

NOUNS = ("dog", "girl", "man", "crowd", "horse", "boy", "woman", "child")
VERBS = ("runs", "jumps", "sleeps", "waits", "sings")
PLACES = ("the park", "a field", "the old station", "her garden", "a long queue", "the snow", "his room")


def _sentence(row: int) -> str:
    place, other = PLACES[row % 7], PLACES[(row + 3) % 7]
    return f"A {NOUNS[row % 8]} {VERBS[row % 5]} in {place}, and {row % 3 + 2} people watch from {other}."


@pytest.fixture(scope="session")
def references() -> list[list[str]]:
    """Two references for even rows, one for odd ones."""
    sentences = [_sentence(row) for row in range(40)]
    return [
        [sentence] + ([sentence.replace(" people watch", " others look on")] if row % 2 == 0 else [])
        for row, sentence in enumerate(sentences)
    ]


@pytest.fixture(scope="session")
def good(references) -> list[str]:
    """Every fifth sentence has a wrong word, every seventh another word order."""
    lines = [row[0] for row in references]
    lines = [line.replace("people", "persons") if row % 5 == 0 else line for row, line in enumerate(lines)]
    return [" ".join(line.split(", and ")[::-1]) if row % 7 == 0 else line for row, line in enumerate(lines)]


@pytest.fixture(scope="session")
def worse(references) -> list[str]:
    """Every second sentence has lost its first two words, every third its case."""
    lines = [" ".join(row[-1].split()[2:]) if number % 2 == 0 else row[-1] for number, row in enumerate(references)]
    return [line.lower() if row % 3 == 0 else line for row, line in enumerate(lines)]
