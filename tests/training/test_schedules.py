from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.optim import lr_scheduler
from toy_training import make_run, make_trainer

from hf_nmt import runs
from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.training.preparation import scale_learning_rate
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.schedule_settings import USED, ScheduleSettings
from hf_nmt.training.schedules import Course

PEAK, TOTAL, EPOCH = 3e-3, 120, 12


def course(total: int = TOTAL, epoch: int | None = EPOCH, **settings) -> Course:
    return Course(ScheduleSettings(**settings), PEAK, total, epoch)


def follow(schedule, optimizer, length: int) -> list[float]:
    found = []
    for _ in range(length):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def of_torch(kind, length: int = TOTAL, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    return follow(kind(optimizer, **options), optimizer, length)


def after(warmup: int, factor) -> list[float]:
    """The peak times a rise over `warmup` updates, then times factor(updates since)."""
    return [PEAK * (t / warmup if t < warmup else factor(t - warmup)) for t in range(TOTAL)]


def cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


W = 20
LEFT = TOTAL - W
CLOSED_FORMS = [
    ("constant", {}, lambda t: 1),
    ("linear", {}, lambda t: 1 - t / LEFT),
    ("linear", {"min_learning_rate": 6e-4}, lambda t: 1 - 0.8 * t / LEFT),
    ("cosine", {}, lambda t: cosine(t / LEFT)),
    ("cosine", {"min_learning_rate": 3e-4}, lambda t: 0.1 + 0.9 * cosine(t / LEFT)),
    # Cycles of 2 epochs, then twice and four times as long.
    (
        "cosine_with_restarts",
        {"T_0_epochs": 2, "min_learning_rate": 0},
        lambda t: cosine(t / 24) if t < 24 else cosine((t - 24) / 48) if t < 72 else cosine((t - 72) / 96),
    ),
    ("cosine_with_restarts", {"T_0_share": 0.1, "T_mult": 1, "min_learning_rate": 0}, lambda t: cosine(t % 12 / 12)),
    ("step", {"step_size_epochs": 1.5, "gamma": 0.3}, lambda t: 0.3 ** (t // 18)),
    ("step", {}, lambda t: 0.5 ** (t // 24)),
    ("exponential", {"step_size_steps": 30, "gamma": 0.1}, lambda t: 0.1 ** (t / 30)),
    ("polynomial", {}, lambda t: (1 - t / LEFT) ** 2),
    ("polynomial", {"power": 3, "min_learning_rate": 1e-3}, lambda t: 1 / 3 + 2 / 3 * (1 - t / LEFT) ** 3),
    ("inverse_sqrt", {}, lambda t: math.sqrt(W / (W + t))),
    ("inverse_sqrt", {"timescale_epochs": 3}, lambda t: 1 / math.sqrt(1 + t / 36)),
    ("warmup_stable_decay", {}, lambda t: 1 if t < 76 else 1 - math.sqrt((t - 76) / 24)),
    (
        "warmup_stable_decay",
        {"decay_steps": 10, "decay_type": "linear", "min_learning_rate": 3e-4},
        lambda t: 1 if t < 90 else 1 - 0.9 * (t - 90) / 10,
    ),
    (
        "warmup_stable_decay",
        {"decay_epochs": 2, "decay_type": "cosine"},
        lambda t: 1 if t < 76 else cosine((t - 76) / 24),
    ),
    ("reduce_on_plateau", {}, lambda t: 1),
]  # fmt: skip


def test_every_schedule_has_a_closed_form_or_one_of_torch():
    assert {name for name, *_ in CLOSED_FORMS} | {"one_cycle"} == USED.keys()


@pytest.mark.parametrize(("name", "settings", "factor"), CLOSED_FORMS)
def test_rates_are_those_of_the_formula_over_the_whole_length(name, settings, factor):
    found = course(name=name, warmup_steps=W, **settings).rates()
    assert len(found) == TOTAL
    assert found == pytest.approx(after(W, factor), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "kind", "options"),
    [
        (
            {"name": "cosine_with_restarts"},
            lr_scheduler.CosineAnnealingWarmRestarts,
            {"T_0": 10 * EPOCH, "T_mult": 2, "eta_min": 1e-6},
        ),
        ({"name": "step", "step_size_steps": 7}, lr_scheduler.StepLR, {"step_size": 7, "gamma": 0.5}),
        ({"name": "exponential", "step_size_steps": 1, "gamma": 0.97}, lr_scheduler.ExponentialLR, {"gamma": 0.97}),
        ({"name": "linear", "min_learning_rate": 0.3 * PEAK}, lr_scheduler.LinearLR,
         {"start_factor": 1, "end_factor": 0.3, "total_iters": TOTAL}),
        ({"name": "cosine"}, lr_scheduler.CosineAnnealingLR, {"T_max": TOTAL}),
        ({"name": "polynomial", "power": 1.5}, lr_scheduler.PolynomialLR, {"total_iters": TOTAL, "power": 1.5}),
    ],
)  # fmt: skip
def test_without_warmup_rates_are_those_of_torch(settings, kind, options):
    found = course(warmup_steps=0, **settings).rates()
    assert found == pytest.approx(of_torch(kind, **options), rel=1e-9, abs=1e-15)


def test_restarts_are_those_of_torch_over_several_cycles():
    long = 10 * EPOCH * 7
    expected = of_torch(lr_scheduler.CosineAnnealingWarmRestarts, long, T_0=10 * EPOCH, T_mult=2, eta_min=1e-6)
    found = course(long + 5, name="cosine_with_restarts", warmup_steps=5).rates()
    assert found[:5] == pytest.approx([PEAK * t / 5 for t in range(5)])
    assert found[5:] == pytest.approx(expected, rel=1e-9)
    assert [t for t in range(1, long) if expected[t] > expected[t - 1]] == [120, 360]


@pytest.mark.parametrize(
    ("settings", "share"), [({}, 0.3), ({"warmup_steps": 12}, 0.1), ({"warmup_epochs": 5, "div_factor": 4.0}, 0.5)]
)
def test_one_cycle_is_that_of_torch_with_its_warmup_as_the_rise(settings, share):
    options = {"div_factor": settings.get("div_factor", 25.0), "final_div_factor": 1e4, "cycle_momentum": False}
    expected = of_torch(lr_scheduler.OneCycleLR, max_lr=PEAK, total_steps=TOTAL, pct_start=share, **options)
    assert course(name="one_cycle", **settings).rates() == pytest.approx(expected, rel=1e-9)
    assert max(expected) == PEAK == expected[round(share * TOTAL) - 1]


def test_the_least_rise_of_one_cycle_is_told():
    found = course(name="one_cycle", warmup_share=0.001)
    assert "warm-up 2 updates" in found.told()
    assert found.rates()[:3] == pytest.approx([PEAK / 25, PEAK, PEAK], rel=1e-2) and max(found.rates()) == PEAK


@pytest.mark.parametrize(
    ("settings", "length"),
    [({"warmup_epochs": 1.5}, 18), ({"warmup_share": 0.11}, 14), ({"warmup_steps": 9}, 9), ({}, 1000)],
)  # fmt: skip
def test_each_unit_of_the_warmup(settings, length):
    found = course(name="constant", **settings)
    assert found.warmup == length
    assert found.rates()[:14] == pytest.approx([PEAK * min(t / length, 1) for t in range(14)])


@pytest.mark.parametrize("name", sorted(USED))
@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_short_trainings_have_rates_too(name, total):
    found = course(
        total, name=name, warmup_share=0.01, **({"decay_steps": 1} if total > 1 and "decay" in USED[name] else {})
    )
    if name == "warmup_stable_decay" and total == 1:
        with pytest.raises(ConfigError, match="a fall of 1 are longer than the training, which has 1"):
            found.rates()
        return
    assert len(found.rates()) == total and all(0 <= rate <= PEAK for rate in found.rates())


@pytest.mark.parametrize("name", sorted(USED))
def test_a_schedule_restored_in_the_middle_goes_on_as_if_never_left(name, tmp_path):
    for at in (3, 20, 61):
        optimizers = [torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=PEAK) for _ in range(2)]
        schedules = [course(name=name, warmup_steps=W).make(optimizer) for optimizer in optimizers]
        follow(schedules[0], optimizers[0], at)
        torch.save([optimizers[0].state_dict(), schedules[0].state_dict()], tmp_path / "state.pt")
        for part, state in zip((optimizers[1], schedules[1]), torch.load(tmp_path / "state.pt"), strict=True):
            part.load_state_dict(state)
        expected, found = (follow(*pair, TOTAL - at) for pair in zip(schedules, optimizers, strict=True))
        assert expected == found


def test_plateau_falls_after_patience_in_the_right_direction():
    for better, values in ((True, [10, 12, 11, 12, 11, 30, 1, 1, 1]), (False, [9, 7, 8, 7, 8, 3, 4, 4, 4])):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        settings = ScheduleSettings(name="reduce_on_plateau", warmup_steps=2, patience_validations=2, gamma=0.1)
        schedule = Course(settings, 1.0, 100, greater_is_better=better).make(optimizer)
        assert not any(schedule.observe(0.0 if not better else 99.0) for _ in range(5))  # in the warm-up
        assert follow(schedule, optimizer, 3) == [0, 0.5, 1]
        falls = [schedule.observe(value) for value in values]
        # A value as good as the best is no progress; the third without any is beyond the patience.
        assert falls == [False, False, False, False, True, False, False, False, True]
        assert schedule.get_last_lr() == pytest.approx([0.01])


class Scores:
    """Validations whose BLEU stands still from the third on."""

    def __init__(self):
        self.count = 0

    def __call__(self, trainer):
        step = trainer.state.global_step
        metrics = {"eval_bleu": float(min(step, 3)), "eval_loss": 1.0}
        trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        return metrics


@pytest.mark.parametrize("name", ["reduce_on_plateau", "cosine_with_restarts", "one_cycle", "exponential"])
def test_a_run_resumed_in_the_middle_has_the_rates_of_one_never_stopped(tmp_path, monkeypatch, name):
    schedule = {"name": name, "warmup_steps": 2}
    schedule |= {"patience_validations": 1} if name == "reduce_on_plateau" else {}
    schedule |= {"T_0_epochs": 0.5} if name == "cosine_with_restarts" else {}
    options = {
        "max_steps": 12, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "logging_steps": 1,
        "early_stopping_patience": None, "save_total_limit": 20, "schedule": schedule,
    }  # fmt: skip
    scores = Scores()
    logged = {}
    for kind in ("whole", "resumed"):
        run = make_run(tmp_path / kind)
        trainer = make_trainer(run, validation=object(), **options)
        monkeypatch.setattr(type(trainer), "evaluate", lambda trainer, *_, **__: scores(trainer))
        if kind == "resumed":
            trainer.train(runs.checkpoint_folder(tmp_path / "whole-run", 7))
        else:
            trainer.train()
            run.folder.rename(tmp_path / "whole-folder")
            (tmp_path / "whole-folder" / "checkpoints").rename(tmp_path / "whole-run")
        folder = tmp_path / "whole-folder" if kind == "whole" else run.folder
        logged[kind] = {
            entry["step"]: entry["value"] for entry in runs.read_metrics(folder) if entry["name"] == "learning_rate"
        }
    assert sorted(logged["resumed"]) == [8, 9, 10, 11, 12]
    assert logged["resumed"] == {step: rate for step, rate in logged["whole"].items() if step > 7}
    if name == "reduce_on_plateau":
        rates = [round(logged["whole"][step] / 5e-4, 6) for step in range(1, 13)]
        assert rates == [0, 0.5, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["warmup_steps=5", "warmup_share=0.1"], "warmup_steps: warmup_steps and warmup_share are given; set all but"),
        (["name=cosine", "T_mult=3"], "T_mult: does nothing with the schedule cosine; leave it out"),
        (["name=cosine", "T_0_epochs=3"], "T_0_epochs: does nothing .* belongs to cosine_with_restarts"),
        (["gamma=0.1"], "gamma: .* inverse_sqrt; .* belongs to step, exponential, reduce_on_plateau"),
        (["name=invsqrt"], "name: given 'invsqrt', allowed: constant | linear .* Did you mean inverse_sqrt"),
        (["patience=3"], "patience: write schedule.patience_validations"),
        (["eta_min=0"], "eta_min: write schedule.min_learning_rate"),
        (["num_cycles=2"], "num_cycles: write schedule.T_0_steps, T_0_epochs or T_0_share"),
        (["warmup_share=5"], "warmup_share: given '?5'?, allowed: number"),
        (["name=one_cycle", "warmup_steps=0"], "warmup_steps: given 0, but one_cycle begins with a rise, of 2 up"),
        (["name=one_cycle", "warmup_steps=1"], "warmup_steps: given 1, but one_cycle .* cosine with warmup_steps=0"),
        (["name=one_cycle", "warmup_share=0"], "warmup_share: given 0, but one_cycle .* for a share of 0.3"),
    ],
)
def test_what_does_nothing_or_contradicts_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(ScheduleSettings, overrides=overrides)


@pytest.mark.parametrize(
    ("settings", "around", "message"),
    [
        ({"name": "cosine", "min_learning_rate": 0.1}, {}, "schedule.min_learning_rate: 0.1 is not below training."),
        ({"name": "reduce_on_plateau"}, {"validates": False}, "schedule.name: reduce_on_plateau looks at validations"),
        ({"name": "reduce_on_plateau"}, {"early_stopping": 3}, "schedule.patience_validations: 3, but training ends"),
        ({"name": "cosine_with_restarts"}, {"is_streamed": True}, "schedule.T_0_epochs: 10 .the default., but how"),
        ({"warmup_epochs": 2}, {"is_streamed": True}, "schedule.warmup_epochs: 2, but how long an epoch of a stream"),
        ({"name": "step"}, {"is_streamed": True}, None),
        ({"name": "reduce_on_plateau"}, {"early_stopping": None}, None),
    ],
)
def test_what_does_not_go_with_the_rest_is_told(settings, around, message):
    around = {"learning_rate": 1e-3, "validates": True, "early_stopping": 10, "is_streamed": False} | around
    found = ScheduleSettings(**settings).findings(**around)
    assert len(found) == (message is not None)
    if message:
        pytest.raises(ConfigError, lambda: (_ for _ in ()).throw(ConfigError(found))).match(message)


def test_epochs_without_a_length_and_parts_longer_than_the_training_are_refused():
    with pytest.raises(ConfigError, match="schedule.T_0_epochs: the number of updates of an epoch is not known here"):
        course(epoch=None, name="cosine_with_restarts").rates()
    with pytest.raises(
        ConfigError, match="schedule.decay_share: a warm-up of 1000 updates and a fall of 24 are longer"
    ):
        course(name="warmup_stable_decay").rates()


def test_recorded_settings_are_valid_again():
    for name in USED:
        settings = ScheduleSettings(name=name)
        assert ScheduleSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(("scale", "factor"), [("linear", 4), ("sqrt", 2), (None, 1)])
def test_the_scaling_rule(scale, factor):
    reference = None if scale is None else 2048
    settings = ScheduleSettings(scale=scale, reference_tokens_per_update=reference)
    assert settings.peak(1e-3, 8192) == pytest.approx(factor * 1e-3)
    assert settings.peak(1e-3, 512) == pytest.approx(1e-3 / factor)


@pytest.mark.parametrize(
    ("given", "missing"),
    [("scale=sqrt", "reference_tokens_per_update"), ("reference_tokens_per_update=1024", "scale")],
)
def test_a_scaling_rule_needs_its_reference(given, missing):
    with pytest.raises(ConfigError, match=f"^{missing}: not given, but {given.partition('=')[0]} is; give both"):
        load(ScheduleSettings, overrides=[given])


def test_the_scaled_peak_is_told_and_recorded(tmp_path, caplog):
    caplog.set_level("INFO")
    settings = TrainingRecipe(
        schedule={"scale": "sqrt", "reference_tokens_per_update": 1024},
        training={"learning_rate": 1e-3, "gradient_accumulation_steps": 2},
        batching={"batch_tokens": 512},
    )
    run = make_run(tmp_path)
    arguments = SimpleNamespace(gradient_accumulation_steps=2, world_size=4)
    assert scale_learning_rate(run, settings, arguments) == pytest.approx(2e-3)
    assert runs.load(run.folder).record["choices"] == {"learning_rate": 2e-3, "tokens_per_update": 4096}
    told = "learning rate 0.002: 0.001 at 1,024 tokens an update, scaled (sqrt) to 512 x 2 accumulated x 4 processes ="
    assert f"{told} 4,096" in caplog.text


def test_an_end_above_the_scaled_peak_is_refused():
    settings = {"scale": "linear", "reference_tokens_per_update": 8, "min_learning_rate": PEAK, "name": "cosine"}
    with pytest.raises(ConfigError, match="schedule.min_learning_rate: 0.003 is not below the peak of 0.003, as"):
        course(**settings).rates()


def test_the_least_rate_is_compared_with_the_scaled_peak():
    facts = {"learning_rate": 5e-5, "validates": True, "early_stopping": None, "is_streamed": False}
    plain = {"name": "cosine", "warmup_steps": 10, "min_learning_rate": 1e-4}
    (finding,) = ScheduleSettings(**plain).findings(**facts)
    assert finding.startswith("schedule.min_learning_rate: 0.0001 is not below training.learning_rate=5e-05")
    scaled = ScheduleSettings(**plain, scale="linear", reference_tokens_per_update=1000)
    assert not scaled.findings(**facts)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    Course(scaled, scaled.peak(5e-5, 8000), 100).make(optimizer)
    with pytest.raises(ConfigError, match="is not below the peak of 5e-05, as schedule.scale=linear makes it"):
        Course(scaled, scaled.peak(5e-5, 1000), 100).make(optimizer)
