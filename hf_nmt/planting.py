"""Defects planted in a corpus of pairs, as web text has them: to measure what finds them, and what they cost.

Which pairs are spoilt, and how, hangs on the seed, the pairs and the numbers that are asked for, and on nothing else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

KINDS = {
    "empty": "one side is empty, a blank, or an ideographic space",
    "copy": "both sides are the source, or the target",
    "swapped": "each side in the place of the other",
    "language": "the target, or the source, is the French or Czech caption of the same picture",
    "shifted": "runs of ten lines beside the translation of the next",
    "half": "the first half of the target's words",
    "mojibake": "UTF-8 read as Windows-1252, or as ASCII with signs of replacement; found where mended or dropped",
    "markup": "a tag, an escaped tag, an entity, BBCode, a link or a template of a wiki in one side",
    "number": "a number of the target is another one; where both sides have one",
    "near": "pairs of the test set with a word replaced or left out, or other case and punctuation",
}
RUN = 10  # lines that are shifted together
Pair = tuple[str, str]

_FITS: dict[str, Callable[[Pair], object]] = {
    "number": lambda pair: all(re.search(r"\d", text) for text in pair),
    "mojibake": lambda pair: re.search(r"[äöüß].*[äöüß]", pair[0]),
    "half": lambda pair: len(pair[1].split()) >= 6,
}


def plant(
    pairs: Sequence[Pair],
    counts: Mapping[str, int],
    seed: int,
    *,
    others: Sequence[Sequence[str]] = (),
    near: Sequence[Pair] = (),
) -> dict[int, tuple[str, Pair]]:
    """Spoil some pairs.

    Args:
        pairs: the corpus, source first.
        counts: how many of each kind of `KINDS`; of "shifted" a multiple of ten.
        others: for "language", the same sentences in two other languages, in the order of the pairs.
        near: for "near", pairs of an evaluation set, drawn from without repetition.

    Returns:
        place -> its kind, and what stands there now.

    Raises:
        ValueError: fewer pairs are fit for a kind than are to be spoilt.
    """
    chance = random.Random(seed)
    places = _places(chance, pairs, counts)
    drawn = chance.sample(near, counts.get("near", 0))
    found = {}
    for place in sorted(places):
        kind, number = places[place]
        following = pairs[place + 1] if place + 1 < len(pairs) else pairs[0]
        other = others[number // 2 % 2][place] if kind == "language" else ""
        pair = drawn[number] if kind == "near" else pairs[place]
        found[place] = kind, _defect(kind, number, pair, following, other, chance)
    return found


def _places(chance: random.Random, pairs: Sequence[Pair], counts: Mapping[str, int]) -> dict[int, tuple[str, int]]:
    """Where the defects go: place -> kind, number."""
    runs = chance.sample(range(len(pairs) // RUN - 1), counts.get("shifted", 0) // RUN)
    places = {run * RUN + n: ("shifted", number * RUN + n) for number, run in enumerate(runs) for n in range(RUN)}
    # The kinds first that few pairs are fit for.
    for kind in (*_FITS, *(kind for kind in KINDS if kind not in _FITS and kind != "shifted")):
        if kind in counts:
            free = [n for n, pair in enumerate(pairs) if n not in places and _FITS.get(kind, len)(pair)]
            places |= {place: (kind, number) for number, place in enumerate(chance.sample(free, counts[kind]))}
    return places


def _defect(kind: str, number: int, pair: Pair, following: Pair, other: str, chance: random.Random) -> Pair:
    source, target = pair
    side = number % 2
    if kind == "empty":
        return _with_side(pair, side, ("", " ", "\u3000")[number % 3])
    if kind == "copy":
        return (pair[side], pair[side])
    if kind == "swapped":
        return target, source
    if kind == "language":
        return _with_side(pair, side, other)
    if kind == "shifted":
        return source, following[1]
    if kind == "half":
        words = target.split()
        return source, " ".join(words[: len(words) // 2])
    if kind == "mojibake":
        as_bytes = source.encode()
        lossy = as_bytes.decode("ascii", "replace")
        return (as_bytes.decode("cp1252", "replace") if side else lossy), target
    if kind == "markup":
        return _with_side(pair, side, _marked(pair[side], number // 2, chance))
    if kind == "number":
        found = chance.choice(list(re.finditer(r"\d+", target)))
        new = int(found[0]) + chance.randint(1, 8)
        return source, target[: found.start()] + str(new) + target[found.end() :]
    return _changed_slightly(pair, number, chance)


def _with_side(pair: Pair, side: int, text: str) -> Pair:
    return (pair[0], text) if side else (text, pair[1])


def _marked(text: str, number: int, chance: random.Random) -> str:
    words = text.split()
    at = chance.randrange(len(words))
    forms = (
        "<b>{}</b>",
        "{}<br />",
        "&lt;i&gt;{}&lt;/i&gt;",
        "[url=x]{}[/url]",
        "{{{{lang|{}}}}}",
        '<a href="x">{}</a>',
        "&quot;{}&quot;&nbsp;</p>",
    )
    words[at] = forms[number % len(forms)].format(words[at])
    return " ".join(words)


def _changed_slightly(pair: Pair, number: int, chance: random.Random) -> Pair:
    way, side = number % 4, number // 4 % 2
    if way == 0:
        return pair[0].upper() if side else pair[0].lower().rstrip("."), pair[1].lower().rstrip(".") + " !"
    found = list(pair)
    for place in (0, 1) if way == 1 else (side,):
        words = found[place].split()
        at = chance.randrange(1, len(words) - 1)
        words[at : at + 1] = [] if way < 3 else [chance.choice(("old", "young", "tall", "green", "quiet"))]
        found[place] = " ".join(words)
    return found[0], found[1]
