"""The recipe as it is called: what it writes, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import families
import pytest
from settings_walk.keys import recipe_module
from transformers import pipeline

import hf_nmt
from hf_nmt.config import load
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.translators import load_translator
from hf_nmt.vocabularies import adaptation

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs" / "adapt_vocabulary"


@pytest.fixture(scope="module")
def recipe():
    return recipe_module("adapt_vocabulary")


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current folder, with a model of each of two families, and text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    families.make("nmt", "model")
    families.write_pairs(tmp_path, count=20)
    return tmp_path


TEXT = ["data.train.source=text.source", "data.train.target=text.target"]


def test_a_model_is_adapted_reported_and_translates(recipe, work, capsys, caplog):
    caplog.set_level("INFO", logger="hf_nmt")
    assert recipe.main(["model=model", "output=small", "trim=true", "grow=10", *TEXT]) == 0
    out = capsys.readouterr().out
    report = json.loads(out)
    assert report == json.loads(Path("small/vocabulary.json").read_text())
    (one,) = report["vocabularies"]
    assert one["after"] == one["kept"] + one["new"] and one["before"] == one["kept"] + one["removed"]
    assert report["model"] == "model" and report["settings"]["grow"] == 10
    assert f"vocabulary of source and target: 340 -> {one['after']} entries" in caplog.text
    assert "tokens a word, unknown 0.000% -> 0.000%" in caplog.text and "Written to small" in caplog.text
    translator = load_translator("small", "cpu")
    assert len(list(translator.translate(["balo gelo."]))) == 1
    assert isinstance(pipeline("translation", model="small")("balo gelo.")[0]["translation_text"], str)
    assert hf_nmt.__version__

    # Once more is refused, and what is there stays.
    before = {path: path.read_bytes() for path in Path("small").iterdir()}
    with pytest.raises(ConfigError, match="output: small exists already"):
        recipe.main(["model=model", "output=small", "trim=true", *TEXT])
    assert {path: path.read_bytes() for path in Path("small").iterdir()} == before


def test_the_same_command_writes_the_same_bytes(recipe, work, capsys):
    for output in ("first", "second"):
        recipe.main(["model=model", f"output={output}", "trim=true", "grow=10", *TEXT])
    first, second = ({path.name: path.read_bytes() for path in Path(name).iterdir()} for name in ("first", "second"))
    assert len(first) > 5 and first == second


def test_the_pipeline_takes_a_new_language(recipe, work, capsys):
    families.make("nllb", "nllb")
    recipe.main(["model=nllb", "output=more", "add_languages=[xxx_Latn]", "like=deu_Latn"])
    translate = pipeline("translation", model="more", max_new_tokens=5)
    assert isinstance(translate("balo.", src_lang="eng_Latn", tgt_lang="xxx_Latn")[0]["translation_text"], str)
    ids = translate("balo.", src_lang="eng_Latn", tgt_lang="xxx_Latn", return_tensors=True)[0]["translation_token_ids"]
    assert translate.tokenizer.convert_ids_to_tokens(ids)[0] == "xxx_Latn"
    translator = load_translator("more", "cpu", source_language="xxx_Latn", target_language="eng_Latn")
    assert len(list(translator.translate(["balo."]))) == 1


def test_an_interruption_leaves_nothing(recipe, work, monkeypatch):
    def stop(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(adaptation, "_check_logits", stop)
    with pytest.raises(KeyboardInterrupt):
        recipe.main(["model=model", "output=small", "trim=true", *TEXT])
    assert not [path for path in work.iterdir() if "small" in path.name]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ([], ["model: none is given", "output: none is given", "trim: nothing is asked for"]),
        (["--dry-run", "model=model"], ["output: none is given", "trim: nothing is asked for"]),
        (["model=model", "output=new", "trim=true"], ["data.train: no corpus is given"]),
        (["model=none", "output=new", "grow=5", *TEXT], ["model: none: there is no such folder"]),
        (["model=model", "output=new", "add_languages=[xx]", *TEXT], ["add_languages alone reads no text"]),
        (["model=model", "output=new", "min_count=2"], ["min_count: it has no effect without trim"]),
        (["model=model", "keep_characters=false", "grow=3"], ["keep_characters: it has no effect without trim"]),
        (["model=model", "trim=true", "grow_from=source"], ["grow_from: it has no effect without grow"]),
        (["model=model", "like=de", "grow=3"], ["like: it has no effect without add_languages"]),
        (["model=model", "retrain=400", "grow=3", "trim=true"], ["trim: retrain makes", "grow: retrain makes"]),
        (["model=model", "add_languages=[ko,ko]"], ["add_languages: ko is named twice"]),
        (["model=model", "gro=3"], ["gro", "grow"]),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_the_model_is_loaded(recipe, work, arguments, texts, monkeypatch):
    monkeypatch.setattr(recipe, "load_model", None)
    with pytest.raises(NmtError) as caught:
        recipe.main(arguments)
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert not Path("new").exists()


def test_every_settings_file_is_valid_and_default_shows_the_defaults(recipe):
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert {"default", "tiny"} <= names
    for name in names:
        settings = load(recipe.SETTINGS, CONFIGS / f"{name}.yaml")
        assert (settings == recipe.SETTINGS()) == (name == "default"), name


def test_the_tiny_settings_run_on_the_built_in_corpus(recipe, work, capsys):
    recipe.main(["--config", "tiny", "model=model", "output=new"])
    assert json.loads(capsys.readouterr().out)["vocabularies"][0]["new"] == 50
