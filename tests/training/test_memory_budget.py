from __future__ import annotations

import json
import types

import numpy
import pytest
import torch
from corpora import write_corpus
from hypothesis import given
from hypothesis import strategies as st
from recipe_processes import run_recipe
from toy_training import collate, make_model, make_tokenizer

from hf_nmt import runs
from hf_nmt.batching import BatchingSettings
from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.training.memory_budget import MIB, _Update, fit_memory, largest_budget
from hf_nmt.training.recipe import TrainingRecipe


@given(
    row=st.integers(1, 300),
    bytes_of_a_token=st.integers(1, 100_000),
    base=st.integers(0, 10**9),
    room=st.integers(0, 10**10),
    most=st.integers(300, 10**6),
    fixed=st.integers(0, 10**6),
)
def test_the_budget_is_the_largest_that_fits_and_nothing_larger_is_tried(
    row, bytes_of_a_token, base, room, most, fixed
):
    """A machine whose updates need `fixed` bytes and so many for each token."""
    limit = base + room

    def trial(tokens):
        assert tokens % row == 0 and tokens <= most
        used = base + fixed + tokens * bytes_of_a_token
        assert used <= limit or tokens == row  # one row has to be tried
        return used

    found, tried = largest_budget(trial, base=base, limit=limit, row=row, most=most)
    true = min((room - fixed) // bytes_of_a_token, most) // row * row if room >= fixed else 0
    assert (found == 0) == (true <= 0)
    if found:
        # What does not grow with the tokens is taken for what does.
        assert found <= true and found + row > min(most, true) - fixed / bytes_of_a_token - row
        assert len(tried) <= 22 and [found, base + fixed + found * bytes_of_a_token] in tried


def test_memory_that_runs_out_sooner_than_expected_leaves_the_last_that_fitted():
    found, tried = largest_budget(
        lambda tokens: None if tokens > 500 else 10 * tokens, base=0, limit=10**6, row=100, most=10**5
    )
    assert found == 400 and tried == [[100, 1000], [200, 2000], [400, 4000], [800, None]]


def test_a_run_finds_its_budget_keeps_it_and_says_so(tmp_path):
    argv = [
        *write_corpus(tmp_path),
        "--config",
        "tiny",
        f"output_dir={tmp_path / 'runs'}",
        "training.eval_strategy=no",
    ]
    argv += ["batching.memory_share=0.9", "batching.batch_tokens=700", "training.max_steps=6"]
    assert run_recipe(argv, tmp_path / "first", signal_at=5) < 0
    (folder,) = (tmp_path / "runs").iterdir()
    record = runs.load(folder).record
    figures = record["measurements"]["batch_tokens"]
    row = max(figures["longest_pair"])
    assert record["choices"]["batch_tokens"] == 700 // row * row == figures["tried"][-1][0]
    assert figures["base_bytes"] > 100 * MIB
    assert all(figures["base_bytes"] // 2 < used <= figures["limit_bytes"] for _, used in figures["tried"])
    assert (
        f"batch_tokens {700 // row * row}: the largest budget, up to 700, that fits"
        in (tmp_path / "first.err").read_text()
    )
    assert run_recipe([f"resume={folder}"], tmp_path / "second") == 0
    told = (tmp_path / "second.err").read_text()
    assert "largest budget" not in told and f"batch_tokens {700 // row * row}" in told
    assert runs.load(folder).record["measurements"]["batch_tokens"] == figures
    assert run_recipe([*argv, "batching.memory_share=1e-6"], tmp_path / "third") == 2
    assert "batching.memory_share: the longest pair, of " in (tmp_path / "third.err").read_text()


def an_update(model=None, *, objective=None, **training):
    settings = load(TrainingRecipe, None, [f"training.{name}={json.dumps(value)}" for name, value in training.items()])
    arguments = settings.training.arguments(seed=1, run_name="toy", validate=False)
    if objective is not None:
        objective_settings = types.SimpleNamespace(build=lambda *_: objective, ema=None)
        settings = types.SimpleNamespace(training=settings.training, objective=objective_settings)
    return _Update(settings, arguments, model or make_model(), make_tokenizer(), collate, (8, 8))


def state_of(update):
    """Numbers that the optimizer keeps for each weight."""
    kept = sum(one.numel() for state in update._optimizer.state.values() for one in state.values() if numpy.ndim(one))
    return kept / sum(weight.numel() for weight in update._model.parameters())


@pytest.mark.parametrize(
    ("optim", "numbers"), [("adamw_torch_fused", 2), ("sgd", 0), ("adafactor", 0.2), ("lion", 1), ("muon", 1.2)]
)
def test_the_state_is_that_of_the_optimizer_of_the_training(optim, numbers):
    if optim == "lion":
        pytest.importorskip("pytorch_optimizer")
    update = an_update(optim=optim)
    assert update(16) > 0
    if optim in ("adafactor", "muon"):
        assert 0.5 * numbers < state_of(update) < 1.5 * numbers
    else:
        assert state_of(update) == numbers


@pytest.mark.parametrize(("options", "layers"), [(None, 4), ({"every_n_layers": 2}, 2)])
def test_activations_are_computed_again_as_in_the_training(options, layers):
    """Each checkpointed layer runs once more in the backward pass."""
    model = make_model()
    given = {} if options is None else {"activation_checkpointing_kwargs": options}
    update = an_update(model, activation_checkpointing=True, **given)
    calls = [0, 0]

    def count(which):
        return lambda *_: calls.__setitem__(which, calls[which] + 1)

    for layer in [*update._model.model.encoder.layers, *update._model.model.decoder.layers]:
        layer.final_layer_norm.register_forward_hook(count(0))
    update(16)
    assert calls[0] == 4 + layers


def test_batches_that_are_accumulated_find_the_gradients_of_those_before():
    update = an_update(gradient_accumulation_steps=4)
    seen = []
    objective = update._objective
    update._objective = lambda model, *rest: (
        seen.append(any(weight.grad is not None for weight in model.parameters())), objective(model, *rest)
    )[1]  # fmt: skip
    update(16)
    assert seen == [False, True]


def test_memory_of_a_processor_that_runs_out_is_no_error_and_another_error_is():
    class Objective:
        def begin(self, num_updates):
            pass

        def __call__(self, model, batch, step):
            if wanted is None:
                raise RuntimeError("size mismatch")
            return torch.empty(wanted, dtype=torch.uint8)

    update = an_update(objective=Objective())
    wanted = 1 << 60
    assert update(16) is None
    wanted = None
    with pytest.raises(RuntimeError, match="size mismatch"):
        update(16)


def test_an_optimizer_that_never_has_all_gradients_is_refused():
    run = types.SimpleNamespace(record={"choices": {}})
    settings = types.SimpleNamespace(batching=BatchingSettings(memory_share=0.5))
    arguments = types.SimpleNamespace(world_size=1, device=torch.device("cpu"), optim="lomo")
    with pytest.raises(ConfigError, match="batching.memory_share: lomo updates the weights in the backward pass"):
        fit_memory(run, settings, arguments, None, None, None, None)


def test_several_processes_are_refused():
    run = types.SimpleNamespace(record={"choices": {}})
    settings = types.SimpleNamespace(batching=BatchingSettings(memory_share=0.5))
    arguments = types.SimpleNamespace(world_size=2, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="batching.memory_share: the budget is found by one process"):
        fit_memory(run, settings, arguments, None, None, None, None)
