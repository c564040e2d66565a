"""A picture of the learning rate over the updates, without a training: `--plot-schedule`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import atomic_file
from hf_nmt.errors import ConfigError
from hf_nmt.reporting import Plot, draw
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.schedules import Course
from hf_nmt.training.trainer import TranslationTrainer

OPTION = "--plot-schedule"

# More are not seen in a picture of a thousand pixels.
_POINTS = 4000


def take_option(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    """The other arguments, and the file that is to be drawn; None where none is.

    Raises:
        ConfigError: the file is missing, or no PNG.
    """
    rest: list[str] = []
    picture = None
    waiting = list(argv)
    while waiting:
        name, equals, value = (argument := waiting.pop(0)).partition("=")
        if not name.startswith("--") or name.replace("-", "").replace("_", "") != OPTION.replace("-", ""):
            rest.append(argument)
            continue
        if not equals:
            value = waiting.pop(0) if waiting and "=" not in waiting[0] and waiting[0][:2] != "--" else ""
        if not value:
            raise ConfigError(f"{OPTION}: a file for the picture must follow. Type {OPTION} schedule.png.")
        if Path(value).suffix.lower() != ".png":
            raise ConfigError(
                f"{OPTION}: given {value!r}, allowed: a file whose name ends in .png. Type {OPTION} "
                f"{Path(value).with_suffix('.png')}."
            )
        picture = Path(value)
    return rest, picture


def plot_schedule(
    settings: TrainingRecipe, picture: Path, prepare: Callable[[Any, Callable[[TranslationTrainer], None]], Any]
) -> None:
    """Draw the course of the learning rate.

    Where the settings do not tell all lengths, texts are read and cut into batches first, in a folder that is
    removed again.

    Args:
        settings: of the recipe.
        picture: file to write.
        prepare: given the settings and what to call with the trainer, prepares a training and does not begin it.

    Raises:
        ConfigError: the run to be continued has its schedule already.
    """
    if settings.resume is not None:
        raise ConfigError(f"{OPTION}: a run that goes on keeps its schedule; leave resume out to see one of settings.")
    if not picture.parent.is_dir():
        raise ConfigError(f"{OPTION}: there is no folder {picture.parent}.")
    if settings.training.max_steps > 0 and not settings.schedule.counts_epochs and settings.schedule.scale is None:
        course = Course(settings.schedule, settings.training.learning_rate, settings.training.max_steps)
        write_picture(course, picture)
    else:
        with tempfile.TemporaryDirectory() as folder:
            prepare(
                settings.model_copy(update={"output_dir": Path(folder)}),
                lambda trainer: write_picture(trainer.planned_course(), picture),
            )


def write_picture(course: Course, picture: Path) -> None:
    """Draw a course as a PNG."""
    course.tell()
    rates = course.rates()
    # The first of each corner is kept: where the direction changes.
    every = max(len(rates) // _POINTS, 1)
    shown = [t for t in range(len(rates)) if t % every == 0 or _is_corner(rates, t) or t == len(rates) - 1]
    plot = Plot("", course.settings.name, "learning rate", {"rate": ("learning rate", False)}, from_zero=True)
    epochs = (
        "" if course.updates_per_epoch is None else f", {course.num_updates / course.updates_per_epoch:.3g} epochs"
    )
    beside = f"{course.num_updates:,} updates{epochs}, warm-up {course.warmup:,}"
    if course.settings.name == "reduce_on_plateau":
        beside = f"{beside}; then as validations tell"
    figure = draw(plot, {"rate": (shown, [rates[t] for t in shown])}, beside)
    with atomic_file(picture) as partial:
        figure.savefig(partial, format="png")


def _is_corner(rates: Sequence[float], t: int) -> bool:
    """Whether the rate turns or jumps here."""
    if not 0 < t < len(rates) - 1:
        return True
    before, after = rates[t] - rates[t - 1], rates[t + 1] - rates[t]
    return before * after < 0 or max(abs(before), abs(after)) > 0.02 * max(rates)
