"""Looking up a model of the Hub once, before each of its files is asked for."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import may_be_hub_id
from hf_nmt.errors import NmtError

logger = logging.getLogger(__name__)

# The Hub answers in well under a second; its own client would ask five times for every file of the model.
_TIMEOUT_SECONDS = 10.0
_ADAPTER_CONFIG = "adapter_config.json"
# Weights, settings and the files of tokenizers; no code.
_OF_AN_ADAPTER = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt"]


@functools.cache
def look_up(model: str) -> dict[str, Any]:
    """What each `from_pretrained` needs to be told about a model id of the Hub.

    Empty where the Hub has it; where the Hub cannot be asked and the model was downloaded earlier, that the files on
    this machine are to be taken.

    Raises:
        NmtError: the Hub has no such model, or cannot be reached and the model is not on this machine.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        huggingface_hub.model_info(model, timeout=_TIMEOUT_SECONDS)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NmtError(
            f"{model}: there is no such folder, and no such model on the Hub. Check the name; a private model needs a "
            "login (hf auth login)."
        ) from error
    except OfflineModeIsEnabled as error:
        reason, remedy = "the Hub is not asked, as HF_HUB_OFFLINE is set", "Unset it to download the model"
        failure: Exception = error
    except (HfHubHTTPError, ValueError):
        return {}  # it answers, if strangely: what the download says is more to the point
    except Exception as error:  # the classes of a network's failures are those of whatever client the Hub's uses
        reason = f"the Hub could not be reached ({_innermost(error)})"
        remedy, failure = "Look at the network, or give the folder of a model", error
    else:
        return {}
    if _downloaded(model) is not None:
        logger.info("%s: %s; the files downloaded earlier are taken.", model, reason)
        return {"local_files_only": True}
    raise NmtError(
        f"{model}: there is no such folder; as an id of the Hub it was never downloaded to this machine, and {reason}."
        f" {remedy}."
    ) from failure


def adapter_folder(model: str) -> Path | None:
    """Where the files of an adapter of the Hub lie, once they are downloaded; None where the id is a whole model's.

    Raises:
        NmtError: see `look_up`.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    options = look_up(model)
    try:
        huggingface_hub.hf_hub_download(model, "config.json", **options)
        return None
    except EntryNotFoundError:
        pass
    try:
        huggingface_hub.hf_hub_download(model, _ADAPTER_CONFIG, **options)
    except EntryNotFoundError:
        return None
    return Path(huggingface_hub.snapshot_download(model, allow_patterns=_OF_AN_ADAPTER, **options))


def revision(model: str, name: str | None = None) -> str | None:
    """The commit of a model of the Hub that was just loaded; None for a folder.

    Args:
        name: branch, tag or commit that was asked for; None for the newest.
    """
    # Transformers loads what the cache notes for the name, and keeps no commit in the model.
    folder = _downloaded(model, name) if may_be_hub_id(model) else None
    return None if folder is None else folder.name


def _downloaded(model: str, revision: str | None = None) -> Path | None:
    """The folder of a revision of a model or adapter in the cache; None where it was never downloaded."""
    import huggingface_hub

    for name in ("config.json", _ADAPTER_CONFIG):
        if isinstance(config := huggingface_hub.try_to_load_from_cache(model, name, revision=revision), str):
            return Path(config).parent
    return None


def _innermost(error: BaseException) -> str:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
