from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys

import pytest
import yaml
from corpora import write_corpus
from recipe_processes import RECIPE, run_recipe
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_nmt import runs
from hf_nmt.errors import ConfigError
from hf_nmt.metrics import load_scores
from hf_nmt.training.trainer import TranslationTrainer

recipe = runpy.run_path(str(RECIPE), run_name="train_recipe")


def main(*argv: str) -> int:
    return recipe["main"](list(argv))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a corpus and one finished run, and the settings that name the corpus."""
    folder = tmp_path_factory.mktemp("train")
    data = write_corpus(folder)
    argv = [*data, "data.validation.max_rows=8", "--config", "tiny", f"output_dir={folder / 'runs'}"]
    assert run_recipe(argv, folder / "log") == 0, (folder / "log.err").read_text()
    (run,) = (folder / "runs").iterdir()
    return folder, argv, run


def test_the_run_folder_is_complete(finished):
    folder, _, run = finished
    assert (folder / "log.out").read_text() == f"{run / 'best'}\n"
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names == {
        "run.json", "metrics.jsonl", "log.txt", "validation_history.json", "summary.json", "manifest.json",
        "tokenizer", "tokenizer_report.json", "checkpoints", "best", "plots", "training_report.json",
        "training_report.html", "validation_segments.jsonl",
    }  # fmt: skip
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and record["recipe"] == "train"
    assert record["choices"].keys() == {"matmul_precision", "attention", "mixed_precision", "batch_tokens"}
    assert record["best"]["kind"] in ("single", "average") and record["seeds"] == {"seed": 42, "data_seed": 42}
    assert record["settings"]["training"]["max_steps"] == 12
    steps = json.loads((run / "manifest.json").read_text())["steps"]
    assert [(step["split"], step["name"]) for step in steps] == [
        (split, name) for split in ("train", "validation") for name in ("load", "encode")
    ]
    metrics = runs.read_metrics(run)
    assert runs.series(metrics, "loss")[0] == [2, 4, 6, 8, 10, 12]
    for name in ("learning_rate", "grad_norm", "tokens_per_second"):
        assert len(runs.series(metrics, name)[0]) == 6
    for name in ("eval_loss", "eval_perplexity", "eval_bleu", "eval_chrf", "eval_seconds"):
        assert runs.series(metrics, name)[0] == [6, 12]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 12 and summary["tokens"] == metrics[-1]["tokens"]
    assert {candidate["kind"] for candidate in summary["candidates"]} == {"single", "average"}
    assert {path.stem for path in (run / "plots").iterdir()} >= {"loss", "bleu", "learning_rate", "gradient_norm"}
    log = (folder / "log.err").read_text()
    assert "validation at step 12" in log and "best model" in log and "tokens/s" in log
    assert "validation at step 12" in (run / "log.txt").read_text()
    assert log.count("validation at step 12: loss") == 1 and "(greedy, " in log and "BLEU = " not in log
    assert "validated with beam 2: loss" in log and log.count(" on the validation text, beam 2 ") == 2
    assert "data.source_language: xx is not known as a code of a language. It is taken as it stands." in log
    assert re.search(r"\ntime +[\d.]+ s \([\d.]+ s of CPU in updates\)\n", log)


def test_the_best_model_is_open_to_anyone(finished):
    best = finished[2] / "best"
    assert {path.suffix for path in best.iterdir()} == {".json", ".safetensors", ".py", ".md"}
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in best.iterdir()} == {0o666 & ~umask}
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(best), AutoTokenizer.from_pretrained(best)
    assert (model.config.source_language, model.config.target_language) == ("xx", "yy")
    assert model.generation_config.num_beams == 2 and model.config.use_cache
    ids = model.generate(**tokenizer("balo dulo", return_tensors="pt"), max_new_tokens=4)
    assert isinstance(tokenizer.decode(ids[0], skip_special_tokens=True), str)


@pytest.mark.slow
def test_the_best_model_opens_where_hf_nmt_is_not_installed(finished, tmp_path):
    program = """
import sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
print(model.generate(**tokenizer("balo dulo", return_tensors="pt"), max_new_tokens=4).tolist())
assert "hf_nmt" not in sys.modules
"""
    # -I and another folder: whatever is beside the tests is not found.
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(finished[2] / "best")],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    model, tokenizer = (kind.from_pretrained(finished[2] / "best") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    expected = model.generate(**tokenizer("balo dulo", return_tensors="pt"), max_new_tokens=4).tolist()
    assert done.stdout.strip().splitlines()[-1] == str(expected)


def test_a_dry_run_prints_settings_that_load(finished, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(*finished[1], "--dry-run")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["training"]["max_steps"] == 12
    (tmp_path / "again.yaml").write_text(text)
    with pytest.raises(SystemExit):
        main("--config", str(tmp_path / "again.yaml"), "--dry-run")
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["modle.d_model=8"], "modle: unknown key. Did you mean model?"),
        (["epochs=5"], "epochs: write training.num_train_epochs."),
        (["training.average_checkpoints=2"], "unknown key. Did you mean training.num_average_checkpoints?"),
        (
            ["training.warmup_ratio=0.1"],
            "training.warmup_ratio: dropped in Transformers 5; write schedule.warmup_share",
        ),
        (["data.target_language=null"], "data.target_language: not given; write the code"),
        (["batching.max_source_length=100"], "model.max_position_embeddings: the model takes 64 tokens, and batching"),
        (["metrics.names=[chrf]"], "training.metric_for_best_model: bleu is not computed; add it to metrics.names"),
        (["training.num_processes=3"], "accelerate launch --multi_gpu --num_processes 3 recipes/train.py"),
        (["tokenizer.vocab_size=260"], "tokenizer.vocab_size: given 260, but 4 special tokens and 256 bytes"),
        (
            ["data.source_language=german"],
            "given 'german', which is no code of a language. Write two or three letters",
        ),
        (
            ["model=runs/x/best"],
            "but this is a section. To train a saved model further (to fine-tune it) write",
        ),
        (
            ["model.path=x"],
            "model.path: to train a saved model further (to fine-tune it) write model.pretrained=",
        ),
        (["init_from=x"], "init_from: to train a saved model further"),
        (["training.from_pretrained=x"], "unknown key. from_pretrained: to train a saved model further"),
        (
            ["model.pretrained=x"],
            "model.pretrained: the model x has a shape of its own, and d_model, encoder_layers, decoder_layers, "
            "encoder_attention_heads, decoder_attention_heads, encoder_ffn_dim, decoder_ffn_dim, "
            "max_position_embeddings are that of a new one. Leave out what sets a shape; --config finetune sets none. "
            "(8 of these keys come from tiny.yaml.)\n"
            "model.pretrained: x: there is no such folder.",
        ),
        (
            ["--config", "finetune"],
            "model.pretrained: required and not given: these settings train a saved model further. Write model.pre",
        ),
        (
            ["data.train.source={folder}/text.yy", "data.validation.target={folder}/text.xx"],
            "data.train.target: {folder}/text.yy is the source too, and a model would learn to copy. Give the file "
            "with its translations.\ndata.validation.target: {folder}/text.xx is the source too",
        ),
        (["model.revision=x"], "model.revision: it is for a saved model, and pretrained names none."),
        (["resume=nowhere"], "resume: nowhere is not a run folder"),
    ],
)
def test_settings_are_refused_before_anything_is_read(finished, monkeypatch, argv, message):
    def fail(*args, **kwargs):
        raise AssertionError("texts were read")

    monkeypatch.setattr("hf_nmt.training.texts.load_pairs", fail)
    with pytest.raises(ConfigError) as error:
        main(*finished[1], *(argument.format(folder=finished[0]) for argument in argv))
    assert message.format(folder=finished[0]) in str(error.value)


def test_bad_input_makes_no_run(finished, tmp_path):
    with pytest.raises(ConfigError, match="data.train.source: nowhere.xx: there is no such file"):
        main(*finished[1], "data.train.source=nowhere.xx", f"output_dir={tmp_path}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_all_missing_files_are_told_at_once(finished, tmp_path, dry_run, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # no name there is near
    (tmp_path / "file").touch()
    names = ["train.source", "train.target", "validation.source"]
    argv = [f"data.{name}={name}.txt" for name in names] + ["data.validation.target=[a.yy,b.yy]", "tokenizer.path=no"]
    argv += ["tokenizer.vocab_size=8000", f"output_dir={tmp_path / 'file'}"]
    with pytest.raises(ConfigError) as error:
        main(*finished[1], *argv, *dry_run)
    missing = [f"data.{name}: {name}.txt: there is no such file." for name in names]
    missing += [f"data.validation.target: {name}.yy: there is no such file." for name in "ab"]
    assert error.value.findings[:-1] == [*missing, "tokenizer.path: no does not exist."]
    assert error.value.findings[-1].startswith(f"output_dir: {tmp_path / 'file'} cannot be made")
    assert capsys.readouterr().out.startswith("seed: 42\n") == bool(dry_run)
    with pytest.raises(ConfigError, match="data.train.path: pairs.tsv: there is no such file"):
        main("--config", "tiny", "data.train.path=pairs.tsv", "data.source_language=de", "data.target_language=en")


def copy_of(run, folder, **changes):
    """The run as it would be after a kill."""
    copy = folder / "copy"
    copy.mkdir()
    record = json.loads((run / "run.json").read_text()) | {"status": "running"} | changes
    (copy / "run.json").write_text(json.dumps(record))
    return copy


def test_a_resumed_run_keeps_its_settings(finished, tmp_path):
    copy = copy_of(finished[2], tmp_path)
    with pytest.raises(ConfigError) as error:
        main(f"resume={copy}", "training.learning_rate=0.1", "model.dropout=0.5")
    assert "training.learning_rate: given 0.1, but the run to be continued has 0.0005" in str(error.value)
    assert "model.dropout: given 0.5" in str(error.value) and len(error.value.findings) == 2
    # What equals a default is typed all the same.
    with pytest.raises(ConfigError) as error:
        main(f"resume={copy}", "model.d_model=256", "seed=42", "data.train.max_rows=null", "name=other")
    assert [finding.partition(":")[0] for finding in error.value.findings] == ["name", "model.d_model"]
    assert "model.d_model: given 256, but the run to be continued has 16; it keeps its settings." in str(error.value)
    with pytest.raises(ConfigError, match="model.d_model: given 64, but the run to be continued has 16"):
        main(f"resume={copy}", "--config", "debug")
    with pytest.raises(ConfigError, match="is finished"):
        main(f"resume={finished[2]}")


def test_a_resumed_run_keeps_its_texts(finished, tmp_path):
    record = json.loads((finished[2] / "run.json").read_text())
    copy = copy_of(finished[2], tmp_path, data=record["data"] | {"train": "other"})
    with pytest.raises(ConfigError, match="resume: the train texts changed since"):
        main(f"resume={copy}")


def test_scores_of_the_summary_are_score_records(finished, tmp_path):
    scores = json.loads((finished[2] / "summary.json").read_text())["scores"]
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    records = load_scores(tmp_path / "scores.json")
    assert [score.name for score in records] == ["BLEU", "chrF2"]
    for score in records:
        assert score.data.split == "validation" and len(score.data.hash) == 64 and score.n == 8
        assert score.system.decoding["num_beams"] == 2 and score.system.hash


def test_what_a_library_prints_is_no_result(finished, tmp_path, monkeypatch, capsys):
    train = TranslationTrainer.train

    def printing(self, **arguments):
        sys.stdout.write("[WARNING] Setting accelerator to CPU\n")
        return train(self, **arguments)

    monkeypatch.setattr(TranslationTrainer, "train", printing)
    main(
        *finished[1],
        "training.max_steps=3",
        "training.eval_strategy=no",
        "training.num_average_checkpoints=0",
        f"output_dir={tmp_path}",
    )
    (run,) = tmp_path.iterdir()
    out, err = capsys.readouterr()
    assert out == f"{run / 'best'}\n" and "Setting accelerator" in err


def test_a_dry_run_tells_of_a_long_warmup(finished, caplog, capsys):
    for steps, told in ((4, []), (9, ["warms up for 9 of the 12"]), (12, ["warms up for 12 updates (schedule."])):
        caplog.clear()
        with pytest.raises(SystemExit):
            main(*finished[1], f"schedule.warmup_steps={steps}", "--dry-run")
        messages = [message for message in caplog.messages if "warms up" in message]
        assert len(messages) == len(told) and all(words in messages[0] for words in told)
    assert "warms up" not in capsys.readouterr().out


def test_a_dry_run_names_the_rate_that_the_rule_of_scaling_makes(finished, caplog, monkeypatch):
    rates = {}
    for processes, tokens in (("1", None), ("1", 256), ("4", 256)):
        monkeypatch.setenv("WORLD_SIZE", processes)
        rule = [] if tokens is None else ["schedule.scale=linear", f"schedule.reference_tokens_per_update={tokens}"]
        batches = ("batching.batch_tokens=512", "training.gradient_accumulation_steps=2")
        caplog.clear()
        with pytest.raises(SystemExit):
            main(*finished[1], "schedule.warmup_steps=12", "training.learning_rate=1e-4", *batches, *rule, "--dry-run")
        (told,) = [message for message in caplog.messages if "warms up" in message]
        rates[processes, tokens] = float(re.search(r"its peak is ([\d.e-]+)\.", told)[1])
    assert rates == {("1", None): 1e-4, ("1", 256): 4e-4, ("4", 256): 16e-4}


def test_the_rest_of_a_section_in_the_file_is_no_hint_for_an_unknown_key(finished):
    with pytest.raises(ConfigError) as error:
        main(*finished[1], "schedule.foo=1")
    (finding,) = error.value.findings
    assert finding.startswith("schedule.foo: unknown key. Allowed in schedule: ") and "comes from" not in finding
    with pytest.raises(ConfigError, match=r"^schedule.warm: unknown key. Did you mean schedule.warmup_steps or "):
        main(*finished[1], "schedule.warm=1")


def test_checkpoints_need_no_validations_where_there_are_none(finished, capsys):
    data = [argument for argument in finished[1] if "validation" not in argument]
    with pytest.raises(SystemExit):
        main(*data, "training.save_steps=7", "--dry-run")
    with pytest.raises(
        ConfigError, match="training.eval_steps: given 6, but .* set a multiple of save_steps=7 .*comes"
    ):
        main(*finished[1], "training.save_steps=7", "--dry-run")
