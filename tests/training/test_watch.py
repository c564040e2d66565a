from __future__ import annotations

import dataclasses
import json
import math
import random
import statistics
from types import SimpleNamespace

import pytest

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.sharding import applied_in_backward
from hf_nmt.training.watch import Watch, look_at
from hf_nmt.training.watch_settings import WatchSettings


def watching(grace_updates: int = 0, window_updates: int = 20, **checks) -> Watch:
    return Watch(WatchSettings(grace_updates=grace_updates, window_updates=window_updates, **checks))


def losses(count: int, seed: int = 1) -> list[float]:
    """Of a training that goes well: falling, with noise."""
    noise = random.Random(seed)
    return [3 + 4 * math.exp(-step / 50) + noise.gauss(0, 0.1) for step in range(count)]


def actions(watch: Watch, values: list[float], norms: list[float] | None = None) -> dict[int, list[str]]:
    """Step -> what was decided, of the steps at which anything was."""
    found = {}
    for step, (loss, norm) in enumerate(zip(values, norms or [1.0] * len(values), strict=True), start=1):
        decided = [watch.take(decision) for decision in watch.judge_update(step, loss, norm)]
        if decided:
            found[step] = [f"{decision.check} {decision.action}" for decision in decided]
    return found


def test_a_training_that_goes_well_is_left_alone():
    """Normal noise around a level lies four deviations above the median about 0.2 times in 1,000 updates, as those are
    estimated from 100: a simulation of 200,000 gave 0.185."""
    found = {}
    for seed in range(5):
        norms = [math.exp(random.Random(seed * 10_000 + step).gauss(0, 0.4)) for step in range(2000)]
        found |= {(seed, step): told for step, told in actions(watching(0, 100), losses(2000, seed), norms).items()}
    assert len(found) <= 5 and {*map(tuple, found.values())} <= {("loss_spike warn",)}, found


def test_a_planted_spike_is_found_where_it_is_and_measured_as_by_hand():
    values = losses(100)
    values[70] += 5
    watch = watching()
    assert actions(watch, values) == {71: ["loss_spike warn"]}
    window = values[50:70]
    median = statistics.median(window)
    mad = statistics.median([abs(value - median) for value in window])
    watch = watching()
    for step, value in enumerate(values[:70], start=1):
        watch.judge_update(step, value, 1.0)
    (decision,) = watch.judge_update(71, values[70], 1.0)
    assert decision.value == pytest.approx((values[70] - median) / (1.4826 * mad)) and decision.limit == 4
    assert f"{values[70]:.4g}, lies {decision.value:.1f} deviations above" in decision.told


def test_nothing_but_numbers_counts_in_the_grace_updates_and_before_the_window_is_full():
    values = losses(60)
    for step in (5, 15, 25, 40):
        values[step] += 8
    assert actions(watching(), values) == {26: ["loss_spike warn"], 41: ["loss_spike warn"]}
    assert actions(watching(grace_updates=30), values) == {41: ["loss_spike warn"]}
    values[3] = math.nan
    bounded = watching(grace_updates=30, not_finite={"action": "skip"})
    assert actions(bounded, values) == {4: ["not_finite skip"], 41: ["loss_spike warn"]}


def test_a_gradient_norm_is_compared_with_its_median():
    norms = [2.0] * 30 + [9.9, 10.0, 2.0]
    assert actions(watching(), [1.0] * 33, norms) == {32: ["gradient_norm warn"]}
    norms[31] = math.inf
    found = actions(watching(not_finite={"action": "skip"}), [1.0] * 33, norms)
    assert found == {32: ["not_finite skip"]}


def test_what_is_skipped_does_not_become_normal_and_what_is_warned_of_does():
    values = [1.0, 1.1] * 15 + [9.0] * 30
    warned = actions(watching(), values)
    assert warned == {31: ["loss_spike warn"]}  # once for all that follow in a row
    skipped = actions(watching(loss_spike={"action": "skip"}, max_skips=30), values)
    assert [*skipped] == list(range(31, 61)) and {*map(tuple, skipped.values())} == {("loss_spike skip",)}


def test_patience_is_counted_in_a_row_and_anew_after_a_lowering():
    values = [1.0, 1.1] * 10 + [9.0, 9.0, 1.0] + [9.0] * 4
    check = {"action": "lower_learning_rate", "patience": 3}
    watch = watching(window_updates=20, loss_spike=check)
    assert actions(watch, values) == {21: ["loss_spike warn"], 24: ["loss_spike warn"],
                                      26: ["loss_spike lower_learning_rate"], 27: ["loss_spike warn"]}  # fmt: skip
    assert watch.factor == 0.5


def test_each_action_is_bounded_and_then_the_training_stops():
    for action, bound in (("skip", "max_skips"), ("roll_back", "max_roll_backs"),
                          ("lower_learning_rate", "max_lowerings")):  # fmt: skip
        watch = watching(not_finite={"action": action}, **{bound: 2})
        found = actions(watch, [math.nan] * 3)
        assert [*found.values()] == [[f"not_finite {action}"]] * 2 + [["not_finite stop"]]
        last = watch.take(watch.judge_update(4, math.nan, 1.0)[0])
        assert last.action == "stop" and f"watch.{bound}=2 has been reached." in last.told
    assert watch.factor == 0.25


def test_the_strongest_action_is_taken_and_the_other_told():
    watch = watching(loss_spike={"action": "lower_learning_rate"}, gradient_norm={"action": "roll_back"})
    found = actions(watch, [1.0, 1.1] * 10 + [9.0], [1.0] * 20 + [50.0])
    assert found == {21: ["gradient_norm roll_back", "loss_spike warn"]} and watch.factor == 1.0


def test_a_warning_with_patience_is_told_when_it_ends():
    values = [1.0, 1.1] * 10 + [9.0, 1.0, 9.0, 9.0, 9.0, 9.0]
    assert actions(watching(loss_spike={"patience": 3}), values) == {25: ["loss_spike warn"]}


def test_the_checkpoint_before_is_chosen_where_the_newest_was_of_no_avail():
    watch = watching(not_finite={"action": "roll_back"})
    assert watch.choose([]) is None and watch.choose([20, 10]) == 20
    decision = dataclasses.replace(watch.judge_update(22, math.nan, 1.0)[0], to_step=20)
    watch.take(decision)
    assert watch.choose([20, 10]) == 10 and watch.choose([20]) == 20 and watch.choose([30, 20]) == 30


def validated(watch: Watch, step: int, **values: float) -> list[str]:
    return [f"{decision.check} {decision.action}" for decision in watch.judge_validation(step, values)]


def test_a_score_that_collapses_is_told_against_the_best_so_far():
    watch = watching(score_collapse={"action": "roll_back"})
    assert validated(watch, 100, bleu=1.9, chrf=20.0) == []
    assert validated(watch, 200, bleu=0.1, chrf=19.0) == []  # below two points nothing has been learnt yet
    assert validated(watch, 300, bleu=30.0, chrf=50.0) == []
    assert validated(watch, 400, bleu=15.1, chrf=40.0) == []
    assert validated(watch, 500, bleu=15.0, chrf=40.0) == ["score_collapse roll_back"]
    assert validated(watch, 600, bleu=20.0, chrf=25.0) == ["score_collapse roll_back"]
    patient = watching(score_collapse={"action": "stop", "patience": 2})
    scores = [20.0, 5.0, 20.0, 5.0, 5.0]
    told = [validated(patient, 100 * step, bleu=score) for step, score in enumerate(scores, start=1)]
    assert told == [[], ["score_collapse warn"], [], ["score_collapse warn"], ["score_collapse stop"]]


def test_repetition_and_length_are_told():
    watch = watching()
    assert validated(watch, 10, repetition=0.09, length_ratio=0.5) == []
    assert validated(watch, 20, repetition=0.11, length_ratio=0.49) == ["repetition warn", "length_ratio warn"]
    assert validated(watch, 30, repetition=0.0, length_ratio=2.01) == ["length_ratio warn"]
    assert validated(watching(grace_updates=40), 40, repetition=0.9, length_ratio=9.0) == []


def test_repetition_is_that_of_welleck_above_the_references():
    loop = "a b c d " * 5  # 20 words, 17 sequences of four, 4 of them different
    assert look_at([loop], ["a b c d e f g h"])["repetition"] == pytest.approx(1 - 4 / 17)
    assert look_at([loop, "x y"], ["p q", "r s"])["repetition"] == pytest.approx((1 - 4 / 17) / 2)
    assert look_at([loop], [loop])["repetition"] == 0
    # Written without spaces, in characters.
    assert look_at(["天地" * 10], ["天地玄黃宇宙洪荒日月盈昃"])["repetition"] == pytest.approx(1 - 2 / 17)
    assert look_at(["a b c d e"], ["a b c d"])["repetition"] == 0


def test_the_length_ratio_is_one_of_characters():
    assert look_at(["abc", ""], ["abcd", "ab"])["length_ratio"] == 0.5
    assert look_at([""], [""])["length_ratio"] == 0


def test_its_memory_survives_json_bit_for_bit():
    values = losses(200, seed=4)
    for step in (60, 61, 130, 150, 151, 190):
        values[step] += 6
    settings = {"loss_spike": {"action": "skip", "patience": 2}, "not_finite": {"action": "lower_learning_rate"}}
    values[100] = math.inf
    whole = watching(**settings)
    expected = actions(whole, values)
    assert len(expected) == 7
    for cut in (61, 62, 101, 140):
        first = watching(**settings)
        before = actions(first, values[:cut])
        second = watching(**settings)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        after = {}
        for step, value in enumerate(values[cut:], start=cut + 1):
            if decided := [second.take(decision) for decision in second.judge_update(step, value, 1.0)]:
                after[step] = [f"{decision.check} {decision.action}" for decision in decided]
        assert before | after == expected and second.state_dict() == whole.state_dict()


def test_a_checkpoint_is_good_where_nothing_was_wrong_and_no_later_than_the_last_good_validation():
    watch = watching()
    calm, restless = watch.state_dict(), watch.state_dict() | {"in_a_row": {"loss_spike": 1}}
    assert watch.is_good(10, calm, "loss_spike") and not watch.is_good(10, restless, "loss_spike")
    assert not watch.is_good(10, calm, "score_collapse")  # there was no good validation
    validated(watch, 20, bleu=30.0)
    validated(watch, 40, bleu=3.0)
    assert watch.is_good(20, calm, "score_collapse") and not watch.is_good(30, calm, "score_collapse")
    assert watch.is_good(30, calm, "gradient_norm")


TEXTS = ["data.train.source=a.de", "data.train.target=a.en", "data.source_language=de", "data.target_language=en"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["watch.not_finite.action=warn"], "watch.not_finite.action: given 'warn', allowed: stop | skip"),
        (["watch.score_collapse.action=skip"], "watch.score_collapse.action: given 'skip', allowed: warn"),
        (["watch.repetition.patience=2"], "watch.repetition: does nothing without validations; leave it out."),
        (["watch.max_skips=3"], "watch.max_skips: given 3, but the action of no check is skip or roll_back"),
        (["watch.learning_rate_factor=0.1"], "given 0.1, but the action of no check is lower_learning_rate"),
        (["watch.length_ratio.lowest=3"], "watch.length_ratio.lowest: given 3, must be below highest=2."),
        (
            ["watch.loss_spike.action=roll_back", "training.save_strategy=no", "training.eval_strategy=no"],
            "watch.loss_spike.action: given roll_back, but with training.save_strategy=no there is no checkpoint",
        ),
    ],
)
def test_what_cannot_act_is_refused(given, told):
    with pytest.raises(ConfigError) as error:
        load(TrainingRecipe, None, [*TEXTS, *given])
    assert told in str(error.value)


def test_what_updates_in_the_backward_pass_is_known(monkeypatch):
    assert applied_in_backward("adamw_torch") is None and applied_in_backward("adalomo") == "adalomo"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert applied_in_backward("adamw_torch") is None
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    recipe = load(TrainingRecipe, None, [*TEXTS, "watch.loss_spike.action=skip", "training.use_cpu=true"])
    monkeypatch.setattr(TrainingSettings, "arguments", lambda *given, **more: SimpleNamespace(optim="adamw_torch"))
    with pytest.raises(ConfigError, match="watch.loss_spike.action: given skip, but DeepSpeed has updated"):
        recipe.arguments()


def test_under_zero_only_what_can_be_done_is_taken():
    settings = WatchSettings(not_finite={"action": "skip"}, loss_spike={"action": "lower_learning_rate"})
    assert settings.findings(validates=True, saves=True) == []
    (finding,) = settings.findings(validates=True, saves=True, applied_in_backward="DeepSpeed")
    assert finding.startswith("not_finite.action: given skip, but DeepSpeed has updated the weights before")
