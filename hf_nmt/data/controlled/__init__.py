"""The built-in corpus: a controlled Korean-English language, made by a grammar.

`build("tiny", "train")` gives a dataset; `lexicon()` the true dictionary behind it.
"""

from __future__ import annotations

from hf_nmt.data.controlled.corpus import build

__all__ = ["build"]
