from __future__ import annotations

import json
import random
import statistics

import pytest
from PIL import Image

from hf_nmt.reporting import plot_run, running_median


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
