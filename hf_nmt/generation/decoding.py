"""Settings of decoding."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic
from pydantic import Field, model_validator

from hf_nmt.artifacts import may_be_hub_id
from hf_nmt.config import Settings
from hf_nmt.config_keys import findings_of, shown
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.generation import hub
from hf_nmt.models.sources_nmt import BATCH_TOKENS, MAX_LENGTH_EXTRA, MAX_LENGTH_RATIO, NUM_BEAMS

logger = logging.getLogger(__name__)

# Keys of generation_config.json with the same name and meaning here.
_OF_THE_MODEL = ("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size")
# What other toolkits call them, where no name here is near.
_FAMILIAR: dict[tuple[str, ...], str] = {
    ("beam", "beam_size"): "write decoding.num_beams.",
    ("nbest", "n_best", "nbest_size"): "write decoding.num_return_sequences.",
    ("lenpen", "beam_alpha", "normalize", "length_penalty_alpha"): "write decoding.length_penalty.",
    ("max_len_a", "max_length_factor", "max_output_length_num_stds"): "write decoding.max_length_ratio.",
    ("max_len_b",): "write decoding.max_length_extra.",
    ("max_output_length", "max_length", "max_new_tokens"): "write decoding.max_target_length.",
    ("skip_invalid_size_inputs_valid_test",): "write decoding.truncate=true.",
    ("block_ngram_repeat",): "write decoding.no_repeat_ngram_size.",
    ("sampling", "random_sampling", "sample", "output_sampling"): "write decoding.do_sample=true.",
    ("sampling_topk", "random_sampling_topk"): "write decoding.top_k.",
    ("sampling_topp", "random_sampling_topp"): "write decoding.top_p.",
    ("random_sampling_temp",): "write decoding.temperature.",
}
_SAMPLING = ("temperature", "top_k", "top_p", "seed")


class DecodingSettings(Settings):
    """How translations are searched for. The defaults are those of `pipeline("translation")` too."""

    renamed_keys: ClassVar[dict[str, str]] = {name: answer for names, answer in _FAMILIAR.items() for name in names}

    num_beams: int = Field(
        NUM_BEAMS,
        ge=1,
        description="Hypotheses kept at each step; 1 is greedy search. Beyond 5 the gain is small, time grows.",
    )
    num_return_sequences: int = Field(
        1,
        ge=1,
        description="Translations per source, best first; at most num_beams, which follows where it is not given, "
        "unless do_sample is true.",
    )
    length_penalty: float = Field(
        1.0,
        description="Hypotheses rank by log-probability / length ** length_penalty; above 1 favours longer ones.",
    )
    early_stopping: bool | Literal["never"] = Field(
        False,
        description="When beam search ends: false, when a better hypothesis of this length is impossible; true, at "
        "num_beams finished ones (faster); never, when a better one of any length is impossible (slower).",
    )
    max_length_ratio: float = Field(
        MAX_LENGTH_RATIO,
        ge=0,
        description="A translation may have max_length_ratio * source tokens + max_length_extra tokens; stops endless "
        "repetition. 2 leaves room for all usual language pairs.",
    )
    max_length_extra: int = Field(
        MAX_LENGTH_EXTRA, ge=0, description="See max_length_ratio, in tokens; matters for very short sources."
    )
    max_target_length: int | None = Field(
        None, ge=1, description="Longest translation of a sentence in tokens; null for what the model takes."
    )
    max_source_length: int | None = Field(
        None,
        ge=8,
        description="Longest sentence in tokens, for models trained on shorter ones than they take; null for what the "
        "model takes. What is longer is cut into parts that are all translated, or truncated if truncate is true.",
    )
    no_repeat_ngram_size: int = Field(
        0, ge=0, description="No n-gram of this many tokens may come twice in a translation; 0 allows all."
    )
    do_sample: bool = Field(
        False, description="Draw tokens at random instead of taking the most probable; use it with num_beams=1."
    )
    temperature: float = Field(1.0, gt=0, description="Sampling only: divides the logits; below 1 is less random.")
    top_k: int = Field(0, ge=0, description="Sampling only: draw from the k most probable tokens; 0 for all.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Sampling only: draw from the most probable tokens that together reach this."
    )
    seed: int = Field(
        0,
        ge=0,
        description="Sampling only: the same seed and source give the same translation, whatever stands beside it and "
        "however batches are made (num_beams=1).",
    )
    batch_tokens: int = Field(
        BATCH_TOKENS,
        ge=1,
        description="Source tokens of a batch, padding and beams counted; memory grows with it. Lower it if memory is "
        "short, raise it on a large GPU.",
    )
    window_size: int = Field(
        4096,
        ge=1,
        description="Texts read ahead and sorted by length together; more fill batches better, fewer come out sooner.",
    )
    split_sentences: bool = Field(
        True,
        description="Translate every sentence of a text on its own and join the translations with the text's own "
        "white space: models trained on sentences lose parts of a longer text. false takes each text as it is, as "
        "test sets aligned by line want it.",
    )
    truncate: bool = Field(
        False,
        description="Cut off what is over the limit of the source, with a warning, instead of cutting it into parts "
        "or, with split_sentences=false, refusing it.",
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> DecodingSettings:
        default = type(self).model_fields
        if not self.do_sample:
            idle = [name for name in _SAMPLING if getattr(self, name) != default[name].default]
            if idle:
                raise ValueError(f"{', '.join(idle)} would change nothing: set do_sample=true too, or leave it out")
            if self.num_return_sequences > self.num_beams:
                if "num_beams" in self.model_fields_set:
                    raise ValueError(
                        f"num_return_sequences ({self.num_return_sequences}) may not exceed num_beams "
                        f"({self.num_beams}); raise num_beams, or leave it out: it follows"
                    )
                self.num_beams = self.num_return_sequences
                self.model_fields_set.discard("num_beams")  # a model's own may be more
        if self.num_beams == 1 and self.early_stopping is not False:
            raise ValueError("early_stopping would change nothing with num_beams=1: leave it out")
        return self

    def generate_kwargs(self) -> dict[str, Any]:
        """The settings that `model.generate` knows, under its names."""
        kwargs: dict[str, Any] = {
            "num_beams": self.num_beams,
            "num_return_sequences": self.num_return_sequences,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "do_sample": self.do_sample,
            "use_cache": True,  # training with gradient checkpointing switches it off in the model's settings
        }
        if self.num_beams > 1:
            kwargs |= {"length_penalty": self.length_penalty, "early_stopping": self.early_stopping}
        if self.do_sample:
            kwargs |= {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return kwargs


def of_the_model() -> dict[str, Any]:
    """For the `--help` of a recipe where a section of null takes the model's own settings, see `config_help.extra`."""
    fields = DecodingSettings.model_fields
    return {"left_out": {name: f"the model's own, else {shown(fields[name].default)}" for name in _OF_THE_MODEL}}


def model_decoding(model: Path | str, given: DecodingSettings | None = None) -> DecodingSettings:
    """How a saved model is to translate: what `given` sets, else its generation_config.json, else the defaults.

    Args:
        model: its folder, or an id of the Hub.
        given: what the user asks for. More num_return_sequences than the model's own num_beams raise that.

    Raises:
        ConfigError: the two do not go together, or the model's own cannot be used.
    """
    own = _own_settings(str(model))
    taken = given.model_dump(include=given.model_fields_set) if given is not None else {}
    settings = {name: own[name] for name in _OF_THE_MODEL if own.get(name) is not None} | taken
    if settings.get("num_beams") == 1 and "early_stopping" not in taken:
        settings.pop("early_stopping", None)  # for the beam search that the model would do
    wanted, beams = taken.get("num_return_sequences", 1), own.get("num_beams")
    if not taken.get("do_sample") and "num_beams" not in taken and isinstance(beams, int) and wanted > beams > 0:
        logger.info(
            "decoding.num_beams is %d, as many as num_return_sequences; the model's own are %d.", wanted, beams
        )
        settings["num_beams"] = wanted
    try:
        return DecodingSettings(**settings)
    except pydantic.ValidationError as error:
        theirs = ", ".join(f"{name}={shown(own[name])}" for name in settings if name not in taken)
        raise ConfigError(
            [
                f"{finding} ({theirs} comes from the generation_config.json of {model}; what is given as decoding.KEY "
                "goes before it.)"
                for finding in findings_of(error, "decoding")
            ]
        ) from error


def _own_settings(model: str) -> dict[str, Any]:
    if may_be_hub_id(model):
        from transformers import GenerationConfig

        try:
            return GenerationConfig.from_pretrained(model, **hub.look_up(model)).to_diff_dict()
        except (OSError, NmtError):  # it has none, or is not there at all, which is told when the model is loaded
            return {}
    try:
        return json.loads(Path(model, "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
