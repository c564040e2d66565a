"""A version of a corpus as text to train on, to validate with and to score."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from hf_nmt.config import load
from hf_nmt.data.manifest import Manifest
from hf_nmt.data.readers import Corpus, Pair
from hf_nmt.data.records import tables_of
from hf_nmt.data.sources import CorpusSettings, load_pairs
from hf_nmt.data.streams import stream_pairs
from hf_nmt.data.version_reading import Version
from hf_nmt.data.versions import write_version
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.evaluation.corpora import EvaluationData, load_corpus
from hf_nmt.training.recipe import TrainingRecipe

SIZES = {"train": 7, "validation": 3, "test": 2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def texts(name: str) -> list[tuple[str, str]]:
    return [(f"{name} Satz {number}", f"{name} sentence {number}") for number in range(SIZES[name])]


def version(folder: Path, *names: str, domain: str | None = None) -> Path:
    constants = {"source_language": "de", "target_language": "en", "domain": domain}

    def tables(name: str) -> list[pa.Table]:
        pairs = (Pair(n, *pair, None, {}) for n, pair in enumerate(texts(name)))
        return list(tables_of(Corpus(name, "line", pairs), constants, rows=2))

    splits = {name: tables(name) for name in names}
    return write_version(folder, splits, [], steps=[], files=[], inputs={}, languages=["de", "en"])


def test_a_version_is_trained_on_in_its_languages_and_recorded(tmp_path):
    folder = version(tmp_path, *SIZES)
    data = load(TrainingRecipe, overrides=[f"data.version={folder}"]).data
    read = data.load()
    for name, rows in zip(("train", "validation"), read, strict=True):
        assert list(zip(rows["source"], rows["target"], strict=True)) == texts(name)
    assert data.languages_in(read.train) == {"source_language": ["de"], "target_language": ["en"]}
    written, run = Manifest.read(folder / "manifest.json"), data.describe(read)
    assert run.parent == written.content_hash and folder.name.endswith(run.parent[:6])
    assert run.splits["train"] == written.splits["train"]
    assert run.splits["validation"] == written.splits["validation"]
    assert {file.path: file.sha256 for file in run.files} == {
        str(folder / file.path): file.sha256 for file in written.files if "test" not in file.path
    }


def test_a_validation_set_of_ones_own_takes_the_place_of_the_versions(tmp_path):
    folder = version(tmp_path, "train", "validation")
    (tmp_path / "own.de").write_text("Eigenes\n", encoding="utf-8")
    (tmp_path / "own.en").write_text("Own\n", encoding="utf-8")
    own = [f"data.validation.{side}={tmp_path}/own.{code}" for side, code in (("source", "de"), ("target", "en"))]
    data = load(TrainingRecipe, overrides=[f"data.version={folder}", *own]).data
    read = data.load()
    assert list(read.validation["source"]) == ["Eigenes"] and len(read.train) == 7
    assert data.usual_languages == ("de", "en")
    only = load(TrainingRecipe, overrides=[f"data.version={version(tmp_path / 'two', 'train')}"]).data.load()
    assert only.validation is None


def test_each_section_takes_the_split_of_its_name(tmp_path):
    folder = version(tmp_path, *SIZES, domain="news")
    data = load(TrainingRecipe, overrides=[f"data.train.path={folder}", f"data.validation.path={folder}"]).data
    assert [len(rows) for rows in data.load()] == [7, 3]
    data = load(TrainingRecipe, overrides=[f"data.train.path={folder}", "data.train.split=test"]).data
    assert len(data.load().train) == 2
    corpus = load_corpus(EvaluationData(test=CorpusSettings(path=str(folder))))
    assert corpus.sources == [source for source, _ in texts("test")] and corpus.domains == ["news"] * 2
    assert corpus.pairs == {("de", "en"): [0, 1]}
    assert corpus.manifest.parent == Manifest.read(folder / "manifest.json").content_hash
    assert load_corpus(EvaluationData(test=CorpusSettings(path=str(version(tmp_path / "b", "test"))))).domains is None


def test_a_version_is_streamed(tmp_path):
    folder = version(tmp_path, *SIZES)
    stream = stream_pairs(CorpusSettings(path=str(folder), split="train"))
    assert stream.count() == 7
    assert [(row["source"], row["target"]) for row in stream] == texts("train")


def test_the_place_of_a_version_does_not_count(tmp_path):
    folder = version(tmp_path / "one", *SIZES)
    other = folder.rename(tmp_path / folder.name)
    first, second = (load_pairs(CorpusSettings(path=str(other), split=name)) for name in ("train", "train"))
    assert first.cache_files == second.cache_files
    assert load_pairs(CorpusSettings(path=str(other), split="test")).cache_files != first.cache_files


def refused(*overrides: str) -> str:
    with pytest.raises((ConfigError, DataError)) as error:
        load(TrainingRecipe, overrides=list(overrides)).data.load()
    return str(error.value)


def test_what_is_no_version_or_lacks_the_split_is_refused(tmp_path):
    folder = version(tmp_path, "validation", "test")
    told = refused(f"data.version={folder}")
    assert "holds no split 'train', only validation, test." in told
    checked = load(TrainingRecipe, overrides=[f"data.version={folder}"]).data.check_files()
    assert [finding.partition(f"{folder} ")[::2] for finding in checked] == [
        ("data.version: split: ", told.partition(f"{folder} ")[2])
    ]
    whole = version(tmp_path, *SIZES)
    told = refused(f"data.train.path={whole}", "data.train.split=tarin")
    assert "data.train.split:" in told and "Did you mean 'train'?" in told
    assert "this is no version of a corpus" in refused(f"data.version={tmp_path}")
    assert "data.version: given together with data.train" in refused(
        f"data.version={whole}", f"data.train.path={whole}"
    )
    assert "version: given together with data.pairs" in refused(
        f"data.version={whole}", f"data.pairs.de-en.train.path={whole}"
    )
    told = refused(f"data.train.path={whole}", "data.train.source_column=source")
    assert "source_column would change nothing" in told and "is a version of a corpus" in told


def test_a_changed_version_is_refused(tmp_path):
    folder = version(tmp_path, *SIZES)
    overrides = [f"data.version={folder}"]
    file = folder / "data" / "train-00000-of-00001.parquet"
    contents = bytearray(file.read_bytes())
    contents[50] ^= 1
    file.write_bytes(contents)
    told = refused(*overrides)
    assert "data/train-00000-of-00001.parquet changed since the version was written" in told
    assert len(load_pairs(CorpusSettings(path=str(folder), split="test"))) == 2  # its file is as it was
    file.write_bytes(contents + b"x")
    assert "is not whole: files are missing, or have another size" in refused(*overrides)
    (folder / "manifest.json").write_text(json.dumps({"rows": 3}), encoding="utf-8")
    assert "manifest.json cannot be read" in refused(*overrides)
    with pytest.raises(DataError):
        Version.read(folder)
