"""Where the time goes: planted slow parts, sums, what is saved, the recipe."""

from __future__ import annotations

import json
import time

import pytest
import torch
import toy_training
from settings_walk.keys import recipe_module
from torch import nn

from hf_nmt.errors import ConfigError
from hf_nmt.models.layers_nmt import Attention, FeedForward
from hf_nmt.profiling import measuring
from hf_nmt.profiling.measuring import Update, measure_training, num_updates, padding_share, utilization
from hf_nmt.profiling.report import percentile
from hf_nmt.training.memory_budget import peak_memory
from hf_nmt.training.objectives import ObjectiveSettings


def profiled(tmp_path, *, plant=None, count=3, model=None, trace=None, **settings):
    """The profile of a toy training, and its trainer; `plant` is called with the model before."""
    model = toy_training.make_model(dropout=0.0) if model is None else model
    if plant is not None:
        plant(model)
    trainer = toy_training.make_trainer(
        toy_training.make_run(tmp_path), model=model, max_steps=num_updates(1, count), save_strategy="no", **settings
    )
    return measure_training(trainer, warmup=1, count=count, trace=trace), trainer


def hooked(kind, function):
    """Plants a function that is called before each module of a class computes."""

    def plant(model: nn.Module) -> None:
        modules = [module for module in model.modules() if isinstance(module, kind)]
        assert modules
        for module in modules:
            module.register_forward_pre_hook(lambda *_: function())

    return plant


def busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.mark.parametrize(
    ("kind", "calls", "part"),
    [
        (FeedForward, 4, measuring.FEED_FORWARD),
        (Attention, 6, measuring.ATTENTION),
        (nn.LayerNorm, 12, measuring.NORMS),
    ],
    ids=["feed-forward", "attention", "norms"],
)
def test_a_part_that_computes_long_shows_in_its_row(tmp_path, kind, calls, part):
    """Two layers on each side: 4 feed-forward blocks, 2 + 2 * 2 of attention, 2 * 2 + 2 * 3 + 2 norms."""
    found, _ = profiled(tmp_path, plant=hooked(kind, lambda: busy(0.02)))
    wall, cpu = found.parts[part]
    assert 0.02 * calls <= cpu < 0.02 * calls * 1.6 + 0.02 and wall >= cpu * 0.95
    others = [times[1] for name, times in found.parts.items() if name != part]
    assert cpu > 2 * max(others)


def test_a_part_that_waits_shows_in_wall_time_alone(tmp_path):
    found, _ = profiled(tmp_path, plant=hooked(nn.Embedding, lambda: time.sleep(0.05)))
    wall, cpu = found.parts[measuring.EMBEDDINGS]
    assert wall >= 0.1 and cpu < 0.03


def test_slow_data_and_a_slow_optimizer_show_in_their_rows(tmp_path):
    def collator(rows):
        busy(0.05)
        return toy_training.collate(rows)

    found, _ = profiled(tmp_path, collator=collator)
    assert found.parts[measuring.DATA][1] >= 0.05
    assert max(times[1] for name, times in found.parts.items() if name != measuring.DATA) < 0.05


def test_the_parts_sum_to_the_update(tmp_path):
    found, trainer = profiled(tmp_path, plant=hooked(FeedForward, lambda: busy(0.01)), count=5)
    assert sum(wall for wall, _ in found.parts.values()) == pytest.approx(found.parts_wall, rel=0.02)
    assert set(found.parts) == set(measuring.PARTS) and all(wall >= 0 for wall, _ in found.parts.values())
    # The plain updates, timed without regions inside, take as much processor time: most of it is the planted loop.
    plain = sum(update.cpu for update in found.updates) / len(found.updates)
    assert sum(cpu for _, cpu in found.parts.values()) == pytest.approx(plain, rel=0.5)
    assert found.parts[measuring.OTHER][0] < 0.2 * found.parts_wall
    assert trainer.state.global_step == num_updates(1, 5) and len(found.updates) == 5


def test_nothing_is_left_behind(tmp_path):
    model = toy_training.make_model()
    _, trainer = profiled(tmp_path, model=model)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    for place, name in ((trainer, "compute_loss"), (trainer, "get_batch_samples"), (trainer.accelerator, "backward")):
        assert name not in vars(place)
    assert measuring.modeling_nmt.smoothed_cross_entropy.__name__ == "smoothed_cross_entropy"
    assert not hasattr(measuring.modeling_nmt.smoothed_cross_entropy, "__wrapped__")


def test_what_a_feed_forward_block_saves(tmp_path):
    """Its input and what relu lets through: (D + F) numbers a token and layer."""
    found, _ = profiled(tmp_path)
    width, inner, layers = 16, 32, 2
    assert found.saved[measuring.FEED_FORWARD] == found.saved_tokens * layers * (width + inner) * 4


def test_padding_counted_by_hand():
    first = Update(source_lengths=[[4, 2]], target_lengths=[[3, 3]])  # 8 places with 2 empty; 6 with none
    second = Update(source_lengths=[[1], [5, 5, 2]], target_lengths=[[6], [1, 1, 4]])  # 16 with 3; 18 with 6
    shares = padding_share([first, second])
    assert shares == {"source": 1 - 19 / 24, "target": 1 - 18 / 24, "both": 1 - 37 / 48}
    assert first.tokens == 12


def test_lengths_are_those_of_the_batches(tmp_path):
    pairs = toy_training.make_pairs(64)
    found, _ = profiled(tmp_path, pairs=pairs, sampler=toy_training.GroupSampler(64, 8, shuffle=False))
    for number, update in enumerate(found.updates, start=1):  # after one of warm-up
        rows = pairs[8 * number : 8 * number + 8]
        assert update.source_lengths == [[len(row) for row in rows["input_ids"]]]
        assert update.target_lengths == [[len(row) for row in rows["labels"]]]


def test_utilization_is_work_over_time_over_peak(tmp_path):
    found, trainer = profiled(tmp_path)
    used = utilization(trainer, found, peak=1e9, one_pass=True)
    config = trainer.model.config
    flops = 0
    for update in found.updates:
        ((sources,), (targets,)) = update.source_lengths, update.target_lengths
        d, f = config.d_model, config.encoder_ffn_dim
        per_token = {"source": 2 * (8 * d * d + 4 * d * f), "target": 2 * (12 * d * d + 4 * d * f) + 2 * d * 40}
        flops += sum(sources) * per_token["source"] + sum(targets) * per_token["target"]
        flops += 2 * 4 * d * d * sum(sources)  # keys and values of cross-attention
        scores = sum(s * s + t * t + s * t for s, t in zip(sources, targets, strict=True))
        flops += 2 * 4 * d * scores
    assert used.flops == 3 * flops
    assert used.share == pytest.approx(3 * flops / sum(update.cpu for update in found.updates) / 1e9)
    measured = utilization(trainer, found, peak=None, one_pass=True)
    assert measured.peak > 1e7 and "float32 matrices" in measured.peak_source
    assert utilization(trainer, found, peak=1e9, one_pass=False).share is None


def test_an_update_of_sharpness_aware_minimization_is_not_counted_as_one_pass(tmp_path):
    found, trainer = profiled(tmp_path, sam_rho=0.05)
    used = utilization(trainer, found, peak=1e9, one_pass=True)
    assert used.share is None and "more than once" in used.reason


@pytest.mark.parametrize("make", [toy_training.make_model, toy_training.make_marian])
def test_the_loss_of_r_drop_has_a_row_and_the_rows_sum_to_the_update(tmp_path, monkeypatch, make):
    for name in ("paired_cross_entropy", "paired_cross_entropy_from_logits"):
        loss = getattr(measuring.r_drop, name)
        slow = lambda *given, loss=loss, **named: (busy(0.05), loss(*given, **named))[1]  # noqa: E731
        monkeypatch.setattr(measuring.r_drop, name, slow)
    objective = ObjectiveSettings.model_validate({"r_drop": {}})
    found, _ = profiled(tmp_path, model=make(dropout=0.1), objective=objective)
    assert 0.05 <= found.parts[measuring.PROJECTION][1] < 0.08 and found.parts[measuring.FORWARD][1] < 0.05
    assert sum(wall for wall, _ in found.parts.values()) == pytest.approx(found.parts_wall, rel=0.02)


def test_the_peak_of_memory_is_that_of_the_updates(tmp_path):
    """Not of what the process held before them."""
    held = bytearray(b"1") * (256 << 20)
    before = peak_memory(torch.device("cpu"))
    del held
    found, _ = profiled(tmp_path)
    assert 0 < found.peak_bytes < before - (200 << 20)


def test_models_of_other_families_have_the_same_parts(tmp_path):
    found, trainer = profiled(tmp_path, model=toy_training.make_marian())
    for part in (measuring.EMBEDDINGS, measuring.ATTENTION, measuring.FEED_FORWARD, measuring.NORMS,
                 measuring.PROJECTION, measuring.BACKWARD, measuring.OPTIMIZER):  # fmt: skip
        assert found.parts[part][0] > 0, part
    assert found.counted_flops > 0 and utilization(trainer, found, peak=1e9, one_pass=True).flops > 0


def test_the_trace_is_one_that_chrome_reads(tmp_path):
    found, _ = profiled(tmp_path, trace=tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "aten::addmm" for event in events)
    assert any(name == "aten::addmm" for name, *_ in found.operators) or len(found.operators) == 12


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.1, 1), (0.0, 1), (1.0, 10)])
def test_percentiles_are_nearest_ranks(share, expected):
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == expected


def test_the_recipe_profiles_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [" ".join("abcdefgh"[number % 7 :][: 2 + number % 5]) for number in range(40)]
    for name in ("t.de", "t.en", "v.de", "v.en"):
        (tmp_path / name).write_text("".join(f"{row}\n" for row in rows))
    texts = [f"data.{split}.{side}={file}" for split, side, file in (
        ("train", "source", "t.de"), ("train", "target", "t.en"), ("validation", "source", "v.de"),
        ("validation", "target", "v.en"))]  # fmt: skip
    train = recipe_module("train")
    for name in ("plot_run",):
        monkeypatch.setattr(train, name, lambda folder: None)
    assert (
        train.main(["--config", "tiny", "data.source_language=de", "data.target_language=en", "name=a", *texts]) == 0
    )
    (run,) = (tmp_path / "runs").iterdir()
    before = sorted(path for path in run.rglob("*") if not path.name.startswith("."))
    capsys.readouterr()
    module = recipe_module("profile_run")
    assert module.main(["--config", "tiny", str(run), "trace=true", "peak_tflops=2"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "Parts of an update",
        "forward: attention",
        "MFU",
        "of 2,000.0 GFLOP a CPU second (given)",
        "padding",
    ):
        assert line in shown
    assert sorted(path for path in run.rglob("*") if not path.name.startswith(".")) == before
    assert {path.name for path in (tmp_path / "profile").iterdir()} == {"profile.json", "profile.md", "trace.json"}
    record = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert [row["batch_size"] for row in record["inference"]["rows"]] == [1, 2]
    assert record["inference"]["weights"] == "of best/" and record["inference"]["sentences"] == 4
    assert all(0 < row["latency_p50"] <= row["latency_p95"] for row in record["inference"]["rows"])
    parts = record["training"]["parts"]
    total = sum(part["wall_seconds"] for part in parts.values())
    assert total == pytest.approx(record["training"]["parts_wall_seconds"], rel=0.02)
    assert record["validation"]["sentences"] == 40 and record["training"]["epoch"]["updates"] > 0
    weights = record["memory"]["weights_bytes"]
    assert weights == 4 * record["parameters"] == record["memory"]["gradients_bytes"]
    assert 2 * weights <= record["memory"]["optimizer_bytes"] < 2 * weights + 1000  # both moments, and step counts


def test_what_cannot_be_profiled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = recipe_module("profile_run")
    for arguments, told in (
        ([], r"run: give run=runs/<id> or train_config=FILE, and not both\."),
        (["train_config=no.yaml"], r"train_config: no\.yaml does not exist\."),
        (["nowhere"], r"of the training: nowhere: there is no such folder"),
        (["train_config=t.yaml", "overrides=[model.d_modle=3]"], r"of the training: model\.d_modle: unknown key"),
        (["train_config=t.yaml", "batch_sizes=[0]"], r"batch_sizes: given \[0\], allowed: whole numbers from 1\."),
    ):
        (tmp_path / "t.yaml").write_text("data: {source_language: de, target_language: en}\n")
        with pytest.raises(ConfigError, match=told):
            module.main(arguments)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"run: one process is measured\. Start it with python, not with a launcher"):
        module.main(["train_config=t.yaml"])
