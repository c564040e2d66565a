"""Reports as blocks of tables, pictures and notes; as one HTML page that needs no other file, as Markdown, or as plain
text for a terminal."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jinja2

from hf_nmt.metrics.tables import align


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of text under headings; the first `left` columns are words, the others figures."""

    headings: list[str]
    rows: list[list[str]]
    left: int = 1


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report; what is empty is not shown.

    Attributes:
        title: its heading.
        text: a paragraph before the rest.
        table: figures.
        notes: a list of sentences.
        pictures: (file, what it shows), PNG.
    """

    title: str
    text: str = ""
    table: Table | None = None
    notes: Sequence[str] = ()
    pictures: Sequence[tuple[Path, str]] = ()


def as_html(title: str, sections: Sequence[Section]) -> str:
    """One page with its pictures inside; nothing is loaded from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_nmt.evaluation", "."), undefined=jinja2.StrictUndefined, autoescape=True
    )
    environment.filters["inline"] = _inline
    return environment.get_template("page.html.jinja").render(title=title, sections=sections)


def _inline(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def as_markdown(title: str, sections: Sequence[Section], folder: Path) -> str:
    """Markdown; pictures are named as seen from `folder`."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [section.text] if section.text else []
        if section.table is not None:
            table = section.table
            parts.append(align(table.headings, table.rows, markdown=True, left=table.left))
        parts += ["\n".join(f"- {note}" for note in section.notes)] if section.notes else []
        parts += [f"![{shows}]({picture.relative_to(folder).as_posix()})" for picture, shows in section.pictures]
    return "\n\n".join(parts) + "\n"


def as_text(sections: Sequence[Section]) -> str:
    """For a terminal, without pictures."""
    parts = []
    for section in sections:
        lines = [section.title, *([section.text] if section.text else [])]
        if section.table is not None:
            lines.append(align(section.table.headings, section.table.rows, left=section.table.left))
        lines += [f"- {note}" for note in section.notes]
        parts += ["\n".join(lines)] if len(lines) > 1 else []
    return "\n\n".join(parts)
