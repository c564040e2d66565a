"""Scores as a table that can be read in a terminal, or as Markdown."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from hf_nmt.metrics.records import Comparison, Score

COMPARISON_HEADINGS = ("metric", "system", "score", "baseline", "difference", "p")


def display_width(text: str) -> int:
    """Columns that `text` takes in a terminal: two for a wide (East Asian) character, none for a combining mark."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def align(headings: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False, left: int = 1) -> str:
    """Rows under headings; the first `left` columns are set flush left, the others (figures) flush right."""
    if markdown:
        rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    table = [list(headings), *map(list, rows)]
    widths = [max(display_width(row[column]) for row in table) for column in range(len(headings))]

    def cell(text: str, column: int) -> str:
        padding = " " * (widths[column] - display_width(text))
        return text + padding if column < left else padding + text

    lines = [[cell(text, column) for column, text in enumerate(row)] for row in table]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def score_table(scores: Sequence[Score], *, confidence: float, markdown: bool = False) -> str:
    """One row a score, then one line with the signature of each.

    A column `domain` appears where a score is limited to one. Scores are in the unit of the record, to two decimals.

    Args:
        scores: records of one evaluation.
        confidence: `MetricSettings.confidence` of its intervals, for their heading.
        markdown: as a Markdown table.
    """
    by_domain = any(score.data.domain for score in scores)
    domain = ["domain"] if by_domain else []
    headings = ["metric", *domain, "score", f"{100 * confidence:g}% interval", "segments"]
    rows = []
    for score in scores:
        bounds = "-" if score.interval is None else f"{score.interval[0]:.2f} to {score.interval[1]:.2f}"
        rows.append(
            [
                score.name,
                *([score.data.domain or "all"] if by_domain else []),
                score.text,
                bounds,
                str(score.n),
            ]
        )
    table = align(headings, rows, markdown=markdown, left=2 if by_domain else 1)
    return f"{table}\n\n{_signatures(scores, markdown)}"


def comparison_table(comparisons: Sequence[Comparison], *, markdown: bool = False) -> str:
    """One row for each metric and system, with the difference to the baseline and the p-value of the paired test.

    A column `domain` appears where one is limited to a language pair.
    """
    by_domain = any(item.domain for item in comparisons)
    headings = list(COMPARISON_HEADINGS)
    headings[1:1] = ["domain"] if by_domain else []
    rows = [
        [
            item.name,
            *([item.domain or "all"] if by_domain else []),
            item.system,
            f"{item.value:.2f}",
            f"{item.baseline_value:.2f}",
            f"{item.value - item.baseline_value:+.2f}",
            f"{item.p_value:.4f}",
        ]
        for item in comparisons
    ]
    table = align(headings, rows, markdown=markdown, left=3 if by_domain else 2)
    return f"{table}\n\n{_signatures(comparisons, markdown)}"


def _signatures(items: Sequence[Score] | Sequence[Comparison], markdown: bool) -> str:
    lines = dict.fromkeys(f"{item.name}|{item.signature}" for item in items)
    return "\n".join(f"- `{line}`" for line in lines) if markdown else "\n".join(lines)
