"""Back-translation: records of monolingual text in the target language and its translation into the source language.

Sennrich et al. (2016a) train on such pairs beside human ones; Edunov et al. (2018) find sampled translations better
than those of beam search where there is text enough; Caswell et al. (2019) mark the sources with a tag.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute

from hf_nmt.errors import ConfigError, DataError
from hf_nmt.generation.inputs import Input, Line
from hf_nmt.models.sources_nmt import Languages
from hf_nmt.protocols import Translation
from hf_nmt.tokenizer_training import is_reserved

if TYPE_CHECKING:
    from datasets import Dataset

SYNTHETIC = "backtranslation"  # what the records say of how they were made
_ROWS = 100_000  # read at once
ENDINGS = (".jsonl", ".jsonl.gz")


def renderer(constants: Mapping[str, str | None], tag: str | None) -> Callable[[list[Translation], Line, int], str]:
    """What makes records of a line and its translations: a JSON object a line, nothing for a line without text.

    Args:
        constants: further fields of each record (`data.records.PairRecord`); those that are None are left out.
        tag: word in front of each source; None for none.
    """
    fields = {name: value for name, value in constants.items() if value is not None}
    opening = "" if tag is None else f"{tag} "

    def render(n_best: list[Translation], line: Line, index: int) -> str:
        text = line.text.strip()
        if not text:
            return ""
        records = ({"source": opening + one.text, "target": text, **fields} for one in n_best)
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    return render


def refuse_wrong_direction(languages: Languages, model: str, source_language: str, target_language: str) -> None:
    """Refuse a model that does not write the source language of the records to be made, as far as it tells.

    Args:
        languages: of the model.
        model: what errors call it.
        source_language, target_language: of the records.

    Raises:
        ConfigError: it does not translate from the target language to the source language.
    """
    try:
        languages.select(target_language, source_language)
    except ValueError as error:
        raise ConfigError(
            f"model: for records from {source_language} to {target_language} text is translated from "
            f"{target_language} to {source_language}, which {model} does not do. {error} Give a model of that "
            "direction; where the languages are meant the other way round, swap source_language and target_language."
        ) from error


def tags_of(rows: Dataset) -> list[str]:
    """The words in angle brackets that open sources of back-translated rows, a tenth of these or more, in the order of
    the alphabet. Those that a tokenizer reads otherwise are left out."""
    if "synthetic" not in rows.column_names:
        return []
    counts, total = Counter[str](), 0
    for start in range(0, len(rows), _ROWS):
        table = rows.with_format("arrow")[start : start + _ROWS]
        sources = table["source"].filter(pyarrow.compute.equal(table["synthetic"], SYNTHETIC))
        words = pyarrow.compute.extract_regex(sources, r"^(?P<tag><[^<>\s]+>)\s")
        counts.update(word["tag"] for word in words.drop_null().to_pylist())
        total += len(sources)
    return sorted(tag for tag, count in counts.items() if count * 10 >= total and not is_reserved(tag))


def check_text(source: Input) -> None:
    """
    Raises:
        DataError: no line holds text, or one is no UTF-8.
    """
    with source.lines() as lines:
        if not any(line.text.strip() for line in lines):
            raise DataError(f"{source.name}: there is no text in it. Give a file of one sentence a line.")


def problems_of_names(path: str | Path, output: str | Path) -> list[str]:
    """Findings on the names of the two files."""
    findings = []
    ending = Path(Path(path).name.removesuffix(".gz")).suffix
    if ending in (".jsonl", ".tsv", ".csv", ".parquet", ".arrow", ".tmx"):
        findings.append(f"input: {path} is no plain text by its name. Give a file of one sentence a line, or its .gz.")
    if not str(output).endswith(ENDINGS):
        findings.append(f"output: {output} must end in {' or '.join(ENDINGS)}: it holds records, one a line.")
    return findings
