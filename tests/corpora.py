"""A little parallel text, written as aligned files."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = [f"{first}{second}lo" for first in "bdfgklmnprst" for second in "aeiou"]


def write_corpus(folder: Path, count: int = 120, seed: int = 0) -> list[str]:
    """Write `text.xx` and, its words backwards, `text.yy`; returns the settings that name them."""
    draw = random.Random(seed)
    lines = [draw.choices(WORDS, k=draw.randint(1, 6)) for _ in range(count)]
    (folder / "text.xx").write_text("".join(" ".join(words) + "\n" for words in lines))
    (folder / "text.yy").write_text("".join(" ".join(reversed(words)) + "\n" for words in lines))
    settings = ["data.source_language=xx", "data.target_language=yy"]
    for split in ("train", "validation"):
        settings += [f"data.{split}.source={folder / 'text.xx'}", f"data.{split}.target={folder / 'text.yy'}"]
    return settings
