"""Which token of a tokenizer is the code of a language, and what has to be written down for a further one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from hf_nmt import language
from hf_nmt.errors import ConfigError
from hf_nmt.models.sources_nmt import Languages
from hf_nmt.models.tokenization_nmt import NmtTokenizer, language_tag

_CODE_IN_TEXT = "MarianTokenizer"
_CODE_IS_TOKEN = ("NllbTokenizer", "MBartTokenizer", "MBart50Tokenizer")
# Its codes are a list in Transformers' own source: there is no file that a further one could stand in.
_CLOSED = "M2M100Tokenizer"


@dataclasses.dataclass(frozen=True)
class NewCodes:
    """What further languages mean for the files of a model.

    Attributes:
        starts: token of each new language -> tokens that its row starts as the mean of.
        tokenizer_config: entries of tokenizer_config.json that change.
        model_config: entries of config.json that change.
        as_nllb: whether the tokenizer has to be written in the layout of NLLB's, see `nllb_layout`.
    """

    starts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    tokenizer_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    model_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    as_nllb: bool = False


def plan_codes(
    model: PreTrainedModel,
    tokenizer: Any,
    codes: Sequence[str],
    like: str | None,
    source_language: str | None,
    target_language: str | None,
) -> NewCodes:
    """
    Args:
        codes: languages to add.
        like: the language whose code they start as; None takes the mean of all.
        source_language, target_language: of the corpus; a model of ours for one pair is from then on of these.

    Raises:
        ConfigError: the tokenizer has no codes, or none that can be added to.
    """
    pair = {"source": source_language, "target": target_language}
    if isinstance(tokenizer, NmtTokenizer) and not tokenizer.language_tags:
        if codes:
            raise ConfigError(
                "add_languages: the model was trained without language tags, for one pair of languages. Train one "
                "with tokenizer.language_tags=true. To go over to another pair, leave add_languages out and give the "
                "corpus of that pair with data.source_language and data.target_language."
            )
        return _other_pair(tokenizer, pair)
    if not codes:
        return NewCodes()
    name = type(tokenizer).__name__
    languages = Languages.of(model.config, tokenizer)
    if name not in (*_CODE_IS_TOKEN, _CLOSED) and languages.kind not in ("tag", "text"):
        raise ConfigError(
            f"add_languages: this model has no codes of languages ({name}): it translates into one language, or is "
            "told by words in front of the text. Fine-tune it on the new language as it is."
        )
    token = _tokens(name, languages)
    known = {code.strip("_"): code for code in languages.targets}
    findings = [
        f"add_languages: given {code!r}, which is no code of a language; write it as the model's own, such as "
        f"{min(known)}."
        for code in codes
        if language.problem_of(code)  # or no text could be trained under it
    ]
    findings += [f"add_languages: the model knows {code} already." for code in codes if code in known]
    if like is not None and like not in known:
        findings.append(f"like: given {like!r}; the model has {', '.join(sorted(known))}.")
    if findings:
        raise ConfigError(findings)
    examples = [token.format(code) for code in ([like] if like else known)]
    starts = {token.format(code): examples for code in codes}
    if name == _CODE_IN_TEXT:
        return NewCodes(starts)
    if name == _CLOSED:
        return NewCodes(starts, as_nllb=True)
    config: dict[str, Any] = {"extra_special_tokens": [*map(str, tokenizer.extra_special_tokens), *starts]}
    if name in _CODE_IS_TOKEN:
        return NewCodes(starts, config)
    for side in ("source", "target"):
        known = getattr(tokenizer, f"{side}_languages")
        config[f"{side}_languages"] = [*known, *(code for code in codes if code not in known)]
    config["src_lang"] = config["tgt_lang"] = None
    return NewCodes(starts, config, {"source_language": None, "target_language": None})


def _tokens(tokenizer_name: str, languages: Languages) -> str:
    """The token of a code, with {} for the code."""
    if tokenizer_name == _CODE_IN_TEXT:
        return ">>{}<<"
    if tokenizer_name == _CLOSED or all(code.startswith("__") for code in languages.targets):
        return "__{}__"
    return "{}" if tokenizer_name in _CODE_IS_TOKEN else language_tag("{}")


def _other_pair(tokenizer: NmtTokenizer, pair: dict[str, str | None]) -> NewCodes:
    """A model without tags reads and writes what it is trained on: there is nothing but names to change."""
    short = {"source": "src_lang", "target": "tgt_lang"}
    changed = {
        side: language
        for side, language in pair.items()
        if language is not None and language not in getattr(tokenizer, f"{side}_languages")
    }
    entries: dict[str, Any] = {f"{side}_languages": [language] for side, language in changed.items()}
    entries |= {short[side]: language for side, language in changed.items()}
    return NewCodes({}, entries, {f"{side}_language": language for side, language in changed.items()})
