"""Search for settings: a study of trials, each a run of a recipe with values drawn from ranges.

The study lives in a folder, and its trials in a journal there (Optuna's), which several processes may write at once:

    study.json      what is searched for: recipe, settings, ranges, metric
    journal.log     all trials: values, validations, how they ended
    trials/         a run folder for each trial, and the log of its process
    best.yaml  trials.tsv  plots/

A draw depends on the seed, on the number of the trial and on what the trials before it found, so that a study that was
stopped and goes on draws what it would have drawn.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import file_lock, is_held, write_json
from hf_nmt.config import differences, fingerprint
from hf_nmt.errors import ConfigError, NmtError, need
from hf_nmt.tuning.settings import TuningSettings
from hf_nmt.tuning.trials import (
    Outcome,
    Validation,
    children_seconds,
    cost_of,
    goes_on_at,
    outcome_of,
    run_folder,
    run_trial,
)

# So many trials that all fail: the fault is not in the values.
_FAILURES = 3

logger = logging.getLogger(__name__)

RunTrial = Callable[..., Outcome]


class Study:
    """The trials of a search, in its folder; any number of processes may hold one.

    Args:
        settings: of the search.
        resolved: all settings of the recipe with the first value of each range, by which a study is known again.
        command: what starts a run of the recipe, to which its settings are added.
        run: runs a trial, see `run_trial`.

    Raises:
        ConfigError: there is a study in this folder that searches for something else.
    """

    def __init__(
        self, settings: TuningSettings, resolved: Mapping[str, Any], command: list[str], run: RunTrial = run_trial
    ):
        self.settings, self.command, self.run = settings, command, run
        self.folder = settings.study
        self.ranges = settings.ranges()
        self.optuna = need("optuna", "tune")
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        with file_lock(self.folder / "study", timeout_seconds=-1):
            self._remember(resolved)
            journal = self.optuna.storages.journal.JournalFileBackend(str(self.folder / "journal.log"))
            self.optuna_study = self.optuna.create_study(
                storage=self.optuna.storages.JournalStorage(journal),
                study_name="study",
                direction="minimize" if settings.falls else "maximize",
                pruner=self._pruner(),
                load_if_exists=True,
            )

    def optimize(self) -> None:
        """Run trials until the budget is spent.

        Raises:
            NmtError: the first trials all failed.
            KeyboardInterrupt: the user stops it; the trial at work goes on from its last checkpoint when the study
                does, or is begun anew where it has none.
        """
        while True:
            with ExitStack() as held:
                trial = self._next(held)
                if trial is None:
                    return
                self._run(trial)
            self._clean()
            ended = [trial for trial in self.counted if trial.state.is_finished()]
            if len(ended) >= _FAILURES and all(trial.state.name == "FAIL" for trial in ended):
                raise NmtError(
                    f"All {len(ended)} trials so far failed, the last one so: {ended[-1].user_attrs.get('error')} "
                    f"Their logs are in {self.folder / 'trials'}."
                )

    @property
    def trials(self) -> list[Any]:
        return self.optuna_study.get_trials(deepcopy=False)

    @property
    def counted(self) -> list[Any]:
        """The trials begun, but for those that were stopped and are tried again."""
        again = {trial.user_attrs.get("instead_of") for trial in self.trials}
        return [trial for trial in self.trials if trial.state.name != "WAITING" and trial.number not in again]

    @property
    def best(self) -> Any | None:
        """The best of the trials that ran to their end; None where there is none."""
        whole = [trial for trial in self.trials if trial.state.name == "COMPLETE"]
        return min(whole, key=lambda trial: trial.value if self.settings.falls else -trial.value, default=None)

    def spent(self) -> dict[str, float]:
        """What all trials have cost, those that were stopped too, in the units of `budget`."""
        costs = [trial.user_attrs for trial in self.trials]
        costs += [trial.user_attrs.get("lost", {}) for trial in self.trials]
        return {
            "trials": len(self.counted),
            "updates": sum(cost.get("updates", 0) for cost in costs),
            "cpu_minutes": round(sum(cost.get("cpu_seconds", 0.0) for cost in costs) / 60, 2),
        }

    def _reserved(self) -> dict[str, float]:
        """What the trials at work may cost, in the units of `budget`: each as much as the costliest that has ended.
        Before one has, that is not known."""
        at_work = sum(trial.state.name == "RUNNING" for trial in self.trials)
        costs = [trial.user_attrs for trial in self.trials if trial.state.is_finished()]
        updates, seconds = (max((cost.get(key, 0) for cost in costs), default=0) for key in ("updates", "cpu_seconds"))
        return {"trials": 0, "updates": at_work * updates, "cpu_minutes": at_work * seconds / 60}

    def values(self, trial: Any) -> dict[str, Any]:
        """What was drawn for a trial, by key, as settings have it."""
        return {key: self.ranges[key].value(value) for key, value in trial.params.items()}

    def _remember(self, resolved: Mapping[str, Any]) -> None:
        """Write what is searched for; a study that goes on must search for the same."""
        told = self.settings.model_dump(mode="json", include={"recipe", "search", "metric"})
        now = json.loads(json.dumps({**told, "resolved": dict(resolved)}))
        path = self.folder / "study.json"
        if not path.is_file():
            write_json(path, now)
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            f"{key.removeprefix('resolved.')}: given {json.dumps(after)}, but the study has {json.dumps(old)}."
            for key, old, after in differences(before, now)
        ]
        if changed:
            raise ConfigError(
                f"study: {self.folder} searches for something else. {' '.join(changed[:4])} Name another folder for a "
                "new study, or give what this one was started with."
            )

    def _pruner(self) -> Any:
        pruning, pruners = self.settings.pruning, self.optuna.pruners
        if pruning.method == "none":
            return pruners.NopPruner()
        if pruning.method == "median":
            return pruners.MedianPruner(n_startup_trials=pruning.startup_trials)
        return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=pruning.halving_factor)

    def _sampler(self, number: int) -> Any:
        """The draws of trial `number`, by a seed of its own: one sampler for all would draw the first trials once
        more whenever the study goes on."""
        seed = int(fingerprint(self.settings.seed, number)[:8], 16)
        samplers = self.optuna.samplers
        if self.settings.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(n_startup_trials=self.settings.startup_trials, seed=seed)

    def _next(self, held: ExitStack) -> Any | None:
        """A new trial, whose lock goes to `held`; None where the budget is spent. One process at a time asks."""
        with file_lock(self.folder / "study", timeout_seconds=-1):
            for trial in self.trials:
                if trial.state.name == "RUNNING" and not is_held(self._lock_of(trial)):
                    logger.warning("trial %d: its process has gone; its values are tried again.", trial.number)
                    self._give_back(trial)
            spent, budget = self.spent(), self.settings.budget.model_dump()
            reserved = self._reserved()
            if any(limit is not None and spent[name] + reserved[name] >= limit for name, limit in budget.items()):
                if all(limit is None or spent[name] < limit for name, limit in budget.items()):
                    logger.info("The trials that other processes are at may take the rest of the budget.")
                return None
            self.optuna_study.sampler = self._sampler(int(spent["trials"]))
            trial = self.optuna_study.ask({key: one.distribution() for key, one in self.ranges.items()})
            held.enter_context(file_lock(self._lock_of(trial)))
            return trial

    def _lock_of(self, trial: Any) -> Path:
        return self.folder / "trials" / _name_of(trial)

    def _give_back(self, trial: Any, cpu_seconds: float = 0.0) -> None:
        """Have the values of a trial that did not end tried again, from the last checkpoint of its run.

        The new trial keeps what this one has cost, which is not known before it has ended.

        Args:
            cpu_seconds: of its process, where that was waited for; else it is what its run recorded.
        """
        facts, folder = trial.user_attrs, self.folder / "trials"
        since = facts.get("resumed_at", 0)
        run = folder / facts["resumes"] if since else run_folder(folder, _name_of(trial))
        updates, recorded = cost_of(run, since)
        told = {
            "instead_of": trial.number,
            "lost": {"updates": updates, "cpu_seconds": round(max(cpu_seconds, recorded), 2)},
            # One that came to no run of its own leaves what it was to go on with.
            "resumes": facts.get("resumes") if run is None else run.name,
        }
        self.optuna_study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
        self.optuna_study.enqueue_trial(dict(trial.params), user_attrs=told)

    def _run(self, trial: Any) -> None:
        values = self.values(trial)
        logger.info("trial %d: %s", trial.number, " ".join(f"{key}={json.dumps(one)}" for key, one in values.items()))
        numbers = itertools.count(1)

        def on_validation(validation: Validation) -> bool:
            told = self._told([validation])
            if told:
                trial.report(told[0], next(numbers))
            return not (told and trial.should_prune())

        overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        folder, resumes, resume = self.folder / "trials", trial.user_attrs.get("resumes"), None
        # A worker that was killed may leave a run that goes to its end by itself.
        outcome = None if resumes is None else outcome_of(folder / resumes)
        if outcome is None and resumes is not None and (step := goes_on_at(folder / resumes)):
            trial.set_user_attr("resumed_at", step)
            logger.info("trial %d goes on at step %d of %s", trial.number, step, resumes)
            resume = folder / resumes, step
        before = children_seconds()
        try:
            if outcome is None:
                outcome = self.run([*self.command, *overrides], folder, _name_of(trial), on_validation, resume=resume)
        except BaseException:
            self._give_back(trial, children_seconds() - before)
            raise
        found = self._told(outcome.validations)
        error = outcome.error
        if error is None and not found:
            error = f"none of its validations told {self.settings.metric}."
        trial.set_user_attr("updates", outcome.updates)
        trial.set_user_attr("cpu_seconds", outcome.cpu_seconds)
        trial.set_user_attr("run", None if outcome.folder is None else outcome.folder.name)
        states = self.optuna.trial.TrialState
        if error is not None:
            trial.set_user_attr("error", error)
            self.optuna_study.tell(trial, state=states.FAIL)
            logger.warning("trial %d failed: %s", trial.number, error)
            return
        best = min(found) if self.settings.falls else max(found)
        trial.set_user_attr("best", best)
        trial.set_user_attr("validations", len(found))
        if outcome.pruned:
            self.optuna_study.tell(trial, state=states.PRUNED)
        else:
            self.optuna_study.tell(trial, best)
        ending = f", ended early after validation {len(found)}" if outcome.pruned else ""
        logger.info("trial %d: %s %.4f%s", trial.number, self.settings.metric, best, ending)

    def _told(self, validations: Iterable[Validation]) -> list[float]:
        """What validations tell of the metric."""
        values = (one.metrics.get(self.settings.metric) for one in validations)
        return [value for value in values if value is not None and math.isfinite(value)]

    def _clean(self) -> None:
        """Remove the weights of trials that are not the best."""
        if self.settings.keep_weights == "all":
            return
        best = self.best
        for trial in self.trials:
            run = trial.user_attrs.get("run")
            if run is not None and trial.state.is_finished() and (best is None or trial.number != best.number):
                for part in ("checkpoints", "best", "adapter"):
                    shutil.rmtree(self.folder / "trials" / run / part, ignore_errors=True)


def _name_of(trial: Any) -> str:
    return f"trial-{trial.number:04d}"
