"""`split_manifest.json`: which articles stand in which split, how many records, and in which bins of coherence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.cleaning import coherence
from hf_nmt.cleaning.coherence import CoherenceSettings
from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.splits import Split, SplitSet
from hf_nmt.cleaning.units import article_keys

NAME = "split_manifest.json"
SCHEMA_VERSION = 1


def describe(made: Split, tables: dict[str, list[Path]]) -> str:
    """The text of the file.

    Args:
        made: how the splits were made.
        tables: files of the records of each split as they go into the version.
    """
    rows = {name: _read(paths) for name, paths in tables.items()}
    whole = sum(len(table) for table in rows.values())
    edges = made.edges.tolist()
    articles = np.bincount(made.unit_bins[made.units.article_units], minlength=len(edges) + 2)
    bins = [
        {"from": low, "below": high, "articles": int(articles[number])}
        for number, (low, high) in enumerate(zip([None, *edges], [*edges, None], strict=True))
    ]
    value = {
        "schema_version": SCHEMA_VERSION,
        "seed": made.settings.seed,
        "settings": made.settings.model_dump(mode="json"),
        "coherence": {
            **definition(made.settings.coherence),
            "edges": edges,
            "bins": bins,
            "articles_without": int(articles[len(edges) + 1]),
        },
        "units": {"records": len(made.units.of), "units": len(made.units), "articles": len(made.units.articles)},
        "splits": {
            name: {"share": round(len(table) / whole, 6) if whole else 0.0, **_of_split(made, name, table)}
            for name, table in rows.items()
        },
    }
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def definition(settings: CoherenceSettings) -> dict[str, Any]:
    """What coherence is here, in words and figures."""
    vectors: dict[str, Any] = {"encoder": str(settings.encoder)}
    if settings.encoder is None:
        vectors = {
            "encoder": "runs of characters, hashed, TF-IDF over the sentences of articles, projected by random signs",
            "ngram": settings.ngram,
            "buckets": coherence.BUCKETS,
            "dimensions": coherence.DIMENSIONS,
            "projection_seed": coherence.PROJECTION_SEED,
        }
    return {
        "definition": "mean cosine of the vectors of neighbouring sentences of an article, by position; articles that "
        "stand together are binned by the mean over all of them",
        "side": settings.side,
        "vectors": vectors,
        "digits": coherence.DIGITS,
    }


def _read(paths: Sequence[Path]) -> pa.Table:
    return pa.concat_tables([read_table(path).select(["article", "domain"]) for path in paths])


def _of_split(made: Split, name: str, rows: pa.Table) -> dict[str, Any]:
    units, one = made.units, made.settings.sets.get(name, SplitSet())
    counts = pc.value_counts(rows["article"]).to_pylist() if len(rows) else []
    found = sorted((pair["values"], pair["counts"]) for pair in counts if pair["values"] is not None)
    places = units.places_of(article_keys(pa.array([article for article, _ in found], pa.string())))
    last = len(made.edges) + 1
    # Articles that came after the splits, as of augmented text, have no bin: the entry at the end.
    bins = np.append(made.unit_bins[units.article_units], last)[places]
    values = np.append(units.article_coherence, np.nan)[places]
    domains = pc.value_counts(rows["domain"]).to_pylist() if len(rows) else []
    return {
        "asked": one.model_dump(mode="json", exclude_defaults=True),
        "records": len(rows),
        "records_without_article": rows["article"].null_count,
        "domains": {
            pair["values"] or "": pair["counts"] for pair in sorted(domains, key=lambda pair: pair["values"] or "")
        },
        "bins": [
            {
                "bin": number if number < last else None,
                "articles": int((bins == number).sum()),
                "records": sum(count for (_, count), place in zip(found, bins, strict=True) if place == number),
            }
            for number in range(last + 1)
            if number < last or (bins == last).any()
        ],
        "articles": [
            {
                "article": article,
                "records": count,
                "coherence": None if np.isnan(value) else float(value),
                "bin": int(place) if place < last else None,
            }
            for (article, count), value, place in zip(found, values, bins, strict=True)
        ],
    }
