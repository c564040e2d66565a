from __future__ import annotations

import json
import random
import statistics

import pytest
from PIL import Image

from hf_nmt.reporting import PLOTS, draw, plot_run, running_median


@pytest.mark.parametrize("width", [1, 5, 8])
def test_the_running_median_is_that_of_the_window(width):
    values = [random.Random(1).gauss(0, 1) for _ in range(30)]
    found = running_median(values, width)
    assert len(found) == 30
    for index, value in enumerate(found):
        assert value == statistics.median(values[max(0, index - width // 2) : index + width // 2 + 1])


def write_metrics(folder, names, steps=60):
    with open(folder / "metrics.jsonl", "w") as stream:
        for step in range(1, steps + 1):
            for name in names:
                entry = {"step": step, "epoch": step / 10, "tokens": step, "seconds": step, "name": name}
                stream.write(json.dumps(entry | {"value": step**0.5}) + "\n")


def test_a_picture_for_everything_that_was_measured(tmp_path):
    names = ["loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "eval_bleu", "eval_chrf"]
    write_metrics(tmp_path, names)
    pictures = plot_run(tmp_path)
    assert {path.stem for path in pictures} == {
        "loss", "learning_rate", "gradient_norm", "tokens_per_second", "bleu", "chrf",
    }  # fmt: skip
    for path in pictures:
        image = Image.open(path).convert("RGB")
        assert image.size == (1080, 630)
        assert len(image.getcolors(1 << 20)) > 20  # not blank


def test_the_picture_follows_the_data(tmp_path):
    write_metrics(tmp_path, ["loss"], steps=60)
    first = plot_run(tmp_path)[0].read_bytes()
    assert plot_run(tmp_path)[0].read_bytes() == first
    write_metrics(tmp_path, ["loss"], steps=30)
    assert plot_run(tmp_path)[0].read_bytes() != first


def test_what_was_not_measured_is_left_out(tmp_path):
    write_metrics(tmp_path, ["loss"], steps=1)
    assert [path.name for path in plot_run(tmp_path)] == ["loss.png"]
    (tmp_path / "metrics.jsonl").unlink()
    assert plot_run(tmp_path) == []


@pytest.mark.parametrize(
    "values",
    [
        [28.3, 33.4, 39.1, 40.1, 41.4, 40.5, 40.9],  # late, with falling values after it
        [80.0, 89.65, 89.6],
        [50.0, 40.0, 30.0, 20.0],  # the first
        [1.0, 2.0, 3.0, 4.0],  # the last
        [10.0] * 12,
        [7.0],
    ],
)
def test_the_best_score_is_told_where_no_curve_runs(values):
    plot = next(plot for plot in PLOTS if plot.file == "bleu.png")
    steps = list(range(750, 750 * (len(values) + 1), 750))
    figure = draw(plot, {"eval_bleu": (steps, values)}, "a-run")
    figure.canvas.draw()
    (axes,) = figure.axes
    (label,) = axes.texts
    assert label.get_text() == f"{max(values):.2f} at step {steps[values.index(max(values))]:,}"
    box = label.get_window_extent()
    assert figure.bbox.contains(box.x0, box.y0) and figure.bbox.contains(box.x1, box.y1)
    assert box.y1 < axes.title.get_window_extent().y0
    for line in axes.lines:
        assert not line.get_path().transformed(line.get_transform()).intersects_bbox(box, filled=False)


def test_the_marks_of_a_logarithmic_axis_do_not_run_into_each_other():
    plot = next(plot for plot in PLOTS if plot.logarithmic)
    for low, high in [(0.03, 1.6), (0.35, 1.7), (0.61, 0.78), (0.001, 4000)]:
        values = [low * (high / low) ** (index / 15) for index in range(16)]
        figure = draw(plot, {"grad_norm": (list(range(1, 17)), values)}, "a-run")
        figure.canvas.draw()
        labels = [label for label in figure.axes[0].get_yticklabels(which="both") if label.get_text()]
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.y0)
        assert len(boxes) >= 2
        assert all(lower.y1 <= upper.y0 for lower, upper in zip(boxes, boxes[1:], strict=False))
