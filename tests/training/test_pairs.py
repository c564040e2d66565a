"""Several language pairs in one model: settings, texts, languages of each row."""

from __future__ import annotations

import json

import datasets
import pytest
import translation_tasks
from families import load as load_family

from hf_nmt.batching import BatchingSettings, PairEncoder
from hf_nmt.config import continued, load
from hf_nmt.data.manifest import recorded_steps
from hf_nmt.data.mixtures import with_languages
from hf_nmt.data.sources import CorpusSettings, load_pairs
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.models.sources_nmt import Languages
from hf_nmt.models.tokenization_nmt import language_tag
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
from hf_nmt.training.preparation import check_languages
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.texts import TrainingCorpus, TrainingData


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return translation_tasks.write_pairs(tmp_path, (30, 20, 10), validation=4)


def data_of(overrides):
    return load(TrainingRecipe, overrides=overrides).data


def refused(*overrides):
    with pytest.raises(ConfigError) as error:
        load(TrainingRecipe, overrides=[f"data.{override}" for override in overrides])
    return "\n".join(error.value.findings)


DE_EN = ("pairs.de-en.train.source=a.de", "pairs.de-en.train.target=a.en")

# Settings


def test_languages_are_told_by_the_name_of_a_pair_or_by_its_keys(given):
    assert data_of(given).language_pairs == [("xx", "aa"), ("xx", "bb"), ("xx", "cc")]
    more = ["data.pairs.news.source_language=pt-BR", "data.pairs.news.target_language=aa"]
    more += [f"data.pairs.news.train.{key}={side}" for key, side in (("source", "a"), ("target", "b"))]
    assert data_of([*given, *more]).language_pairs[-1] == ("pt-BR", "aa")
    assert load(TrainingRecipe, overrides=given).run_name == "xx-aa.bb.cc"
    assert load(TrainingRecipe, overrides=[*given, "name=mine"]).run_name == "mine"
    many = [f"data.pairs.{code}-en.train.{side}=f" for code in ("de", "fr", "cs", "ko", "ja") for side in
            ("source", "target")]  # fmt: skip
    assert load(TrainingRecipe, overrides=many).run_name == "multilingual"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((*DE_EN, "train.source=x", "train.target=y"), "data.train: given together with data.pairs, where each pair"),
        ((*DE_EN, "target_language=en"), "data.target_language: given together with data.pairs"),
        (("pairs.news.train.path=a.tsv",), "data.pairs.news.source_language: not given, and the name 'news' does not"),
        (("pairs.de-german.train.path=a.tsv",), "data.pairs.de-german.target_language: given 'german'"),
        ((*DE_EN, "pairs.fr-en.source_language=fr"), "data.pairs.fr-en: it has no texts; give data.pairs.fr-en.train"),
        (("pairs.de-en.validation.path=a.tsv",), "data.pairs: none of them has texts to train on"),
        ((*DE_EN, "pairs.de-en.train.target=[a,b]"), "data.pairs.de-en.train.target: training reads one translation"),
        ((*DE_EN, "pairs.de-en.trian.source=a"), "data.pairs.de-en.trian: unknown key. Did you mean"),
        ((*DE_EN, "pairs.de-en.train.max_rows=0"), "data.pairs.de-en.train.max_rows: given 0, allowed: integer > 0"),
        ((*DE_EN, "sampling_temperature=5"), "data.sampling_temperature: 5.0 would change nothing with one language"),
        ((*DE_EN, "sampling_temperature=0.5"), "data.sampling_temperature: given 0.5, allowed: number >= 1"),
        (("train.source=a", "train.target=b", "source_language=de"), "data.target_language: not given; write the"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(overrides, told):
    assert told in refused(*overrides)


def test_no_tags_for_several_target_languages_are_refused(given):
    with pytest.raises(
        ConfigError, match=r"tokenizer.language_tags: false, but the data have 3 target languages \(aa"
    ):
        load(TrainingRecipe, overrides=[*given, "tokenizer.language_tags=false"])


def test_missing_files_are_told_by_the_key_of_their_pair():
    settings = load(TrainingRecipe, overrides=[f"data.{override}" for override in DE_EN])
    findings = settings.check_files()
    assert [finding.partition(":")[0] for finding in findings] == [
        "data.pairs.de-en.train.source", "data.pairs.de-en.train.target",
    ]  # fmt: skip


def test_a_run_that_goes_on_may_find_the_files_of_a_pair_elsewhere(given):
    recorded = load(TrainingRecipe, overrides=given).model_dump(mode="json")
    moved = continued(TrainingRecipe, recorded, None, ["resume=x", "data.pairs.xx-aa.train.source=elsewhere"])
    assert moved.data.pairs["xx-aa"].train.source == "elsewhere"
    assert moved.data.pairs["xx-aa"].train.target == data_of(given).pairs["xx-aa"].train.target
    assert moved.data.pairs["xx-bb"] == data_of(given).pairs["xx-bb"]
    with pytest.raises(ConfigError, match="data.pairs.xx-aa.train.max_rows: given 3, but the run to be continued has"):
        continued(TrainingRecipe, recorded, None, ["resume=x", "data.pairs.xx-aa.train.max_rows=3"])


# Texts


def test_rows_of_all_pairs_come_one_after_another_with_their_languages(given):
    texts = data_of([*given, "data.sampling_temperature=.inf"]).load()
    assert texts.train.cache_files, "everything stays on disk"
    assert texts.train.column_names == ["source", "target", "source_language", "target_language"]
    assert texts.train["target_language"][:] == ["aa"] * 30 + ["bb"] * 20 + ["cc"] * 10
    assert texts.validation["target_language"][:] == ["aa"] * 4 + ["bb"] * 4 + ["cc"] * 4
    assert set(texts.train["source_language"]) == {"xx"}
    for row in texts.train:
        assert row["target"] == translation_tasks.translated(row["source"], row["target_language"])


def test_the_manifest_tells_the_files_of_every_pair(given):
    data = data_of(given)
    manifest = data.describe(data.load())
    assert {split: content.rows for split, content in manifest.splits.items()} == {"train": 60, "validation": 12}
    assert manifest.languages == ["xx", "aa", "bb", "cc"] and len(manifest.files) == 12
    assert [step.kept for step in manifest.steps if step.split == "train"] == [30, 20, 10]
    assert manifest.inputs["train"]["xx-bb"]["source"].endswith("xx-bb.train.source")


def test_references_of_some_pairs_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "a").write_text("one\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"source": "x", "target": "y", "references": ["y", "z"], "id": 3}))
    data = TrainingData(
        pairs={
            "de-en": {"train": {"source": f"{tmp_path}/a", "target": f"{tmp_path}/a"}},
            "fr-en": {"train": {"path": f"{tmp_path}/b.jsonl"}},
        }
    )
    assert data.load().train["references"][:] == [None, ["y", "z"]]


def test_a_direction_may_be_validated_only(given):
    texts = data_of([*given, "data.pairs.xx-aa.train=null"]).load()
    assert set(texts.train["target_language"]) == {"bb", "cc"} and texts.validation.num_rows == 12


def test_rows_of_a_single_corpus_may_name_their_languages(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "text.jsonl"
    rows = [{"source": "a", "target": "b", "source_language": "de", "target_language": code} for code in
            ("en", "fr", "en", None)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = TrainingData(train=TrainingCorpus(path=str(path)), sampling_temperature=5)
    with pytest.raises(ConfigError) as error:
        data.load()
    assert error.value.findings == [
        "data.target_language: 1 rows of data.train have none in their column target_language; write the code of the "
        "language that is meant there, such as en."
    ]
    data = data.model_copy(update={"target_language": "cs"})
    train = data.load().train
    assert data.languages_in(train) == {"source_language": ["de"], "target_language": ["en", "fr", "cs"]}
    assert data.only_languages(train) == {"source_language": "de", "target_language": None}
    path.write_text(json.dumps(rows[0] | {"target_language": "english"}) + "\n")
    with pytest.raises(ConfigError, match="data.train: the column target_language: given 'english', which is no code"):
        data.load()
    path.write_text(json.dumps({"source": "a", "target": "b"}) + "\n")
    with pytest.raises(
        ConfigError, match="data.source_language: not given, and the rows of data.train have no column"
    ):
        data.load()


def test_rows_of_a_pair_may_not_name_other_languages(tmp_path):
    rows = datasets.Dataset.from_dict({"source": ["a"], "target": ["b"], "target_language": ["fr"]})
    with pytest.raises(DataError, match="has a column target_language: its rows name their languages themselves"):
        with_languages(rows, "de", "en", cache_dir=tmp_path)


def test_constant_languages_are_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_nmt.data.mixtures._ROWS_AT_A_TIME", 3)
    (tmp_path / "text.tsv").write_text("source\ttarget\n" + "a\tb\n" * 10)
    rows = load_pairs(CorpusSettings(path=str(tmp_path / "text.tsv")), cache_dir=tmp_path)
    tagged = with_languages(rows, "de", "en", cache_dir=tmp_path)
    assert tagged["target_language"][:] == ["en"] * 10 and tagged["source"][:] == ["a"] * 10
    assert [step.name for step in recorded_steps(tagged)] == ["load"]


# Languages of each row


def test_every_row_of_a_mixed_batch_opens_with_its_tag(given):
    data = data_of(given)
    train = data.load().train.shuffle(seed=1)
    trained = data.languages_in(train)
    tokenizer = train_tokenizer(train["source"], train["target"], TokenizerSettings(vocab_size=400), **trained)
    assert tokenizer.language_tags and tokenizer.target_languages == trained["target_language"]
    encoder = PairEncoder(tokenizer, BatchingSettings(), languages=Languages.of(None, tokenizer))
    encoded = encoder(train[:])
    for ids, labels, row in zip(encoded.input_ids, encoded.labels, train, strict=True):
        first, *rest = tokenizer.convert_ids_to_tokens(ids)
        assert first == language_tag(row["target_language"]) and rest[-1] == "</s>"
        assert tokenizer.decode(labels, skip_special_tokens=True) == row["target"]
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("xx", None), "it is given back as it was"


FORCED = {
    "nllb": ("eng_Latn", ("deu_Latn", "fra_Latn")),
    "m2m_100": ("en", ("de", "fr")),
    "mbart50": ("en_XX", ("de_DE", "fr_XX")),
}


@pytest.mark.parametrize("family", FORCED)
def test_every_row_of_a_mixed_batch_opens_with_its_forced_code(family):
    _, tokenizer = load_family(family)
    model = load_family(family)[0]
    source, targets = FORCED[family]
    kept = tokenizer.src_lang, getattr(tokenizer, "tgt_lang", None)
    rows = [{"source": f"a{n}", "target": f"b{n}", "source_language": [source, targets[0]][n % 2],
             "target_language": targets[n % 2] if n % 4 else targets[1]} for n in range(16)]  # fmt: skip
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    encoded = PairEncoder(tokenizer, BatchingSettings(), languages=Languages.of(model.config, tokenizer))(columns)
    for ids, labels, row in zip(encoded.input_ids, encoded.labels, rows, strict=True):
        assert tokenizer.convert_ids_to_tokens(ids)[0].strip("_") == row["source_language"]
        assert tokenizer.convert_ids_to_tokens(labels)[0].strip("_") == row["target_language"]
    assert (tokenizer.src_lang, getattr(tokenizer, "tgt_lang", None)) == kept


def test_languages_the_model_lacks_are_told_before_encoding():
    rows = [("xx", target) for target in ("aa", "zz", "bb", "yy")]
    tagged = train_tokenizer(["a b"] * 9, ["b a"] * 9, TokenizerSettings(vocab_size=280), source_language="xx",
                             target_language=["aa", "bb"])  # fmt: skip
    with pytest.raises(ConfigError) as error:
        check_languages(Languages.of(None, tagged), rows)
    assert len(error.value.findings) == 2 and "'zz' was asked for; this model has aa, bb" in error.value.findings[0]
    assert tagged.tgt_lang is None
    single = train_tokenizer(["a b"] * 9, ["b a"] * 9, TokenizerSettings(vocab_size=280), source_language="xx",
                             target_language="aa")  # fmt: skip
    with pytest.raises(ConfigError, match="4 target languages .aa, zz, bb, yy., but this model has no way to be told"):
        check_languages(Languages.of(None, single), rows)
