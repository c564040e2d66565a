"""The folder of a finished run, as far as cards and pushes read it, without a training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import hash_model, mark_complete, write_json
from hf_nmt.config import fingerprint

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
TRAIN_HASH, VALIDATION_HASH = "ab" * 32, "cd" * 32
SAMPLES = [
    {"source": "Ein Hund | <b>rennt</b>\nschnell.", "reference": "A *dog* runs.", "translation": "A `dog`."},
    {"source": "Zwei Katzen.", "reference": "Two cats.", "translation": "Two cats."},
]


def score(
    value: float = 41.234, split: str = "validation", system: str | None = None, **changes: Any
) -> dict[str, Any]:
    return {
        "name": "BLEU", "value": value, "unit": "points of 100", "signature": SIGNATURE, "n": 1014,
        "interval": [40.1, 42.2], "data": {"id": None, "hash": VALIDATION_HASH, "split": split, "domain": None},
        "system": {"hash": system, "decoding": {"num_beams": 5, "length_penalty": 1.0}}, "segments": None,
    } | changes  # fmt: skip


def write_run(folder: Path, model: Path, /, **settings: Any) -> Path:
    """A run folder with a copy of the model in `best/`.

    Args:
        settings: sections of the settings that take the place of those here.
    """
    shutil.copytree(model, folder / "best")
    resolved = {
        "data": {"source_language": "de", "target_language": "en"},
        "model": {},
        "batching": {"batch_tokens": 2048, "max_source_length": 256},
        "training": {"optim": "adamw_torch_fused", "learning_rate": 0.001, "label_smoothing_factor": 0.1},
        "schedule": {"name": "cosine", "warmup_steps": 500},
        "metrics": {"confidence": 0.95},
    } | settings
    command = ["train.py", "--config", "de-en_small", "output_dir=/secret/runs", "data.train.source=/secret/train.de"]
    write_json(folder / "run.json", {
        "schema_version": 1, "status": "finished", "recipe": "train", "name": "de-en", "settings": resolved,
        "fingerprint": "0123456789abcdef", "seeds": {"seed": 42}, "choices": {"mixed_precision": "bf16"},
        "device": {"type": "cpu", "name": "A|processor", "processes": 1},
        "environment": {"python": "3.11.7", "packages": {"hf_nmt": "0.1.0", "torch": "2.13.0"}, "command": command,
                        "commit": "f" * 40},
    })  # fmt: skip
    inputs = {"source": "/secret/train.de", "target": "/secret/train.en", "format": "auto"}
    write_json(folder / "manifest.json", {
        "languages": ["de", "en"],
        "splits": {"train": {"rows": 29000, "content_hash": TRAIN_HASH},
                   "validation": {"rows": 1014, "content_hash": VALIDATION_HASH}},
        "inputs": {"train": inputs, "validation": {"path": "controlled/tiny", "split": "validation"}},
        "steps": [{"name": "encode", "split": "train", "dropped": {"too long": 1200}, "changed": {}}],
    })  # fmt: skip
    write_json(folder / "summary.json", {
        "best": {"kind": "average", "steps": [3000, 4000]}, "candidates": [{}, {}], "steps": 4914, "epochs": 18.0,
        "tokens": 16_857_486, "seconds": 3395.4, "parameters": 6_808_576,
        "scores": [score(system=fingerprint(hash_model(folder / "best")))],
    })  # fmt: skip
    write_json(folder / "validation_history.json", [{"step": 4000, "samples": SAMPLES}])
    return folder


def write_scores(folder: Path, model: Path, value: float = 38.5) -> Path:
    """What recipes/validate.py leaves of a test set, as far as cards read it."""
    record = score(value, "test", fingerprint(hash_model(model)), interval=None)
    record["data"]["id"] = "/secret/test_2016.de"
    write_json(folder / "scores.json", [record])
    return folder


def write_evaluation(folder: Path, model: Path, value: float, name: str = "test_2016.de", **changes: Any) -> Path:
    """The folder of a test set's scores as recipes/validate.py writes it, as far as comparisons read it."""
    digest = fingerprint(hash_model(model))
    record = score(value, "test", digest, interval=None, **changes)
    text = fingerprint(name)
    record["data"] |= {"id": f"/secret/{name}", "hash": text}
    write_json(folder / "scores.json", [record])
    write_json(folder / "record.json", {"schema_version": 1, "hashes": {"data": text, "system": digest}})
    mark_complete(folder)
    return folder
