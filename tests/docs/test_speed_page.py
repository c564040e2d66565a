"""docs/benchmarks/training: the page tells of the parts that were measured, whichever they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from hf_nmt.benchmarking import keep_result, measured_here

STUDY = Path(__file__).parents[2] / "docs" / "benchmarks" / "training"
PEAK = {"flops_per_target_token": 2e6, "flops_per_cpu_second": {"fp32": 8e9}}
LOSSES = {"fp32": 0.00012, "updates": 100}
SPEED = {
    "shape": {"layers": 6, "width": 256, "inner": 1024, "vocabulary": 8000, "dropout": 0.1, "smoothing": 0.1},
    "cpu_seconds": 4,
    "rounds": [
        {
            "plain": {"tokens": 4000, "cpu_seconds": 4},
            "hf_nmt, fp32": {"tokens": 8000, "cpu_seconds": 4},
            "hf_nmt, bf16": {"tokens": 12000, "cpu_seconds": 4},
        }
    ],
}
TOLD = {
    "speed": (SPEED, "| plain | 1,000 | 2.00 (2.00 to 2.00) | 3.00 (3.00 to 3.00) |"),
    "peak": (PEAK, "| fp32 | 8 | 4,000 |"),
    "losses": (LOSSES, "| fp32 | 0.00012 |"),
}


@pytest.mark.parametrize("parts", [["peak"], ["losses"], ["peak", "losses"], ["losses", "speed"], [*TOLD]])
def test_the_page_is_of_the_parts_that_there_are(parts, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("training_benchmark", STUDY / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results.json")
    assert {*TOLD} == {*module.PARTS}
    for part in parts:
        keep_result(tmp_path / "results.json", part, TOLD[part][0])
    module.page()
    text = (tmp_path / "README.md").read_text()
    assert [part for part, (_, line) in TOLD.items() if line in text] == [part for part in TOLD if part in parts]
    assert text.endswith("\n") and f"One thread on {measured_here()['processor']}; hf_nmt " in text
