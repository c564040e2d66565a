"""Files of small Marian models, written without the package: arrays named and laid out as marian-dev does."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import sentencepiece
import yaml

_draw = random.Random(0)
WORDS = ["".join(_draw.choices(["der", "hund", "sieht", "ein", "haus", "katze", "zwei", "n", "ball", "ing"], k=2))
         for _ in range(40)]  # fmt: skip
SENTENCES = [" ".join(_draw.choices(WORDS, k=5)) + "." for _ in range(200)]


def write_spm(path: Path, size: int = 60, sentences=SENTENCES) -> Path:
    """A SentencePiece model with Marian's special pieces: </s> is 0, <unk> is 1."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=size, eos_id=0, unk_id=1, bos_id=-1,
        pad_id=-1, model_type="bpe", minloglevel=2,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return path


def options(tied: str, **changes) -> dict:
    """Options of a model: `tied` is all, target, sides or none."""
    return {
        "type": "transformer", "dim-emb": 16, "enc-depth": 2, "dec-depth": 1, "transformer-heads": 4,
        "transformer-dim-ffn": 24, "transformer-decoder-dim-ffn": 0, "transformer-ffn-depth": 2,
        "transformer-ffn-activation": "swish", "transformer-preprocess": "", "transformer-postprocess": "dan",
        "transformer-postprocess-emb": "d", "transformer-postprocess-top": "", "transformer-tied-layers": [],
        "transformer-decoder-autoreg": "self-attention", "tied-embeddings-all": tied == "all",
        "tied-embeddings": tied == "target", "tied-embeddings-src": tied == "sides", "output-omit-bias": False,
        "version": "v1.12.42",
    } | changes  # fmt: skip


def random_arrays(opts: dict, sizes: tuple[int, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Random parameters of a model with these options, as Marian lays them out; sizes of the two vocabularies."""
    draw = np.random.default_rng(seed)
    width, ffn = opts["dim-emb"], opts["transformer-dim-ffn"]
    arrays: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        arrays[name] = (around + draw.normal(scale=0.3, size=shape)).astype(np.float32)

    def norm(name: str) -> None:
        add(f"{name}_ln_scale", 1, width, around=1.0)
        add(f"{name}_ln_bias", 1, width)

    for side, depth in (("encoder", opts["enc-depth"]), ("decoder", opts["dec-depth"])):
        inner = opts["transformer-decoder-dim-ffn"] or ffn if side == "decoder" else ffn
        for number in range(1, depth + 1):
            for block in ("self", "context")[: 1 + (side == "decoder")]:
                for letter in "qkvo":
                    add(f"{side}_l{number}_{block}_W{letter}", width, width)
                    add(f"{side}_l{number}_{block}_b{letter}", 1, width)
                norm(f"{side}_l{number}_{block}_Wo")
            add(f"{side}_l{number}_ffn_W1", width, inner)
            add(f"{side}_l{number}_ffn_b1", 1, inner)
            add(f"{side}_l{number}_ffn_W2", inner, width)
            add(f"{side}_l{number}_ffn_b2", 1, width)
            norm(f"{side}_l{number}_ffn_ffn")
    if opts["tied-embeddings-all"] or opts["tied-embeddings-src"]:
        add("Wemb", sizes[0], width)
    else:
        add("encoder_Wemb", sizes[0], width)
        add("decoder_Wemb", sizes[1], width)
    if not (opts["tied-embeddings-all"] or opts["tied-embeddings"]):
        add("decoder_ff_logit_out_W", width, sizes[1])
    if not opts["output-omit-bias"]:
        add("decoder_ff_logit_out_b", 1, sizes[1])
    return arrays


def write_npz(path: Path, opts: dict, arrays: dict[str, np.ndarray]) -> Path:
    text = yaml.safe_dump(opts).encode() + b"\0"
    np.savez(path, **arrays, **{"special:model.yml": np.frombuffer(text, dtype=np.int8)})
    return path


def write_model(folder: Path, tied: str = "all", seed: int = 0, name: str = "model", **changes) -> Path:
    """A whole model: model.npz, `vocab.spm` or `source.spm` and `target.spm`, and the decoder's file."""
    folder.mkdir(parents=True, exist_ok=True)
    if tied in ("all", "sides"):
        spm = [write_spm(folder / "vocab.spm")] * 2
    else:
        spm = [write_spm(folder / "source.spm"), write_spm(folder / "target.spm", 50)]
    sizes = tuple(sentencepiece.SentencePieceProcessor(model_file=str(path)).vocab_size() for path in spm)
    opts = options(tied, **changes)
    decoder = {"models": ["model.npz"], "vocabs": [path.name for path in spm], "beam-size": 3, "normalize": 0.6}
    (folder / f"{name}.npz.decoder.yml").write_text(yaml.safe_dump(decoder))
    return write_npz(folder / f"{name}.npz", opts, random_arrays(opts, sizes, seed))


# A second implementation, of marian-dev's src/models/transformer.h at inference, for one sentence.


def _affine(x, arrays, name, weight, bias):
    return x @ arrays[f"{name}_{weight}"] + arrays[f"{name}_{bias}"][0]


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def _norm(x, arrays, name):
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return normal * arrays[f"{name}_ln_scale"][0] + arrays[f"{name}_ln_bias"][0]


def _attention(x, memory, arrays, name, heads, causal):
    query, key, value = (
        _affine(states, arrays, name, f"W{letter}", f"b{letter}")
        for letter, states in (("q", x), ("k", memory), ("v", memory))
    )
    width = x.shape[1] // heads
    parts = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[:, part] @ key[:, part].T / np.sqrt(width)
        if causal:
            scores = np.where(np.tri(len(x)), scores, -1e9)
        parts.append(_softmax(scores) @ value[:, part])
    out = _affine(np.concatenate(parts, 1), arrays, name, "Wo", "bo")
    return _norm(out + x, arrays, f"{name}_Wo")


def _feed_forward(x, arrays, name, activation):
    inner = _affine(x, arrays, name, "W1", "b1")
    factor = {"swish": 1.0, "gelu": 1.702}.get(activation)
    inner = np.maximum(inner, 0) if activation == "relu" else inner / (1 + np.exp(-factor * inner))
    return _norm(_affine(inner, arrays, name, "W2", "b2") + x, arrays, f"{name}_ffn")


def _positions(length, width):
    table = np.zeros((length, width))
    for position in range(length):
        for i in range(width // 2):
            angle = position * np.exp(-i * np.log(10000.0) / (width / 2 - 1))
            table[position, i], table[position, width // 2 + i] = np.sin(angle), np.cos(angle)
    return table


def log_probabilities(opts: dict, arrays: dict, source: list[int], target: list[int]) -> np.ndarray:
    """(T, V): of each token of a vocabulary at each place of `target`, the tokens before it given."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    width, heads, activation = opts["dim-emb"], opts["transformer-heads"], opts["transformer-ffn-activation"]
    of_source = arrays.get("Wemb", arrays.get("encoder_Wemb"))
    of_target = arrays.get("Wemb", arrays.get("decoder_Wemb"))
    x = of_source[source] * np.sqrt(width) + _positions(len(source), width)
    for number in range(1, opts["enc-depth"] + 1):
        x = _attention(x, x, arrays, f"encoder_l{number}_self", heads, False)
        x = _feed_forward(x, arrays, f"encoder_l{number}_ffn", activation)
    shifted = np.vstack([np.zeros(width), of_target[target[:-1]] * np.sqrt(width)])
    y = shifted + _positions(len(target), width)
    for number in range(1, opts["dec-depth"] + 1):
        y = _attention(y, y, arrays, f"decoder_l{number}_self", heads, True)
        y = _attention(y, x, arrays, f"decoder_l{number}_context", heads, False)
        y = _feed_forward(y, arrays, f"decoder_l{number}_ffn", activation)
    output = arrays["decoder_ff_logit_out_W"] if "decoder_ff_logit_out_W" in arrays else of_target.T
    logits = y @ output + arrays.get("decoder_ff_logit_out_b", np.zeros((1, output.shape[1])))[0]
    return np.log(_softmax(logits))
