from __future__ import annotations

import pytest
from corpora import write_corpus
from PIL import Image
from recipe_processes import run_recipe
from settings_walk.keys import recipe_module

from hf_nmt.errors import ConfigError
from hf_nmt.training import schedule_plot
from hf_nmt.training.schedule_plot import take_option, write_picture
from hf_nmt.training.schedule_settings import ScheduleSettings
from hf_nmt.training.schedules import Course


@pytest.fixture
def drawn(monkeypatch):
    """The curves of the pictures."""
    found = []
    draw = schedule_plot.draw
    monkeypatch.setattr(schedule_plot, "draw", lambda plot, curves, name: (found.append(curves["rate"]), draw(plot, curves, name))[1])  # fmt: skip  # noqa: E501
    return found


@pytest.mark.parametrize("name", ["one_cycle", "step", "cosine_with_restarts"])
def test_the_picture_shows_each_corner_of_the_rates(tmp_path, monkeypatch, drawn, name):
    monkeypatch.setattr(schedule_plot, "_POINTS", 200)
    course = Course(ScheduleSettings(name=name, warmup_steps=100), 1e-3, 2_000, 50)
    write_picture(course, tmp_path / "schedule.png")
    assert Image.open(tmp_path / "schedule.png").size == (1080, 630)
    ((steps, rates),) = drawn
    whole = course.rates()
    assert rates == [whole[t] for t in steps] and 200 <= len(steps) < 500
    assert steps[0] == 0 and steps[-1] == 1999 and max(rates) == max(whole) and min(rates) == min(whole)


@pytest.mark.parametrize(
    ("argv", "rest", "picture"),
    [
        (["seed=1"], ["seed=1"], None),
        (["--plot-schedule", "a.png", "seed=1"], ["seed=1"], "a.png"),
        (["seed=1", "--plot_schedule=b/a.PNG", "--dry-run"], ["seed=1", "--dry-run"], "b/a.PNG"),
        (["--plotschedule", "a.png", "plotschedule=1"], ["plotschedule=1"], "a.png"),
    ],
)
def test_the_option_is_taken_out(argv, rest, picture):
    found, path = take_option(argv)
    assert found == rest and (None if path is None else str(path)) == picture


NOTHING = "--plot-schedule: a file for the picture must follow. Type --plot-schedule schedule.png."


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--plot-schedule"], NOTHING),
        (["--plot-schedule", "seed=1"], NOTHING),
        (["--plot-schedule", "--dry-run"], NOTHING),
        (
            ["--plot-schedule=a/x.txt"],
            "--plot-schedule: given 'a/x.txt', allowed: a file whose name ends in .png. Type --plot-schedule a/x.png.",
        ),
    ],
)
def test_a_picture_without_a_name_is_refused(argv, told):
    with pytest.raises(ConfigError) as error:
        take_option(argv)
    assert error.value.findings == [told]


def test_nothing_is_read_where_the_settings_tell_all(tmp_path, monkeypatch, capsys, drawn):
    monkeypatch.chdir(tmp_path)
    main = recipe_module("train").main
    # Of texts that are checked to be there, and not read.
    for name in ("de", "en"):
        (tmp_path / name).write_text("")
    data = ["data.source_language=de", "data.target_language=en", "data.train.source=de", "data.train.target=en"]
    assert main(["--plot-schedule", "s.png", "--config", "tiny", *data, "schedule.name=linear"]) == 0
    assert capsys.readouterr().out == "s.png\n"
    ((steps, rates),) = drawn
    assert rates == pytest.approx([5e-4 * (t / 4 if t < 4 else 1 - (t - 4) / 8) for t in steps]) and len(steps) == 12
    assert {path.name for path in tmp_path.iterdir()} == {"de", "en", "s.png"}
    with pytest.raises(ConfigError, match="--plot-schedule: there is no folder nowhere"):
        main(["--plot-schedule", "nowhere/s.png", "--config", "tiny", *data])


def test_epochs_are_counted_in_the_batches_of_the_training(tmp_path):
    data = write_corpus(tmp_path)
    given = ["--config", "tiny", "training.max_steps=-1", "training.num_train_epochs=3", "schedule.name=step"]
    given += ["schedule.step_size_epochs=1", "schedule.warmup_steps=null", "schedule.warmup_epochs=0.5"]
    argv = [*data, *given, f"output_dir={tmp_path / 'runs'}"]
    assert run_recipe([f"--plot-schedule={tmp_path / 's.png'}", *argv], tmp_path / "plot") == 0
    assert (tmp_path / "plot.out").read_text() == f"{tmp_path / 's.png'}\n"
    told = (tmp_path / "plot.err").read_text()
    assert not (tmp_path / "runs").exists() and (tmp_path / "s.png").is_file()
    planned = next(line for line in told.splitlines() if line.endswith("gamma 0.5"))
    assert run_recipe(argv, tmp_path / "train") == 0
    trained = (tmp_path / "train.err").read_text().splitlines()
    assert [line for line in trained if line.endswith("gamma 0.5")] == [planned]
    assert "learning rate 0.0005: step, warm-up" in planned
