from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from process_groups import run_in_processes
from sharded_training import make_m2m100, same, toy_trainer, train, worst_difference

from hf_nmt import runs
from hf_nmt.training.layerdrop import prepare_for_processes


def arguments(**values):
    return SimpleNamespace(**{"world_size": 2, "ddp_find_unused_parameters": False} | values)


def rates(model) -> list[float]:
    return [model.model.encoder.layerdrop, model.model.decoder.layerdrop]


def test_data_parallel_processes_agree_on_weights_without_a_gradient(caplog):
    caplog.set_level(logging.INFO)
    model, given = make_m2m100(layerdrop=0.4), arguments()
    prepare_for_processes(model, given, divided=False)
    assert given.ddp_find_unused_parameters and rates(model) == [0.4, 0.4]
    assert "training.ddp_find_unused_parameters: is true in this run" in caplog.text


def test_divided_weights_are_all_used(caplog):
    caplog.set_level(logging.INFO)
    model, given = make_m2m100(layerdrop=0.4), arguments()
    prepare_for_processes(model, given, divided=True)
    assert not given.ddp_find_unused_parameters and rates(model) == [0, 0]
    assert "M2M100Decoder: no layers are left out (layerdrop was 0.4)" in caplog.text
    assert model.config.encoder_layerdrop == 0.4  # which is saved


@pytest.mark.parametrize(("rate", "processes"), [(0.4, 1), (0.0, 2)])
def test_else_nothing_changes(rate, processes):
    model, given = make_m2m100(layerdrop=rate), arguments(world_size=processes)
    prepare_for_processes(model, given, divided=True)
    assert not given.ddp_find_unused_parameters and rates(model) == [rate, rate]


def train_leaving_out(folder: Path, accumulation: int):
    """The encoder is left out in every second batch: of two processes, in all batches of the first."""
    trainer = toy_trainer(folder, "layerdrop", None, accumulation, max_steps=12, save_steps=12)
    first, count = trainer.args.process_index, trainer.args.world_size
    calls = 0

    def choose(model, inputs):
        nonlocal calls
        model.model.encoder.layerdrop = float((calls * count + first) % 2 == 0) or 1e-9
        model.model.decoder.layerdrop = 0.0
        calls += 1

    trainer.model.register_forward_pre_hook(choose)
    trainer.train()
    entries = runs.read_metrics(trainer.run.folder)
    found = {name: runs.series(entries, name)[1] for name in ("loss", "grad_norm")}
    return found, {name: tensor.numpy() for name, tensor in trainer.trained_weights().items()}


@pytest.mark.slow
def test_layers_that_one_process_leaves_out_are_averaged_as_in_one_process(tmp_path):
    ((whole, _),) = run_in_processes(train_leaving_out, 1, tmp_path / "whole", 2)
    (parallel, weights), (_, others) = run_in_processes(train_leaving_out, 2, tmp_path / "parallel", 2)
    assert same(weights, others) and len(whole["loss"]) == 12
    assert worst_difference(whole, parallel) < 1e-5


@pytest.mark.slow
def test_layers_that_all_leave_out_do_not_stop_the_training(tmp_path):
    (found, weights, *_), (_, others, *_) = run_in_processes(
        train, 2, tmp_path, "layerdrop", None, 1, {"max_steps": 12, "save_steps": 12}
    )
    assert len(found["loss"]) == 12 and same(weights, others)
