"""What steps look for in texts, found in their bytes: words, and the few rows on which a pattern has to be tried.

A regular expression is tried on a text in some hundred nanoseconds, numpy looks at its bytes in some ten. So patterns
are tried only where a byte is that they cannot do without.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.data.text_bytes import bytes_of, rows_of, rows_with, whole

Texts: TypeAlias = pa.Array | pa.ChunkedArray
# White space of Python's `str.split` beyond ASCII: first byte, and what follows it.
_BLANKS = {
    0xC2: [b"\x85", b"\xa0"],
    0xE1: [b"\x9a\x80"],
    0xE2: [*(bytes([0x80, last]) for last in (*range(0x80, 0x8B), 0xA8, 0xA9, 0xAF)), b"\x81\x9f"],
    0xE3: [b"\x80\x80"],
}


def num_words(texts: Texts) -> pa.Array:
    """Words of each text, parted by white space."""
    line, starts = bytes_of(texts)
    blank = (line - np.uint8(9) < 5) | (line - np.uint8(28) < 5)  # tab to carriage return; separators and the blank
    for first, followings in _BLANKS.items():
        places = np.flatnonzero(line == first)
        for following in followings if len(places) else ():
            found = places
            for offset, byte in enumerate(following, 1):
                found = found[line[found + offset] == byte]
            for offset in range(len(following) + 1):
                blank[found + offset] = True
    begins = ~blank
    begins[1:] &= blank[:-1]
    own = starts[:-1][starts[:-1] < starts[1:]]
    begins[own] = ~blank[own]
    counts = np.concatenate([[0], np.cumsum(begins, dtype=np.int64)])
    return pa.array(np.diff(counts[starts]))


def matches(texts: Texts, pattern: str, where: np.ndarray) -> pa.Array:
    """Whether a pattern matches, tried only on some texts: (N,) boolean; false for the others."""
    found = np.zeros(len(texts), bool)
    if where.any():
        found[where] = pc.match_substring_regex(whole(texts).filter(pa.array(where)), pattern)
    return pa.array(found)


def with_any(texts: Texts, *sought: str) -> np.ndarray:
    """Whether a text has one of some ASCII strings: (N,). It may be true of one as well that begins with
    the end of such a string."""
    line, starts = bytes_of(texts)
    rows = rows_with(_any_of(line, "".join(one for one in sought if len(one) == 1)), starts)
    for one in sought:
        if len(one) > 1:
            places = np.flatnonzero(line == ord(one[-1]))
            for offset, character in enumerate(reversed(one)):
                places = places[line[places - offset] == ord(character)]
            rows[rows_of(places, starts)] = True
    return rows


def with_digits(texts: Texts) -> np.ndarray:
    """False only for texts without a decimal digit of any script: (N,)."""
    line, starts = bytes_of(texts)
    return rows_with((line - np.uint8(ord("0")) < 10) | (line >= 0xD9), starts)  # U+0660 is D9 A0


def maybe_east_asian(texts: Texts) -> np.ndarray:
    """False only for texts of which all characters are below U+0E00, or from U+2000 to U+2E7F: (N,)."""
    line, starts = bytes_of(texts)
    # E1 begins U+1000 and E3 U+3000; E0 B8 U+0E00; E2 BA U+2E80.
    found = (line == 0xE1) | (line >= 0xE3)
    for first, second in ((0xE0, 0xB8), (0xE2, 0xBA)):
        places = np.flatnonzero(line == first)
        found[places[line[places + 1] >= second]] = True
    return rows_with(found, starts)


def with_run(texts: Texts, separators: str, length: int) -> np.ndarray:
    """False only for texts without so many bytes in a row of which none is one of some ASCII characters: (N,)."""
    line, starts = bytes_of(texts)
    places = np.concatenate([[-1], np.flatnonzero(_any_of(line, separators)), [len(line)]])
    rows = np.zeros(len(texts) + 1, np.int64)
    # A run may go on into the next texts: then all of them are taken.
    runs = np.flatnonzero(np.diff(places) > length)
    np.add.at(rows, rows_of(places[runs] + 1, starts), 1)
    np.add.at(rows, rows_of(places[runs + 1] - 1, starts) + 1, -1)
    return np.cumsum(rows)[:-1] > 0


def ending_in(texts: Texts, characters: str) -> np.ndarray:
    """False only for texts that end in another ASCII character than these, or are empty: (N,)."""
    line, starts = bytes_of(texts)
    found = np.zeros(len(texts), bool)
    rows = np.flatnonzero(starts[:-1] < starts[1:])
    last = line[starts[rows + 1] - 1]
    found[rows] = _any_of(last, characters) | (last >= 0x80)
    return found


def _any_of(line: np.ndarray, characters: str) -> np.ndarray:
    found = np.zeros(len(line), bool)
    for character in characters:
        found |= line == ord(character)
    return found
