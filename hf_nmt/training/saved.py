"""What was saved is loaded again and compared with what is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_nmt.config import differences
from hf_nmt.errors import NmtError
from hf_nmt.generation import adapters
from hf_nmt.models.sources_nmt import is_saved_with, set_languages, some_target, source_limit

WEIGHTS = "model.safetensors"
PROBE_TEXTS = ("A probe.", "A second, longer sentence: it must come out the same, 1 2 3.")
# What a configuration tells about its file and not about the model.
_OF_THE_FILE = ("_name_or_path", "transformers_version")


def check_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Read a checkpoint and compare it with the model: every weight bit for bit, configuration, tokenizer.

    Of a model with an adapter the checkpoint is the adapter alone. Reads the files without building a model, so that
    it can be done at every checkpoint.

    Raises:
        NmtError: they differ.
    """
    if adapters.has_adapter(model):
        _check_adapter(model, folder)
    else:
        _check_model(model, folder)
    _check_tokenizer(tokenizer, type(tokenizer).from_pretrained(folder), folder)


def _check_adapter(model: PreTrainedModel, folder: Path) -> None:
    weights, read = adapters.adapter_weights(model), adapters.read_weights(folder)[0]
    if {*weights} != {*read}:
        raise _different(folder, f"the weight {min({*weights} ^ {*read})} is missing, or too many")
    for name, tensor in weights.items():
        if not _same_bits(tensor, read[name]):
            raise _different(folder, f"the weight {name} came back different")
    before, after = (_plain(config) for config in (adapters.adapter_config(model), adapters.read_config(folder)))
    for name, ours, theirs in differences(before, after):
        raise _different(folder, f"{name} of its configuration is {theirs} instead of {ours}")


def _plain(config: Any) -> dict[str, Any]:
    values = config.to_dict() | {"inference_mode": True}  # it is always written as true
    return {name: sorted(value) if isinstance(value, set | list) else value for name, value in values.items()}


def _check_model(model: PreTrainedModel, folder: Path) -> None:
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = set(file.keys())
        for name in names:
            if name not in weights or not _same_bits(weights[name], file.get_tensor(name)):
                raise _different(folder, f"the weight {name} came back different")
    # Of weights that share their memory one is saved.
    saved = {weights[name].data_ptr() for name in names}
    unsaved = {*weights} - names - made_anew(model)
    if lost := sorted(name for name in unsaved if weights[name].data_ptr() not in saved):
        raise _different(folder, f"the weight {lost[0]} is missing")
    kind = type(model.config)
    # Through a dict, as a file would: a configuration may drop on loading what was set on it since.
    before, after = kind.from_dict(model.config.to_dict()), kind.from_pretrained(folder)
    for name, ours, theirs in differences(before.to_dict(), after.to_dict()):
        if name not in _OF_THE_FILE:
            raise _different(folder, f"{name} of its configuration is {theirs} instead of {ours}")


def made_anew(model: PreTrainedModel) -> set[str]:
    """Names of weights that are saved in no file, as the class of the model computes them again on loading."""
    # Transformers tells them in this attribute alone, which its own `save_pretrained` reads.
    return {*(model._keys_to_ignore_on_save or ())}


def _same_bits(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    # As bytes: -0.0 is not 0.0, and NaN is itself.
    return torch.equal(*(tensor.cpu().contiguous().flatten().view(torch.uint8) for tensor in (ours, theirs)))


def _different(folder: Path, what: str) -> NmtError:
    return NmtError(
        f"{folder.parent}: a model was written and read back differently: {what}. The folder was removed. Check the "
        "disk, or choose another output_dir."
    )


@torch.no_grad()
def check_saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Load a model folder and compare it with the model: weights, logits, ids of both sides, decoded text.

    Raises:
        NmtError: they differ.
    """
    loaded = AutoModelForSeq2SeqLM.from_pretrained(
        folder, dtype=model.dtype, attn_implementation=model.config._attn_implementation
    ).to(model.device)
    weights = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in weights or not _same_bits(tensor, weights[name]):
            raise _different(folder, f"the weight {name} came back different")
    _check_tokenizer(tokenizer, AutoTokenizer.from_pretrained(folder), folder)
    was_training = model.training
    probes = [probe_logits(network, tokenizer) for network in (model.eval(), loaded.eval())]
    model.train(was_training)
    for ours, theirs in zip(*probes, strict=True):
        if not torch.equal(ours, theirs):
            worst = (ours - theirs).abs().max().item()
            raise _different(folder, f"its logits differ by up to {worst:.3g}")


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, loaded: Any, folder: Path) -> None:
    if not is_saved_with(tokenizer, source := getattr(tokenizer, "src_lang", None)):
        set_languages(loaded, source, tokenizer.tgt_lang)
    if _pieces(tokenizer) != _pieces(loaded) or _probe_ids(tokenizer) != _probe_ids(loaded):
        raise _different(folder, "its tokenizer gives other ids or other text")


def _pieces(tokenizer: Any) -> list[dict[str, int]]:
    """The vocabularies: two where the target side has its own."""
    targets = getattr(tokenizer, "target_backend", None)
    return [tokenizer.get_vocab(), *([] if targets is None else [targets.get_vocab()])]


def _probe_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[list[int]], list[list[int]], list[str]]:
    """Source ids and target ids of the probes, and the text of the target ids."""
    # A tokenizer of several target languages has to be told one.
    languages = getattr(tokenizer, "target_languages", None) or [None]
    told = {"tgt_lang": languages[0]} if len(languages) > 1 else {}
    with some_target(tokenizer):
        sources = [tokenizer(text, **told)["input_ids"] for text in PROBE_TEXTS]
        targets = [tokenizer(text_target=text, **told)["input_ids"] for text in PROBE_TEXTS]
    return sources, targets, [tokenizer.decode(ids, skip_special_tokens=True) for ids in targets]


@torch.no_grad()
def probe_logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
    """Logits of a few fixed pairs, to compare models by."""
    own = (getattr(model.config, f"{name}_token_id", None) for name in ("decoder_start", "bos", "pad"))
    start = next(one for one in own if one is not None)  # of mBART it is the language's, and any will do here
    longest = source_limit(model, tokenizer)
    source_ids, target_ids, _ = _probe_ids(tokenizer)
    pairs = [(source[:longest], target[:longest]) for source, target in zip(source_ids, target_ids, strict=True)]
    logits = []
    for source, target in pairs:
        inputs = torch.tensor([source], device=model.device)
        decoder = torch.tensor([[start, *target[:-1]]], device=model.device)
        forward = type(model).forward  # without the autocast that accelerate wraps around it
        logits.append(forward(model, input_ids=inputs, attention_mask=inputs.new_ones(inputs.shape),
                              decoder_input_ids=decoder).logits)  # fmt: skip
    return logits
