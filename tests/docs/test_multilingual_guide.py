"""docs/guide/multilingual.md: its commands and its Python run as they are written, on a model that the first of them
trains."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest
import transformers
from settings_walk.keys import recipe_module

import hf_nmt  # noqa: F401
from hf_nmt.config import load
from hf_nmt.training.recipe import TrainingRecipe

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "multilingual.md"
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(r"(?:^ {4}.*\n)+", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
]
SETTINGS = [block for block in BLOCKS if block.startswith("data:")]
COMMANDS = [block for block in BLOCKS if block.startswith("python recipes/")]
PYTHON = [block for block in BLOCKS if block not in SETTINGS + COMMANDS]
SMALL = (
    "tokenizer.vocab_size=400", "model.d_model=16", "model.encoder_layers=1", "model.decoder_layers=1",
    "model.encoder_attention_heads=2", "model.decoder_attention_heads=2", "model.encoder_ffn_dim=32",
    "model.decoder_ffn_dim=32", "training.bf16=false", "training.max_steps=2", "training.eval_steps=2",
    "training.save_steps=2", "schedule.warmup_steps=1", "decoding.num_beams=1", "decoding.max_target_length=6",
)  # fmt: skip
ENGLISH = ["A dog runs through the snow.", "Two children play in the garden.", "A cat sleeps on the sofa."]
TEXTS = {
    "en": ENGLISH,
    "de": ["Ein Hund rennt durch den Schnee.", "Zwei Kinder spielen im Garten.", "Eine Katze schläft auf dem Sofa."],
    "fr": ["Un chien court dans la neige.", "Deux enfants jouent dans le jardin.", "Un chat dort sur le canapé."],
}


def commands(recipe: str) -> list[list[str]]:
    """The arguments of every call of a recipe on the page; what follows `<` is the standard input."""
    lines = [line for block in COMMANDS for line in block.replace("\\\n", " ").splitlines()]
    assert all(line.startswith("python recipes/") for line in lines)
    return [shlex.split(line)[2:] for line in lines if line.startswith(f"python recipes/{recipe}.py ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files that the page names, and the run of its first command."""
    folder = tmp_path_factory.mktemp("guide")
    for code, texts in TEXTS.items():
        for name, times in (("train", 12), ("val", 1), ("test", 1), ("in", 1)):
            (folder / f"{name}.{code}").write_text("".join(f"{text}\n" for text in texts * times), encoding="utf-8")
    rows = [
        {"source": text, "target": TEXTS[code][number], "source_language": "en", "target_language": code}
        for code in ("fr", "de")
        for number, text in enumerate(ENGLISH)
    ]
    for name in ("rows", "test"):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = (f"{row['source']}\t{row['target']}\n" for row in rows if row["target_language"] == "de")
    (folder / "test.tsv").write_text("source\ttarget\n" + "".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        module = recipe_module("train")
        patch.setattr(module, "plot_run", lambda folder: None)
        patch.setattr("hf_nmt.evaluation.run_comparison.draw_comparison", lambda *given: [])
        (argv,) = commands("train")
        assert module.main([*argv, *SMALL]) == 0
    (run,) = (folder / "runs").iterdir()
    return folder, f"runs/{run.name}/best"


@pytest.fixture
def there(place, monkeypatch):
    folder, model = place
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    return model


def test_the_settings_of_the_page_are_accepted(tmp_path):
    (text,) = SETTINGS
    (tmp_path / "mine.yaml").write_text(text)
    data = load(TrainingRecipe, tmp_path / "mine.yaml").data
    assert data.language_pairs == [("en", "de"), ("en", "fr")] and data.sampling_temperature == 5


@pytest.mark.parametrize("argv", commands("translate"), ids=" ".join)
def test_translations_run(argv, there, monkeypatch, capfdbinary):
    argv = [argument.replace("runs/<id>/best", there) for argument in argv]
    if "<" in argv:
        with open(argv[-1], encoding="utf-8") as lines:
            monkeypatch.setattr("sys.stdin", lines)
            assert recipe_module("translate").main(argv[:-2]) == 0
        written, expected = capfdbinary.readouterr().out, ENGLISH
    else:
        assert recipe_module("translate").main(argv) == 0
        written, expected = Path("out.txt").read_bytes(), ENGLISH * 2
    assert written.count(b"\n") == len(expected)


@pytest.mark.parametrize("argv", commands("validate"), ids=range(len(commands("validate"))))
def test_scores_run(argv, there, capsys):
    pytest.importorskip("py3langid")
    argv = [argument.replace("runs/<id>/best", there) for argument in argv]
    assert recipe_module("validate").main([*argv, "metrics.num_bootstrap_samples=0"]) == 0
    shown = capsys.readouterr().out
    assert "off-target" in shown and ("all" in shown) == ("data.test.path=test.tsv" not in argv)
    assert "candidates:de.en.lb.nl" in shown or "candidates:de.en.fr" in shown


def test_its_python_runs(there):
    pytest.importorskip("py3langid")
    names, found = {"pipeline": transformers.pipeline}, []
    for block in PYTHON:
        *before, last = block.replace("runs/<id>/best", there).splitlines()
        exec("\n".join(before), names)
        found.append(eval(last.partition("#")[0], names))
    piped, listed, told = found
    assert piped[0].keys() == {"translation_text"} and len(listed) == 2
    assert [(code, int(1000 * probability) / 1000) for code, probability in told] == [("de", 0.997), ("en", 0.927)]
