"""Judges updates and validations of a training: numbers in, decisions out.

Every update is judged by its loss and its gradient norm, every validation by its scores and by how its translations
look. `rescue.py` measures and does what is decided here.

Going back to a checkpoint and on past the batches that led to a spike: Chowdhery et al. (2022), PaLM, 5.1. Repetition
is seq-rep-4 of Welleck et al. (2020), Neural Text Generation with Unlikelihood Training, eq. 10.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hf_nmt.training.watch_settings import ACTIONS, OF_UPDATES, OF_VALIDATIONS, WatchSettings

# What a training that was stopped is told to change.
ADVICE = "Lower training.learning_rate or raise the warm-up (schedule)"

# A median absolute deviation times this is the standard deviation of a normal distribution (Rousseeuw and Croux 1993).
_MAD_SCALE = 1.4826
# A loss that hardly varies must not make a spike of every breath.
_LEAST_DEVIATION = 0.01
# Scores below this many points are those of a model that has not learnt to translate yet, and jump.
_LEAST_BEST_SCORE = 2.0
_SCORES = ("bleu", "chrf")
_REPEATED = 4  # length of the sequences of words of which repetition is told
_BOUND_OF = {"lower_learning_rate": "max_lowerings", "skip": "max_skips", "roll_back": "max_roll_backs"}


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is done about a finding.

    Attributes:
        step: the update, or the update after which was validated.
        check: which of the settings found it.
        action: one of `ACTIONS`.
        value, limit: what was measured, None where it is no finite number, and what is allowed.
        told: a sentence about both.
        count: how often this action was taken in the run, with this; 0 of a warning.
        to_step: the checkpoint that was gone back to.
    """

    step: int
    check: str
    action: str
    value: float | None
    limit: float | None
    told: str
    count: int = 0
    to_step: int | None = None

    @property
    def discards_update(self) -> bool:
        """Whether the gradients of the update must not reach the weights."""
        return self.check in OF_UPDATES and (self.action in ("skip", "roll_back") or self.check == "not_finite")


class Finding(NamedTuple):
    """What was measured, what is allowed, and a sentence about both; no numbers where it is no finite one."""

    value: float | None
    limit: float | None
    told: str


def _from(value: float, limit: float, told: str) -> Finding | None:
    """A finding where the limit is reached."""
    return Finding(value, limit, told) if value >= limit else None


class Watch:
    """Remembers what was normal and how often something was done, and judges by it.

    All that it remembers is plain numbers, and the same on every process.
    """

    def __init__(self, settings: WatchSettings):
        self.settings = settings
        self.factor = 1.0  # of the learning rate
        self._losses: deque[float] = deque(maxlen=settings.window_updates)
        self._norms: deque[float] = deque(maxlen=settings.window_updates)
        self._in_a_row: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._best: dict[str, float] = {}
        self._last_good_validation: int | None = None
        self._went_back_to: int | None = None

    # Judging

    def judge_update(self, step: int, loss: float, norm: float | None) -> list[Decision]:
        """What to do about an update, the strongest action first; the numbers of one that is made are remembered.

        Args:
            step: number of the update, from 1.
            loss: of all its tokens.
            norm: of its gradients before clipping; None where it says nothing.
        """
        found = self._of_update(step, loss, norm)
        decisions = self._decide(step, OF_UPDATES, found)
        if not (decisions and decisions[0].discards_update) and "not_finite" not in found:
            self._losses.append(loss)
            if norm is not None:
                self._norms.append(norm)
        return decisions

    def judge_validation(self, step: int, values: Mapping[str, float]) -> list[Decision]:
        """What to do about a validation, the strongest action first.

        Args:
            step: updates so far.
            values: some of bleu, chrf, repetition, length_ratio.
        """
        found: dict[str, Finding | None] = {}
        if step > self.settings.grace_updates:
            found = {
                "score_collapse": self._collapse(values),
                "repetition": self._repeats(values),
                "length_ratio": self._lengths(values),
            }
        for name in _SCORES:
            if name in values:
                self._best[name] = max(values[name], self._best.get(name, values[name]))
        if not any(found.values()):
            self._last_good_validation = step
        return self._decide(step, OF_VALIDATIONS, found)

    def _of_update(self, step: int, loss: float, norm: float | None) -> dict[str, Finding | None]:
        found: dict[str, Finding | None] = {}
        measured = {"loss": loss, "gradient norm": norm}
        broken = [name for name, value in measured.items() if value is not None and not math.isfinite(value)]
        if broken:
            told = f"The training {broken[0]} is {measured[broken[0]]} at step {step}."
            found["not_finite"] = Finding(None, None, told)
        if step > self.settings.grace_updates and "loss" not in broken:
            found["loss_spike"] = self._spike(step, loss)
            if norm is not None and not broken:
                found["gradient_norm"] = self._growth(step, norm)
        return found

    def _spike(self, step: int, loss: float) -> Finding | None:
        if (median := self._usual(self._losses)) is None:
            return None
        deviation = _MAD_SCALE * statistics.median(abs(one - median) for one in self._losses)
        distance = (loss - median) / max(deviation, _LEAST_DEVIATION * abs(median), 1e-12)
        return _from(
            distance,
            self.settings.loss_spike.deviations,
            f"The loss of step {step}, {loss:.4g}, lies {distance:.1f} deviations above the median of the last "
            f"{len(self._losses)} updates, {median:.4g}.",
        )

    def _growth(self, step: int, norm: float) -> Finding | None:
        if not (median := self._usual(self._norms)):
            return None
        times = norm / median
        return _from(
            times,
            self.settings.gradient_norm.times_median,
            f"The gradient norm of step {step}, {norm:.4g}, is {times:.1f} times the median of the last "
            f"{len(self._norms)} updates, {median:.4g}.",
        )

    def _usual(self, window: Sequence[float]) -> float | None:
        return statistics.median(window) if len(window) >= self.settings.window_updates else None

    def _collapse(self, values: Mapping[str, float]) -> Finding | None:
        lost = {
            name: 1 - values[name] / self._best[name]
            for name in _SCORES
            if name in values and self._best.get(name, 0.0) >= _LEAST_BEST_SCORE
        }
        if not lost:
            return None
        name = max(lost, key=lambda name: lost[name])
        return _from(
            lost[name],
            self.settings.score_collapse.lost_share,
            f"The validation {name}, {values[name]:.2f}, has lost {lost[name]:.0%} of the best so far, "
            f"{self._best[name]:.2f}.",
        )

    def _repeats(self, values: Mapping[str, float]) -> Finding | None:
        excess = values.get("repetition", 0.0)
        return _from(
            excess,
            self.settings.repetition.excess_share,
            f"The validation translations repeat themselves: the share of sequences of {_REPEATED} words that came "
            f"before is {excess:.0%} above that of the references.",
        )

    def _lengths(self, values: Mapping[str, float]) -> Finding | None:
        ratio, settings = values.get("length_ratio", 1.0), self.settings.length_ratio
        if settings.lowest <= ratio <= settings.highest:
            return None
        limit = settings.lowest if ratio < settings.lowest else settings.highest
        return Finding(ratio, limit, f"The validation translations are {ratio:.2f} times as long as the references.")

    def _decide(self, step: int, checks: Sequence[str], found: Mapping[str, Finding | None]) -> list[Decision]:
        decisions = []
        for name in checks:
            if (finding := found.get(name)) is None:
                self._in_a_row[name] = 0
                continue
            self._in_a_row[name] += 1
            settings = getattr(self.settings, name)
            patience = getattr(settings, "patience", 1)
            in_time = self._in_a_row[name] < patience
            # Of many updates in a row the first is told, and the one with which patience ends.
            tells_again = name in OF_VALIDATIONS or self._in_a_row[name] in (1, patience)
            if settings.action == "warn" and (in_time or not tells_again):
                continue
            if in_time and not tells_again:
                continue
            decisions.append(Decision(step, name, "warn" if in_time else settings.action, *finding))
        decisions.sort(key=lambda decision: -ACTIONS.index(decision.action))
        # One thing is done at a time.
        return decisions[:1] + [_outranked(one, decisions[0]) for one in decisions[1:]]

    # Doing

    def take(self, decision: Decision) -> Decision:
        """Count a decision that is about to be carried out; it becomes stop where its action was taken too often."""
        if decision.action not in _BOUND_OF:
            return decision
        bound = _BOUND_OF[decision.action]
        most = getattr(self.settings, bound)
        if self._taken[decision.action] >= most:
            told = f"{decision.told} watch.{bound}={most} has been reached."
            return dataclasses.replace(decision, action="stop", told=told, to_step=None)
        self._taken[decision.action] += 1
        if decision.action == "roll_back":
            self._went_back_to = decision.to_step
        if decision.action == "lower_learning_rate":
            self.factor *= self.settings.learning_rate_factor
            self._in_a_row[decision.check] = 0  # patience begins anew
        return dataclasses.replace(decision, count=self._taken[decision.action])

    @property
    def acts_on_updates(self) -> bool:
        """Whether an update must be judged before it is made."""
        return any(getattr(self.settings, name).action not in ("warn", "stop") for name in OF_UPDATES)

    # Going on and going back

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "in_a_row": dict(self._in_a_row),
            "taken": dict(self._taken),
            "factor": self.factor,
            "best": dict(self._best),
            "last_good_validation": self._last_good_validation,
            "went_back_to": self._went_back_to,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.return_to(state)
        self._taken, self.factor = Counter(state["taken"]), state["factor"]
        self._went_back_to = state["went_back_to"]

    def return_to(self, state: Mapping[str, Any]) -> None:
        """Remember what was normal at a checkpoint, but all that was done since."""
        for window, name in ((self._losses, "losses"), (self._norms, "norms")):
            window.clear()
            window.extend(state[name])
        self._in_a_row = Counter(state["in_a_row"])
        self._best = dict(state["best"])
        self._last_good_validation = state["last_good_validation"]

    def choose(self, good: Sequence[int]) -> int | None:
        """The checkpoint to go back to: the newest, but where that was of no avail before, the one before it.

        What is wrong with the weights of a checkpoint shows in the updates after it.

        Args:
            good: steps of the good ones, the newest first; two are enough.
        """
        if len(good) > 1 and good[0] == self._went_back_to:
            return good[1]
        return good[0] if good else None

    def is_good(self, checkpoint: int, state: Mapping[str, Any], check: str) -> bool:
        """Whether a checkpoint can be gone back to.

        Args:
            checkpoint: its step.
            state: the `state_dict` in it.
            check: which of the checks asks.
        """
        if any(state["in_a_row"].values()):
            return False
        if check in OF_UPDATES:
            return True
        return self._last_good_validation is not None and checkpoint <= self._last_good_validation


def _outranked(decision: Decision, by: Decision) -> Decision:
    """The decision with its finding alone."""
    told = decision.told
    if decision.action != "warn":
        told = f"{told} What is done about it ({decision.action}) gives way to that of watch.{by.check} ({by.action})."
    return dataclasses.replace(decision, action="warn", told=told)


def look_at(translations: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """repetition (above that of the references) and length_ratio (in characters) of validation translations."""
    lengths = [sum(map(len, texts)) for texts in (translations, references)]
    words: Callable[[str], Sequence[str]] = str.split
    if 10 * sum(len(text.split()) for text in references) < lengths[1]:  # written without spaces
        words = list
    told, usual = (
        statistics.fmean(_repetition(words(text)) for text in texts) if texts else 0.0
        for texts in (translations, references)
    )
    return {"repetition": max(told - usual, 0.0), "length_ratio": lengths[0] / max(lengths[1], 1)}


def _repetition(words: Sequence[str]) -> float:
    """Share of the sequences of four words that came in the text before."""
    count = len(words) - _REPEATED + 1
    if count < 2:
        return 0.0
    return 1 - len({tuple(words[start : start + _REPEATED]) for start in range(count)}) / count
