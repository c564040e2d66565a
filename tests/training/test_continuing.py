from __future__ import annotations

import types

import pytest
import torch
from datasets import Dataset
from toy_training import make_model, make_run

from hf_nmt import runs
from hf_nmt.config import load
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.tokenizer_training import TokenizerSettings, load_tokenizer, train_tokenizer
from hf_nmt.training import kernels
from hf_nmt.training.model_building import ModelSettings
from hf_nmt.training.preparation import TrainingRecipe, choose, prepare_tokenizer

LANGUAGES = ["data.source_language=de", "data.target_language=en", "data.train.source=x", "data.train.target=y"]
PRECISION = types.SimpleNamespace(
    mixed_precision="bf16", bf16=True, device=torch.device("cpu"), process_index=0, world_size=1
)


class Recipe(TrainingRecipe):
    model: ModelSettings = ModelSettings()


def settings(*overrides: str) -> TrainingRecipe:
    return load(Recipe, overrides=[*LANGUAGES, *overrides])


@pytest.fixture(autouse=True)
def _own_precision(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def save_tokenizer(tmp_path):
    def save(sources, targets, **changes) -> str:
        texts = ["ein Haus", "das Haus am See", "a house", "the house by the lake"]
        kind = TokenizerSettings(vocab_size=300, **changes)
        tokenizer = train_tokenizer(texts, texts, kind, source_language=sources, target_language=targets)
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        return f"tokenizer.path={tmp_path / 'tokenizer'}"

    return save


def test_a_tokenizer_of_other_languages_is_refused(save_tokenizer, tmp_path):
    with pytest.raises(ConfigError) as error:
        settings(save_tokenizer("en", "de")).arguments()
    assert error.value.findings == [
        f"tokenizer.path: the {side} language of {tmp_path / 'tokenizer'} is {known}, but data.{side}_language is "
        f"{wanted}. Give a tokenizer of this language, or leave tokenizer.path out to train one."
        for side, known, wanted in (("source", "en", "de"), ("target", "de", "en"))
    ]
    with pytest.raises(
        ConfigError, match="target language of .* is nl or da, but data.target_language is en"
    ) as error:
        settings(save_tokenizer("de", ["nl", "da"], language_tags=True)).arguments()
    assert len(error.value.findings) == 1
    with pytest.raises(DataError, match="nowhere does not exist"):
        settings("tokenizer.path=nowhere").arguments()


def test_a_tokenizer_of_several_languages_is_told_those_of_the_texts(save_tokenizer, tmp_path):
    chosen = settings(save_tokenizer(["de", "nl"], ["da", "en"], language_tags=True))
    chosen.arguments()
    pairs = Dataset.from_dict({"source": ["ein Haus"], "target": ["a house"]})
    arguments = types.SimpleNamespace(process_index=0, world_size=1, main_process_first=lambda **_: open("/dev/null"))
    run = make_run(tmp_path / "runs")
    tokenizer = prepare_tokenizer(run, chosen, arguments, pairs)
    first = tokenizer("ein Haus")["input_ids"][0]
    assert tokenizer.convert_ids_to_tokens(first) == "<2en>"
    assert load_tokenizer(tmp_path / "tokenizer").tgt_lang is None


def test_a_run_that_goes_on_needs_no_tokenizer_but_its_own(tmp_path):
    settings("tokenizer.path=gone", f"resume={tmp_path}").arguments()


def test_a_run_that_goes_on_computes_as_was_measured(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    run, model = make_run(tmp_path), make_model()
    found = {"matmul_precision": "high", "attention": "matmul_up_to_32"}
    monkeypatch.setattr(kernels, "measure", lambda *given, **options: kernels.Choice(**found, figures={"gain": 2}))
    choose(run, settings(), PRECISION, model)
    record = runs.load(run.folder).record
    assert record["choices"] == {**found, "mixed_precision": "bf16", "batch_tokens": 4096}
    assert record["measurements"] == {"gain": 2} and torch.get_float32_matmul_precision() == "high"
    assert "computes with: matmul_precision high, attention matmul_up_to_32" in caplog.text
    monkeypatch.setattr(kernels, "measure", None)
    torch.set_float32_matmul_precision("highest")
    again = make_model()
    again.set_attn_implementation("sdpa")
    choose(runs.load(run.folder), settings(), PRECISION, again)
    assert again.config._attn_implementation == "matmul_up_to_32"
    assert torch.get_float32_matmul_precision() == "high"
    assert "goes on as before: matmul_precision high, attention matmul_up_to_32" in caplog.text


def test_what_the_settings_say_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "measure", None)
    run, model = make_run(tmp_path), make_model()
    model.set_attn_implementation("eager")
    given = settings("training.matmul_precision=medium", "model.attn_implementation=eager")
    choose(run, given, PRECISION, model)
    choices = runs.load(run.folder).record["choices"]
    assert (choices["matmul_precision"], choices["attention"]) == ("medium", "eager")
    assert "measurements" not in run.record


def test_a_run_that_goes_on_must_compute_as_before(tmp_path):
    run = make_run(tmp_path)
    choose(run, settings(), PRECISION, make_model())
    with pytest.raises(ConfigError, match="the run computes with mixed_precision=bf16, but now it is no"):
        choose(run, settings(), types.SimpleNamespace(**vars(PRECISION) | {"mixed_precision": "no"}), make_model())
    run.choose(attention="flash_attention_2")
    with pytest.raises(
        ConfigError, match="resume: the run computes attention with flash_attention_2, which cannot be"
    ):
        choose(run, settings(), PRECISION, make_model())


def test_where_no_run_can_be_written_is_told_before_texts_are_read(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/deeper"):
        with pytest.raises(ConfigError, match="output_dir: .* cannot be made, as .*file is a file. Choose another"):
            settings(f"output_dir={tmp_path / name}").arguments()
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(ConfigError, match=f"output_dir: you may not write in {tmp_path}. Choose another folder"):
        settings(f"output_dir={tmp_path / 'new' / 'runs'}").arguments()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
