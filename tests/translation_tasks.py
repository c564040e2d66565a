"""A planted corpus of several language pairs: the target language alone tells what becomes of a source.

Into `aa` its words are copied, into `bb` they come backwards, into `cc` each is the next word of the vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

WORDS = [f"{first}{second}lo" for first in "bdfgk" for second in "ai"]
TASKS: dict[str, Callable[[list[str]], list[str]]] = {
    "aa": list,
    "bb": lambda words: words[::-1],
    "cc": lambda words: [WORDS[(WORDS.index(word) + 1) % len(WORDS)] for word in words],
}
PAIRS = {f"xx-{target}": ("xx", target) for target in TASKS}


def translated(text: str, target: str) -> str:
    return " ".join(TASKS[target](text.split()))


def make_sources(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 5))) for _ in range(count)]


def write_pairs(folder: Path, counts: Sequence[int] = (300, 300, 300), validation: int = 20) -> list[str]:
    """Write files of each pair; returns the settings that name them."""
    settings = []
    for number, (name, count) in enumerate(zip(PAIRS, counts, strict=True)):
        for split, rows in (("train", count), ("validation", validation)):
            sources = make_sources(rows, seed=10 * number + (split == "validation"))
            sides = {"source": sources, "target": [translated(text, PAIRS[name][1]) for text in sources]}
            for side, texts in sides.items():
                path = folder / f"{name}.{split}.{side}"
                path.write_text("".join(f"{text}\n" for text in texts))
                settings.append(f"data.pairs.{name}.{split}.{side}={path}")
    return settings
