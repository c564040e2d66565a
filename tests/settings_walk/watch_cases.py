"""For every key of the section `watch` a change, and where it must show."""

from __future__ import annotations

from settings_walk.keys import Case

NO_NUMBER = ("training.learning_rate=1e30", "training.save_steps=1", "training.max_steps=6")
# The losses jump, as the batches differ.
UNSTEADY = ("training.max_steps=24", "training.learning_rate=0", "watch.grace_updates=0", "watch.window_updates=10")
SPIKES = (*UNSTEADY, "watch.loss_spike.deviations=0.01")
NORMS = (*UNSTEADY, "watch.gradient_norm.times_median=1.001")


def watch_cases(run: str, validated: tuple[str, ...]) -> dict[str, Case]:
    """
    Args:
        run: the run folder.
        validated: arguments with which each update is validated.
    """
    watched = f"{run}/validation_history.json"
    collapse = (*validated, "training.learning_rate=0.05", "watch.grace_updates=0")
    falls = (*collapse, "training.learning_rate=1.0", "watch.score_collapse.lost_share=0.001")
    repeats = (*collapse, "watch.repetition.excess_share=0.001", "decoding.max_length_extra=20")
    shorter = (*collapse, "watch.length_ratio.lowest=0.95")
    return {
        "not_finite.action": Case("skip", watched, NO_NUMBER),
        "loss_spike.action": Case("skip", watched, SPIKES),
        "loss_spike.deviations": Case("2", watched, SPIKES),
        "loss_spike.patience": Case("2", watched, SPIKES),
        "gradient_norm.action": Case("skip", watched, NORMS),
        "gradient_norm.times_median": Case("50", watched, NORMS),
        "gradient_norm.patience": Case("2", watched, NORMS),
        "score_collapse.action": Case("lower_learning_rate", watched, falls),
        "score_collapse.lost_share": Case("0.99", watched, falls),
        "score_collapse.patience": Case("2", watched, falls),
        "repetition.action": Case("lower_learning_rate", watched, repeats),
        "repetition.excess_share": Case("0.99", watched, repeats),
        "repetition.patience": Case("2", watched, repeats),
        "length_ratio.action": Case("lower_learning_rate", watched, shorter),
        "length_ratio.lowest": Case("0", watched, shorter),
        "length_ratio.highest": Case("1.01", watched, (*collapse, "decoding.max_length_extra=50")),
        "length_ratio.patience": Case("2", watched, shorter),
        "grace_updates": Case("24", watched, SPIKES),
        "window_updates": Case("13", watched, SPIKES),
        "learning_rate_factor": Case(
            "0.3", watched, (*SPIKES, "watch.loss_spike.action=lower_learning_rate", "watch.max_lowerings=9")
        ),
        "max_lowerings": Case("1", "refusal", (*SPIKES, "watch.loss_spike.action=lower_learning_rate")),
        "max_skips": Case("1", "refusal", (*NO_NUMBER, "watch.not_finite.action=skip")),
        "max_roll_backs": Case("1", "refusal", (*NO_NUMBER, "watch.not_finite.action=roll_back")),
    }
