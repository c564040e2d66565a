from __future__ import annotations

import errno

import numpy
import pytest
import torch
from safetensors.torch import save_file

from hf_nmt import runs
from hf_nmt.errors import NmtError
from hf_nmt.training import checkpoints


def write(folder, step, content="x"):
    with checkpoints.writing(runs.checkpoint_folder(folder, step)) as partial:
        (partial / "state").write_text(content)


def steps(folder):
    return [runs.step_of(path) for path in runs.list_checkpoints(folder)]


def test_a_checkpoint_has_its_name_only_when_whole(tmp_path):
    write(tmp_path, 5)
    with pytest.raises(ValueError), checkpoints.writing(runs.checkpoint_folder(tmp_path, 9)) as partial:
        assert not (tmp_path / "step-9").exists() and partial.parent == tmp_path
        (partial / "state").write_text("half")
        raise ValueError
    assert [path.name for path in tmp_path.iterdir()] == ["step-5"]
    assert (tmp_path / "step-5" / "COMPLETE").is_file()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("basic_ios::clear: iostream error"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("[enforce fail at inline_container.cc:858] . unexpected pos 64 vs 0"),
    ],
)
def test_a_full_disk_is_told_by_path_and_free_space(tmp_path, error):
    with pytest.raises(NmtError, match=r"step-3 could not be written.* MiB"):
        with checkpoints.writing(runs.checkpoint_folder(tmp_path, 3)):
            raise error
    assert not list(tmp_path.iterdir())


def test_a_file_that_torch_finds_cut_short_is_told_in_words(tmp_path):
    told = "step-3 could not be written: it was cut short, as where a disk is full .[0-9,]+ MiB free"
    with pytest.raises(NmtError, match=told), checkpoints.writing(runs.checkpoint_folder(tmp_path, 3)):
        raise RuntimeError("[enforce fail at inline_container.cc:858] . unexpected pos 64 vs 0")


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), checkpoints.writing(tmp_path / "step-3"):
        raise RuntimeError("shapes do not fit")


def test_the_newest_whole_one_is_found(tmp_path, caplog):
    assert checkpoints.latest_whole(tmp_path / "none") is None
    for step in (100, 20, 3):
        write(tmp_path, step)
    (tmp_path / "step-junk").mkdir()
    assert steps(tmp_path) == [3, 20, 100]
    assert checkpoints.latest_whole(tmp_path).name == "step-100"
    (tmp_path / "step-100" / "state").write_text("y")
    (tmp_path / "step-20" / "COMPLETE").unlink()
    assert checkpoints.latest_whole(tmp_path).name == "step-3"
    assert "step-100 is not used" in caplog.text and "SHA-256 differs" in caplog.text
    assert "step-20 is not used" in caplog.text
    checkpoints.remove_after(tmp_path, 3)
    assert steps(tmp_path) == [3]
    checkpoints.remove_after(tmp_path, None)
    assert steps(tmp_path) == []


@pytest.mark.parametrize(
    ("newest", "keep", "left"),
    [(2, [], [4, 5]), (2, [1, None], [1, 4, 5]), (1, [5], [5]), (None, [], [1, 2, 3, 4, 5]), (9, [], [1, 2, 3, 4, 5])],
)
def test_old_ones_are_removed_but_for_those_to_keep(tmp_path, newest, keep, left):
    for step in range(1, 6):
        write(tmp_path, step)
    checkpoints.thin_out(tmp_path, keep_newest=newest, keep_steps=keep)
    assert steps(tmp_path) == left


def test_what_an_interrupt_left_takes_no_place_and_is_in_no_average(tmp_path):
    for step in (2, 4, 5, 6, 7):
        content = f'{{"saved_for_interrupt": {"true" if step in (5, 7) else "false"}}}'
        with checkpoints.writing(tmp_path / f"step-{step}") as partial:
            (partial / checkpoints.RUN_STATE).write_text(content)
    assert [folder.name for folder in checkpoints.newest_whole(tmp_path, 2, planned=True)] == ["step-4", "step-6"]
    assert checkpoints.latest_whole(tmp_path).name == "step-7"
    checkpoints.thin_out(tmp_path, keep_newest=2, keep_steps=[])
    assert steps(tmp_path) == [4, 6, 7]


def save(folder, weights):
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_is_that_of_each_weight(tmp_path, dtype):
    generator = torch.Generator().manual_seed(0)
    parts = [
        {name: torch.randn(3, 4, generator=generator).to(dtype) for name in ("a", "b.c")} | {"n": torch.tensor([7])}
        for _ in range(5)
    ]
    folders = [save(tmp_path / str(number), part) for number, part in enumerate(parts)]
    average = checkpoints.average_weights(folders)
    assert average.keys() == parts[0].keys() and average["n"].tolist() == [7]
    for name in ("a", "b.c"):
        expected = numpy.mean([part[name].double().numpy() for part in parts], axis=0)
        assert average[name].dtype == dtype
        assert torch.equal(average[name], torch.from_numpy(expected).to(dtype))


def test_different_models_are_not_averaged(tmp_path):
    folders = [save(tmp_path / name, {name: torch.zeros(2)}) for name in ("a", "b")]
    with pytest.raises(NmtError, match="does not hold the same weights as .*a; they cannot be averaged"):
        checkpoints.average_weights(folders)
