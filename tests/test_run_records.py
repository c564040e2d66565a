"""hf_nmt/run_records.py: what runs left behind, read back."""

from __future__ import annotations

import json

import families
import pytest
import toy_training

from hf_nmt.artifacts import file_lock
from hf_nmt.errors import ConfigError
from hf_nmt.run_records import count_weights, find_runs, leaves, model_folder, read_records, short_names


@pytest.mark.parametrize("name", ["marian", "m2m_100", "mbart", "t5", "mt5", "bart"])
def test_sizes_from_the_headers_are_those_of_the_loaded_model(name, tmp_path):
    model, _ = families.load(name)
    model.save_pretrained(tmp_path)
    embeddings = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    embeddings |= {weight for key, weight in model.named_parameters() if "embed_positions" in key}
    embeddings |= {weight for key, weight in model.named_parameters() if "embed_tokens" in key}
    counted = count_weights(tmp_path)
    assert counted[1] == model.num_parameters() - sum(weight.numel() for weight in embeddings)
    assert counted[0] >= counted[1] + model.get_input_embeddings().weight.numel()


@pytest.mark.parametrize("tied", [True, False])
def test_sizes_of_our_model(tied, tmp_path):
    model = toy_training.make_model(tie_word_embeddings=tied, position_embedding="learned")
    model.save_pretrained(tmp_path)
    layers = sum(weight.numel() for key, weight in model.named_parameters() if ".layers." in key or "norm" in key)
    assert count_weights(tmp_path) == (model.num_parameters(), layers)


def test_no_weights_have_no_size(tmp_path):
    assert count_weights(tmp_path) is None
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert count_weights(tmp_path) is None


def test_runs_are_found_by_any_folder_of_theirs(tmp_path):
    folders = [toy_training.make_run(tmp_path / "runs", name=name).folder for name in ("a", "b")]
    (folders[0] / "checkpoints" / "step-2").mkdir(parents=True)
    assert find_runs([tmp_path / "runs"]) == sorted(folders)
    assert find_runs([folders[1], folders[0] / "checkpoints" / "step-2", folders[1]]) == [folders[1], folders[0]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as error:
        find_runs([tmp_path / "nowhere", folders[0], tmp_path / "empty"])
    assert [finding.partition(": ")[2] for finding in error.value.findings] == [
        "there is no such folder. Give run folders, such as runs/<id>, or a folder of them.",
        "it is no run folder, and holds none. Give run folders, such as runs/<id>, or a folder of them.",
    ]


def test_names_are_as_short_as_tells_them_apart(tmp_path):
    names = ["a-20260101-120000", "b-20260101-120000", "b-20260102-120000-2", "plain"]
    assert short_names([tmp_path / name for name in names]) == ["a", *names[1:]]
    twice = [tmp_path / "x" / names[0], tmp_path / "y" / names[0]]
    assert short_names(twice) == list(map(str, twice))


def test_torn_records_are_told_and_count_as_missing(tmp_path):
    run = toy_training.make_run(tmp_path)
    (run.folder / "summary.json").write_text('{"steps": ')
    (run.folder / "manifest.json").write_text("[]")
    run.add_validation({"step": 5, "metrics": {"loss": 2.0}})
    run.add_validation({"step": 6, "decision": "skip"})
    records = read_records(run.folder)
    assert records.summary == {} and records.run["recipe"] == "train"
    assert [entry["step"] for entry in records.validations] == [5]
    assert [entry["step"] for entry in records.decisions] == [6]
    assert len(records.problems) == 2
    assert "summary.json: not JSON" in "".join(records.problems)
    assert "manifest.json: not what hf_nmt writes there." in "".join(records.problems)
    nothing = read_records(tmp_path / "nowhere")
    assert nothing.run == {} and nothing.validations == [] and nothing.problems == []


def test_a_run_that_nobody_writes_was_killed(tmp_path):
    run = toy_training.make_run(tmp_path)
    assert json.loads((run.folder / "run.json").read_text())["status"] == "running"
    with file_lock(run.folder / "run"):
        assert read_records(run.folder).status == "running"
    assert read_records(run.folder).status == "killed"
    with run:
        pass
    assert read_records(run.folder).status == "finished"


def test_weights_are_those_of_the_newest_whole_checkpoint_where_there_is_no_best(tmp_path):
    run = toy_training.make_run(tmp_path)
    trainer = toy_training.make_trainer(run, max_steps=4, save_steps=2)
    trainer.train()
    records = read_records(run.folder)
    assert model_folder(records).name == "step-4"
    (run.checkpoints / "step-4" / "COMPLETE").unlink()
    assert model_folder(records).name == "step-2"
    trainer.model.save_pretrained(run.best)
    assert model_folder(records) == run.best


def test_what_was_spent_on_the_processor_is_with_every_metric(tmp_path):
    run = toy_training.make_run(tmp_path)
    trainer = toy_training.make_trainer(run, max_steps=6, logging_steps=2)
    trainer.train()
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["cpu_seconds"] for line in lines]
    assert len(lines) > 6 and seconds == sorted(seconds) and seconds[0] > 0
    assert seconds[-1] <= round(trainer.stopwatch.cpu_seconds, 3)


def test_leaves():
    tree = {"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "f": None, "g": {}}
    assert leaves(tree) == {"a.b": 1, "a.c.d": [1, {"e": 2}], "f": None, "g": {}}
