"""Plots: of a run, made from its metrics.jsonl, and of several runs in one picture."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nmt.artifacts import atomic_file
from hf_nmt.runs import read_metrics, read_validations, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")


@dataclasses.dataclass(frozen=True)
class Plot:
    """One picture.

    Attributes:
        file: its name.
        title: what it shows.
        unit: label of the y axis.
        curves: metric -> (legend, whether it is noisy: then it is drawn thin, with a running median on top).
        logarithmic: whether the y axis is.
        from_zero: whether the y axis begins at 0.
        best: metric whose best point is marked.
    """

    file: str
    title: str
    unit: str
    curves: Mapping[str, tuple[str, bool]]
    logarithmic: bool = False
    from_zero: bool = False
    best: str | None = None


PLOTS = (
    Plot(
        "loss.png",
        "Loss",
        "nats per target token",
        {"loss": ("training (label-smoothed)", False), "eval_loss": ("validation (not smoothed)", False)},
    ),
    Plot(
        "learning_rate.png",
        "Learning rate",
        "learning rate",
        {"learning_rate": ("learning rate", False)},
        from_zero=True,
    ),
    Plot(
        "gradient_norm.png",
        "Gradient norm before clipping",
        "norm",
        {"grad_norm": ("gradient norm", True)},
        logarithmic=True,
    ),
    Plot(
        "tokens_per_second.png",
        "Speed",
        "source and target tokens per second",
        {"tokens_per_second": ("tokens per second", True)},
        from_zero=True,
    ),
    Plot("bleu.png", "BLEU on validation", "BLEU", {"eval_bleu": ("BLEU", False)}, best="eval_bleu"),
    Plot("chrf.png", "chrF on validation", "chrF", {"eval_chrf": ("chrF", False)}, best="eval_chrf"),
    Plot(
        "off_target.png",
        "Translations in another language, on validation",
        "% of translations",
        {"eval_off_target": ("off-target rate", False)},
        from_zero=True,
    ),
)


def plot_run(folder: Path | str) -> list[Path]:
    """Draw the plots of a run into its `plots/`; a plot without points is left out.

    Args:
        folder: the run folder.

    Returns:
        The pictures.
    """
    folder = Path(folder)
    entries = read_metrics(folder)
    counting = {entry["step"] for entry in read_validations(folder)}
    given_up = {entry["step"] for entry in read_validations(folder, given_up=True)} - counting
    pictures = []
    for plot in PLOTS:
        plot = _with_pairs(plot, {entry["name"] for entry in entries})
        curves = {name: points for name in plot.curves if (points := series(entries, name))[0]}
        if curves:
            pictures.append(folder / "plots" / plot.file)
            with atomic_file(pictures[-1]) as partial:
                draw(plot, curves, folder.name, given_up).savefig(partial, format="png")
    return pictures


def _with_pairs(plot: Plot, names: Iterable[str]) -> Plot:
    """The plot of a score with a curve for each language pair as well, such as eval_bleu_de-en."""
    opening = f"{next(iter(plot.curves))}_"
    pairs = {name: (name.removeprefix(opening), False) for name in sorted(names) if name.startswith(opening)}
    if not opening.startswith("eval_") or not pairs:
        return plot
    means = {name: (f"{legend}, mean over pairs", noisy) for name, (legend, noisy) in plot.curves.items()}
    return dataclasses.replace(plot, curves=means | pairs)


def running_median(values: Sequence[float], width: int) -> list[float]:
    """The median of each value and its neighbours, `width` in all; shorter windows at the ends."""
    half = width // 2
    medians = []
    for index in range(len(values)):
        window = sorted(values[max(0, index - half) : index + half + 1])
        middle = len(window) // 2
        medians.append(window[middle] if len(window) % 2 else (window[middle - 1] + window[middle]) / 2)
    return medians


def draw(
    plot: Plot,
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    run_name: str,
    given_up: Collection[int] = (),
) -> Figure:
    """One picture.

    Args:
        plot: what is drawn.
        curves: steps and values of the metrics of `plot.curves`.
        run_name: written beside the title.
        given_up: steps of validations that do not count, and are not the best.
    """
    # Imported here: Matplotlib takes half a second, and most who import this module do not draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for colour, (name, (steps, values)) in zip(itertools.cycle(COLOURS), curves.items(), strict=False):
        legend, noisy = plot.curves[name]
        marker: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(steps) < 40 else {}
        if noisy and len(steps) >= 20:
            axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35, label=legend)
            axes.plot(steps, running_median(values, max(5, len(values) // 20)), color=colour, linewidth=1.8,
                      label="running median")  # fmt: skip
        else:
            axes.plot(steps, values, color=colour, linewidth=1.6, label=legend, **marker)
        counting = [index for index, step in enumerate(steps) if step not in given_up]
        if name == plot.best and counting:
            top = max(counting, key=values.__getitem__)
            axes.plot([steps[top]], [values[top]], marker="o", markersize=8, color=COLOURS[1], fillstyle="none")
            # Above the highest point there is no curve; the label ends where it begins on the side with less room.
            side = steps[top] / steps[-1]
            axes.annotate(
                f"{values[top]:.2f} at step {steps[top]:,}",
                (steps[top], values[top]),
                xytext=(0, 9),
                textcoords="offset points",
                ha="left" if side < 0.2 else "right" if side > 0.8 else "center",
                color=COLOURS[1],
            )
            axes.margins(y=0.12)
    axes.set_title(plot.title, loc="left", fontweight="bold")
    axes.set_title(run_name, loc="right", fontsize=8, color="0.45")
    axes.set_xlabel("updates")
    axes.set_ylabel(plot.unit)
    axes.set_xlim(left=0)
    if plot.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if plot.from_zero:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False)
    return figure


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a picture; without points it keeps its colour, and is in no legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Panel:
    """The curves of a picture over one quantity."""

    label: str
    curves: Sequence[Curve]


def draw_curves(path: Path, title: str, unit: str, panels: Sequence[Panel]) -> None:
    """Write a picture (PNG): the same curves over several quantities, side by side, with one legend.

    Args:
        title: what it shows.
        unit: of the values.
        panels: each with the same curves in the same order, so that one keeps its colour.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = [curve.name for curve in panels[0].curves]
    # Below the panels, as many columns as there is room for.
    columns = max(1, min(len(names), 130 // (max(map(len, names)) + 8)))
    height = 3.6 + 0.22 * -(-len(names) // columns)
    figure = Figure(figsize=(4.2 * len(panels), height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    handles: dict[str, Any] = {}
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        for number, curve in enumerate(panel.curves):
            if not len(curve.x):
                continue
            style = ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
            marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(curve.x) < 40 else {}
            (line,) = axes.plot(curve.x, curve.y, style, color=COLOURS[number % len(COLOURS)], linewidth=1.5, **marker)
            handles.setdefault(curve.name, line)
        axes.set_xlabel(panel.label)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: _in_short(value))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.grid(True, color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if not any(len(curve.x) for curve in panel.curves):
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="0.5")
    every[0].set_ylabel(unit)
    every[0].set_title(title, loc="left", fontweight="bold")
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png")


def _in_short(value: float) -> str:
    """12,500 as it is; from a hundred thousand on 1.2M."""
    return f"{value / 1e6:,.3g}M" if abs(value) >= 1e5 else f"{value:,.10g}"
