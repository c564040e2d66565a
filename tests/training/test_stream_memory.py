"""Memory of a stream does not grow with what was read of it."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEGABYTES = 60
# From the middle of the first quarter to the middle of the last: 45 MB of text are read between; as ids they are 9 MB.
MOST_GROWTH_MIB = 4

READ = """
import ctypes, gc, json, sys
import torch
from toy_training import make_tokenizer
from hf_nmt.batching import BatchingSettings, PairEncoder, StreamedBatches, StreamLoader, TranslationCollator
from hf_nmt.data.mixed_streams import MixedStream
from hf_nmt.data.sources import CorpusSettings
from hf_nmt.data.streams import stream_pairs

def anonymous():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free counts as long as it is not given back
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

folder, is_mixed = sys.argv[1], json.loads(sys.argv[2])
limits = BatchingSettings(batch_tokens=20000, max_source_length=600, max_target_length=600, streaming_window=2000)
streams = [stream_pairs(CorpusSettings(path=f"{folder}/{name}.jsonl")) for name in ("most", "some")]
counts = [stream.count() for stream in streams]
half = sum(counts) // 2
mixed = MixedStream({"xx-yy": ("xx", "yy", streams[0]), "more": ("xx", "yy", streams[1])}, counts, [half, half])
source = mixed if is_mixed else stream_pairs(CorpusSettings(path=f"{folder}/all.jsonl"))
encoder = PairEncoder(make_tokenizer(), limits)
batches = StreamedBatches(source, encoder, TranslationCollator(1, 2), limits, seed=1)
sizes, window = [], None
for _ in StreamLoader(batches, device=torch.device("cpu")):
    if batches.position.window != window:  # one window is held then, and the next one read
        window = batches.position.window
        sizes.append(anonymous())
    if batches.position.epoch:
        break
print(json.dumps([half, batches.position.totals.pairs, sizes]))
"""


def write_texts(folder: Path) -> None:
    """Records of some 800 bytes in three files, the first of which is the other two one after another."""
    draw = random.Random(0)
    words = [f"w{number}" * 5 for number in range(40)]
    with (folder / "all.jsonl").open("w") as whole:
        for name, megabytes in (("most", MEGABYTES * 4 // 5), ("some", MEGABYTES // 5)):
            with (folder / f"{name}.jsonl").open("w") as file:
                size = 0
                while size < megabytes * 10**6:
                    source = draw.choices(words, k=draw.randint(5, 55))
                    line = json.dumps({"source": " ".join(source), "target": " ".join(source[::-1])}) + "\n"
                    size += file.write(line)
                    whole.write(line)


@pytest.mark.slow
@pytest.mark.parametrize("is_mixed", [False, True], ids=["one corpus", "two drawn equally"])
def test_anonymous_memory_stays_flat(tmp_path, is_mixed):
    write_texts(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), json.dumps(is_mixed)], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    half, pairs, sizes = json.loads(done.stdout)
    assert pairs // 2 == half and len(sizes) >= 30
    quarter = len(sizes) // 4
    assert statistics.median(sizes[-quarter:]) < statistics.median(sizes[:quarter]) + MOST_GROWTH_MIB, sizes
