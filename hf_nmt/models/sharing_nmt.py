"""Pushing a model as it is in memory, with all that it needs: tokenizer, generation settings, code, pipeline, card.

It travels with the weights, so that a model that was loaded as remote code is pushed as one of the installed package.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import huggingface_hub
from huggingface_hub import ModelCard, ModelCardData
from transformers.dynamic_module_utils import get_relative_import_files

from .configuration_nmt import CUSTOM_PIPELINES
from .hub_nmt import CARD, PushOptions, find_repository, push_files
from .marian_positions_nmt import keep_positions

logger = logging.getLogger(__name__)

_CHANGED = (
    "> The weights were changed after this card was written: what it says of training and scores holds for the "
    "model that they were changed from.\n\n"
)
_USE = """
```python
from transformers import pipeline

translate = pipeline("translation", model="{repo_id}", trust_remote_code=True)
```
"""


def files_of(folder: Path) -> dict[str, Path | bytes]:
    """Name -> path of the files of a model folder, in folders below it too; hidden ones and caches are left out."""
    found: dict[str, Path | bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            found[name.as_posix()] = path
    return found


def add_pipeline(files: dict[str, Path | bytes]) -> None:
    """Let the model bring `pipeline("translation")`, of whatever family it is: the code, and its name in config.json.

    Where somebody else's translation pipeline is named there, it stays.
    """
    config = _json_of(files["config.json"])
    pipelines = config.get("custom_pipelines") or {}
    ours = CUSTOM_PIPELINES["translation"]
    if pipelines.get("translation", ours)["impl"] != ours["impl"]:
        return
    code = Path(__file__).with_name("pipeline_nmt.py")
    if code.name not in files:  # otherwise all that it imports is there, of the same version
        files |= {file.name: file for file in map(Path, (code, *get_relative_import_files(code)))}
    if "translation" not in pipelines:
        config["custom_pipelines"] = {**pipelines, **copy.deepcopy(CUSTOM_PIPELINES)}
        files["config.json"] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def push_model(
    model: Any,
    tokenizer: Any,
    repo_id: str,
    *,
    card: str | None = None,
    token: str | None = None,
    revision: str | None = None,
    max_shard_size: int | str = "50GB",
    **options: Unpack[PushOptions],
) -> huggingface_hub.CommitInfo:
    """Push a model in memory in one commit.

    Args:
        model: of any family; what is pushed are its weights and settings as they are now.
        tokenizer: of the model.
        repo_id: `owner/name`, or a name alone for a repository of your own.
        card: text of README.md. None takes that of the folder or repository that the model was loaded from, with a
            note where the weights are others now; where there is none, that of the repository pushed to, or a short
            one.
        max_shard_size: largest file of weights.
        token, revision: see `find_repository`.
        options: see `PushOptions`.

    Raises:
        PushError: it was not pushed, and nothing of it is in the repository.
    """
    repository = find_repository(repo_id, token=token, revision=revision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keep_positions(model)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        tokenizer.save_pretrained(folder)
        files = files_of(folder)
        add_pipeline(files)
        if card is None:
            origin = model.name_or_path
            base_model = origin if origin and not Path(origin).is_dir() else None
            card = _card_of(model, folder) or repository.texts.get(CARD)
            card = card or card_without_facts(files, repository.id, base_model)
        files[CARD] = card.encode()
        return push_files(files, repository, **options)


def _card_of(model: Any, saved: Path) -> str | None:
    """The card of what the model was loaded from, as far as it still holds."""
    origin = model.name_or_path
    path = _beside(origin, CARD)
    if path is None:
        return None
    card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    if all(_same(_beside(origin, file.name), file) for file in saved.glob("*.safetensors")):
        return str(card)
    if not Path(origin).is_dir():
        return None  # trained further from a model of somebody's: its card is not that of this one
    logger.warning("The weights differ from those in %s: its card is pushed with a note, and without scores.", origin)
    card.data.eval_results = None
    if _CHANGED not in card.text:
        card.text = _CHANGED + card.text.lstrip()
    return str(card)


def _beside(origin: str, name: str) -> Path | None:
    """A file of the folder or of the repository that a model was loaded from."""
    if not origin or Path(origin).is_dir():
        path = Path(origin, name)
        return path if origin and path.is_file() else None
    with contextlib.suppress(Exception):  # it is not there, or cannot be asked for
        return Path(huggingface_hub.hf_hub_download(origin, name))
    return None


def _same(one: Path | None, other: Path) -> bool:
    return one is not None and _digest(one) == _digest(other)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_without_facts(files: Mapping[str, Path | bytes], repo_id: str, base_model: str | None = None) -> str:
    """A card of what a model's configuration tells, where nothing is recorded of its training."""
    config = _json_of(files.get("config.json") or files["adapter_config.json"])
    languages = [config.get(name) for name in ("source_language", "target_language")]
    adapted = config.get("base_model_name_or_path")
    data = ModelCardData(
        language=[code for code in languages if code] or None,
        library_name="peft" if adapted else "transformers",
        pipeline_tag="translation",
        tags=["translation", "hf_nmt"],
        base_model=base_model or (None if adapted is None or Path(adapted).is_absolute() else adapted),
    )
    kind = f"An adapter of `{data.base_model or 'a model'}`" if adapted else f"A `{config['model_type']}` model"
    pair = f" from `{languages[0]}` to `{languages[1]}`" if all(languages) else ""
    return (
        f"---\n{data.to_yaml()}\n---\n\n# {repo_id.partition('/')[2]}\n\n{kind} that translates{pair}. Nothing is "
        "recorded here of its training, and no scores.\n" + ("" if adapted else _USE.format(repo_id=repo_id))
    )


def _json_of(content: Path | bytes) -> Any:
    return json.loads(content if isinstance(content, bytes) else content.read_text(encoding="utf-8"))
