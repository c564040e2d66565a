"""Open any saved model as a `Translator`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nmt import artifacts
from hf_nmt.errors import NmtError
from hf_nmt.generation import hub

if TYPE_CHECKING:
    from hf_nmt.generation.translator import TorchTranslator

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def model_folder(path: str | Path) -> Path:
    """The folder of a saved model that can be loaded; of a run folder, its `best`.

    Raises:
        NmtError: there is none, or it is not whole.
    """
    path = Path(path)
    if path.is_file():
        raise NmtError(f"{path} is a file; a model is a folder with config.json, such as runs/<id>/best.")
    if not path.is_dir():
        raise NmtError(f"{path}: there is no such folder. Give the folder of a saved model, such as runs/<id>/best.")
    if (path / "run.json").is_file():
        if not (path / "best" / "config.json").is_file():
            raise NmtError(
                f"{path} is a run without a best model: none was saved, as training was stopped before its end or "
                f"still goes on. Continue it with: recipes/train.py resume={path}"
            )
        path = path / "best"
    if not (path / "config.json").is_file():
        inside = sorted(str(file.parent) for file in path.glob("*/config.json"))
        hint = f" There is a model in {', '.join(inside[:5])}." if inside else ""
        raise NmtError(f"{path} holds no model: config.json is missing.{hint}")
    if (path / artifacts.COMPLETE).is_file() and not artifacts.is_complete(path):
        raise NmtError("\n".join([f"{path} is not whole. Copy or write it again.", *artifacts.verify(path)]))
    if not any((path / name).is_file() for name in _WEIGHTS):
        raise NmtError(f"{path} holds no weights: none of {', '.join(_WEIGHTS)} is there. Was it written to the end?")
    return path


def find_model(path: str | Path) -> str:
    """The folder of a saved model (see `model_folder`), or an id of the Hub.

    Raises:
        NmtError: there is no such model, or the Hub cannot tell (see `hub.look_up`).
    """
    if not artifacts.may_be_hub_id(path):
        return str(model_folder(path))
    hub.look_up(str(path))
    return str(path)


def load_translator(
    path: str | Path,
    device: str | None = None,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    with_scores: bool = True,
) -> TorchTranslator:
    """Open a saved model: of hf_nmt, or any that `AutoModelForSeq2SeqLM` opens.

    Args:
        path: folder of a model, a run folder (its best model is taken) or a model id on the Hub.
        device: such as `cpu` or `cuda:0`; None takes a GPU where there is one.
        source_language, target_language: codes, for models of several languages.
        with_scores: see `TorchTranslator`.

    Raises:
        NmtError: there is no such model, or it is not whole or of another kind.
        ConfigError: the model does not have the language.
    """
    folder = find_model(path)
    options = hub.look_up(folder) if artifacts.may_be_hub_id(folder) else {}

    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from hf_nmt.generation.translator import TorchTranslator

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.device(device)
    except RuntimeError as error:
        raise NmtError(f"device is {device!r}; write cpu, cuda or cuda:<number>.") from error
    with _told(folder), _no_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            folder,
            trust_remote_code=False,
            output_loading_info=True,
            adapter_kwargs=options,  # where peft is installed an adapter is looked for, which asks the Hub once more
            **options,
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise NmtError(
            f"{folder}: the weights of {len(missing)} tensors are missing and would be random, such as {missing[0]}. "
            "The file of weights does not belong to this config.json."
        )
    model.eval()
    return TorchTranslator(
        model,
        tokenizer,
        device,
        source_language=source_language,
        target_language=target_language,
        with_scores=with_scores,
    )


@contextlib.contextmanager
def _told(folder: str) -> Iterator[None]:
    """Turn what Transformers and safetensors raise about a folder into one kind of error."""
    try:
        yield
    except Exception as error:
        if (
            isinstance(error, OSError | ValueError | KeyError | RuntimeError)
            or "safetensor" in type(error).__name__.lower()
        ):
            raise NmtError(f"{folder} cannot be loaded{_kind(folder)}: {error}") from error
        raise


def _kind(folder: str) -> str:
    with contextlib.suppress(OSError, ValueError):
        kind: Any = json.loads(Path(folder, "config.json").read_text(encoding="utf-8")).get("model_type")
        return f" as a translation model (model_type {kind!r})"
    return ""


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
