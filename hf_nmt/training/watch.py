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
from typing import Any

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
        found = {name: finding for name in OF_UPDATES if (finding := self._update_finding(name, step, loss, norm))}
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
        found: dict[str, tuple[float | None, float | None, str]] = {}
        if step > self.settings.grace_updates:
            checks = (self._collapse(values), self._repeats(values), self._lengths(values))
            found = {name: one for name, one in zip(OF_VALIDATIONS, checks, strict=True) if one is not None}
        for name in _SCORES:
            if name in values:
                self._best[name] = max(values[name], self._best.get(name, values[name]))
        if not found:
            self._last_good_validation = step
        return self._decide(step, OF_VALIDATIONS, found)

    def _update_finding(self, name: str, step: int, loss: float, norm: float | None) -> Any:
        if name == "not_finite":
            for what, value in (("loss", loss), ("gradient norm", norm)):
                if value is not None and not math.isfinite(value):
                    return None, None, f"The training {what} is {value} at step {step}."
            return None
        value, window = (loss, self._losses) if name == "loss_spike" else (norm, self._norms)
        settings = self.settings
        if value is None or not math.isfinite(loss) or not math.isfinite(value):
            return None
        if step <= settings.grace_updates or len(window) < settings.window_updates:
            return None
        median = statistics.median(window)
        if name == "gradient_norm":
            allowed = settings.gradient_norm.times_median
            if median <= 0 or value < allowed * median:
                return None
            times = value / median
            return (
                times,
                allowed,
                (
                    f"The gradient norm of step {step}, {value:.4g}, is {times:.1f} times the median of the last "
                    f"{len(window)} updates, {median:.4g}."
                ),
            )
        deviation = _MAD_SCALE * statistics.median(abs(one - median) for one in window)
        distance = (value - median) / max(deviation, _LEAST_DEVIATION * abs(median), 1e-12)
        allowed = settings.loss_spike.deviations
        if distance < allowed:
            return None
        return (
            distance,
            allowed,
            (
                f"The loss of step {step}, {value:.4g}, lies {distance:.1f} deviations above the median of the last "
                f"{len(window)} updates, {median:.4g}."
            ),
        )

    def _collapse(self, values: Mapping[str, float]) -> tuple[float, float, str] | None:
        allowed = self.settings.score_collapse.lost_share
        lost = {
            name: (1 - values[name] / self._best[name], name)
            for name in _SCORES
            if name in values and self._best.get(name, 0.0) >= _LEAST_BEST_SCORE
        }
        share, name = max(lost.values(), default=(0.0, ""))
        if share < allowed:
            return None
        return (
            share,
            allowed,
            (
                f"The validation {name}, {values[name]:.2f}, has lost {share:.0%} of the best so far, "
                f"{self._best[name]:.2f}."
            ),
        )

    def _repeats(self, values: Mapping[str, float]) -> tuple[float, float, str] | None:
        allowed = self.settings.repetition.excess_share
        if (excess := values.get("repetition", 0.0)) < allowed:
            return None
        return (
            excess,
            allowed,
            (
                f"The validation translations repeat themselves: the share of sequences of {_REPEATED} words that "
                f"came before is {excess:.0%} above that of the references."
            ),
        )

    def _lengths(self, values: Mapping[str, float]) -> tuple[float, float, str] | None:
        ratio, settings = values.get("length_ratio", 1.0), self.settings.length_ratio
        if settings.lowest <= ratio <= settings.highest:
            return None
        limit = settings.lowest if ratio < settings.lowest else settings.highest
        return ratio, limit, f"The validation translations are {ratio:.2f} times as long as the references."

    def _decide(self, step: int, checks: Sequence[str], found: Mapping[str, Any]) -> list[Decision]:
        decisions = []
        for name in checks:
            if name not in found:
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
            value, limit, told = found[name]
            decisions.append(Decision(step, name, "warn" if in_time else settings.action, value, limit, told))
        decisions.sort(key=lambda decision: -ACTIONS.index(decision.action))
        # One thing is done at a time.
        return decisions[:1] + [dataclasses.replace(one, action="warn") for one in decisions[1:]]

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
