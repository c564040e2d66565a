"""Runs side by side, made with what writes runs and with planted figures."""

from __future__ import annotations

import json
import re

import pytest
import toy_training
from PIL import Image
from run_records import score, write_evaluation, write_run
from settings_walk.keys import recipe_module

from hf_nmt import runs
from hf_nmt.artifacts import write_json
from hf_nmt.errors import ConfigError
from hf_nmt.evaluation.run_comparison import differing_settings, gather, write_comparison
from hf_nmt.evaluation.run_facts import is_better

SETTINGS = {
    "name": "x", "output_dir": "/secret/a",
    "data": {"train": {"source": "/secret/a/train.de", "max_rows": None}, "validation": {"source": "/secret/val.de"}},
    "model": {"d_model": 256, "adapter": None}, "training": {"learning_rate": 1e-3, "warmup_steps": 400},
}  # fmt: skip


def changed(tree: dict, **changes) -> dict:
    """A tree with other values at dotted paths, written with __."""
    copy = json.loads(json.dumps(tree))
    for path, value in changes.items():
        *above, last = path.split("__")
        node = copy
        for step in above:
            node = node[step]
        node[last] = value
    return copy


def make_run(folder, name, settings=SETTINGS, *, texts=None, cpu=True):
    """A run of 40 updates with four logs and two validations: 100 tokens an update, 10 updates in 2 s and 1 s of CPU;
    a validation takes 3 s more."""
    texts = {"train": "aa" * 32, "validation": "bb" * 32} if texts is None else texts
    run = runs.start(
        "train", settings, folder, name, data=texts, seeds={"seed": 1}, device={"type": "cpu", "name": "A"}
    )
    for part in range(1, 5):
        seconds = 2 * part + 3 * (part // 2)
        spent = {"epoch": part / 4, "tokens": 1000 * part, "seconds": seconds, "cpu_seconds": part if cpu else None}
        logged = {"loss": 8 / part, "tokens_per_second": 500.0}
        run.add_metrics(10 * part, logged, **spent)
        if part % 2 == 0:
            bleu = {2: 21.0, 4: 20.0}[part]
            run.add_metrics(10 * part, {"eval_loss": 3 / part, "eval_bleu": bleu}, **spent)
            run.add_validation(
                {"step": 10 * part, "tokens": 1000 * part, "seconds": seconds,
                 "metrics": {"loss": 3 / part, "bleu": bleu, "seconds": 3.0}}
            )  # fmt: skip
    return run


def finish(run, value=22.5):
    write_json(run.folder / "summary.json", {
        "best": {"kind": "average", "steps": [30, 40]}, "scores": [score(value, system="0" * 16)], "steps": 40,
        "epochs": 1.0, "tokens": 4000, "seconds": 14.0, "training_seconds": 8.0, "cpu_seconds": 4.0,
        "tokens_per_second": 500.0, "parameters": 1234,
    })  # fmt: skip
    with run:
        pass


def cells(sections, title):
    """Row name -> heading -> cell."""
    (table,) = (section.table for section in sections if section.title == title)
    return {row[0]: dict(zip(table.headings, row, strict=True)) for row in table.rows}


@pytest.fixture
def compared(tmp_path):
    first, second = make_run(tmp_path, "first"), make_run(tmp_path, "second", changed(SETTINGS, model__d_model=512))
    finish(first)
    return first, second, gather([first.folder, second.folder])


def test_costs_and_scores_are_those_that_were_written(compared, tmp_path):
    *_, facts = compared
    sections = write_comparison(facts, tmp_path / "out", replace=False)
    cost = cells(sections, "Cost")
    assert list(cost) == ["first", "second"]
    assert {key: cost["first"][key] for key in ("status", "parameters", "updates", "tokens", "wall s", "CPU s")} == {
        "status": "finished", "parameters": "1,234", "updates": "40", "tokens": "4,000", "wall s": "14.0",
        "CPU s": "4.0",
    }  # fmt: skip
    # Without a summary, from the last log; the speed is that of training alone, as in a summary.
    second = {
        "status": "killed", "updates": "40", "wall s": "14.0", "CPU s": "4.0", "tokens/s": "500", "parameters": "-",
    }  # fmt: skip
    assert {key: cost["second"][key] for key in second} == second
    validation = cells(sections, "Scores on validation")
    for name in ("first", "second"):
        assert validation[name]["best bleu"] == "21.00 at 20" and validation[name]["last bleu"] == "20.00"
        assert validation[name]["best loss"] == "0.7500 at 40"
    assert validation["first"]["its BLEU"] == "22.50" and validation["second"]["its BLEU"] == "-"
    assert cells(sections, "Settings that differ") == {
        "model.d_model": {"setting": "model.d_model", "first": "256", "second": "512"}
    }
    (notes,) = (section.notes for section in sections if section.title == "What is missing")
    assert "There is no summary" in "".join(note for note in notes if note.startswith("second"))


def test_speed_of_an_unfinished_run_weighs_its_logs_by_their_time(tmp_path):
    run = runs.start("train", SETTINGS, tmp_path, "one", data={}, seeds={}, device={})
    for tokens, speed in ((1000, 500.0), (4000, 1000.0)):  # 2 s, then 3 s
        run.add_metrics(tokens, {"tokens_per_second": speed}, epoch=0, tokens=tokens, seconds=9)
    (facts,) = gather([run.folder])
    assert facts.tokens_per_second == pytest.approx(4000 / 5)


@pytest.mark.parametrize(
    ("metric", "value", "other"),
    [
        ("bleu", 2, 1), ("chrf_de-en", 2, 1), ("loss", 1, 2), ("ter", 1, 2), ("off_target_de-en", 1, 2),
        ("repetition", 0.1, 0.2), ("length_ratio", 0.9, 1.2), ("length_ratio_de-en", 1.1, 0.8),
    ],
)  # fmt: skip
def test_which_of_two_values_is_better(metric, value, other):
    assert is_better(metric, value, other) and not is_better(metric, other, value) and not is_better(metric, 1, 1)


def differing(tmp_path, *settings, texts=None):
    made = [
        make_run(tmp_path, f"r{number}", one, texts=texts and texts[number]) for number, one in enumerate(settings)
    ]
    return differing_settings(gather([run.folder for run in made]))


def test_only_what_differs_in_what_was_trained_is_shown(tmp_path):
    elsewhere = changed(SETTINGS, name="y", output_dir="/secret/b", data__train__source="/secret/b/train.de")
    assert differing(tmp_path, SETTINGS, elsewhere) == ({}, [])
    other = changed(elsewhere, data__train__source="/secret/b/other.de", training__learning_rate=5e-4)
    texts = [{"train": "aa"}, {"train": "bb"}]
    found, _ = differing(tmp_path / "texts", SETTINGS, other, texts=texts)
    assert found == {
        "data.train.source": ["train.de", "other.de"],
        "training.learning_rate": ["0.001", "0.0005"],
    }


def test_sections_that_are_null_or_of_another_version(tmp_path):
    adapter = changed(SETTINGS, model__adapter={"rank": 4, "type": "lora"})
    wider = changed(adapter, model__adapter__rank=8)
    older = changed(SETTINGS)
    del older["training"]["warmup_steps"]
    found, unrecorded = differing(tmp_path, SETTINGS, adapter, wider, older)
    assert found == {"model.adapter": ["null", "set", "set", "null"], "model.adapter.rank": ["-", "4", "8", "-"]}
    assert unrecorded == ["training.warmup_steps"]


def test_a_section_that_a_run_lacks_is_named_once(tmp_path):
    newer = changed(SETTINGS, watch={"a": 1, "b": {"c": 2}}, training__more=3)
    made = [make_run(tmp_path, f"r{number}", one) for number, one in enumerate((SETTINGS, newer))]
    sections = write_comparison(gather([run.folder for run in made]), tmp_path / "out", replace=False)
    (notes,) = (section.notes for section in sections if section.title == "Settings that differ")
    assert list(notes) == ["Not recorded by every run: training.more, watch."]


def test_runs_that_lack_nearly_everything_still_appear(tmp_path):
    empty = runs.start("train", SETTINGS, tmp_path, "empty", data={}, seeds={}, device={})
    old = make_run(tmp_path, "old", {"training": {"lr": 1}}, cpu=False)
    old.update(schema_version=0)
    torn = make_run(tmp_path, "torn")
    (torn.folder / "run.json").write_text('{"status"')
    (torn.folder / "metrics.jsonl").write_text('{"step": 1}\n[]\n{"step"')
    streamed = make_run(tmp_path, "streamed", texts={"train": "cc" * 32})
    (streamed.folder / "validation_history.json").unlink()
    all_facts = gather([one.folder for one in (empty, old, torn, streamed)])
    sections = write_comparison(all_facts, tmp_path / "out", replace=False)
    cost = cells(sections, "Cost")
    assert list(cost) == ["empty", "old", "torn", "streamed"] and cost["torn"]["status"] == "unknown"
    told = {facts.name: " ".join(facts.missing) for facts in all_facts}
    assert "ended before its first log" in told["empty"] and "no validations" in told["empty"]
    assert "run.json is of version 0, not 1" in told["old"] and "CPU seconds were not recorded" in told["old"]
    assert "run.json: not JSON" in told["torn"] and "lines of another form" in told["torn"]
    assert "There were no validations." in told["streamed"] and cost["streamed"]["updates"] == "40"
    assert all("no weights were saved" in text for text in told.values())


def test_scores_of_test_sets_are_found_by_the_hash_of_the_model(tmp_path):
    models = []
    for seed in (1, 2):
        toy_training.make_model(seed).save_pretrained(tmp_path / f"model{seed}")
        models.append(write_run(tmp_path / f"run{seed}", tmp_path / f"model{seed}"))
    evaluations = tmp_path / "predictions"
    write_evaluation(evaluations / "x" / "20260101-000000", models[0] / "best", 30.0)
    write_evaluation(evaluations / "y" / "20260102-000000", models[0] / "best", 31.0)  # the same again
    write_evaluation(evaluations / "x" / "20260103-000000", models[0] / "best", 40.0, name="test_2017.de")
    write_evaluation(evaluations / "z" / "20260101-000000", models[1] / "best", 50.0)
    torn = write_evaluation(evaluations / "t" / "20260104-000000", models[1] / "best", 60.0)
    (torn / "COMPLETE").unlink()
    facts = gather(models, [evaluations, tmp_path / "nowhere"])
    sections = write_comparison(facts, tmp_path / "out", replace=False)
    tests = cells(sections, "Scores on test sets")
    assert tests["run1"] == {"run": "run1", "test_2016.de BLEU": "31.00", "test_2017.de BLEU": "40.00"}
    assert tests["run2"]["test_2016.de BLEU"] == "50.00" and tests["run2"]["test_2017.de BLEU"] == "-"
    assert not any("60.00" in cell for row in tests.values() for cell in row.values())


def test_the_written_page_needs_no_other_file_and_the_pictures_show_the_curves(compared, tmp_path):
    *_, facts = compared
    write_comparison(facts, tmp_path / "out", replace=False)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"training_loss.png", "validation_loss.png", "validation_bleu.png"}
    assert written == {"comparison.html", "comparison.md", "comparison.json", *pictures}
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3 and not re.search(r'(src|href)="(?!data:)', page)
    markdown = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.png)\)", markdown)) == pictures
    assert markdown.count("\n| first") == 2 and "| model.d_model |" in markdown
    for name in pictures:
        image = Image.open(tmp_path / "out" / name).convert("RGB")
        colours = {colour for _, colour in image.getcolors(1 << 20)}
        assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} & colours  # of the lines; one may lie on the other
    record = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert [run["name"] for run in record["runs"]] == ["first", "second"]
    assert record["runs"][1]["curves"]["eval_bleu"] == {
        "step": [20, 40], "tokens": [2000, 4000], "seconds": [7, 14], "cpu_seconds": [2, 4], "value": [21.0, 20.0],
    }  # fmt: skip


def test_the_recipe_takes_folders_as_a_shell_gives_them(compared, tmp_path, monkeypatch, capsys):
    first, second, _ = compared
    monkeypatch.chdir(tmp_path)
    module = recipe_module("compare_runs")
    assert module.main([first.folder.name, second.folder.name]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Cost\nrun") and "model.d_model" in shown
    with pytest.raises(ConfigError, match=r"output: comparison exists\. Choose another name, or .* overwrite=true\."):
        module.main(["."])
    assert module.main([".", "overwrite=true"]) == 0
    assert capsys.readouterr().out == shown
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="output: mine is no comparison, and so is not replaced"):
        module.main([".", "output=mine", "overwrite=true"])
    with pytest.raises(ConfigError, match=r"runs: none are given\. Write runs=\["):
        module.main(["output=new"])
    with pytest.raises(ConfigError, match="runs: nowhere: there is no such folder"):
        module.main(["nowhere", "output=new"])
