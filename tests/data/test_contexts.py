"""Sentences with those before them in their article, against joining them one by one."""

from __future__ import annotations

import random
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_nmt.batching import BatchingSettings, PairEncoder
from hf_nmt.config import load
from hf_nmt.data.contexts import joined, previous_in_article, with_context
from hf_nmt.data.sources import CorpusSettings
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.evaluation.corpora import corpus_of
from hf_nmt.evaluation.systems import translate_corpus
from hf_nmt.protocols import Translation
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.texts import Texts, TrainingData


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def one_by_one(rows: list[dict[str, Any]], sentences: int) -> list[str]:
    """The same with a list for each article."""
    articles = defaultdict(list)
    for place, row in enumerate(rows):
        if row["article"] is not None and row["position"] is not None:
            key = tuple(row.get(name) for name in ("article", "origin", "source_language", "target_language"))
            articles[key].append((row["position"], place))
    found = [row["source"] for row in rows]
    for members in articles.values():
        members.sort()
        for number, (_, place) in enumerate(members):
            before = [rows[other]["source"] for _, other in members[max(0, number - sentences) : number]]
            found[place] = " ||| ".join([*before, rows[place]["source"]])
    return found


ROW = st.fixed_dictionaries(
    {
        "source": st.text("abc", min_size=1, max_size=3),
        "target": st.just("x"),
        "article": st.sampled_from([None, "a", "b"]),
        "position": st.one_of(st.none(), st.integers(0, 9)),
        "origin": st.sampled_from([None, "one", "two"]),
        "source_language": st.sampled_from(["de", "fr"]),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=25), sentences=st.integers(1, 4))
def test_windows_are_those_of_articles_one_by_one(tmp_path_factory, rows, sentences):
    features = datasets.Features(
        {name: datasets.Value("int64" if name == "position" else "string") for name in rows[0]}
    )
    dataset = datasets.Dataset.from_list(rows, features=features)
    found = with_context(dataset, sentences, cache_dir=tmp_path_factory.mktemp("cache"))
    assert list(found["source"]) == one_by_one(rows, sentences)
    assert list(found["target"]) == list(dataset["target"]) and len(found) == len(rows)
    assert joined(list(dataset["source"]), previous_in_article(dataset), sentences) == list(found["source"])


def article_rows(count: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        for at in range(draw.randint(1, 6)):
            text = " ".join(draw.choice("eins zwei drei vier".split()) for _ in range(4))
            rows.append(
                {"source": f"{text} a{number}", "target": f"t {number} {at}", "article": f"a{number}", "position": at}
            )
    return draw.sample(rows, len(rows))


def test_many_rows_in_any_order(tmp_path, monkeypatch):
    """More rows than are joined at a time, and articles that never meet."""
    monkeypatch.setattr("hf_nmt.data.contexts._ROWS_AT_A_TIME", 7)
    rows = article_rows()
    found = with_context(datasets.Dataset.from_list(rows), 2)
    assert list(found["source"]) == one_by_one(rows, 2)
    for text, row in zip(found["source"], rows, strict=True):
        assert {part.split()[-1] for part in text.split(" ||| ")} == {row["article"]}
        assert len(text.split(" ||| ")) == min(row["position"], 2) + 1
    again = with_context(datasets.Dataset.from_list(rows), 3)
    assert list(again["source"]) == one_by_one(rows, 3)


def test_what_is_too_long_loses_its_oldest_sentences():
    rows = article_rows(6)
    texts = one_by_one(rows, 3)
    tokenizer = train_tokenizer(texts, [row["target"] for row in rows], TokenizerSettings(vocab_size=400),
                                source_language=["de"], target_language=["en"])  # fmt: skip
    assert "\N{LOWER ONE EIGHTH BLOCK}|||" in tokenizer.get_vocab()  # a piece of its own
    limit = 16
    encoder = PairEncoder(tokenizer, BatchingSettings(max_source_length=limit), with_context=True)
    found = encoder({"source": texts, "target": [row["target"] for row in rows]})
    expected = []
    for text in texts:
        parts = text.split(" ||| ")
        fits = [" ||| ".join(parts[first:]) for first in range(len(parts))]
        expected.append(next((one for one in fits if len(tokenizer(one)["input_ids"]) <= limit), fits[-1]))
    assert found.kept.all() and found.input_ids == [tokenizer(text)["input_ids"] for text in expected]
    cut = sum(one != text for one, text in zip(expected, texts, strict=True))
    assert found.changed["context_shortened"] == cut and 0 < cut < len(texts)
    plain = PairEncoder(tokenizer, BatchingSettings(max_source_length=limit))
    assert plain.limits() != encoder.limits()


def test_training_data_gives_the_windows(tmp_path):
    rows = article_rows()
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    overrides = ["data.source_language=de", "data.target_language=en", f"data.train.path={tmp_path / 'saved'}"]
    data = load(TrainingRecipe, overrides=[*overrides, "data.context_sentences=2"]).data
    texts = data.load()
    assert list(texts.train["source"]) == [row["source"] for row in rows]  # what the manifest describes
    assert list(data.with_context(texts).train["source"]) == one_by_one(rows, 2)
    assert load(TrainingRecipe, overrides=overrides).data.with_context(texts) is texts


def test_texts_without_articles_are_refused(tmp_path):
    (tmp_path / "a.de").write_text("eins\nzwei\n", encoding="utf-8")
    (tmp_path / "a.en").write_text("one\ntwo\n", encoding="utf-8")
    languages = {"source_language": "de", "target_language": "en", "context_sentences": 1}
    lines = {"source": str(tmp_path / "a.de"), "target": str(tmp_path / "a.en")}
    with pytest.raises(DataError, match=r"data\.train: the rows have no column article and no column position"):
        TrainingData(**languages, train=lines).load()
    alone = [{"source": "eins", "target": "one", "article": "a", "position": 0}]
    datasets.Dataset.from_list(alone).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"data\.train: no two rows are of the same article"):
        TrainingData(**languages, train={"path": str(tmp_path / "saved")}).load()
    where = [f"data.train.path={tmp_path / 'saved'}", "data.source_language=de", "data.target_language=en"]
    for more in ([*where, "data.train.streaming=true", "training.max_steps=9"], []):
        with pytest.raises(ConfigError, match=r"context_sentences: data\.train"):
            load(TrainingRecipe, overrides=["data.context_sentences=1", *more])


def test_a_test_set_is_translated_with_the_sentences_before(tmp_path, caplog):
    rows = article_rows(5)
    seen: list[str] = []

    class Translator:
        model = SimpleNamespace(config=SimpleNamespace(context_sentences=2))

        def translate(self, sources: Any, *_: Any, **__: Any) -> Any:
            for source in sources:
                seen.append(source)
                yield [Translation("x", 0.0)]

    (tmp_path / "t.jsonl").write_text("{}", encoding="utf-8")
    where = CorpusSettings(path=str(tmp_path / "t.jsonl"))
    corpus = corpus_of(datasets.Dataset.from_list(rows), where, usual=("de", "en"))
    decoding = SimpleNamespace(model_dump=lambda mode: {})
    translate_corpus(Translator(), corpus, decoding, name="m", model_hash=None)
    assert seen == one_by_one(rows, 2) and not caplog.messages
    seen.clear()
    plain = datasets.Dataset.from_list(rows).remove_columns("article")
    corpus = corpus_of(plain, where, usual=("de", "en"))
    translate_corpus(Translator(), corpus, decoding, name="m", model_hash=None)
    assert seen == [row["source"] for row in rows]
    assert "m reads 2 sentences before each, but the test set does not name its articles" in caplog.messages[0]


def test_there_is_no_window_without_articles():
    assert np.array_equal(
        previous_in_article(datasets.Dataset.from_list([{"source": "a", "target": "b"}] * 3)), [-1] * 3
    )
    texts = Texts(datasets.Dataset.from_list([{"source": "a", "target": "b"}]), None)
    assert TrainingData(source_language="de", target_language="en").with_context(texts) is texts
