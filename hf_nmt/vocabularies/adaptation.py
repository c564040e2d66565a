"""A saved model with another vocabulary, written beside, read back, compared, and only then put in its place."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_nmt.artifacts import atomic_folder, quiet_files, write_json
from hf_nmt.errors import DataError, NmtError
from hf_nmt.models.sources_nmt import source_limit
from hf_nmt.training.token_rows import NEW_TOKENS
from hf_nmt.vocabularies.language_codes import plan_codes
from hf_nmt.vocabularies.model_rows import Origins, check_ids, move_rows, new_ids
from hf_nmt.vocabularies.nllb_layout import InNllbLayout
from hf_nmt.vocabularies.planning import adapted, origins_of, usage_of
from hf_nmt.vocabularies.settings import VocabularySettings
from hf_nmt.vocabularies.tokenizer_files import (
    BOTH,
    SOURCE,
    TokenizerFiles,
    Vocabulary,
    chunks,
    open_tokenizer,
)

REPORT = "vocabulary.json"
NUM_SENTENCES, NUM_AT_RANDOM, PROBE_LENGTH = 8, 2, 48  # few, as each position has a logit of every token
TOLERANCE = 1e-5  # of logits; of the largest where that is above 1, and more where weights have fewer digits

logger = logging.getLogger(__name__)

Probe = tuple[list[int], list[int]]
"""Ids that the encoder reads, and that the decoder reads."""


def adapt_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: Path | str,
    settings: VocabularySettings,
    texts: Mapping[str, Sequence[str]],
    *,
    source_language: str | None = None,
    target_language: str | None = None,
) -> dict[str, Any]:
    """Write a model with an adapted vocabulary.

    It is loaded again, as anyone would, and compared: every token must have its id, a text of which all pieces are
    left must be written as before, and the logits of all kept tokens must be those of the old model.

    Args:
        model: as it was saved; it is changed.
        tokenizer: of the model.
        output: the new folder, which must not exist.
        texts: columns of "source" and "target"; empty where nothing is learnt from text.
        source_language, target_language: of the texts. A model of ours without language tags is from then on one of
            these languages.

    Returns:
        What is written to vocabulary.json in the new folder.

    Raises:
        ConfigError: the settings do not fit the model.
        DataError: there is no text to learn from.
        NmtError: the model is of a kind that cannot be adapted, or the new one differs; nothing is left behind.
    """
    files = open_tokenizer(tokenizer)
    check_ids(model)
    codes = plan_codes(model, tokenizer, settings.add_languages, settings.like, source_language, target_language)
    if codes.as_nllb:
        files = InNllbLayout(tokenizer)
        logger.info(
            "The tokenizer is written in NLLB's layout, as M2M100Tokenizer has no room for a further code. hf_nmt "
            "goes on taking de; in plain Transformers the codes are __de__ now (docs/guide/vocabulary.md)."
        )
    before = {side: usage_of(files, side, texts[side]) for side in BOTH}
    if empty := [side for side in BOTH if settings.reads_text and not before[side].tokens]:
        raise DataError(f"There is no text to adapt the vocabulary to: the {' and the '.join(empty)} side is empty.")

    vocabularies, origins = [], []
    for old in files.vocabularies:
        starts = codes.starts if SOURCE in old.sides else {}
        learnt = {*old.sides}.intersection(settings.sides if settings.learns_pieces else ())
        words = {side: files.words(side, texts[side]) for side in sorted(learnt)}
        new = adapted(old, settings, before, words, [*starts])
        vocabularies.append(new)
        origins.append(origins_of(old, new, starts))
    place = {side: number for number, old in enumerate(files.vocabularies) for side in old.sides}
    source, target = (origins[place[side]] for side in BOTH)
    report: dict[str, Any] = {
        "schema_version": 1,
        "model": model.name_or_path,
        "settings": settings.model_dump(mode="json"),
        "vocabularies": [_counts(*each) for each in zip(files.vocabularies, vocabularies, origins, strict=True)],
        "parameters": {"before": model.num_parameters()},
        "bytes": {"before": model.get_memory_footprint()},
    }
    probes = _probes(model, files, texts, source, target)
    expected = _logits(model, probes, [*new_ids(target)])
    move_rows(model, source, target)
    model.config.update(codes.model_config)
    report["parameters"]["after"] = model.num_parameters()
    report["bytes"]["after"] = model.get_memory_footprint()
    with quiet_files(), atomic_folder(output) as partial:
        model.save_pretrained(partial)
        files.write(partial, vocabularies, codes.tokenizer_config)
        loaded = open_tokenizer(AutoTokenizer.from_pretrained(partial, trust_remote_code=False))
        _check_tokens(loaded, vocabularies)
        if settings.reads_text:
            after = {side: usage_of(loaded, side, texts[side]) for side in BOTH}
            report["text"] = {side: {"before": before[side].report(), "after": after[side].report()} for side in BOTH}
        if settings.trim and not settings.learns_pieces:
            report["same_pieces"] = {
                side: _check_pieces(files, loaded, side, vocabularies[place[side]], texts[side]) for side in BOTH
            }
        report["logits"] = _check_logits(partial, probes, expected, source, target)
        write_json(partial / REPORT, report)
        write_json(partial / NEW_TOKENS, {side: _new_tokens(vocabularies[n], origins[n]) for side, n in place.items()})
    return report


def _new_tokens(vocabulary: Vocabulary, origins: Origins) -> list[str | None]:
    return [token for token, origin in zip(vocabulary.tokens, origins, strict=True) if isinstance(origin, tuple)]


def _counts(old: Vocabulary, new: Vocabulary, origins: Origins) -> dict[str, Any]:
    kept = sum(isinstance(origin, int) for origin in origins)
    before = sum(token is not None for token in old.tokens)
    return {
        "sides": [*old.sides],
        "before": before,
        "after": len(new.tokens),
        "kept": kept,
        "removed": before - kept,
        "new": len(new.tokens) - kept,
    }


# Comparing


def _probes(
    model: PreTrainedModel, files: TokenizerFiles, texts: Mapping[str, Sequence[str]], source: Origins, target: Origins
) -> list[Probe]:
    """Old ids that all are kept: of sentences spread over the corpus, without what is removed, and drawn at random."""
    limit = min(PROBE_LENGTH, source_limit(model, files.tokenizer) or PROBE_LENGTH)
    draw = random.Random(0)
    pad, rows = model.config.pad_token_id, []
    for side, origins in zip(BOTH, (source, target), strict=True):
        kept = {*new_ids(origins)} - {pad}
        column = texts[side]
        sample = (
            [column[len(column) * number // NUM_SENTENCES] for number in range(NUM_SENTENCES)] if len(column) else []
        )
        sentences = [[i for i in ids if i in kept] for ids in files.ids(side, sample)]
        at_random = [draw.choices(sorted(kept), k=limit) for _ in range(NUM_AT_RANDOM)]
        rows.append([ids[: limit - 1] for ids in (*sentences, *at_random)])
    # An empty row is no input; the start symbol is one of the decoder.
    eos, start = model.config.eos_token_id, model.config.decoder_start_token_id
    eos, start = (pad if not isinstance(i, int) else i for i in (eos, start))
    return [([*read, eos], [start, *written]) for read, written in zip(*rows, strict=True)]


@torch.no_grad()
def _logits(model: PreTrainedModel, probes: Sequence[Probe], columns: Sequence[int]) -> list[torch.Tensor]:
    """Logits of the chosen ids, (T, columns) for each probe."""
    found = []
    for source, target in probes:
        ids = torch.tensor([source], device=model.device)
        decoder = torch.tensor([target], device=model.device)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=decoder).logits
        found.append(logits[0][:, list(columns)].float())
    return found


def _check_logits(
    folder: Path, probes: Sequence[Probe], expected: Sequence[torch.Tensor], source: Origins, target: Origins
) -> dict[str, Any]:
    """Load the new model and compare its logits of all kept tokens with those of the old one."""
    model, told = AutoModelForSeq2SeqLM.from_pretrained(
        str(folder), trust_remote_code=False, dtype="auto", output_loading_info=True
    )
    if told["missing_keys"] or told["mismatched_keys"]:
        raise _wrong(f"weights came back missing or of another shape: {sorted(told['missing_keys'])[:3]}")
    read, written = new_ids(source), new_ids(target)
    moved = [([read[i] for i in ids], [written[i] for i in decoder]) for ids, decoder in probes]
    largest = max(1.0, max(logits.abs().max().item() for logits in expected))
    tolerance = largest * max(TOLERANCE, 2 * torch.finfo(model.dtype).eps)
    found = _logits(model.eval(), moved, [*written.values()])
    worst = max((ours - theirs).abs().max().item() for ours, theirs in zip(expected, found, strict=True))
    if not worst <= tolerance:
        raise _wrong(f"the logits of kept tokens differ by up to {worst:.3g}, more than {tolerance:.3g}")
    positions = sum(len(logits) for logits in found)
    return {"positions": positions, "tokens": len(written), "largest_difference": worst, "tolerance": tolerance}


def _check_tokens(loaded: TokenizerFiles, vocabularies: Sequence[Vocabulary]) -> None:
    """Every token has the id that its row was given."""
    for wanted, found in zip(vocabularies, loaded.vocabularies, strict=True):
        for number, token in enumerate(wanted.tokens):
            if number >= len(found.tokens) or found.tokens[number] != token:
                other = found.tokens[number] if number < len(found.tokens) else None
                raise _wrong(f"id {number} is {other!r} and not {token!r}")
        if len(found.tokens) > len(wanted.tokens):
            raise _wrong(f"there is a token too many, {found.tokens[len(wanted.tokens)]!r}")


def _check_pieces(
    files: TokenizerFiles, loaded: TokenizerFiles, side: str, vocabulary: Vocabulary, texts: Sequence[str]
) -> dict[str, int]:
    """Texts of which all pieces are left are written with the same pieces."""
    known = {token for old in files.vocabularies if side in old.sides for token in old.known(side)}
    gone = known - vocabulary.known(side)
    same = others = 0
    for some in chunks(texts):
        rows = zip(some, files.encode(side, some), loaded.encode(side, some), strict=True)
        for text, old, new in rows:
            if old == new:
                same += 1
            elif gone.isdisjoint(old):
                raise _wrong(f"{text!r} is written {' '.join(new)} and not {' '.join(old)}")
            else:
                others += 1
    return {"same": same, "other": others}


def _wrong(what: str) -> NmtError:
    return NmtError(
        f"The adapted model is not what it should be, and was removed: {what}. This tokenizer is made in a way that "
        "cannot be adapted with these settings; please report it with its tokenizer_config.json."
    )
