"""A model file of Marian: `.npz` with one array for each parameter, and the options of the model as YAML.

Names of options and parameters are those of marian-dev 1.12 (src/common/config_parser.cpp, src/models/transformer.h).
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hf_nmt.config_keys import shown
from hf_nmt.errors import DataError

OPTIONS = "special:model.yml"

# What MarianMTModel of Transformers can compute: option -> (what is allowed, the first being Marian's default; what it
# means otherwise). An option that a file does not have is at its default.
_POST_NORM = "MarianMTModel has its layer norm after each block (dan), and no other order"
ALLOWED: dict[str, tuple[tuple[Any, ...], str]] = {
    "type": (("transformer",), "only the transformer of one source is imported"),
    "transformer-preprocess": (("", "d"), _POST_NORM),
    "transformer-postprocess": (("dan", "an"), _POST_NORM),
    "transformer-postprocess-emb": (("d", ""), "MarianMTModel has no layer norm on embeddings"),
    "transformer-postprocess-top": (("", "d"), "MarianMTModel has no layer norm at the end of a stack"),
    "transformer-decoder-autoreg": (
        ("self-attention",),
        "MarianMTModel has self-attention in its decoder, no SSRU, GRU or average attention",
    ),
    "transformer-ffn-depth": ((2,), "MarianMTModel has two matrices in a feed-forward block"),
    "transformer-decoder-ffn-depth": ((0, 2), "MarianMTModel has two matrices in a feed-forward block"),
    "transformer-ffn-activation": (("swish", "relu", "gelu"), "not an activation of Marian's feed-forward blocks"),
    "transformer-attention-mask": (("default",), "MarianMTModel has no ALiBi"),
    "transformer-no-projection": ((False,), "MarianMTModel has an output projection in each attention"),
    "transformer-pool": ((False,), "MarianMTModel attends to all states of the encoder"),
    "transformer-no-bias": ((False,), "MarianMTModel has biases"),
    "transformer-no-affine": ((False,), "MarianMTModel scales after normalising"),
    "transformer-tied-layers": (([],), "MarianMTModel has weights of its own in each layer"),
    "transformer-train-position-embeddings": ((False,), "MarianMTModel has fixed positions"),
    "transformer-disable-position-embeddings": ((False,), "MarianMTModel has positions"),
    "lemma-dependency": (("",), "factored vocabularies are not imported"),
    "right-left": ((False,), "it translates from the last word to the first"),
    "ulr": ((False,), "universal language representations are not imported"),
}
ACTIVATIONS = {"swish": "swish", "relu": "relu", "gelu": "quick_gelu"}  # Marian's GELU is x * sigmoid(1.702 x)
_NEEDED = ("type", "dim-emb", "enc-depth", "dec-depth", "transformer-heads", "transformer-dim-ffn")


@dataclasses.dataclass(frozen=True)
class Archive:
    """What a model file holds.

    Attributes:
        path: of the file.
        options: Marian's name -> value.
        arrays: name of the parameter -> its values.
    """

    path: Path
    options: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def option(self, name: str) -> Any:
        default = ALLOWED[name][0][0] if name in ALLOWED else None
        return self.options.get(name, default)


def read_archive(path: Path | str) -> Archive:
    """Read a model file, without unpickling anything.

    Raises:
        DataError: it cannot be read, is no model of Marian, or one that cannot be expressed, with all the reasons.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        hint = " Give the .npz file it was made from." if path.suffix == ".bin" else ""
        raise DataError(f"{path}: this is not a whole .npz file of Marian: {error}.{hint}") from error
    if OPTIONS not in arrays:
        raise DataError(
            f"{path}: there is no {OPTIONS!r} in the file, which every model of Marian has; it holds "
            f"{', '.join(sorted(arrays)[:5]) or 'nothing'}."
        )
    try:
        options = yaml.safe_load(arrays.pop(OPTIONS).tobytes().rstrip(b"\0").decode("utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: {OPTIONS} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise DataError(f"{path}: {OPTIONS} holds {shown(options)}, not the options of a model.")
    archive = Archive(path, options, arrays)
    if reasons := list(why_not(archive)):
        raise DataError(f"{path}: this model cannot be imported.\n  " + "\n  ".join(reasons))
    return archive


def why_not(archive: Archive) -> list[str]:
    """Why a model cannot be expressed by MarianMTModel: each option that stands against it, with its value."""
    kind = archive.options.get("type")
    if kind != "transformer":  # most other options mean nothing to it
        return [f"type is {shown(kind)}, allowed: transformer. {_sentence(ALLOWED['type'][1])}"]
    reasons = [f"{name} is missing from its options." for name in _NEEDED if name not in archive.options]
    for name, (allowed, meaning) in ALLOWED.items():
        value = archive.option(name)
        if value not in allowed:
            reasons.append(f"{name} is {shown(value)}, allowed: {_listed(allowed)}. {_sentence(meaning)}")
    if other := sorted(name for name, array in archive.arrays.items() if array.dtype not in (np.float32, np.float16)):
        kinds = ", ".join(sorted({str(archive.arrays[name].dtype) for name in other}))
        reasons.append(f"{other[0]} and {len(other) - 1} more are of type {kinds}, allowed: float32, float16.")
    return reasons


def _listed(allowed: tuple[Any, ...]) -> str:
    return " or ".join(shown(value) for value in allowed)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
