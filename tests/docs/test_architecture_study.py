"""docs/benchmarks/architecture: the models are of one size, and the page tells what was measured and what was not."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import pytest
import torch
from settings_walk.keys import settings_of

from hf_nmt.config import load
from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration

STUDY = Path(__file__).parents[2] / "docs" / "benchmarks" / "architecture"


@pytest.fixture
def study(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("architecture_study", STUDY / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results.json")
    return module


def test_the_models_have_as_many_weights_as_each_other(study):
    sizes = {}
    for name, shape in study.SHAPES.items():
        settings = load(settings_of("train"), STUDY / "model.yaml", shape)
        with torch.device("meta"):
            config = NmtConfig(**settings.model.shape(), vocab_size=settings.tokenizer.vocab_size)
            sizes[name] = NmtForConditionalGeneration(config).num_parameters()
    assert sizes.keys() == study.TITLES.keys()
    assert max(sizes.values()) / min(sizes.values()) < 1.01, sizes


def result(bleu: float, cpu_seconds: float, against: dict) -> dict:
    curve = {"step": [5, 10], "cpu_seconds": [cpu_seconds / 2, cpu_seconds], "value": [bleu / 2, bleu]}
    # Five logs of as many tokens; the second quickest costs a tenth of what all of them cost.
    costs = [cpu_seconds * share for share in (0.3, 0.05, 0.1, 0.25, 0.3)]
    tokens = [2_469, 4_938, 7_407, 9_876, 12_345]
    logs = {"tokens": tokens, "cpu_seconds": list(itertools.accumulate(costs)), "value": [5.0, 4.0, 3.5, 3.0, 2.8]}
    scores = [{"name": "BLEU", "value": bleu}, {"name": "chrF2", "value": 50.0}]
    return {
        "settings": {"tokenizer": {"vocab_size": 6000}},
        "environment": {"processor": "a processor", "versions": {"torch": "2.13"}},
        "against_balanced": against,
        "compared": {
            "parameters": 2_000_000, "parameters_without_embeddings": 1_000_000, "updates": 10, "epochs": 1.0,
            "tokens": 12_345, "status": "finished", "cpu_seconds": cpu_seconds, "scores": scores,
            "last": {"loss": {"value": 2.5}},
            "curves": {"eval_bleu": curve, "loss": logs},
        },
    }  # fmt: skip


def test_the_page_tells_differences_and_what_was_not_measured(study, tmp_path):
    tested = {"validation": [{"name": "BLEU", "value": 20.5, "baseline_value": 21.0, "p_value": 0.04}]}
    half = {"step": [5], "cpu_seconds": [40.0], "value": [9.0]}
    broken_off = {"compared": {"status": "interrupted", "updates": 7, "curves": {"eval_bleu": half}}}
    results = {
        "balanced": result(21.0, 100.0, {}),
        "deep": result(20.5, 150.0, tested),
        "wide": broken_off,
        "decoding": {"cpu_seconds": {"deep": [3.0, 9.0, 2.0]}, "sentences": 1014, "dtype": "float32"},
    }
    study.RESULTS.write_text(json.dumps(results), encoding="utf-8")
    study.page()
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    figures = "2,000,000 | 1,000,000 |"
    assert f"| {study.TITLES['balanced']} | {figures} 100 | 50 | 2.500 | 21.00 | - | 50.00 | - |" in page
    assert f"| {study.TITLES['deep']} | {figures} 150 | 75 | 2.500 | 20.50 | -0.50 (p 0.040) | 50.00 | 3.0 |" in page
    missing = (study.TITLES[name] for name in ("post_norm", "deep_encoder", "ssru"))
    assert f"Not trained: {'; '.join(missing)}." in page
    assert f"Not finished, and in the last table alone: {study.TITLES['wide']} (at update 7)." in page
    assert f"| {study.TITLES['balanced']} | 10.50 | 21.00 |" in page
    assert f"| {study.TITLES['wide']} | 9.00 | - |" in page
    assert (tmp_path / "results.png").stat().st_size > 1000


def test_a_broken_off_run_is_not_taken_for_a_finished_one(study, tmp_path):
    for name, status in (
        ("deep-20260101", "finished"),
        ("deep-20260102", "interrupted"),
        ("deep_encoder-2", "finished"),
    ):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"status": status}), encoding="utf-8")
    assert study.newest_run(tmp_path, "deep") == tmp_path / "runs" / "deep-20260101"
    assert study.newest_run(tmp_path, "deep", finished=False) == tmp_path / "runs" / "deep-20260102"
    assert study.newest_run(tmp_path, "wide") is None
