"""check.html: what was checked in a version, for people. One page that needs no other file, in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

_WIDTH, _HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 34
_OCTAVES = 2.1
_TITLES = {
    "kept": "Pairs of the version",
    "invalid": "Records that do not fit",
    "language": "In another language",
    "alignment": "One side too long for the other",
    "misaligned": "Words that do not go together",
    "long": "More tokens than allowed",
    "exact_duplicates": "Repeats of another record",
    "near_duplicates": "Almost another record",
    "across": "In a larger split too",
    "near_across": "Almost as in a larger split",
    "same_source": "Same source as in a larger split, another target",
    "same_target": "Same target as in a larger split, another source",
}


def page_of(report: Mapping[str, Any]) -> str:
    """The page of what `checks.check_version` gave."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_nmt.cleaning", "."),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent}
    return environment.get_template("check_page.html.jinja").render(
        report=report,
        gates=_gates(report),
        charts=_charts(report),
        steps=_steps(report),
        titles=_TITLES,
    )


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _percent(share: float) -> str:
    """0.5%, 12.3%, and never 0% of something that is there."""
    return "0" if not share else "< 0.001%" if share < 1e-5 else f"{100 * share:.3g}%"


def _gates(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each bar, with what every split has; gates of the version as a whole have the split ""."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for gate in report["gates"]:
        what = gate["what"]
        row = rows.setdefault((gate["check"], what), {**gate, "splits": {}})
        row["splits"][gate["split"]] = gate
    for row in rows.values():
        row["passed"] = all(gate["passed"] for gate in row["splits"].values())
    return list(rows.values())


def _steps(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps of the pipeline in their order with their reasons, the most frequent first."""
    shown = {(one["step"], one["reason"]): one["samples"] for one in report["rejected"]}
    most = max((count for step in report["steps"] for count in step["dropped"].values()), default=1)
    steps = []
    for step in report["steps"]:
        reasons = [
            {
                "reason": reason,
                "count": count,
                "width": round(100 * count / most, 2),
                "samples": shown.get((step["name"], reason), []),
            }
            for reason, count in sorted(step["dropped"].items(), key=lambda one: (-one[1], one[0]))
        ]
        dropped = sum(step["dropped"].values())
        steps.append(
            {
                "name": step["name"],
                "kept": step["kept"],
                "dropped": dropped,
                "share": dropped / (step["kept"] + dropped) if step["kept"] + dropped else 0.0,
                "changed": sum(step["changed"].values()),
                "reasons": reasons,
                "shown": any(reason["samples"] for reason in reasons),
            }
        )
    return steps


def _charts(report: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """For each split its pictures with what they show."""
    charts = {}
    # What is allowed lies around what is usual: one place for one pair of languages, none for several.
    of_pairs = [*report["usual_lengths"].values()]
    usual = math.log2(of_pairs[0]) if len(of_pairs) == 1 else None
    for name, split in report["splits"].items():
        drawn = [
            (kind.capitalize(), _lengths(found, kind)) for kind, found in split["histograms"].items() if split["rows"]
        ]
        if split["rows"]:
            bar = report["settings"]["alignment"]["max_characters"]
            drawn.append(("Target over source", _ratios(split["ratio"], math.log2(bar), usual)))
        charts[name] = drawn
    return charts


def _lengths(found: Mapping[str, Any], kind: str) -> str:
    lines, width = found["counts"], found["width"]
    most = max((count for line in lines.values() for count in line), default=0) or 1
    end = max(len(line) for line in lines.values()) * width
    parts = [_grid(most)]
    for side, line in lines.items():
        points = [(0.0, 0)]
        for place, count in enumerate(line):
            points += [(place * width / end, count), ((place + 1) * width / end, count)]
        points.append((1.0, 0))
        path = " ".join(f"{_x(x):.1f},{_y(y / most):.1f}" for x, y in points)
        parts.append(f'<polygon class="area {side}" points="{path}"/>')
    step = _nice(end / 5)
    parts += [_tick(place / end, f"{place:,}") for place in range(0, end + 1, step)]
    more = {side: count for side, count in found["more"].items() if count}
    note = f"; longer: {', '.join(f'{side} {count:,}' for side, count in more.items())}" if more else ""
    return _svg(parts, f"{kind}{note}", f"Histogram of lengths in {kind}")


def _ratios(found: Mapping[str, Any], bar: float, usual: float | None) -> str:
    octave = found["bins_of_an_octave"]
    edge = int(_OCTAVES * octave)
    counts = [0] * (2 * edge + 1)
    for at, count in found["counts"].items():
        counts[max(-edge, min(edge, int(at))) + edge] += count
    most = max(counts) or 1
    parts = [_grid(most)]
    for place, count in enumerate(counts):
        if not count:
            continue
        side = " beyond" if usual is not None and abs((place - edge) / octave - usual) > bar else ""
        left, right = _x(place / len(counts)), _x((place + 1) / len(counts))
        top = min(_y(count / most), _y(0) - 0.8)
        parts.append(
            f'<rect class="bar{side}" x="{left:.1f}" y="{top:.1f}" width="{right - left - 0.4:.1f}" '
            f'height="{_y(0) - top:.1f}"/>'
        )
    for sign in (-1, 1):
        limit = sign * bar + (usual or 0.0)
        x = _x((limit * octave + edge + 0.5) / len(counts))
        if usual is not None and abs(limit) < _OCTAVES:
            parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_y(0):.1f}"/>')
    names = {-2: "1/4", -1: "1/2", 0: "1", 1: "2", 2: "4"}
    parts += [_tick((at * octave + edge + 0.5) / len(counts), name) for at, name in names.items()]
    label = "in characters" if usual is None else "in characters; dashed: what alignment allows a pair"
    return _svg(parts, label, "Histogram of target over source")


def _grid(most: int) -> str:
    step = _nice(most / 4)
    lines = []
    for count in range(0, most + 1, step):
        y = _y(count / most)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_in_short(count)}</text>')
    return "".join(lines)


def _tick(share: float, text: str) -> str:
    return f'<text x="{_x(share):.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{text}</text>'


def _svg(parts: Sequence[str], label: str, shows: str) -> str:
    caption = f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 3}" text-anchor="middle">{label}</text>'
    # Numbers and words of this module only, so that the page need not escape it.
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{shows}">{"".join(parts)}{caption}</svg>'


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _nice(step: float) -> int:
    """The next of 1, 2, 5, 10, 20, ... that is no smaller."""
    if step <= 1:
        return 1
    power = 10 ** math.floor(math.log10(step))
    return int(next(one * power for one in (1, 2, 5, 10) if one * power >= step))


def _in_short(count: int) -> str:
    return f"{count / 1e6:g}M" if count >= 1e6 else f"{count / 1e3:g}k" if count >= 1e4 else f"{count:,}"
