"""Saved models of other families, adapters and datasets of the Hub, trained on a stream: killed and resumed too."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import families
import pytest
import torch
from hub_server import HubServer
from recipe_processes import RECIPE, run_recipe
from run_folders import equal, last_weights, run_named
from safetensors.torch import load_file

from hf_nmt import runs
from hf_nmt.batching import BatchingSettings, PairEncoder, StreamedBatches, TranslationCollator
from hf_nmt.data.sources import CorpusSettings
from hf_nmt.data.streams import stream_pairs
from hf_nmt.models.sources_nmt import Languages
from hf_nmt.training import checkpoints

# Updates large enough for twelve of them to reach the second reading.
STREAM = (
    "data.train.streaming=true", "batching.streaming_window=40", "batching.batch_tokens=1024",
    "training.max_steps=12", "training.save_steps=3", "training.eval_steps=12", "training.save_total_limit=9",
    "training.learning_rate=1e-2",
)  # fmt: skip
COUNT = 110


def write_rows(path: Path, codes: tuple[str, ...]) -> None:
    """Records that name their target language, drawn from the codes; of a single code, that name none."""
    draw = random.Random(2)
    with path.open("w") as file:
        for source, target in zip(*families.pairs(COUNT, seed=3), strict=True):
            named = {"target_language": draw.choice(codes)} if len(codes) > 1 else {}
            file.write(json.dumps({"source": source, "target": target} | named) + "\n")


def arguments(name: str, folder: Path, *more: str) -> list[str]:
    write_rows(folder / "text.jsonl", families.FAMILIES[name].targets or ("",))
    corpus = ("data.train.source=null", "data.train.target=null", f"data.train.path={folder / 'text.jsonl'}")
    return families.arguments(name, folder, *corpus, *STREAM, *more)


def slow(*values: object):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [("nllb", True), slow("nllb", False), slow("marian", False), slow("marian_multilingual", True), slow("t5", False)],
)
def test_a_saved_model_killed_twice_and_resumed_equals_one_never_killed(tmp_path, name, adapter):
    argv = arguments(name, tmp_path, *(("model.adapter.rank=4",) if adapter else ()))
    assert run_recipe([*argv, "name=whole"], tmp_path / "whole") == 0, (tmp_path / "whole.err").read_text()
    assert run_recipe([*argv, "name=killed"], tmp_path / "first", signal_at=4) == -signal.SIGKILL
    whole, run = run_named(tmp_path, "whole"), run_named(tmp_path, "killed")
    assert run_recipe([f"resume={run}"], tmp_path / "second", signal_at=11) == -signal.SIGKILL
    assert run_recipe([f"resume={run}"], tmp_path / "third") == 0, (tmp_path / "third.err").read_text()
    assert "continuing at step 9" in (tmp_path / "third.err").read_text()
    file = "adapter_model.safetensors" if adapter else "model.safetensors"
    assert equal(last_weights(whole, file), last_weights(run, file))
    best, base = (load_file(folder / "model.safetensors") for folder in (run / "best", tmp_path / "model"))
    assert any(not torch.equal(best[key], base[key]) for key in base)
    streams = [json.loads((folder / "summary.json").read_text())["stream"] for folder in (whole, run)]
    assert streams[0] == streams[1] and streams[0]["pairs"] > COUNT
    state = checkpoints.read_state(runs.checkpoint_folder(run / "checkpoints", 9))["stream"]
    assert (state["epoch"], state["window"]) > (0, 0)


@pytest.mark.parametrize("name", ["nllb", "m2m_100", "mbart50", "marian_multilingual", "t5"])
def test_each_streamed_row_is_in_its_own_language(tmp_path, name):
    family = families.FAMILIES[name]
    write_rows(tmp_path / "text.jsonl", family.targets)
    model, tokenizer = families.load(name)
    limits = BatchingSettings(batch_tokens=256, max_source_length=60, max_target_length=60, streaming_window=40)
    encoder = PairEncoder(
        tokenizer, limits, languages=Languages.of(model.config, tokenizer), source_language=family.source
    )
    stream = stream_pairs(CorpusSettings(path=str(tmp_path / "text.jsonl")), source_language=family.source)
    batches = StreamedBatches(stream, encoder, TranslationCollator.for_model(model), limits, seed=1)
    found = []
    for batch, behind in batches:
        for source, target in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
            pad = tokenizer.pad_token_id
            found.append(([one for one in source if one != pad], [one for one in target if one not in (-100, pad)]))
        if behind.epoch:
            break
    expected = []
    names = {"de": "German", "fr": "French", "ro": "Romanian"}
    for record in map(json.loads, (tmp_path / "text.jsonl").read_text().splitlines()):
        code, source = record["target_language"], record["source"]
        if name == "t5":
            source = f"translate English to {names[code]}: {source}"
        elif name == "marian_multilingual":
            source = f">>{code}<< {source}"
        else:
            tokenizer.src_lang, tokenizer.tgt_lang = family.source, code
        expected.append((tokenizer(source)["input_ids"], tokenizer(text_target=record["target"])["input_ids"]))
    assert len(expected) == COUNT and sorted(found) == sorted(expected)


@pytest.mark.slow
def test_a_dataset_of_the_hub_is_read_over_the_network_killed_and_resumed(tmp_path):
    rows = zip(*families.pairs(COUNT, seed=3), strict=True)
    text = "".join(json.dumps({"translation": {"de": source, "en": target}}) + "\n" for source, target in rows)
    argv = families.arguments("marian", tmp_path, *STREAM, "data.train.source=null", "data.train.target=null")
    argv += ["data.train.path=me/pairs", "data.train.split=train", "training.max_steps=150", "training.save_steps=10"]
    argv += ["training.eval_strategy=no"]
    with HubServer() as server:
        server.put("me/pairs", {"train.jsonl": text.encode(), "README.md": b"---\nlicense: other\n---\n"})
        variables = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

        def start(output: str, *given: str) -> subprocess.Popen:
            return subprocess.Popen(
                [sys.executable, str(RECIPE), *given], env=os.environ | variables | {"HF_HUB_OFFLINE": "0"},
                stdout=subprocess.DEVNULL, stderr=(tmp_path / output).open("w"),
            )  # fmt: skip

        assert start("whole", *argv, "name=whole").wait(300) == 0, (tmp_path / "whole").read_text()
        assert any("/datasets/me/pairs/resolve/" in path for _, path, _ in server.requests)
        killed = start("killed", *argv, "name=killed")
        while not list((tmp_path / "runs").glob("killed-*/checkpoints/step-*")):
            assert killed.poll() is None, (tmp_path / "killed").read_text()
            time.sleep(0.05)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        run = run_named(tmp_path, "killed")
        step = runs.step_of(checkpoints.latest_whole(run / "checkpoints"))
        # Without the network nothing is lost, and it is told.
        server.fails_at["/"] = 503
        assert start("refused", f"resume={run}").wait(300) == 2, (tmp_path / "refused").read_text()
        told = (tmp_path / "refused").read_text()
        assert "me/pairs" in told and "is the network there" in told and "Traceback" not in told
        server.fails_at.clear()
        assert start("resumed", f"resume={run}").wait(300) == 0, (tmp_path / "resumed").read_text()
    assert 10 <= step < 150 and f"continuing at step {step}" in (tmp_path / "resumed").read_text()
    assert equal(last_weights(run_named(tmp_path, "whole")), last_weights(run))
