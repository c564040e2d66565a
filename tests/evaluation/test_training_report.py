"""The report of a training, of runs that recipes/train.py makes and of planted ones."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest
import yaml
from settings_walk.keys import ROOT, recipe_module

from hf_nmt.artifacts import hash_file, write_json
from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.evaluation.run_comparison import metric_text
from hf_nmt.evaluation.training_report import write_training_report
from hf_nmt.run_records import VALIDATION_SEGMENTS
from hf_nmt.training.recipe import TrainingRecipe

# What a test changes of steps_10k.yaml to pass through it in seconds: a thousandth of its updates, a tiny model.
SCALED = (
    "tokenizer.vocab_size=300", "model.d_model=16", "model.encoder_layers=1", "model.decoder_layers=1",
    "model.encoder_ffn_dim=16", "model.decoder_ffn_dim=16", "model.attn_implementation=eager",
    "training.matmul_precision=highest", "batching.batch_tokens=256", "training.max_steps=10", "training.eval_steps=1",
    "training.save_steps=1", "training.logging_steps=1", "schedule.warmup_steps=2", "training.use_cpu=true",
    "decoding.num_beams=1", "decoding.max_target_length=8", "data.source_language=de", "data.target_language=en",
    "data.train.source=train.de", "data.train.target=train.en", "data.validation.source=val.de",
    "data.validation.target=val.en",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, Path]:
    """The folder where two runs of steps_10k.yaml were made, scaled down, the second against the first."""
    folder = tmp_path_factory.mktemp("steps")
    draw = random.Random(1)
    for split, count in (("train", 60), ("val", 12)):
        rows = [" ".join(draw.choices("abcdefgh", k=draw.randint(3, 9))) for _ in range(count)]
        for side, text in (("de", rows), ("en", [row.upper() for row in rows])):
            (folder / f"{split}.{side}").write_text("".join(f"{row}\n" for row in text))
    config = str(ROOT / "recipes" / "configs" / "train" / "steps_10k.yaml")
    module = recipe_module("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        assert module.main(["--config", config, *SCALED, "name=first"]) == 0
        (first,) = Path("runs").glob("first-*")
        assert module.main(["--config", config, *SCALED, "name=second", f"report.baseline={first}", "seed=7"]) == 0
        (second,) = Path("runs").glob("second-*")
    return folder, first, second


def test_ten_thousand_updates_are_planned_and_a_validation_each_thousand():
    settings = load(TrainingRecipe, overrides=[])
    assert settings.report.baseline is None
    plan = yaml.safe_load((ROOT / "recipes/configs/train/steps_10k.yaml").read_text())
    full = load(recipe_module("train").SETTINGS, ROOT / "recipes/configs/train/steps_10k.yaml")
    training = full.training
    assert (training.max_steps, training.eval_steps, training.save_steps) == (10_000, 1000, 1000)
    assert training.early_stopping_patience is None and plan["report"] == {"baseline": None}
    assert full.training.validation_findings() == []


def test_a_training_ends_with_its_report(trained):
    folder, _, second = trained
    report = json.loads((folder / second / "training_report.json").read_text())
    summary = json.loads((folder / second / "summary.json").read_text())
    history = json.loads((folder / second / "validation_history.json").read_text())
    assert report["run"]["status"] == "finished" and report["ended_by"] == "max_steps"
    assert [entry["step"] for entry in report["validations"]] == list(range(1, 11)) == [e["step"] for e in history]
    assert [entry["metrics"] for entry in report["validations"]] == [entry["metrics"] for entry in history]
    for name in ("tokens", "cpu_seconds", "tokens_per_second", "parameters"):
        assert report["run"][name] == summary[name]
    assert report["run"]["scores"] == summary["scores"]
    run = json.loads((folder / second / "run.json").read_text())
    hashes = {split: content["content_hash"] for split, content in report["texts"]["splits"].items()}
    assert hashes == run["data"] and report["settings"] == run["settings"]
    assert report["environment"]["packages"]["torch"] and report["decisions"] == []


def test_it_is_compared_with_the_named_run(trained):
    folder, first, second = trained
    baseline = json.loads((folder / second / "training_report.json").read_text())["baseline"]
    assert baseline["run"]["name"] == "first"
    assert set(baseline["settings_that_differ"]) == {"seed"}
    scores = {
        name: json.loads((folder / run / "summary.json").read_text())["scores"][0]
        for name, run in (("ours", second), ("theirs", first))
    }
    difference = baseline["score_differences"][0]
    assert difference["value"] == scores["ours"]["value"] and difference["baseline"] == scores["theirs"]["value"]
    assert difference["difference"] == pytest.approx(scores["ours"]["value"] - scores["theirs"]["value"])
    tested = baseline["significance"]["validation"]
    assert [one["name"] for one in tested] == ["BLEU", "chrF2"] and baseline["not_compared"] == []
    # What was tested is what was scored.
    assert tested[0]["value"] == pytest.approx(scores["ours"]["value"])
    assert tested[0]["baseline_value"] == pytest.approx(scores["theirs"]["value"])
    alone = json.loads((folder / first / "training_report.json").read_text())
    assert alone["baseline"] is None


def test_the_page_stands_alone(trained):
    folder, _, second = trained
    page = (folder / second / "training_report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 6 and not re.search(r'(src|href)="(?!data:)', page)
    for title in ("Against first", "Validations", "Texts", "Decisions while training", "Settings", "Curves"):
        assert f"<h2>{title}</h2>" in page


def test_figures_have_the_digits_that_tell_something():
    values = {"loss": 2.345678, "loss_de-en": 1.0, "perplexity": 2304.8669, "bleu": 37.6549, "chrf_de-en": 61.2,
              "repetition": 0.0123, "length_ratio": 0.98765, "off_target": 1.25, "seconds": 14.4249}  # fmt: skip
    assert [metric_text(name, value) for name, value in values.items()] == [
        "2.3457", "1.0000", "2,304.87", "37.65", "61.20", "1.2%", "0.99", "1.25", "14.4",
    ]  # fmt: skip


def test_the_table_of_validations_tells_units(trained):
    folder, first, _ = trained
    page = (folder / first / "training_report.html").read_text(encoding="utf-8")
    entry = json.loads((folder / first / "validation_history.json").read_text())[0]
    (table,) = re.findall(r"<h2>Validations</h2>.*?</table>", page, flags=re.DOTALL)
    heads = re.findall(r"<th[^>]*>(.*?)</th>", table)
    assert heads[4:] == ["Loss", "Perplexity", "Repetition", "Length ratio", "BLEU", "chrF", "took s"]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table)[: len(heads)]
    assert cells[6] == f"{100 * entry['metrics']['repetition']:.1f}%"
    assert cells[8] == f"{entry['metrics']['bleu']:.2f}" and "sequences of four words" in table


def run_with(folder: Path, name: str, predictions: list[str], references: list[str]) -> Path:
    """A finished run, as far as the significance test looks."""
    path = folder / name
    write_json(path / "run.json", {
        "schema_version": 1, "status": "finished", "recipe": "train",
        "settings": {"metrics": {"names": ["bleu"], "num_paired_samples": 200, "of_another_version": 1}},
    })  # fmt: skip
    lines = [
        json.dumps({"source": "s", "references": [reference], "prediction": prediction, "target_language": "en"})
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    (path / VALIDATION_SEGMENTS).write_text("\n".join(lines) + "\n")
    return path


def planted(count: int) -> tuple[list[str], list[str], list[str]]:
    """References, translations that are nearly right, and much worse ones."""
    draw = random.Random(3)
    references = [" ".join(draw.choices(["one", "two", "three", "four", "five", "six"], k=9)) for _ in range(count)]
    good = [text.replace("one", "won") for text in references]
    return references, good, [" ".join(draw.sample(text.split(), 9)) for text in good]


def test_a_planted_difference_is_significant_and_none_is_not(tmp_path):
    references, good, poor = planted(80)
    runs = {
        name: run_with(tmp_path, name, texts, references)
        for name, texts in (("good", good), ("same", good), ("poor", poor))
    }

    def p_value(name: str, baseline: str) -> float:
        report, _ = write_training_report(runs[name], runs[baseline])
        (comparison,) = report["baseline"]["significance"]["validation"]
        assert comparison["system"] == name and comparison["baseline"] == baseline and comparison["n"] == 80
        return comparison["p_value"]

    assert p_value("good", "poor") < 0.01 and p_value("good", "same") == 1.0
    assert math.isclose(p_value("poor", "good"), p_value("good", "poor"), abs_tol=0.01)


def test_what_cannot_be_compared_is_told(tmp_path):
    references, good, _ = planted(5)
    ours = run_with(tmp_path, "ours", good, references)
    other = run_with(tmp_path, "other", good, [*references[:4], "another one"])
    report, _ = write_training_report(ours, other)
    assert report["baseline"]["significance"] == {}
    assert report["baseline"]["not_compared"] == ["validation: the texts of ours and other differ."]
    (other / VALIDATION_SEGMENTS).unlink()
    report, sections = write_training_report(ours, other)
    (note,) = report["baseline"]["not_compared"]
    assert note.startswith("other has no translations: it was not finished, not validated, or is of an older version")
    assert any(section.title == "Against other" and note in section.notes for section in sections)


def test_a_baseline_that_went_away_while_training_costs_the_comparison_only(tmp_path, caplog):
    references, good, _ = planted(5)
    report, _ = write_training_report(run_with(tmp_path, "ours", good, references), tmp_path / "gone")
    assert report["baseline"] is None and "The report compares with no run:" in caplog.text


def test_decisions_are_told(tmp_path):
    run = run_with(tmp_path, "run", ["a"], ["a"])
    told = "The loss 9.1 of update 12 is more than 3 times the median."
    decision = {"step": 12, "epoch": 0.1, "watch": {"check": "loss_spike", "action": "skip", "told": told}}
    write_json(run / "validation_history.json", [decision, {"step": 20, "metrics": {"loss": 1.0}}])
    report, sections = write_training_report(run)
    assert report["decisions"] == [decision] and [entry["step"] for entry in report["validations"]] == [20]
    (section,) = (section for section in sections if section.title == "Decisions while training")
    assert section.table.rows == [["12", "loss_spike", "skip", told]]


def test_validations_that_were_given_up_are_shown_and_are_not_the_best(tmp_path):
    run = run_with(tmp_path, "run", ["a"], ["a"])
    history = [{"step": step, "metrics": {"loss": loss}} for step, loss in ((10, 2.0), (20, 1.0), (30, 1.5))]
    history[1]["given_up"] = True
    write_json(run / "validation_history.json", history)
    report, sections = write_training_report(run)
    assert [entry["step"] for entry in report["validations"]] == [10, 20, 30]
    assert report["run"]["best"]["loss"]["step"] == 30
    (section,) = (section for section in sections if section.title == "Validations")
    assert section.notes == ["Given up by a roll back, and counted nowhere: those of 20 updates."]


def test_the_recipe_reports_on_a_run_that_was_interrupted(trained, monkeypatch, capsys, tmp_path):
    folder, first, second = trained
    monkeypatch.chdir(folder)
    # As it would be after Ctrl-C at the end of its updates.
    interrupted = tmp_path / "interrupted-20260101-000000"
    for name in ("run.json", "metrics.jsonl", "manifest.json", "validation_history.json"):
        interrupted.mkdir(exist_ok=True)
        (interrupted / name).write_bytes((folder / second / name).read_bytes())
    record = json.loads((interrupted / "run.json").read_text())
    write_json(interrupted / "run.json", record | {"status": "interrupted"})
    module = recipe_module("report_run")
    assert module.main([str(interrupted), f"baseline={first}"]) == 0
    assert capsys.readouterr().out == f"{interrupted / 'training_report.html'}\n"
    report = json.loads((interrupted / "training_report.json").read_text())
    assert report["run"]["status"] == "interrupted" and report["run"]["updates"] == 10
    assert any(note.startswith("interrupted has no translations") for note in report["baseline"]["not_compared"])
    before = hash_file(interrupted / "run.json")
    assert module.main([str(interrupted)]) == 0
    assert hash_file(interrupted / "run.json") == before
    with pytest.raises(ConfigError, match=r"run: none is given\. Write run=runs/<id>\."):
        module.main([])
    with pytest.raises(ConfigError, match=r"run: runs holds 2 runs\. Name one of them, such as runs/first-"):
        module.main(["runs"])
    with pytest.raises(ConfigError, match=r"baseline: .* is the run itself\. Name another one\."):
        module.main([str(first), f"baseline={first / 'best'}"])
    with pytest.raises(ConfigError, match=r"baseline: nowhere: there is no such folder"):
        module.main([str(first), "baseline=nowhere"])


def test_a_baseline_that_is_none_is_refused_before_training():
    train = recipe_module("train")
    with pytest.raises(ConfigError, match=r"report\.baseline: nowhere: there is no such folder\. Give run folders"):
        train.main(["--config", str(ROOT / "recipes/configs/train/tiny.yaml"), "--dry-run", "report.baseline=nowhere"])
