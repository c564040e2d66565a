"""What training does with texts that hold more than it reads."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import datasets
import pytest
from corpora import write_corpus

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.training.recipe import TrainingRecipe

RECIPE = Path(__file__).parents[2] / "recipes" / "train.py"


def test_several_files_of_references_are_refused_in_training_and_taken_in_validation():
    data = ["source_language=de", "target_language=en", "train.source=a.de", "train.target=a.en"]
    overrides = [f"data.{setting}" for setting in [*data, "validation.source=b.de", "validation.target=[b.en,c.en]"]]
    assert load(TrainingRecipe, overrides=overrides).data.validation.targets == ["b.en", "c.en"]
    with pytest.raises(ConfigError) as error:
        load(TrainingRecipe, overrides=[*overrides, "data.train.target=[a.en,c.en]"])
    assert "data.train.target: training reads one translation of each source, and 2 files are given" in str(
        error.value
    )
    load(TrainingRecipe, overrides=[*overrides, "data.train.target=[a.en]"])


def test_a_column_of_several_references_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_corpus(tmp_path)
    texts = [(tmp_path / f"text.{language}").read_text().splitlines() for language in ("xx", "yy")]
    with (tmp_path / "text.jsonl").open("w") as file:
        for number, (source, target) in enumerate(zip(*texts, strict=True)):
            references = [target, "another"] if number < 7 else [target]
            file.write(json.dumps({"source": source, "target": target, "references": references}) + "\n")
    argv = [f"data.train.path={tmp_path / 'text.jsonl'}", "data.source_language=xx", "data.target_language=yy"]
    argv += ["--config", "tiny", f"output_dir={tmp_path / 'runs'}", "training.max_steps=1", "training.save_steps=1"]
    assert runpy.run_path(str(RECIPE))["main"]([*argv, "training.eval_strategy=no"]) == 0
    message = "data.train: 7 of 120 pairs have several references; training reads the first of each."
    assert message in caplog.messages
    (run,) = (tmp_path / "runs").iterdir()
    assert message in (run / "log.txt").read_text()
