"""Studies whose trials are a formula: what is drawn, pruned, kept, tried again and told."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from pathlib import Path

import pytest
import yaml

from hf_nmt.artifacts import mark_complete
from hf_nmt.config import load
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.tuning.report import report
from hf_nmt.tuning.settings import TuningSettings
from hf_nmt.tuning.studies import Study
from hf_nmt.tuning.trials import Outcome, Validation

pytest.importorskip("optuna")

RATE = "search.training.learning_rate={low: 1e-4, high: 1.0, log: true}"
NORM = "search.model.norm_position={choices: [pre, post]}"
RESOLVED = {"seed": 1, "name": None, "output_dir": "runs", "resume": None}


class Formula:
    """In place of `run_trial`: three validations, the best where the rate is 0.01 and norms come first.

    Attributes:
        values: the settings of each call.
        interrupt_at, fail_at: calls that are stopped, or fail.
        seconds: CPU seconds that a call tells.
    """

    def __init__(self, interrupt_at=(), fail_at=(), falls=True):
        self.values: list[dict] = []
        self.interrupt_at, self.fail_at, self.sign = interrupt_at, fail_at, 1 if falls else -1

    def __call__(self, command, folder, name, on_validation, *, resume=None):
        assert command[:2] == ["python", "train.py"]
        values = {key: json.loads(value) for key, _, value in (word.partition("=") for word in command[2:])}
        call = len(self.values)
        self.values.append(values)
        if call in self.interrupt_at:
            raise KeyboardInterrupt
        if call in self.fail_at:
            return Outcome(None, error="it was ended by signal 9.", cpu_seconds=6.0)
        run = folder / f"{name}-20260101-000000"
        for part in ("checkpoints", "best"):
            (run / part).mkdir(parents=True)
        settings = RESOLVED | {"name": name, "output_dir": str(folder), **values}
        (run / "run.json").write_text(json.dumps({"schema_version": 1, "settings": settings}))
        distance = abs(math.log10(values["training.learning_rate"]) + 2) + (
            values.get("model.norm_position") == "post"
        )
        told = []
        for number in (1, 2, 3):
            metrics = {"loss": 2 + distance + 1 / number, "bleu": 30 - 5 * distance - 1 / number}
            told.append(Validation(100 * number, metrics))
            if not on_validation(told[-1]) and number < 3:
                return Outcome(run, True, None, 100 * number, 2.0 * number, tuple(told))
        return Outcome(run, updates=300, cpu_seconds=6.0, validations=tuple(told))


def make(folder: Path, run: Formula, *overrides: str, resolved=None) -> Study:
    settings = load(TuningSettings, None, [f"study={folder / 'study'}", RATE, *overrides])
    return Study(settings, resolved or RESOLVED, ["python", "train.py"], run)


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_the_best_values_are_found_and_told(tmp_path):
    study = make(tmp_path, Formula(), NORM, "budget.trials=25", "pruning.method=none")
    study.optimize()
    lines = report(study, RESOLVED)
    best = study.values(study.best)
    assert best["model.norm_position"] == "pre" and 0.003 < best["training.learning_rate"] < 0.03
    found = load_best(study)
    assert found["training.learning_rate"] == best["training.learning_rate"] and found["output_dir"] == "runs"
    assert found["name"] is None and found["model.norm_position"] == "pre"
    rows = [line.split("\t") for line in (study.folder / "trials.tsv").read_text().splitlines()]
    assert rows[0][:3] == ["trial", "state", "loss"] and len(rows) == 26 and len(lines) == 28
    assert float(rows[1 + study.best.number][2]) == pytest.approx(study.best.value, abs=1e-4)
    assert lines[-2] == "25 trials, 7,500 updates, 2.5 CPU minutes in all"
    assert {path.name for path in (study.folder / "plots").iterdir()} == {
        "history.png", "validations.png", "values.png", "importance.png"
    }  # fmt: skip


def load_best(study: Study) -> dict:
    return yaml.safe_load((study.folder / "best.yaml").read_text())


def test_tpe_does_better_than_chance(tmp_path):
    means = {}
    for sampler in ("tpe", "random"):
        run = Formula()
        make(tmp_path / sampler, run, f"sampler={sampler}", "budget.trials=25", "pruning.method=none").optimize()
        means[sampler] = sum(abs(math.log10(one["training.learning_rate"]) + 2) for one in run.values[8:]) / 17
    assert means["tpe"] < means["random"] / 1.5


def test_kinds_of_values(tmp_path):
    run = Formula()
    ranges = [
        "search.a={low: 1, high: 9}",
        "search.b={low: 0.0, high: 1.0, step: 0.25}",
        "search.c={low: 2, high: 64, log: true}",
        "search.d={choices: [null, 3, [1, 2], text]}",
    ]
    make(tmp_path, run, *ranges, "budget.trials=30", "sampler=random").optimize()
    assert {one["a"] for one in run.values} <= set(range(1, 10)) and len({one["a"] for one in run.values}) > 5
    assert {one["b"] for one in run.values} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert all(isinstance(one["c"], int) and 2 <= one["c"] <= 64 for one in run.values)
    assert sorted({json.dumps(one["d"]) for one in run.values}) == ['"text"', "3", "[1, 2]", "null"]
    study = make(tmp_path, run, *ranges, "budget.trials=30", "sampler=random")
    assert [study.values(trial) for trial in study.trials] == run.values
    rates = sorted(one["training.learning_rate"] for one in run.values)
    assert 1e-3 < rates[15] < 1e-1  # the median of even logarithms; of even values it would be 0.5


def test_median_pruning_ends_the_worse_ones(tmp_path):
    run = Formula()
    study = make(tmp_path, run, "budget.trials=20", "sampler=random", "pruning.startup_trials=5")
    study.optimize()
    assert states(study)[:5] == ["COMPLETE"] * 5
    whole = [trial.value for trial in study.trials if trial.state.name == "COMPLETE"]
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert 5 <= len(pruned) <= 14
    # At the first validation the value is one third of 2 above the last: the best of the pruned was no best.
    assert min(trial.intermediate_values[1] for trial in pruned) - 2 / 3 > min(whole)
    assert sum(trial.user_attrs["updates"] for trial in study.trials) == study.spent()["updates"] < 6000


def test_successive_halving_leaves_one_in_three_and_nothing_prunes_without(tmp_path):
    counts = {}
    for method in ("successive_halving", "none"):
        study = make(tmp_path / method, Formula(), "budget.trials=18", "sampler=random", f"pruning.method={method}")
        study.optimize()
        counts[method] = states(study).count("PRUNED")
    assert counts["none"] == 0 and counts["successive_halving"] >= 9


def test_scores_that_rise(tmp_path):
    study = make(tmp_path, Formula(), "metric=bleu", "budget.trials=15", "pruning.method=none")
    study.optimize()
    assert study.best.value == max(trial.value for trial in study.trials) > 20
    assert abs(math.log10(study.values(study.best)["training.learning_rate"]) + 2) < 1


def test_a_study_that_was_stopped_draws_what_it_would_have_drawn(tmp_path):
    whole, halves = Formula(), Formula(interrupt_at=(6,))
    overrides = ("budget.trials=14", "startup_trials=5")
    make(tmp_path / "whole", whole, *overrides).optimize()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "halves", halves, *overrides).optimize()
    study = make(tmp_path / "halves", halves, *overrides)
    study.optimize()
    assert halves.values[6] == halves.values[7]
    assert halves.values[:6] + halves.values[7:] == whole.values
    assert study.spent()["trials"] == 14 and len(study.trials) == 15
    report(study, RESOLVED)
    assert (study.folder / "trials.tsv").read_text().splitlines()[7].split("\t")[1] == "stopped"


def test_a_larger_budget_goes_on(tmp_path):
    run = Formula()
    for trials in (3, 3, 5):
        make(tmp_path, run, f"budget.trials={trials}").optimize()
        assert len(run.values) == trials


@pytest.mark.parametrize(("budget", "trials"), [("updates=900", 3), ("updates=901", 4), ("cpu_minutes=0.35", 4)])
def test_budgets(tmp_path, budget, trials):
    run = Formula()
    make(tmp_path, run, f"budget.{budget}", "pruning.method=none").optimize()
    assert len(run.values) == trials


def test_failed_trials_are_noted_and_not_fatal(tmp_path):
    run = Formula(fail_at=(0, 2))
    study = make(tmp_path, run, "budget.trials=5")
    study.optimize()
    assert states(study) == ["FAIL", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    report(study, RESOLVED)
    row = (study.folder / "trials.tsv").read_text().splitlines()[1].split("\t")
    assert row[1] == "fail" and row[-1] == "it was ended by signal 9."


def test_where_all_trials_fail_the_study_ends(tmp_path):
    study = make(tmp_path, Formula(fail_at=range(9)), "budget.trials=9")
    with pytest.raises(NmtError, match="All 3 trials so far failed, the last one so: it was ended by signal 9"):
        study.optimize()
    assert "there is no best.yaml" in report(study, RESOLVED)[-1] and not (study.folder / "best.yaml").exists()


def test_the_values_of_a_killed_process_are_tried_again(tmp_path):
    """A trial that is at work has its lock; one whose process has gone has none."""
    run = Formula()
    study = make(tmp_path, run, "budget.trials=3")
    ranges = {key: one.distribution() for key, one in study.ranges.items()}
    lost = study.optuna_study.ask(ranges)
    study.optimize()
    assert run.values[0] == {"training.learning_rate": lost.params["training.learning_rate"]}
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"] and study.spent()["trials"] == 3


class Stopped(Formula):
    """Its first call is stopped after 200 updates, with a checkpoint at 150; what goes on begins there."""

    def __call__(self, command, folder, name, on_validation, *, resume=None):
        if resume is not None:
            self.resumed = resume[0].name, resume[1]
            assert command[:2] == ["python", "train.py"]
            return super().__call__(command, folder, name, on_validation)
        if self.values:
            return super().__call__(command, folder, name, on_validation)
        self.values.append({})
        run = folder / f"{name}-20260101-000000"
        checkpoint = run / "checkpoints" / "step-150"
        checkpoint.mkdir(parents=True)
        mark_complete(checkpoint)
        (run / "run.json").write_text(json.dumps({"schema_version": 1, "status": "interrupted"}))
        metrics = [{"step": step, "name": "loss", "value": 2.0, "cpu_seconds": step / 10} for step in (100, 200)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in metrics))
        on_validation(Validation(100, {"loss": 3.0}))
        raise KeyboardInterrupt


def test_a_stopped_trial_counts_in_the_budget_and_goes_on_from_its_checkpoint(tmp_path):
    run = Stopped()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, run, "budget.trials=2").optimize()
    study = make(tmp_path, run, "budget.trials=2", "pruning.method=none")
    assert study.spent() == {"trials": 0, "updates": 200, "cpu_minutes": round(20 / 60, 2)}
    study.optimize()
    assert run.resumed == ("trial-0000-20260101-000000", 150)
    assert study.spent() == {"trials": 2, "updates": 800, "cpu_minutes": round(32 / 60, 2)}
    rows = [line.split("\t") for line in (report(study, RESOLVED), study.folder / "trials.tsv")[1].open()]
    assert [row[:2] + row[4:6] for row in rows[1:]] == [
        ["0", "stopped", "200", "20.0"], ["1", "complete", "300", "6.0"], ["2", "complete", "300", "6.0"],
    ]  # fmt: skip
    run = Stopped()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "twice", run).optimize()
    study = make(tmp_path / "twice", run, "budget.trials=1")
    study.optuna_study.ask({key: one.distribution() for key, one in study.ranges.items()})  # and its process has gone
    study.optimize()
    assert run.resumed == ("trial-0000-20260101-000000", 150) and states(study) == ["FAIL", "FAIL", "COMPLETE"]
    spent_up = make(tmp_path / "other", Stopped(), "budget.updates=200")
    with pytest.raises(KeyboardInterrupt):
        spent_up.optimize()
    spent_up.optimize()
    assert states(spent_up) == ["FAIL", "WAITING"]


def test_a_run_that_ended_after_its_worker_was_killed_is_not_made_again(tmp_path):
    run = Formula()
    study = make(tmp_path, run, "budget.trials=2")
    lost = study.optuna_study.ask({key: one.distribution() for key, one in study.ranges.items()})
    folder = study.folder / "trials" / f"trial-{lost.number:04d}-20260101-000000"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema_version": 1, "status": "finished"}))
    entries = [{"step": 300, "metrics": {"loss": 1.5}}]
    (folder / "validation_history.json").write_text(json.dumps(entries))
    metric = {"step": 300, "name": "loss", "value": 2.0, "cpu_seconds": 30.0}
    (folder / "metrics.jsonl").write_text(json.dumps(metric) + "\n")
    study.optimize()
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"] and len(run.values) == 1
    again = study.trials[1]
    assert again.value == 1.5 and again.params == lost.params and again.user_attrs["run"] == folder.name
    assert study.spent() == {"trials": 2, "updates": 600, "cpu_minutes": 0.6}


def test_validations_that_a_run_gave_up_are_not_its_best(tmp_path):
    class GivingUp(Formula):
        def __call__(self, *given, **more):
            outcome = super().__call__(*given, **more)
            return dataclasses.replace(outcome, validations=outcome.validations[:1])

    study = make(tmp_path, GivingUp(), "budget.trials=1")
    study.optimize()
    (trial,) = study.trials
    assert trial.value == trial.intermediate_values[1] > min(trial.intermediate_values.values())
    report(study, RESOLVED)
    row = (study.folder / "trials.tsv").read_text().splitlines()[1].split("\t")
    assert row[2:4] == [f"{trial.value:.4f}", "1"]


def test_several_at_once_share_one_budget(tmp_path):
    runs = [Formula() for _ in range(3)]
    studies = [make(tmp_path, run, "budget.trials=12", "sampler=random") for run in runs]
    threads = [threading.Thread(target=study.optimize) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = [json.dumps(one) for run in runs for one in run.values]
    assert len(values) == 12 == len(set(values))
    assert all(state in ("COMPLETE", "PRUNED") for state in states(studies[0])) and len(states(studies[0])) == 12


@pytest.mark.parametrize(("budget", "trials"), [("updates=1300", 5), ("cpu_minutes=0.45", 5), ("updates=1200", 4)])
def test_a_trial_at_work_has_its_cost_reserved(tmp_path, budget, trials, caplog):
    """Each trial costs 300 updates and 0.1 minutes: as many as a single process would make, and no more."""
    caplog.set_level("INFO")
    settings = ("sampler=random", "pruning.method=none", f"budget.{budget}")
    second = Formula()

    class Meanwhile(Formula):
        def __call__(self, *given, **resume):
            if len(self.values) == 1:  # one trial has ended, and this one is at work
                worker = threading.Thread(target=make(tmp_path, second, *settings).optimize)
                worker.start()
                worker.join()
            return super().__call__(*given, **resume)

    first = Meanwhile()
    study = make(tmp_path, first, *settings)
    study.optimize()
    assert len(second.values) == trials - 2 and len(first.values) == 2
    assert study.spent()["updates"] == 300 * trials
    assert "may take the rest of the budget" in caplog.text
    alone = Formula()
    make(tmp_path / "alone", alone, *settings).optimize()
    assert len(alone.values) == trials


@pytest.mark.parametrize(("keep", "kept"), [("best", 1), ("all", 6)])
def test_weights_of_the_others_are_removed(tmp_path, keep, kept):
    study = make(tmp_path, Formula(), "budget.trials=6", "pruning.method=none", f"keep_weights={keep}")
    study.optimize()
    whole = [path.parent for path in study.folder.glob("trials/*/best")]
    assert len(whole) == kept == len(list(study.folder.glob("trials/*/checkpoints")))
    assert study.folder / "trials" / study.best.user_attrs["run"] in whole
    assert len(list(study.folder.glob("trials/*/run.json"))) == 6


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    make(tmp_path, Formula(), NORM)
    with pytest.raises(ConfigError, match="searches for something else. search.model: given null, but the study has"):
        make(tmp_path, Formula())
    with pytest.raises(ConfigError, match="seed: given 2, but the study has 1. Name another folder"):
        make(tmp_path, Formula(), NORM, resolved=RESOLVED | {"seed": 2})
    make(tmp_path, Formula(), NORM, "budget.trials=3", "pruning.method=none", "sampler=random")
