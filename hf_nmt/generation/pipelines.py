"""The one place that touches what Transformers keeps to itself about pipelines (checked against 5.23).

Transformers 5 removed the translation pipelines and refuses their names before its registry is asked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hf_nmt.errors import ConfigError
from hf_nmt.models.configuration_nmt import CUSTOM_PIPELINES

_LANGUAGE_TASK = re.compile(r"translation_.+_to_.+")


class _TranslationAliases(dict):
    """Task aliases in which `translation_XX_to_YY` stands for `translation`, whatever the languages."""

    def __contains__(self, task: Any) -> bool:
        return super().__contains__(task) or (isinstance(task, str) and _LANGUAGE_TASK.fullmatch(task) is not None)

    def __missing__(self, task: str) -> str:
        if task in self:
            return "translation"
        raise KeyError(task)


class _TaskWithoutDefault(dict):
    """A task that has no model to fall back on, and says so."""

    def __missing__(self, key: str) -> Any:
        if key == "default":
            raise ValueError(
                'A translation needs a model of its languages, and none is given: write pipeline("translation", '
                'model="runs/<id>/best") with the folder of a model, or with an id of the Hub.'
            )
        raise KeyError(key)


def _configurations(auto_config: Any) -> type:
    """`AutoConfig` for `pipeline()` alone: our pipeline, where a model brings it, stands for the installed one.

    Otherwise a model of another family that was pushed with our pipeline could not be loaded here without trust in the
    code beside it, which is not needed.
    """

    class Configurations(auto_config):
        @classmethod
        def from_pretrained(cls, *args: Any, trust_remote_code: bool | None = None, **kwargs: Any) -> Any:
            if args and not Path(args[0], "config.json").is_file() and Path(args[0], "run.json").is_file():
                raise ConfigError(f"{args[0]} is a run folder; its model is in best/: write model={args[0]}/best.")
            config = auto_config.from_pretrained(*args, trust_remote_code=trust_remote_code, **kwargs)
            brought = getattr(config, "custom_pipelines", None) or {}
            ours = brought.get("translation", {}).get("impl") == CUSTOM_PIPELINES["translation"]["impl"]
            if ours and not trust_remote_code:
                config.custom_pipelines = {task: brought[task] for task in brought if task != "translation"}
            return config

    return Configurations


def install() -> None:
    """Make `pipeline("translation")` and `pipeline("translation_de_to_en")` known to Transformers.

    Runs on `import hf_nmt`; a second call changes nothing. A translation pipeline that somebody else has registered is
    left in place.
    """
    import transformers.pipelines
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    from hf_nmt.models.pipeline_nmt import TranslationPipeline

    transformers.pipelines.AutoConfig = _configurations(AutoConfig)
    registry = transformers.pipelines.PIPELINE_REGISTRY
    # A task that is still refused cannot be anybody's.
    refused = transformers.pipelines.REMOVED_TASKS.pop("translation", None) is not None
    if refused or "translation" not in registry.supported_tasks:
        registry.register_pipeline(
            "translation", pipeline_class=TranslationPipeline, pt_model=(AutoModelForSeq2SeqLM,), type="text"
        )
        registry.supported_tasks["translation"] = _TaskWithoutDefault(registry.supported_tasks["translation"])
    if not isinstance(registry.task_aliases, _TranslationAliases):
        registry.task_aliases = _TranslationAliases(registry.task_aliases)
