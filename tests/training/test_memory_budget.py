from __future__ import annotations

import types

import pytest
import torch
from corpora import write_corpus
from hypothesis import given
from hypothesis import strategies as st
from recipe_processes import run_recipe

from hf_nmt import runs
from hf_nmt.batching import BatchingSettings
from hf_nmt.errors import ConfigError
from hf_nmt.training.memory_budget import MIB, fit_memory, largest_budget


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


def test_several_processes_are_refused():
    run = types.SimpleNamespace(record={"choices": {}})
    settings = types.SimpleNamespace(batching=BatchingSettings(memory_share=0.5))
    arguments = types.SimpleNamespace(world_size=2, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="batching.memory_share: the budget is found by one process"):
        fit_memory(run, settings, arguments, None, None, None, None)
