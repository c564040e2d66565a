"""recipes/validate.py as it is run, with a translator whose output is known in place of a model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu

from hf_nmt import artifacts
from hf_nmt.config import load
from hf_nmt.data.sources import CorpusSettings
from hf_nmt.errors import ConfigError, DataError, NmtError
from hf_nmt.evaluation import corpora, systems
from hf_nmt.metrics import load_scores
from hf_nmt.protocols import Translation

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "recipes" / "configs" / "validate"
SOURCES = [f"Satz {number} hat ein Wort" for number in range(30)]
REFERENCES = [f"Sentence {number} has one word" for number in range(30)]
SECOND = [f"There is one word in sentence {number}" for number in range(30)]


@pytest.fixture(scope="module")
def recipe():
    sys.path.insert(0, str(ROOT / "recipes"))
    try:
        import validate
    finally:
        sys.path.remove(str(ROOT / "recipes"))
    return validate


class Known:
    """Every third translation has a wrong word; `quality` 0 makes them all wrong."""

    def __init__(self, quality):
        self.quality = quality
        self.calls = []

    def translate(self, sources, settings=None, *, source_language=None, target_language=None, prefixes=None):
        self.calls.append((settings, target_language))
        for index, source in enumerate(sources):
            text = REFERENCES[SOURCES.index(source)]
            if index % 3 == 0 or not self.quality:
                text = text.replace("one", "no")
            yield [Translation(text, -1.0, text.split(), source_index=index)]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Files of a test set and folders of two models in the current folder; returns the translator of each model."""
    monkeypatch.chdir(tmp_path)
    for name, lines in {"test.de": SOURCES, "test.en": REFERENCES, "second.en": SECOND}.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines))
    translators = {"runs/new/best": Known(1), "runs/old/best": Known(0)}
    for folder in translators:
        Path(folder).mkdir(parents=True)
        Path(folder, "config.json").write_text(json.dumps({"source_language": "de", "target_language": "en"}))
        Path(folder, "model.safetensors").touch()
        Path(folder, "generation_config.json").write_text(json.dumps({"num_beams": 6}))
        Path(folder, "tokenizer.json").write_text("{}")
    monkeypatch.setattr(systems, "load_translator", lambda path, **options: translators[path])
    return translators


FILES = ["data.test.source=test.de", "data.test.target=test.en"]
QUICK = [*FILES, "metrics.num_bootstrap_samples=100"]
PAIRED = [*QUICK, "metrics.num_paired_samples=200"]


def _folder():
    (folder,) = Path("predictions").glob("*/*")
    return folder


def test_a_model_is_scored_and_only_the_table_is_on_stdout(recipe, work, capsys, caplog):
    caplog.set_level("INFO", logger="hf_nmt")
    assert recipe.main(["model=runs/new/best", *QUICK]) == 0
    out = capsys.readouterr().out
    folder = _folder()
    assert folder.parent.name == "new-best" and artifacts.verify(folder) == []
    texts = (folder / "translations.txt").read_text().splitlines()
    bleu, chrf, ter = load_scores(folder / "scores.json")
    assert bleu.value == sacrebleu.corpus_bleu(texts, [REFERENCES]).score
    assert chrf.value == sacrebleu.corpus_chrf(texts, [REFERENCES]).score
    assert ter.value == sacrebleu.corpus_ter(texts, [REFERENCES]).score
    lines = out.splitlines()
    assert lines[0].split() == ["metric", "score", "95%", "interval", "segments"] and len(lines) == 8
    assert lines[1].split()[:2] == ["BLEU", f"{bleu.value:.2f}"] and lines[5] == f"BLEU|{bleu.signature}"
    assert (bleu.n, bleu.data.id, bleu.data.split) == (30, "test.de", "test")
    # The decoding of the model's own folder, and a record of it.
    settings, language = work["runs/new/best"].calls[0]
    assert settings.num_beams == 6 and language == "en"
    assert bleu.system.decoding["num_beams"] == 6
    assert load(recipe.SETTINGS, folder / "settings.yaml").decoding == settings
    record = json.loads((folder / "record.json").read_text())
    assert record["source_language"] == "de" and record["model"] == "runs/new/best"
    # Five samples by default, and the place, in the log; the scores are told once.
    assert "BLEU =" not in caplog.text
    assert caplog.text.count("prediction  ") == 5 and f"Written to {folder}" in caplog.text


def test_decoding_settings_reach_the_translator(recipe, work):
    recipe.main(["model=runs/new/best", *QUICK, "decoding.num_beams=2", "num_samples=0", "name=mine"])
    assert work["runs/new/best"].calls[0][0].num_beams == 2
    assert _folder().parent.name == "mine"


def test_the_heading_names_the_confidence(recipe, work, capsys):
    recipe.main(["model=runs/new/best", *QUICK, "metrics.confidence=0.9"])
    assert capsys.readouterr().out.splitlines()[0].split() == ["metric", "score", "90%", "interval", "segments"]


def test_the_help_shows_the_defaults_that_run(recipe, work, capsys):
    with pytest.raises(SystemExit):
        recipe.main(["--help"])
    text = capsys.readouterr().out
    recipe.main(["model=runs/new/best", *QUICK])
    settings, _ = work["runs/new/best"].calls[0]
    for name in ("split_sentences", "truncate", "do_sample"):
        (shown,) = re.findall(rf"decoding.{name}: .*; default (\S+)", text)
        assert shown == str(getattr(settings, name)).lower()


def test_files_that_are_exchanged_are_told(recipe, work, caplog):
    Path("out.de").write_text("".join(f"{line}, nun\n" for line in SOURCES))
    recipe.main(["translations=out.de", "data.target_language=en", *QUICK])
    assert "out.de: the translations are more like the sources (chrF" in caplog.text
    caplog.clear()
    recipe.main(["model=runs/new/best", *QUICK])
    assert "more like the sources" not in caplog.text


def test_several_references(recipe, work, capsys):
    recipe.main(["model=runs/new/best", "data.test.source=test.de", "data.test.target=[test.en,second.en]"])
    bleu = load_scores(_folder() / "scores.json")[0]
    texts = (_folder() / "translations.txt").read_text().splitlines()
    assert bleu.value == sacrebleu.corpus_bleu(texts, [REFERENCES, SECOND]).score
    assert "nrefs:2" in capsys.readouterr().out


def test_a_baseline_gives_a_significance_test(recipe, work, capsys):
    recipe.main(["model=runs/new/best", "baseline=runs/old/best", *PAIRED, "metrics.names=[bleu,chrf]"])
    out = capsys.readouterr().out
    assert "difference" in out and "runs/new/best" in out
    comparisons = json.loads((_folder() / "comparisons.json").read_text())
    assert [item["name"] for item in comparisons] == ["BLEU", "chrF2"]
    assert all(item["p_value"] < 0.01 and item["baseline"] == "runs/old/best" for item in comparisons)


def test_translations_of_any_system_and_a_file_as_baseline(recipe, work, capsys):
    Path("out.en").write_text("".join(f"{line}\n" for line in REFERENCES))
    Path("old.en").write_text("".join(f"{line}\n" for line in SECOND))
    recipe.main(["translations=out.en", "baseline=old.en", "data.target_language=en", *PAIRED])
    folder = _folder()
    assert folder.parent.name == "out.en" and not work["runs/new/best"].calls
    bleu = load_scores(folder / "scores.json")[0]
    assert bleu.value == pytest.approx(100) and bleu.system.decoding is None
    assert bleu.system.hash == artifacts.hash_file("out.en")[:16]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ([], ["model: give model=FOLDER", "data.test: no test set is given"]),
        (["--dry-run"], ["model: give model=FOLDER", "data.test: no test set is given"]),
        (["--dry-run", "model=runs/none"], ["model: runs/none: there is no such folder", "data.test: no test set"]),
        (["model=runs/new/best", "translations=test.en", *FILES], ["and not both"]),
        (["model=runs/none", *FILES], ["model: runs/none: there is no such folder"]),
        (["translations=none.en", *FILES], ["translations: none.en: there is no such file"]),
        (["model=runs/new/best", "baseline=none", *FILES], ["baseline: none: there is no such folder"]),
        (["model=runs/new/best", "baseline=runs/new/best", *FILES], ["is the system itself"]),
        (["translations=test.en", "decoding.num_beams=2", *FILES], ["decoding: it has no effect"]),
        (
            ["model=runs/new/best", "data.source_language=en", "data.target_language=de", *FILES],
            ["data.source_language=en: the model runs/new/best reads de", "data.target_language=de"],
        ),
        (["model=runs/new/best", *FILES, "metrics.bleu.tokenize=zh"], ["made for target language 'zh', not 'en'"]),
        (["model=runs/new/best", *FILES, "per_domain=true"], ["test.de has no column `domain`"]),
        (
            ["model=runs/new/best", *FILES, "metrics.num_paired_samples=200", "metrics.paired_test=randomization"],
            ["metrics.num_paired_samples: it has no effect without baseline=MODEL", "metrics.paired_test: it has no"],
        ),
        (
            ["model=runs/new/best", *FILES, "metrics.num_bootstrap_samples=0", "metrics.seed=1"],
            ["metrics.seed: it has no effect without baseline=MODEL or baseline=FILE; leave it out."],
        ),
        (["model=runs/new/best", *FILES, "metrics.lowercas=true"], ["metrics.lowercas", "lowercase"]),
        (["model=runs/new/best", "data.test.source=none.de", "data.test.target=test.en"], ["none.de"]),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused_before_translating(recipe, work, arguments, texts):
    with pytest.raises((ConfigError, DataError)) as caught:
        recipe.main(arguments)
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert not any(translator.calls for translator in work.values()) and not Path("predictions").exists()


def test_a_missing_package_is_told_before_translating(recipe, work, monkeypatch):
    monkeypatch.setitem(sys.modules, "mecab_ko", None)
    Path("runs/new/best/config.json").write_text(json.dumps({"source_language": "de", "target_language": "ko"}))
    with pytest.raises(NmtError, match=r'pip install "hf_nmt\[ko\]"'):
        recipe.main(["model=runs/new/best", *FILES])
    assert not work["runs/new/best"].calls


def test_another_number_of_lines_and_an_empty_test_set_are_refused(recipe, work):
    Path("short.en").write_text("one line\n")
    with pytest.raises(DataError, match="short.en has 1 lines, the test set test.de has 30 segments"):
        recipe.main(["translations=short.en", *FILES])
    with pytest.raises(DataError, match="short.en"):
        recipe.main(["model=runs/new/best", "baseline=short.en", *FILES])
    assert not work["runs/new/best"].calls
    Path("test.de").write_text("")
    Path("test.en").write_text("")
    with pytest.raises(DataError, match="empty"):
        recipe.main(["model=runs/new/best", *FILES])


def test_every_settings_file_is_valid_and_default_shows_the_defaults(recipe):
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert {"default", "de-en", "en-de", "ko-en", "quickstart", "production", "debug", "tiny"} <= names
    for name in names:
        settings = load(recipe.SETTINGS, CONFIGS / f"{name}.yaml")
        assert (settings == recipe.SETTINGS()) == (name == "default"), name


def test_the_built_in_corpus_with_its_references_and_domains(recipe, work):
    Path("runs/new/best/config.json").write_text(json.dumps({"source_language": "ko", "target_language": "en"}))
    corpus = corpora.load_corpus(
        corpora.EvaluationData(test=CorpusSettings(path="controlled/tiny", split="test", max_rows=8))
    )
    Path("out.en").write_text("".join(f"{row[-1]}\n" for row in corpus.references))
    recipe.main(["--config", "tiny", "translations=out.en", "per_domain=true"])
    scores = load_scores(_folder() / "scores.json")
    assert scores[0].value == pytest.approx(100) and scores[0].data.split == "test"
    assert {score.data.domain for score in scores} == {None, *corpus.domains}


def test_exit_statuses_and_streams_of_the_command(work):
    command = [sys.executable, str(ROOT / "recipes" / "validate.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    Path("out.en").write_text("".join(f"{line}\n" for line in REFERENCES))
    done = subprocess.run(
        [*command, "translations=out.en", *QUICK], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("metric") and "Written to predictions/out.en/" in done.stderr
    done = subprocess.run([*command, "model=none"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert "model: none: there is no such folder" in done.stderr and "data.test: no test set" in done.stderr


# Several language pairs


class Polyglot:
    """Says `<target language> <source>`, and notes in which languages it was asked."""

    def __init__(self):
        self.calls = []

    def translate(self, sources, settings=None, *, source_language=None, target_language=None, prefixes=None):
        self.calls.append((source_language, target_language))
        return ([Translation(f"{target_language} {text}", -1.0, source_index=row)] for row, text in enumerate(sources))


@pytest.fixture
def polyglot(work, monkeypatch):
    """A model of en and de into de, ja and fr beside the others; its files are right for `fr` and half so for `ja`."""
    model = Polyglot()
    Path("runs/many/best").mkdir(parents=True)
    Path("runs/many/best/config.json").write_text("{}")
    Path("runs/many/best/model.safetensors").touch()
    languages = {"source_languages": ["en", "de"], "target_languages": ["de", "ja", "fr"]}
    Path("runs/many/best/tokenizer_config.json").write_text(json.dumps(languages))
    monkeypatch.setattr(systems, "load_translator", lambda path, **options: model)
    for code, lines in {"fr": 4, "ja": 2}.items():
        Path(f"{code}.en").write_text("".join(f"one two three four {row}\n" for row in range(lines)))
    Path("fr.fr").write_text("".join(f"fr one two three four {row}\n" for row in range(4)))
    Path("ja.ja").write_text("ja one two three four 0\nnothing of this\n")
    return model


PAIRED_SETS = [
    f"data.pairs.en-{code}.test.{side}={code}.{ending}"
    for code in ("fr", "ja")
    for side, ending in (("source", "en"), ("target", code))
]
SCORES = ["metrics.num_bootstrap_samples=0", "metrics.names=[bleu,chrf]", "metrics.bleu.tokenize=auto"]


@pytest.fixture
def characters(monkeypatch):
    """BLEU's tokenizer of Japanese is an extra package; what it is called with is what counts here."""
    from hf_nmt.metrics import scoring

    asked = []

    def choose(name, language, references):
        asked.append(language)
        return {"ja": "char"}.get(language, "13a")

    monkeypatch.setattr(scoring, "choose_tokenizer", choose)
    return asked


def test_every_pair_is_translated_into_its_own_language_and_scored_by_it(recipe, polyglot, characters, capsys):
    recipe.main(["model=runs/many/best", *PAIRED_SETS, *SCORES])
    assert polyglot.calls == [("en", "fr"), ("en", "ja")] and {"fr", "ja"} <= set(characters)
    scores = [score for score in load_scores(_folder() / "scores.json") if score.name in ("BLEU", "chrF2")]
    assert [(score.name, score.data.domain, score.n) for score in scores] == [
        ("BLEU", None, 6), ("chrF2", None, 6), ("BLEU", "en-fr", 4), ("chrF2", "en-fr", 4), ("BLEU", "en-ja", 2),
        ("chrF2", "en-ja", 2),
    ]  # fmt: skip
    french = [f"fr one two three four {row}" for row in range(4)]
    japanese = ["ja one two three four 0", "ja one two three four 1"]
    bleu = sacrebleu.corpus_bleu(japanese, [Path("ja.ja").read_text().splitlines()], tokenize="char").score
    assert scores[2].value == pytest.approx(100) and scores[4].value == pytest.approx(bleu) and bleu < 90
    assert scores[0].value == pytest.approx((100 + bleu) / 2), "each pair counts the same, whatever its size"
    assert scores[0].signature.startswith("mean:2|") and "tok:various" in scores[0].signature
    assert "tok:char" in scores[4].signature and "tok:13a" in scores[2].signature
    assert (_folder() / "translations.txt").read_text().splitlines() == french + japanese
    rows = [json.loads(line) for line in (_folder() / "segments.jsonl").read_text().splitlines()]
    assert [(row["source_language"], row["target_language"]) for row in rows] == [("en", "fr")] * 4 + [
        ("en", "ja")
    ] * 2
    assert rows[4]["bleu"] > 99 > 50 > rows[5]["bleu"] and rows[0]["chrf"] > 99
    record = json.loads((_folder() / "record.json").read_text())
    assert record["counts"]["language_pairs"] == {"en-fr": 4, "en-ja": 2} and record["source_language"] is None
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["metric", "domain", "score"]
    assert [line.split()[1] for line in table[1:] if line.startswith("BLEU ")] == ["all", "en-fr", "en-ja"]
    manifest = json.loads((_folder() / "manifest.json").read_text())
    assert manifest["languages"] == ["en", "fr", "ja"] and len(manifest["files"]) == 4


def test_rows_name_their_languages_in_columns(recipe, polyglot, characters):
    """In any order; a row without a target language is in that of the settings."""
    rows = [("eins", "de", "fr"), ("one", "en", "de"), ("zwei", "de", "fr"), ("two", None, None)]
    lines = (
        {"source": text, "target": f"{target or 'de'} {text}", "source_language": source, "target_language": target}
        for text, source, target in rows
    )
    Path("mixed.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    usual = ["data.source_language=en", "data.target_language=de"]
    recipe.main(["model=runs/many/best", "data.test.path=mixed.jsonl", *usual, *SCORES])
    assert polyglot.calls == [("de", "fr"), ("en", "de")]
    assert (_folder() / "translations.txt").read_text().splitlines() == ["fr eins", "de one", "fr zwei", "de two"]
    scores = load_scores(_folder() / "scores.json")
    assert {score.data.domain: score.n for score in scores if score.name == "chrF2"} == {
        None: 4,
        "de-fr": 2,
        "en-de": 2,
    }
    assert all(score.value > 99 for score in scores if score.name == "chrF2")
    Path("mixed.jsonl").write_text(json.dumps({"source": "a", "target": "b", "target_language": "french"}))
    with pytest.raises(ConfigError, match="data.test: the column target_language: given 'french'.* Did you mean fr?"):
        recipe.main(["model=runs/many/best", "data.test.path=mixed.jsonl", *usual, *SCORES])


def test_each_pair_is_compared_with_the_baseline(recipe, polyglot, characters, capsys):
    Path("old.txt").write_text("fr one two three four 0\nx\ny\nz\nja one two three four 0\nja one two three four 1\n")
    comparing = [f"metrics.num_paired_samples={200}", "metrics.names=[chrf]", "metrics.num_bootstrap_samples=0"]
    recipe.main(["model=runs/many/best", "baseline=old.txt", *PAIRED_SETS, *comparing])
    found = json.loads((_folder() / "comparisons.json").read_text())
    (french,), (japanese,) = (
        [item for item in found if item["domain"] == name and item["name"] == "chrF2"] for name in ("en-fr", "en-ja")
    )
    assert french["value"] > french["baseline_value"] and japanese["p_value"] == 1
    assert "en-ja" in capsys.readouterr().out.partition("difference")[2]


def test_translations_in_a_wrong_language_are_counted(recipe, work):
    pytest.importorskip("py3langid")
    german = [f"Der Hund läuft heute schnell über die grüne Wiese, zum {row}. Mal" for row in range(4)]
    french = [f"Le chien court aujourd'hui dans la prairie verte, pour la {row}e fois" for row in range(4)]
    for name, lines in {"x.en": ["Text"] * 4, "x.de": german, "x.fr": french, "out": german + german}.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines))
    pairs = [
        f"data.pairs.en-{code}.test.{side}=x.{end}"
        for code in ("de", "fr")
        for side, end in (("source", "en"), ("target", code))
    ]
    recipe.main(["translations=out", *pairs, "metrics.names=[chrf]", "metrics.num_bootstrap_samples=0"])
    rates = [score for score in load_scores(_folder() / "scores.json") if score.name == "off-target"]
    assert [(score.data.domain, score.value) for score in rates] == [(None, 50), ("en-de", 0), ("en-fr", 100)]
    assert "candidates:de.en.fr" in rates[0].signature


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ([*PAIRED_SETS, *FILES], ["data.test: given together with data.pairs"]),
        ([*PAIRED_SETS, "data.target_language=fr"], ["data.target_language: given together with data.pairs"]),
        ([*FILES, "data.source_language=german"], ["data.source_language: given 'german', which is no code"]),
        (["data.pairs.de-english.test.path=x.tsv"], ["data.pairs.de-english.target_language: given 'english', which"]),
        (["data.pairs.news.test.path=x.tsv"], ["data.pairs.news.source_language: not given, and the name 'news'"]),
        ([*PAIRED_SETS, "data.pairs.en-ja.tets.path=x"], ["data.pairs.en-ja.tets: unknown key"]),
        (["data.pairs.en-fr.source_language=en"], ["data.pairs.en-fr.test"]),
        (
            [*PAIRED_SETS, "data.pairs.en-ja.target_language=nl", "data.pairs.en-fr.target_language=cs"],
            ["data.target_language=nl: the model runs/many/best writes de, ja, fr", "data.target_language=cs"],
        ),
        ([*PAIRED_SETS, "per_domain=true"], ["per_domain: the test set has several language pairs"]),
        (["data.test.source=fr.en", "data.test.target=fr.fr"], ["into de, ja, fr; say which one", "a column"]),
        ([*PAIRED_SETS, "data.pairs.en-ja.test.target=fr.fr"], ["ja.en", "fr.fr"]),
    ],
)  # fmt: skip
def test_several_pairs_that_do_not_fit_are_refused_before_translating(recipe, polyglot, characters, arguments, texts):
    with pytest.raises((ConfigError, DataError)) as caught:
        recipe.main(["model=runs/many/best", *arguments, *SCORES])
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert not polyglot.calls and not Path("predictions").exists()
