"""Writes aligned text of any size whose words are distributed like those of a language, in bounded memory.

python tests/zipf_corpus.py <folder> <number of pairs>
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

# Shares of ranks fall as (rank + SHIFT) ** -EXPONENT (Mandelbrot 1953); new words keep coming, as in German: some
# hundred thousand in the first million sentences.
EXPONENT, SHIFT = 1.45, 20
_KNOWN = 2**17
_SYLLABLES = {
    "xx": [first + second for first in "bdfgklmnprstvz" for second in "aeiou"],
    "yy": [first + second + last for first in "hjkmnpst" for second in ("a", "ei", "o", "u") for last in ("", "n")],
}


def word(rank: int, language: str) -> str:
    syllables = _SYLLABLES[language]
    text = ""
    while True:
        rank, place = divmod(rank, len(syllables))
        text += syllables[place]
        if not rank:
            return text


def write_zipf_corpus(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Write `text.xx` and, the same words in another spelling, `text.yy`; returns the settings that name them."""
    draw = np.random.default_rng(seed)
    known = {language: [word(rank, language) for rank in range(_KNOWN)] for language in _SYLLABLES}
    paths = {language: folder / f"text.{language}" for language in _SYLLABLES}
    files = {language: path.open("w", encoding="utf-8") for language, path in paths.items()}
    for start in range(0, count, 10_000):
        lengths = draw.integers(3, 20, size=min(10_000, count - start))
        ranks = SHIFT * (draw.random(lengths.sum()) ** (-1 / (EXPONENT - 1)) - 1)
        rows = np.split(np.minimum(ranks, 2**40).astype(np.int64), np.cumsum(lengths)[:-1])
        for language, file in files.items():
            for row in rows:
                words = (known[language][rank] if rank < _KNOWN else word(rank, language) for rank in row.tolist())
                file.write(" ".join(words).capitalize() + ".\n")
    for file in files.values():
        file.close()
    settings = ["data.source_language=xx", "data.target_language=yy"]
    return settings + [
        f"data.train.{side}={path}" for side, path in zip(("source", "target"), paths.values(), strict=True)
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(write_zipf_corpus(Path(sys.argv[1]), int(sys.argv[2]))) + "\n")
