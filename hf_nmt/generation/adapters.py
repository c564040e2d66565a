"""Adapters of peft (LoRA, DoRA) on a model: small matrices beside its frozen weights, in a folder of their own.

The adapter layers are put into the model itself, which so stays of its class: whatever takes a model takes it. An
adapter folder is laid out as peft does it: `adapter_config.json` (its kind and size, the model it belongs to) and
`adapter_model.safetensors`, whose header holds the hash of that model's weights besides. Our own also hold what was
set for the run: the model's configuration (`model_config.json`), generation settings and tokenizer, for the languages.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nmt.artifacts import hash_file, write_json
from hf_nmt.errors import NmtError, need
from hf_nmt.generation import hub

if TYPE_CHECKING:
    import torch

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_CONFIG = "model_config.json"  # config.json would make Transformers take the folder for a whole model
_NAME = "default"  # peft's, for the only adapter of a model
_PREFIX = "base_model.model."  # what peft puts in front of every name in the file
_BASE_HASH = "base_weights_sha256"
_BASE_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter alone, without the model it belongs to."""
    return Path(folder, ADAPTER_CONFIG).is_file() and not Path(folder, "config.json").is_file()


def has_adapter(model: Any) -> bool:
    """Whether adapter layers are in a model."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def is_quantized(model: Any) -> bool:
    """Whether the weights of a model are in 8 or 4 bits."""
    return bool(getattr(model, "is_quantized", False))


def put_on(model: Any, config: Any, revision: str | None = None) -> None:
    """Put a fresh adapter into a model; from then on nothing else of it is trained.

    A fresh adapter changes nothing: its output is zero until it is trained.

    Args:
        model: changed in place.
        config: a `peft.PeftConfig`; the model's name and revision are written into it.
        revision: of a model of the Hub; None for the newest on this machine.
    """
    need("peft", "peft")
    rows = config.trainable_token_indices if hasattr(config, "trainable_token_indices") else None
    if rows is None:
        model.add_adapter(config)
    else:
        config.trainable_token_indices = None  # peft ties by what the class says, which is not always what is so
        model.add_adapter(config)
        config.trainable_token_indices = rows
        _train_rows(model, rows if isinstance(rows, dict) else {_name_of(model, model.get_input_embeddings()): rows})
    base = str(model.name_or_path or "")
    if Path(base).is_dir():
        # What reads the adapter may stand in another folder.
        config.base_model_name_or_path = str(Path(base).absolute())
    elif base:
        config.revision = revision or hub.revision(base)
    model.adapter_base_hash = base_hash(base)


def row_holders(model: Any) -> dict[str, list[str]]:
    """The matrices that have a row for each token, by the names of their modules: one of them, that of the input
    embeddings where it is among them, and those that share its weights."""
    parts = [model.get_input_embeddings(), model.get_encoder().embed_tokens, model.get_decoder().embed_tokens]
    held: dict[int, list[str]] = {id(part.weight): [] for part in (*parts, model.get_output_embeddings())}
    for name, module in model.named_modules(remove_duplicate=False):
        if (weight := module._parameters.get("weight")) is not None and id(weight) in held:
            held[id(weight)].append(name)
    first = _name_of(model, model.get_input_embeddings())  # peft by itself ties others to this one only
    return {names[0]: names[1:] for found in held.values() if (names := sorted(found, key=lambda one: one != first))}


def _name_of(model: Any, module: Any) -> str:
    return next(name for name, other in model.named_modules() if other is module)


def _train_rows(model: Any, rows: Mapping[str, list[int]]) -> None:
    """Have rows of matrices trained in place of the model's own, in whatever else shares these weights too.

    Args:
        rows: name of a module -> its rows.
    """
    wrapper = need("peft.utils.other", "peft").TrainableTokensWrapper
    holders = row_holders(model)
    for name, indices in rows.items():
        first = None
        for other in (name, *holders.get(name, ())):
            wrapped = wrapper(model.get_submodule(other), _NAME, list(indices), tied_adapter=first)
            wrapped.set_adapter(_NAME)
            parent, _, child = other.rpartition(".")
            setattr(model.get_submodule(parent), child, wrapped)
            first = first or wrapped.token_adapter


def base_hash(base: str) -> str | None:
    """SHA-256 over the hashes of the weight files of a model folder; None for an id of the Hub, whose revision tells
    as much."""
    files = sorted(file for pattern in _BASE_WEIGHTS for file in Path(base).glob(pattern)) if base else []
    if not files:
        return None
    hashes = (_file_hash(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


@functools.cache
def _file_hash(file: Path, num_bytes: int, changed: int) -> str:
    return hash_file(file)


def adapter_config(model: Any) -> Any:
    """The `peft.PeftConfig` of the adapter in a model."""
    return model.peft_config[_NAME]


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the adapter in a model, by their names in its file; they share their memory with the model's."""
    # Left to itself it asks the Hub, at every checkpoint, whether the vocabulary has grown.
    weights = need("peft", "peft").get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
    return {f"{_PREFIX}{name}": tensor for name, tensor in weights.items()}


def load_adapter_weights(model: Any, weights: Mapping[str, torch.Tensor], name: str | Path = "The adapter") -> None:
    """Give the adapter in a model other weights.

    Args:
        weights: all of them, by their names in the file.
        name: where they come from, for errors.

    Raises:
        NmtError: they are not of this adapter; nothing was changed.
    """
    own = adapter_weights(model)
    shapes = [{key: tuple(tensor.shape) for key, tensor in tensors.items()} for tensors in (own, weights)]
    if wrong := sorted(shapes[0].items() ^ shapes[1].items()):
        key = wrong[0][0]
        raise NmtError(
            f"{name} does not fit the model: {key} is {shapes[0].get(key, 'not there')} in the model and "
            f"{shapes[1].get(key, 'not there')} in the adapter. It belongs to a model of another shape, or its "
            f"{ADAPTER_CONFIG} was changed."
        )
    for key, tensor in own.items():
        tensor.detach().copy_(weights[key])


def write_adapter(model: Any, folder: str | Path) -> None:
    """Write the adapter in a model, its configuration and its generation settings into a folder."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.copy(adapter_config(model))
    config.inference_mode = True
    if isinstance(config.target_modules, set):  # of no order, which would be another one in each process
        config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(folder))
    found = getattr(model, "adapter_base_hash", None)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_weights(model).items()}
    save_file(weights, folder / ADAPTER_WEIGHTS, {"format": "pt"} | ({} if found is None else {_BASE_HASH: found}))
    plain = model.config.to_dict()
    plain.pop("quantization_config", None)  # an adapter is merged into full weights
    plain.pop("_name_or_path", None)  # it stands in the adapter's configuration
    write_json(folder / MODEL_CONFIG, plain)
    model.generation_config.save_pretrained(folder)


def read_weights(folder: str | Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """The weights of an adapter folder, and the hash of the weights it was trained on where it is known."""
    from safetensors import safe_open

    with safe_open(Path(folder, ADAPTER_WEIGHTS), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(_BASE_HASH)


def read_config(folder: str | Path) -> Any:
    """The `peft.PeftConfig` of an adapter folder.

    Raises:
        NmtError: peft is not installed, or does not know the adapter.
    """
    peft = need("peft", "peft")
    try:
        return peft.PeftConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError) as error:
        raise NmtError(f"{folder}: peft cannot read {ADAPTER_CONFIG}: {error}") from error


def apply_adapter(model: Any, folder: str | Path) -> None:
    """Put a saved adapter into the model it belongs to.

    Raises:
        NmtError: it belongs to other weights.
    """
    config = read_config(folder)
    weights, trained_on = read_weights(folder)
    put_on(model, config)
    if trained_on is not None and model.adapter_base_hash not in (None, trained_on):
        raise NmtError(
            f"{folder} is an adapter of other weights than those in {model.name_or_path}: the model was trained "
            "further, or is another one. Give the model that the adapter was trained on."
        )
    load_adapter_weights(model, weights, folder)


def merge_adapter(model: Any) -> Any:
    """Add what the adapter in a model has learnt to its weights: W + (alpha / rank) B A, for DoRA with its column
    norms. The adapter layers are taken out.

    Weights that were tied stay so; all stay frozen, as the adapter left them.

    Args:
        model: of full precision; it is changed in place and returned.

    Raises:
        NmtError: the model is quantized, the sum is not finite, or tied weights came apart.
    """
    adapter_layer = need("peft.tuners.tuners_utils", "peft").BaseTunerLayer
    whole_module = need("peft.utils.other", "peft").AuxiliaryTrainingWrapper
    if is_quantized(model):
        raise NmtError("An adapter is merged into weights of full precision, and these are quantized.")
    merged: set[str] = set()
    for name, layer in list(model.named_modules()):
        parent, _, child = name.rpartition(".")
        if any(name.startswith(f"{one}.") for one in merged):
            continue
        try:
            if isinstance(layer, whole_module):  # trained in the place of the model's own, or tokens of it
                found = layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
            elif isinstance(layer, adapter_layer):
                layer.merge(safe_merge=True)
                found = layer.get_base_layer()
            else:
                continue
        except ValueError as error:
            raise NmtError(f"The adapter cannot be merged: {name}: {error}") from error
        setattr(model.get_submodule(parent), child, found)
        merged.add(name)
    del model.peft_config
    model._hf_peft_config_loaded = False
    check_tied(model)
    return model


def check_tied(model: Any) -> None:
    """Whether all weights that the model's class ties share their memory.

    Raises:
        NmtError: some do not.
    """
    for name, source in (model.all_tied_weights_keys or {}).items():
        if model.get_parameter(name).data_ptr() != model.get_parameter(source).data_ptr():
            raise NmtError(f"The weights {name} and {source} should be one and came apart.")
