"""The built-in corpus: a controlled Korean-English language, made by a grammar.

A meaning is drawn at random (`constructions`, `phrases`), then said in Korean (`korean`) and in English (`english`) by
two grammars that share nothing but the meaning and the word lists beside this file. `build("tiny", "train")` gives a
dataset; `lexicon()` the true dictionary behind it.
"""

from __future__ import annotations

from hf_nmt.data.controlled.corpus import build
from hf_nmt.data.controlled.dictionary import lexicon

__all__ = ["build", "lexicon"]
