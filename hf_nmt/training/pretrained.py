"""A saved model of any family, to be trained further in the languages of the run."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_nmt.config import differences
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.models.sources_nmt import Languages, Selection, is_saved_with, languages_kept
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.protocols import LANGUAGE_COLUMNS
from hf_nmt.runs import Run
from hf_nmt.subwords import BpeDropout
from hf_nmt.training.adapters import AdapterSettings, adapter_findings, add_adapter, how_to_pack
from hf_nmt.training.model_building import ModelSettings, set_attention
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.saved import WEIGHTS
from hf_nmt.training.token_rows import rows_of
from hf_nmt.translators import SavedModel

logger = logging.getLogger(__name__)

# What the families call their rates of dropout, most of them as we do.
_RATES = {
    "dropout": ("dropout", "dropout_rate"),
    "attention_dropout": ("attention_dropout",),
    "activation_dropout": ("activation_dropout",),
}


class Pretrained(NamedTuple):
    """A saved model before its weights are read: where it lies, its configuration as the run changes it, its
    tokenizer in the languages of the run."""

    saved: SavedModel
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase

    @property
    def languages(self) -> Languages:
        return Languages.of(self.config, self.tokenizer)

    def rows(self, settings: AdapterSettings) -> dict[str, list[int]] | None:
        """Ids of the tokens whose rows are trained beside an adapter.

        Raises:
            ConfigError: the model does not have them.
        """
        return None if settings.tokens is None else rows_of(settings.tokens, self.tokenizer, self.saved)

    def note(self, run: Run) -> None:
        """Record in run.json which model this is."""
        if run.writer:
            run.update(pretrained=self.saved.record())

    def load(
        self, settings: ModelSettings, source_language: str | None, target_language: str | None
    ) -> PreTrainedModel:
        """The model in float32, which it is trained in whatever it was saved in, with a new adapter where the settings
        ask for one.

        Its own `generate` writes the target language from now on; None, for several, leaves that to each call.

        Raises:
            NmtError: the weights cannot be read, or do not belong to the configuration.
            ConfigError: the attention implementation is not to be had on this machine.
        """
        packed = {} if settings.quantization is None else {"quantization_config": how_to_pack(settings.quantization)}
        # A copy, as how the weights are packed is written into it.
        model = self.saved.model(config=copy.deepcopy(self.config), dtype=torch.float32, **packed)
        set_attention(model, settings)
        if target_language is not None:
            write_language(model, self.languages.select(source_language, target_language))
        elif self.languages.kind == "forced":
            model.generation_config.forced_bos_token_id = None
        elif self.languages.kind == "start":
            model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id = None
        if settings.adapter is not None:
            rows = self.rows(settings.adapter)
            add_adapter(model, settings.adapter, rows=rows, revision=self.saved.revision)
        return model


def open_pretrained(
    settings: TrainingRecipe, run: Run | None = None, checkpoint: Path | None = None
) -> Pretrained | None:
    """The model that `model.pretrained` names; None where training starts from new weights.

    Args:
        settings: of the recipe.
        run: the run that goes on; None for a new one, for which everything is checked.
        checkpoint: of the run, whose weights are those to go on with.

    Raises:
        NmtError: there is no such model, or it cannot be read.
        ConfigError: it does not go with the settings, or is another than the run was started with.
    """
    model = settings.model
    if not isinstance(model, ModelSettings) or model.pretrained is None:
        return None
    if checkpoint is not None and run is not None and (checkpoint / WEIGHTS).is_file():
        saved = SavedModel(str(checkpoint))
        return Pretrained(saved, saved.config(), SavedModel(str(run.tokenizer)).tokenizer())
    try:
        started = None if run is None else run.record.get("pretrained", {}).get("revision")
        saved = SavedModel.find(model.pretrained, started or model.revision)
        if model.revision is not None and saved.revision is None:
            raise NmtError(f"{saved.path} is a folder, which has no revisions. Leave model.revision out.")
    except NmtError as error:
        raise ConfigError(f"model.pretrained: {error}") from error
    if run is not None and run.writer and (changed := differences(run.record.get("pretrained", {}), saved.record())):
        what, before, now = changed[0]
        raise ConfigError(f"resume: the {what} of model.pretrained was {before} when the run was started, not {now}.")
    config = saved.config()
    saved = saved.pinned()
    tokenizer = saved.tokenizer()
    findings = [*_set_rates(config, model), *_layout_findings(tokenizer)]
    if getattr(config, "quantization_config", None) is not None:
        findings.append(
            "model.pretrained: its weights were saved quantized, and a run ends with full ones. Give the model it was "
            "made from; model.quantization packs that while an adapter is trained."
        )
    findings += _lengths_findings(config, settings)
    if model.adapter is not None:
        findings += adapter_findings(config, model.adapter, model.quantization)
        try:
            Pretrained(saved, config, tokenizer).rows(model.adapter)
        except ConfigError as error:
            findings += error.findings
    if settings.tokenizer.dropout:
        findings += _dropout_findings(tokenizer, settings.tokenizer.dropout)
    made_for = [getattr(config, name, None) for name in LANGUAGE_COLUMNS]
    try:
        pairs = settings.data.language_pairs
        if len(pairs) == 1:
            adopt_languages(config, tokenizer, *pairs[0], source_prefix=model.source_prefix)
        else:
            adopt_pairs(config, tokenizer, pairs, source_prefix=model.source_prefix)
    except ValueError as error:
        findings.append(f"data: {error}")
    if findings:
        raise ConfigError(findings)
    if run is None and None not in made_for and Languages.of(config, tokenizer).kind == "fixed":
        if len(pairs) == 1 and pairs[0] != tuple(made_for):
            logger.info("model.pretrained was made for %s to %s; it is trained for %s to %s.", *made_for, *pairs[0])
    return Pretrained(saved, config, tokenizer)


def _set_rates(config: PreTrainedConfig, settings: ModelSettings) -> list[str]:
    findings = []
    for setting, names in _RATES.items():
        if setting not in settings.model_fields_set:
            continue
        found = [name for name in names if hasattr(config, name)]
        for name in found:
            setattr(config, name, getattr(settings, setting))
        if not found:
            findings.append(
                f"model.{setting}: models of the kind {config.model_type} have no such rate. Leave it out."
            )
    return findings


def _lengths_findings(config: PreTrainedConfig, settings: TrainingRecipe) -> list[str]:
    parts = [config, *(getattr(config, name, None) for name in ("encoder", "decoder"))]
    found = [getattr(part, "max_position_embeddings", None) for part in parts]
    limit = min((one for one in found if isinstance(one, int)), default=None)
    names = ("max_source_length", "max_target_length")
    return [
        f"batching.{name}: the model takes {limit} tokens, and batching lets {getattr(settings.batching, name)} "
        "through. Lower it."
        for name in names
        if limit is not None and getattr(settings.batching, name) > limit
    ]


def _layout_findings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    if not getattr(tokenizer, "legacy_behaviour", False):
        return []
    return [
        "model.pretrained: its tokenizer (legacy_behaviour=true) puts the code of the language behind the text, in "
        "translations too, where the model would learn to write it last and is told it first. It translates as it is; "
        "to train it, set legacy_behaviour to false in its tokenizer_config.json. Where codes stood behind the source "
        "before, the model learns their new place with the rest."
    ]


def _dropout_findings(tokenizer: PreTrainedTokenizerBase, probability: float) -> list[str]:
    if not isinstance(tokenizer, NmtTokenizer):
        kind = type(tokenizer).__name__
        return [f"tokenizer.dropout: it is for the BPE tokenizers of hf_nmt, and this is a {kind}. Set it to 0."]
    try:
        BpeDropout(tokenizer, probability)
    except ConfigError as error:
        return [f"tokenizer.{finding}" for finding in error.findings]
    return []


def adopt_languages(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    source_language: str,
    target_language: str,
    source_prefix: str | None = None,
) -> Selection:
    """Set a model to a pair of languages, whatever it translated before where it does not mark them.

    Args:
        source_prefix: put in front of each source from now on; None keeps what the model has for the pair.

    Raises:
        ValueError: the model marks its languages, and does not have one of these.
    """
    kind = Languages.of(config, tokenizer).kind
    if source_prefix is not None:
        if kind not in ("fixed", "prefix"):
            raise ValueError(
                "model.source_prefix is for models whose tokenizer knows no languages, such as T5. Leave it out."
            )
        tasks = dict(getattr(config, "task_specific_params", None) or {})
        task = f"translation_{source_language}_to_{target_language}"
        tasks[task] = dict(tasks.get(task) or {}) | {"prefix": source_prefix}
        config.task_specific_params = tasks
        kind = "prefix"
    if kind in ("fixed", "text"):
        config.source_language = source_language
    if kind == "fixed":
        config.target_language = target_language
    if kind == "fixed" and isinstance(tokenizer, NmtTokenizer):
        tokenizer.source_languages, tokenizer.target_languages = [source_language], [target_language]
        tokenizer.src_lang, tokenizer.tgt_lang = source_language, target_language
    try:
        selected = Languages.of(config, tokenizer).select(source_language, target_language)
    except ValueError as error:
        if kind != "prefix":
            raise
        raise ValueError(
            f"{error} Write what is to stand in front of each source, such as "
            'model.source_prefix="translate French to English: ", or model.source_prefix="" for nothing.'
        ) from error
    if kind in ("text", "prefix"):  # the pair that is meant where none is named
        config.source_language, config.target_language = selected.source_language, selected.target_language
    elif kind in ("forced", "start"):
        saved = is_saved_with(tokenizer, selected.source_language)
        config.source_language = None if saved else selected.source_language
    return selected


def adopt_pairs(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    source_prefix: str | None = None,
) -> None:
    """Set a model to several pairs of languages.

    Args:
        pairs: source and target of each; empty where only the rows of the texts tell.

    Raises:
        ValueError: the model cannot be told which language to write, or does not have one of these.
    """
    languages = Languages.of(config, tokenizer)
    sources, targets = (list(dict.fromkeys(codes)) for codes in zip(*pairs, strict=True)) if pairs else ([], [])
    if source_prefix is not None:
        raise ValueError("model.source_prefix is for one pair of languages, and there are several. Leave it out.")
    if languages.kind == "fixed":
        if len(targets) != 1:
            raise ValueError(
                f"the target languages are {', '.join(targets) or 'those of the rows'}, but model.pretrained has no "
                "way to be told which one to write. Take a model of several languages (NLLB, M2M100, mBART-50), or "
                "train a new one, which gets language tags."
            )
        config.source_language, config.target_language = None, targets[0]
        if isinstance(tokenizer, NmtTokenizer):
            tokenizer.source_languages, tokenizer.target_languages = sources, targets
            tokenizer.src_lang, tokenizer.tgt_lang = None, targets[0]
        elif getattr(tokenizer, "source_lang", None) is not None:  # of Marian
            tokenizer.source_lang = tokenizer.init_kwargs["source_lang"] = None
    elif languages.kind in ("forced", "start") or (languages.kind == "text" and len(sources) != 1):
        config.source_language = None
    languages = Languages.of(config, tokenizer)
    with languages_kept(tokenizer):
        for pair in pairs:
            languages.select(*pair)


def write_language(model: PreTrainedModel, selected: Selection) -> None:
    """Have the model's own `generate` write the selected language, as far as the model is told by a token."""
    told: dict[str, Any] = {name: value for name, value in selected._asdict().items() if name.endswith("token_id")}
    for name, token in told.items():
        if token is not None:
            setattr(model.generation_config, name, token)
    if selected.decoder_start_token_id is not None:
        model.config.decoder_start_token_id = selected.decoder_start_token_id
