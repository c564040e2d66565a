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

    def translate(self, sources, settings=None, *, target_language=None, prefixes=None):
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
    corpus = corpora.load_corpus(CorpusSettings(path="controlled/tiny", split="test", max_rows=8))
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
