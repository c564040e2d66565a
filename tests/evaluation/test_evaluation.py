"""The evaluation of a made-up translator, whose faults are known, on a made-up corpus."""

from __future__ import annotations

import functools
import json
import re

import pydantic
import pytest
from datasets import Dataset
from small_models import sentences

from hf_nmt import artifacts
from hf_nmt.data.sources import CorpusSettings
from hf_nmt.errors import ConfigError, DataError, NmtError
from hf_nmt.evaluation import systems
from hf_nmt.evaluation.corpora import corpus_of
from hf_nmt.evaluation.folders import new_folder, sample_lines, write_evaluation
from hf_nmt.evaluation.scores import evaluate, warn_if_like_source
from hf_nmt.evaluation.systems import (
    CorpusDecodingSettings,
    System,
    check_languages,
    corpus_decoding,
    model_languages,
    read_system,
    run_model,
    system_name,
    translate_corpus,
)
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import MetricSettings, ScoredSystem, load_scores, score_corpus
from hf_nmt.protocols import Translation

QUICK = MetricSettings(names=["bleu", "chrf"], num_bootstrap_samples=50, seed=1)
ROWS = {
    "source": ["eins zwei", "drei vier", "ein Hund", "eine Katze schläft"],
    "target": ["one two", "three four", "a dog", "a cat sleeps"],
    "references": [["one two", "one and two"], ["three four"], ["a dog"], ["a cat sleeps", "a cat is asleep"]],
    "domain": ["news", "daily", "daily", "news"],
}


TOY = CorpusSettings(path="toy", format="hub")


class Decoding(pydantic.BaseModel):
    num_beams: int = 3


class FirstReference:
    """Answers with the first reference; the second segment is cut at the length limit, the third has a line feed."""

    def translate(self, sources, settings=None, *, source_language=None, target_language=None, prefixes=None):
        assert target_language == "en" and settings.num_beams == 3
        for index, source in enumerate(sources):
            text = ROWS["target"][ROWS["source"].index(source)]
            if index == 2:
                text = text.replace(" ", "\n")
            reason = "length" if index == 1 else "eos"
            best = Translation(text, -0.5 * index, text.split(), finish_reason=reason, source_index=index)
            yield [best, Translation("worse", -9.0, source_index=index)]


@pytest.fixture
def corpus():
    return corpus_of(Dataset.from_dict(ROWS), TOY, usual=("de", "en"))


@pytest.fixture
def system(corpus):
    return translate_corpus(FirstReference(), corpus, Decoding(), name="toy-model", model_hash="beef")


def test_corpus_with_and_without_optional_columns(corpus):
    assert corpus.references == ROWS["references"] and corpus.domains == ROWS["domain"]
    plain = corpus_of(Dataset.from_dict({key: ROWS[key] for key in ("source", "target")}), TOY)
    assert plain.references == [[target] for target in ROWS["target"]] and plain.domains is None
    assert (plain.data.id, plain.data.split) == ("toy", "test")
    # The hash is that of the texts: other references, another corpus.
    assert (
        len(
            {
                plain.data.hash,
                corpus.data.hash,
                corpus_of(Dataset.from_dict(ROWS), CorpusSettings(path="other", format="hub")).data.hash,
            }
        )
        == 2
    )


def test_an_empty_test_set_is_refused():
    with pytest.raises(DataError, match="toy: the test set is empty"):
        corpus_of(Dataset.from_dict({"source": [], "target": []}), TOY)


def test_the_best_translation_of_each_segment_is_kept_in_order(system, caplog):
    assert system.texts == ["one two", "three four", "a dog", "a cat sleeps"]
    assert system.facts.hash == "beef" and system.facts.decoding == {"num_beams": 3}
    assert system.seconds >= 0 and [item.source_index for item in system.translations] == [0, 1, 2, 3]


def test_cut_translations_are_told(corpus, caplog):
    translate_corpus(FirstReference(), corpus, Decoding(), name="m", model_hash=None)
    assert "m: 1 of 4 translations were cut at the length limit" in caplog.text


def test_scores_of_the_whole_and_of_each_domain(corpus, system):
    found = evaluate(corpus, system, QUICK, per_domain=True)
    assert [(score.name, score.data.domain, score.n) for score in found.scores] == [
        ("BLEU", None, 4), ("chrF2", None, 4), ("BLEU", "daily", 2), ("chrF2", "daily", 2), ("BLEU", "news", 2),
        ("chrF2", "news", 2),
    ]  # fmt: skip
    direct = score_corpus(system.texts, corpus.references, QUICK, "en")
    assert [score.value for score in found.scores[:2]] == [score.value for score in direct.scores]
    assert {score.data.hash for score in found.scores} == {corpus.data.hash}
    assert {score.system.hash for score in found.scores} == {"beef"}
    assert len(evaluate(corpus, system, QUICK).scores) == 2


def test_domains_are_needed_for_scores_by_domain(system):
    plain = corpus_of(Dataset.from_dict({key: ROWS[key] for key in ("source", "target")}), TOY)
    with pytest.raises(ConfigError, match="toy has no column `domain`. Set per_domain=false"):
        evaluate(plain, system, QUICK, per_domain=True)


def test_the_folder_holds_everything(corpus, system, tmp_path):
    evaluation = evaluate(corpus, system, QUICK)
    folder = tmp_path / "predictions" / "toy"
    write_evaluation(folder, corpus, system, evaluation, settings_yaml="a: 1\n", facts={"model": "runs/x/best"})
    assert artifacts.verify(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == [
        "COMPLETE", "manifest.json", "record.json", "scores.json", "segments.jsonl", "settings.yaml",
        "translations.txt",
    ]  # fmt: skip
    assert (folder / "translations.txt").read_text() == "one two\nthree four\na dog\na cat sleeps\n"
    scores = load_scores(folder / "scores.json")
    assert scores == evaluation.scores and (folder / scores[0].segments).is_file()
    rows = [json.loads(line) for line in (folder / "segments.jsonl").read_text().splitlines()]
    assert rows[3] == {
        "source": "eine Katze schläft",
        "references": ["a cat sleeps", "a cat is asleep"],
        "prediction": "a cat sleeps",
        "bleu": 100.0,
        "chrf": 100.0,
        "domain": "news",
        "model_score": -1.5,
        "finish_reason": "eos",
    }
    # The hash in the records is that of the manifest.
    assert json.loads((folder / "manifest.json").read_text())["content_hash"] == scores[0].data.hash
    record = json.loads((folder / "record.json").read_text())
    assert record["counts"] == {
        "segments": 4, "references": 6, "empty_translations": 0, "cut_at_length_limit": 1, "target_tokens": 9,
    }  # fmt: skip
    assert record["hashes"] == {"data": corpus.data.hash, "system": "beef"} and record["model"] == "runs/x/best"
    with pytest.raises(NmtError, match="exists already"):
        write_evaluation(folder, corpus, system, evaluation, settings_yaml="", facts={})


def test_nothing_half_written_is_left(corpus, system, tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(artifacts, "write_text", full)
    with pytest.raises(NmtError, match="disk is full"):
        write_evaluation(
            tmp_path / "out" / "toy",
            corpus,
            system,
            evaluate(corpus, system, QUICK),
            settings_yaml="",
            facts={},
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_translations_from_a_file(corpus, tmp_path):
    path = tmp_path / "output.en"
    path.write_text("one two\n\na dog\na cat\u2028sleeps\n", encoding="utf-8")
    system = read_system(path, corpus)
    assert system.texts == ["one two", "", "a dog", "a cat\u2028sleeps"]  # an empty line is an empty translation
    assert system.facts.decoding is None and len(system.facts.hash) == 16 and system.seconds is None
    path.write_text("one two\nthree four\na dog\n")
    with pytest.raises(DataError, match="output.en has 3 lines, the test set toy has 4 segments"):
        read_system(path, corpus)


def _model(folder, config, tokenizer=None):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def languages_of(path, source, target):
    return check_languages(path, [(source, target)])[source, target]


def test_languages_of_a_model(tmp_path):
    model = _model(tmp_path / "one", {"source_language": "de", "target_language": "en"})
    assert model_languages(model) == (["de"], ["en"])
    assert languages_of(model, None, None) == ("de", "en")
    assert languages_of(model, "de", "en_US") == ("de", "en")  # the spelling of the model
    with pytest.raises(ConfigError) as caught:
        languages_of(model, "en", "de")
    assert len(caught.value.findings) == 2
    assert caught.value.findings[0].startswith("data.source_language=en: the model")
    assert "reads de. Choose a model for 'en'" in caught.value.findings[0]
    assert "writes en" in caught.value.findings[1]


def test_languages_of_models_with_several_or_none(tmp_path):
    several = _model(tmp_path / "several", {}, {"source_languages": ["en"], "target_languages": ["de", "fr"]})
    assert languages_of(several, None, "fr") == ("en", "fr")
    with pytest.raises(ConfigError, match="data.target_language: .*several translates into de, fr"):
        languages_of(several, None, None)
    silent = _model(tmp_path / "silent", {})
    assert languages_of(silent, None, "en") == (None, "en")
    assert languages_of(tmp_path / "absent", "de", "en") == ("de", "en")


def test_names_of_systems_and_folders(tmp_path):
    assert system_name("runs/de-en-20260101-000000/best") == "de-en-20260101-000000-best"
    assert system_name("runs/de-en-20260101-000000/checkpoints/step-300") == "de-en-20260101-000000-step-300"
    assert system_name("models/opus-mt") == "opus-mt" and system_name("output.en") == "output.en"
    first = new_folder(tmp_path, "x")
    assert first.parent == tmp_path / "x" and not first.exists()
    for _ in range(5):
        new_folder(tmp_path, "x").mkdir(parents=True)
    assert len(list((tmp_path / "x").iterdir())) == 5


def test_decoding_is_the_models_own_line_by_line_unless_told_otherwise(tmp_path):
    own = {"num_beams": 7, "length_penalty": 0.8, "max_length": 99, "bos_token_id": 2}
    (tmp_path / "generation_config.json").write_text(json.dumps(own))
    taken = corpus_decoding(tmp_path, None)
    assert (taken.num_beams, taken.length_penalty) == (7, 0.8)
    assert (taken.split_sentences, taken.truncate) == (False, True)
    given = CorpusDecodingSettings(length_penalty=1.2, split_sentences=True, batch_tokens=100)
    changed = corpus_decoding(tmp_path, given)
    assert (changed.num_beams, changed.length_penalty, changed.batch_tokens) == (7, 1.2, 100)
    assert (changed.split_sentences, changed.truncate) == (True, True)
    names = [name for name, field in CorpusDecodingSettings.model_fields.items()
             if field.default != DecodingSettings.model_fields[name].default]  # fmt: skip
    assert names == ["split_sentences", "truncate"] and taken.model_fields_set >= set(names)


GERMAN = ["Ein Hund rennt durch den Schnee.", "Zwei Kinder spielen im Garten.", "Die Katze schläft auf dem Sofa."]
ENGLISH = ["A dog runs through the snow.", "Two children play in the garden.", "The cat sleeps on the sofa."]


@pytest.mark.parametrize(
    ("sources", "references", "predictions", "warned"),
    [
        (
            GERMAN,
            ENGLISH,
            ["A dog is running in the snow.", "Two kids play in a garden.", "A cat on the couch."],
            False,
        ),
        (ENGLISH, GERMAN, ["A dog ran through snow.", "Two the children play garden.", "The cat sleeps sofa."], True),
        (GERMAN, ENGLISH, GERMAN, True),
        (ENGLISH, ENGLISH, ENGLISH, False),
        (GERMAN, ENGLISH, ["", "", ""], False),
    ],
    ids=["right", "exchanged", "copied", "copies are asked for", "nothing"],
)
def test_translations_that_are_like_their_sources_are_told(sources, references, predictions, warned, caplog):
    corpus = corpus_of(Dataset.from_dict({"source": sources, "target": references}), TOY)
    warn_if_like_source(corpus, System("the-model", predictions, ScoredSystem()))
    told = "the-model: the translations are more like the sources (chrF " in caplog.text
    assert told is warned and ("Are source and target exchanged" in caplog.text) is warned


def test_a_long_translation_tells_how_far_it_is(copy_folder, monkeypatch, caplog):
    monkeypatch.setattr(systems, "Meter", functools.partial(systems.Meter, seconds_between_lines=0))
    texts = sentences(20, seed=3)
    corpus = corpus_of(Dataset.from_dict({"source": texts, "target": texts}), TOY)
    decoding = CorpusDecodingSettings(num_beams=1, batch_tokens=40)
    with caplog.at_level("INFO", logger="hf_nmt"):
        run_model(copy_folder, corpus, decoding, device="cpu")
    told = re.findall(r"translating with .*: (\d+)/20 segments  [\d.,]+ segments/s", caplog.text)
    assert 0 < int(told[0]) < 10 and len(told) > 2  # within the one window


def test_samples_are_spread_over_the_corpus(corpus, system):
    assert sample_lines(corpus, system, 2) == [
        "[1] source      eins zwei",
        "    reference   one two",
        "    reference   one and two",
        "    prediction  one two",
        "[3] source      ein Hund",
        "    reference   a dog",
        "    prediction  a dog",
    ]
    assert sample_lines(corpus, system, 0) == []
    assert sum("source" in line for line in sample_lines(corpus, system, 100)) == 4
