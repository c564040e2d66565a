"""The parameters of a Marian transformer as weights of `MarianMTModel`.

Shapes: D model width, F width of a feed-forward block, P positions, V entries of a vocabulary.

Both compute the same network, but for what Transformers fixed to one case:

- Positions: Marian divides by 10000 ** (i / (D / 2 - 1)), as tensor2tensor does, MarianMTModel computes
  10000 ** (i / (D / 2)), as Vaswani et al. (2017) do. The narrower the model, the more they differ. The imported
  table is Marian's own and lies in the weights, see `keep_positions`. As the frequencies differ, no order of the
  dimensions gives the one from the other.
- The start of a translation: Marian has a zero vector, MarianMTModel the embedding of the padding. So an entry for
  padding is added to each vocabulary, with a zero embedding and a logit so low that it is never taken.
- Where the vocabularies are two, the padding must have one number in both: the shorter is filled up with entries that
  are never taken.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from transformers import MarianConfig, MarianMTModel

from hf_nmt.errors import DataError
from hf_nmt.marian.archive import ACTIVATIONS, Archive
from hf_nmt.models.marian_positions_nmt import keep_positions, position_table

logger = logging.getLogger(__name__)

# A logit this low has probability exactly 0 in float32 and still fits in float16.
NEVER = -1e4
EOS, UNKNOWN = 0, 1
# Marian computes positions as it goes; it translates at most 1000 tokens unless told otherwise (--max-length).
MAX_POSITIONS = 1024

_NORMS = {"ln_scale": "weight", "ln_bias": "bias"}


def config_of(archive: Archive) -> MarianConfig:
    """The shape of the model, from its options and the sizes of its embeddings.

    Raises:
        DataError: the embeddings that the options speak of are not there.
    """
    options = archive.options
    source, target = (_array(archive, name).shape[0] for name in embedding_names(archive))
    padding = max(source, target)
    ffn = int(options["transformer-dim-ffn"])
    heads = int(options["transformer-heads"])
    return MarianConfig(
        vocab_size=padding + 1,
        decoder_vocab_size=padding + 1,
        share_encoder_decoder_embeddings=shares_sides(archive),
        tie_word_embeddings=ties_output(archive),
        d_model=int(options["dim-emb"]),
        encoder_layers=int(options["enc-depth"]),
        decoder_layers=int(options["dec-depth"]),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=int(options.get("transformer-decoder-dim-ffn") or ffn),
        activation_function=ACTIVATIONS[archive.option("transformer-ffn-activation")],
        scale_embedding=True,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=padding,
        decoder_start_token_id=padding,
        eos_token_id=EOS,
        bos_token_id=None,
        forced_eos_token_id=None,
        architectures=["MarianMTModel"],
        marian_positions=True,
    )


def shares_sides(archive: Archive) -> bool:
    """Whether source and target embeddings are one matrix."""
    return bool(archive.options.get("tied-embeddings-all") or archive.options.get("tied-embeddings-src"))


def ties_output(archive: Archive) -> bool:
    """Whether target embeddings and output projection are one matrix."""
    return bool(archive.options.get("tied-embeddings-all") or archive.options.get("tied-embeddings"))


def embedding_names(archive: Archive) -> tuple[str, str]:
    return ("Wemb", "Wemb") if shares_sides(archive) else ("encoder_Wemb", "decoder_Wemb")


def build_model(archive: Archive) -> MarianMTModel:
    """The model with the weights of the archive.

    Raises:
        DataError: a parameter is missing, has another shape than the options say, or has no place in the model.
    """
    config = config_of(archive)
    if config.d_model % config.encoder_attention_heads or config.d_model % 2:
        raise DataError(
            f"{archive.path}: dim-emb is {config.d_model}; it must be even and a multiple of transformer-heads "
            f"({config.encoder_attention_heads})."
        )
    weights = convert(archive, config)
    model = MarianMTModel(config).eval()
    wanted = model.state_dict()
    assert weights.keys() == wanted.keys()
    for name, tensor in weights.items():
        assert tensor.shape == wanted[name].shape, name
    model.load_state_dict(weights)
    keep_positions(model)
    return model


def convert(archive: Archive, config: MarianConfig) -> dict[str, torch.Tensor]:
    """All weights of `MarianMTModel(config)`, by name; see `build_model`."""
    places = dict(_places(config))
    findings = []
    weights: dict[str, torch.Tensor] = {}
    for name, (target, shape) in places.items():
        if name not in archive.arrays:
            findings.append(f"the parameter {name} is missing.")
        elif archive.arrays[name].shape not in (shape, shape[1:] if shape[0] == 1 else shape):
            findings.append(f"the parameter {name} has the shape {archive.arrays[name].shape} instead of {shape}.")
        else:
            array = archive.arrays[name].astype(np.float32)
            # Marian multiplies from the right, x W; PyTorch's Linear holds the transpose. Vectors are rows in Marian.
            values = array.reshape(-1) if shape[0] == 1 else array.T
            weights[target] = torch.from_numpy(np.ascontiguousarray(values))
    used = {*places}
    weights |= _vocabularies(archive, config, used, findings)
    if idle := sorted(archive.arrays.keys() - used):
        findings.append(f"these parameters have no place in MarianMTModel: {', '.join(idle)}.")
    if findings:
        raise DataError(f"{archive.path}: " + "\n  ".join(findings))
    positions = position_table(config.max_position_embeddings, config.d_model)
    weights |= {f"model.{side}.embed_positions.weight": positions.clone() for side in ("encoder", "decoder")}
    return weights


def _places(config: MarianConfig) -> Iterator[tuple[str, tuple[str, tuple[int, int]]]]:
    """(Marian's name, (name in MarianMTModel, Marian's shape)) of all parameters of the layers."""
    width = config.d_model
    for side in ("encoder", "decoder"):
        ffn = getattr(config, f"{side}_ffn_dim")
        blocks = {"self": "self_attn", "context": "encoder_attn"} if side == "decoder" else {"self": "self_attn"}
        for number in range(getattr(config, f"{side}_layers")):
            ours, theirs = f"model.{side}.layers.{number}", f"{side}_l{number + 1}"
            for block, attention in blocks.items():
                for letter, projection in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
                    yield f"{theirs}_{block}_W{letter}", (f"{ours}.{attention}.{projection}.weight", (width, width))
                    yield f"{theirs}_{block}_b{letter}", (f"{ours}.{attention}.{projection}.bias", (1, width))
                for norm, part in _NORMS.items():
                    yield f"{theirs}_{block}_Wo_{norm}", (f"{ours}.{attention}_layer_norm.{part}", (1, width))
            yield f"{theirs}_ffn_W1", (f"{ours}.fc1.weight", (width, ffn))
            yield f"{theirs}_ffn_b1", (f"{ours}.fc1.bias", (1, ffn))
            yield f"{theirs}_ffn_W2", (f"{ours}.fc2.weight", (ffn, width))
            yield f"{theirs}_ffn_b2", (f"{ours}.fc2.bias", (1, width))
            for norm, part in _NORMS.items():
                yield f"{theirs}_ffn_ffn_{norm}", (f"{ours}.final_layer_norm.{part}", (1, width))


def _vocabularies(
    archive: Archive, config: MarianConfig, used: set[str], findings: list[str]
) -> dict[str, torch.Tensor]:
    """Embeddings and output projection, each with rows for the padding and what fills up to it, (V, D)."""
    rows, width = config.vocab_size, config.d_model
    matrices: dict[str, np.ndarray] = {}
    sides = zip(("encoder", "decoder"), embedding_names(archive), strict=True)
    for side, name in sides:
        used.add(name)
        matrices[f"model.{side}.embed_tokens.weight"] = _array(archive, name)
    if shares_sides(archive):
        matrices["model.shared.weight"] = matrices["model.encoder.embed_tokens.weight"]
    if ties_output(archive):
        matrices["lm_head.weight"] = matrices["model.decoder.embed_tokens.weight"]
    else:
        # (D, V), or (V, D) where Marian kept it transposed.
        transposed = "decoder_ff_logit_out_Wt" in archive.arrays
        name = "decoder_ff_logit_out_Wt" if transposed else "decoder_ff_logit_out_W"
        used.add(name)
        matrices["lm_head.weight"] = _array(archive, name) if transposed else _array(archive, name).T
    target = matrices["model.decoder.embed_tokens.weight"].shape[0]
    weights = {}
    for name, matrix in matrices.items():
        size = target if name == "lm_head.weight" else matrix.shape[0]
        if matrix.shape != (size, width):
            findings.append(f"the matrix for {name} has the shape {matrix.shape} instead of {(size, width)}.")
            continue
        weights[name] = torch.zeros(rows, width)
        weights[name][: matrix.shape[0]] = torch.from_numpy(matrix.astype(np.float32))
    weights["final_logits_bias"] = torch.full((1, rows), NEVER)
    weights["final_logits_bias"][0, :target] = 0.0
    name = "decoder_ff_logit_out_b"
    if not archive.options.get("output-omit-bias"):
        used.add(name)
        bias = _array(archive, name).reshape(-1)
        if bias.shape != (target,):
            findings.append(f"the parameter {name} has {bias.size} entries instead of {target}.")
        else:
            weights["final_logits_bias"][0, :target] = torch.from_numpy(bias.astype(np.float32))
    return weights


def _array(archive: Archive, name: str) -> np.ndarray:
    if name not in archive.arrays:
        raise DataError(f"{archive.path}: the parameter {name} is missing, which its options ask for.")
    return archive.arrays[name]
