"""What training does with texts that hold more than it reads."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import datasets
import pytest
from corpora import write_corpus
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.tokenizer_checking import measure_tokenizer, warn_of_small_pieces
from hf_nmt.tokenizer_training import BYTES
from hf_nmt.training.preparation import sample_rows
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.texts import TrainingCorpus, TrainingData

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


def test_pairs_that_copy_are_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    lines = ["a", "b", "c"]
    (tmp_path / "s").write_text("".join(f"{line}\n" for line in lines))
    for copies, told in ((2, True), (1, False)):
        (tmp_path / "t").write_text("".join(f"{line if i < copies else 'x'}\n" for i, line in enumerate(lines)))
        corpus = TrainingCorpus(source=str(tmp_path / "s"), target=str(tmp_path / "t"))
        caplog.clear()
        TrainingData(source_language="de", target_language="en", train=corpus).load()
        message = "data.train: the target equals the source in 2 of 3 pairs. Are they two languages?"
        assert any(one.startswith(message) for one in caplog.messages) == told


def side(tokens_per_word, byte_fallback_rate=0.0):
    return {"tokens_per_word": tokens_per_word, "byte_fallback_rate": byte_fallback_rate}


@pytest.mark.parametrize(
    ("found", "own", "message"),
    [
        (side(2.0, 0.075), {}, "hardly knows the source text: 7.5% of the tokens are single bytes. This costs"),
        (side(2.79), side(1.5), ": a word takes 2.79 tokens, against 1.50 in the text it was made for. This costs"),
        (side(2.79, 0.05), side(1.5), ": 5.0% of the tokens are single bytes and a word takes 2.79 tokens, against"),
        (side(2.2, 0.01), side(1.5), None),
        (side(9.0), {}, None),
    ],
)
def test_a_tokenizer_that_spells_the_text_out_is_told(found, own, message, caplog):
    report = {"source": found, "target": side(1.4)}
    warn_of_small_pieces(report, {"source": own, "target": side(1.3)} if own else {}, "runs/x")
    assert len(caplog.messages) == (message is not None)
    if message is not None:
        (told,) = caplog.messages
        assert told.startswith("The tokenizer of runs/x hardly knows the source text: ") and message in told
        assert "recipes/adapt_vocabulary.py" in told


def test_single_bytes_of_any_tokenizer_are_counted():
    pieces = ["<unk>", "<pad>", "<s>", "</s>", *BYTES, "\u2581ja"]
    model = models.BPE({piece: index for index, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    backend = Tokenizer(model)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")
    report = measure_tokenizer(tokenizer, ["\u00e9"], ["\u00e9\u00e9"])
    assert report["source"]["byte_fallback_rate"] == report["target"]["byte_fallback_rate"] == 1.0
    assert report["source"]["tokens"] == 2 and report["source"]["unknown_rate"] == 0.0


def test_a_sample_is_drawn_once_without_repetition_and_in_order():
    rows = Dataset.from_dict({"source": [str(number) for number in range(100)]})
    drawn = [int(text) for text in sample_rows(rows, 20, seed=5)["source"]]
    assert len({*drawn}) == 20 and drawn == sorted(drawn) and drawn != list(range(20))
    assert drawn == [int(text) for text in sample_rows(rows, 20, seed=5)["source"]]
    assert drawn != [int(text) for text in sample_rows(rows, 20, seed=6)["source"]]
    assert sample_rows(rows, None, seed=5) is None and sample_rows(rows, 100, seed=5) is None
