"""What runs left behind, read back as it is: for cards, comparisons and reports. `hf_nmt.runs` writes it."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_nmt import runs
from hf_nmt.artifacts import is_complete
from hf_nmt.errors import ConfigError

# What the chosen model of a run made of the validation texts, one JSON object a segment.
VALIDATION_SEGMENTS = "validation_segments.jsonl"

# Metrics of validations of which less is better.
FALLING = ("loss", "perplexity", "ter", "off_target", "repetition")

_FILES = ("run", "manifest", "summary", "tokenizer_report", "validation_history")
# Tables with a row for each subword or position, and the projection onto the vocabulary, in all families.
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|shared|embed_positions|lm_head|final_logits_bias)(\.|$)")


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a run.

    Attributes:
        folder: of the run.
        run, manifest, summary, tokenizer_report: the files of these names; empty where there is none.
        validations: the validations of validation_history.json that count.
        given_up: its validations of weights that the training went back from.
        decisions: its other entries: what was decided while training, such as to skip a batch.
        problems: records that cannot be read, one sentence each; they count as missing.
    """

    folder: Path
    run: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any]
    tokenizer_report: dict[str, Any]
    validations: list[dict[str, Any]]
    given_up: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    problems: list[str]

    @property
    def status(self) -> str:
        """As in run.json; `killed` where it says `running` and no process holds the run any more."""
        status = self.run.get("status", "unknown")
        return "killed" if status == "running" and not runs.is_locked(self.folder) else status


def read_records(folder: Path | str) -> Records:
    """Read the records of a run folder; what is missing or torn is told in `problems`, and nothing is raised."""
    folder = Path(folder)
    found: dict[str, Any] = {}
    problems = []
    for name in _FILES:
        path, kind = folder / f"{name}.json", list if name == "validation_history" else dict
        content: Any = None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, kind):
                content = None
                problems.append(f"{path}: not what hf_nmt writes there.")
        except FileNotFoundError:
            pass
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}.")
        except ValueError as error:
            problems.append(f"{path}: not JSON: {error}.")
        found[name] = kind() if content is None else content
    entries = [entry for entry in found.pop("validation_history") if isinstance(entry, dict)]
    validations = [entry for entry in entries if {"metrics", "samples"} & set(entry)]
    return Records(
        folder,
        **found,
        validations=[entry for entry in validations if runs.counts(entry)],
        given_up=[entry for entry in validations if not runs.counts(entry)],
        decisions=[entry for entry in entries if not {"metrics", "samples"} & set(entry)],
        problems=problems,
    )


def find_runs(paths: Iterable[Path | str]) -> list[Path]:
    """The run folders that paths stand for: run folders themselves, folders inside them, or folders of runs.

    Raises:
        ConfigError: a path stands for none.
    """
    found: dict[Path, Path] = {}
    findings = []
    for path in map(Path, paths):
        own = next((one for one in (path, *path.parents[:2]) if (one / "run.json").is_file()), None)
        folders = [own] if own is not None else sorted(file.parent for file in path.glob("*/run.json"))
        if not folders:
            why = "there is no such folder" if not path.is_dir() else "it is no run folder, and holds none"
            findings.append(f"{path}: {why}. Give run folders, such as runs/<id>, or a folder of them.")
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    if findings:
        raise ConfigError(findings)
    return list(found.values())


def short_names(folders: Sequence[Path]) -> list[str]:
    """A name for each run folder, without its time where that is enough to tell them apart."""
    names = [re.sub(r"-\d{8}-\d{6}(-\d+)?$", "", folder.resolve().name) for folder in folders]
    for longer in ([folder.resolve().name for folder in folders], list(map(str, folders))):
        names = [longer[index] if names.count(name) > 1 else name for index, name in enumerate(names)]
    return names


def model_folder(records: Records) -> Path | None:
    """Where the weights of a run are: `best/`, else its newest whole checkpoint; None where nothing was saved."""
    best = records.folder / "best"
    if any(best.glob("*.safetensors")):
        return best
    newest = (folder for folder in reversed(runs.list_checkpoints(records.folder / "checkpoints")))
    return next((folder for folder in newest if is_complete(folder)), None)


def count_weights(folder: Path) -> tuple[int, int] | None:
    """Weights that a model folder holds, and how many of them are not of embeddings: token and position tables and the
    projection onto the vocabulary.

    Tied ones are saved once and count once. Only the headers of the safetensors files are read; None where there are
    none, as where an adapter alone was saved.
    """
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        shapes |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    if not shapes:
        return None
    sizes = {name: _product(shape) for name, shape in shapes.items()}
    return sum(sizes.values()), sum(size for name, size in sizes.items() if not _EMBEDDING.search(name))


def _product(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A tree of plain values as dotted path -> value; lists and empty sections are values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        whole = f"{path}.{key}" if path else str(key)
        found |= leaves(value, whole) if isinstance(value, Mapping) and value else {whole: value}
    return found


def is_falling(metric: str) -> bool:
    """Whether less of a metric of validations is better."""
    return is_one_of(metric, FALLING)


def is_one_of(metric: str, names: Sequence[str]) -> bool:
    """Whether it is one of these metrics, or one of them for a language pair, such as ter_de-en."""
    return any(metric == name or metric.startswith(f"{name}_") for name in names)
