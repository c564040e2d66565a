"""`install()` against the registry of Transformers as it is, and `import hf_nmt` in every order."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import transformers
import transformers.pipelines
from transformers import Pipeline
from transformers.pipelines.base import PipelineRegistry

from hf_nmt.errors import ConfigError
from hf_nmt.generation import pipelines
from hf_nmt.models.pipeline_nmt import TranslationPipeline

REMOVED = {"translation": "Use the `text-generation` pipeline with a chat model instead.", "summarization": "gone"}


@pytest.fixture
def untouched(monkeypatch):
    """The registry as Transformers 5.23 brings it."""
    tasks = {name: task for name, task in transformers.pipelines.SUPPORTED_TASKS.items() if name != "translation"}
    registry = PipelineRegistry(tasks, dict(transformers.pipelines.TASK_ALIASES))
    monkeypatch.setattr(transformers.pipelines, "REMOVED_TASKS", copy.deepcopy(REMOVED))
    monkeypatch.setattr(transformers.pipelines, "PIPELINE_REGISTRY", registry)
    return registry


def check_task(task):
    return transformers.pipelines.check_task(task)[1]["impl"]


def test_what_transformers_does_without_us(untouched):
    """If this fails, Transformers has changed: look at install() again."""
    untouched.register_pipeline("translation", pipeline_class=TranslationPipeline)
    for task in ("translation", "translation_de_to_en"):
        with pytest.raises(KeyError, match=f"The task {task} has been removed"):
            check_task(task)
    transformers.pipelines.REMOVED_TASKS.pop("translation")
    assert check_task("translation") is TranslationPipeline
    with pytest.raises(KeyError, match="Unknown task translation_de_to_en"):
        check_task("translation_de_to_en")


def test_translation_is_known_with_and_without_languages(untouched):
    pipelines.install()
    for task in ("translation", "translation_de_to_en", "translation_eng_Latn_to_kor_Hang"):
        assert check_task(task) is TranslationPipeline
    assert check_task("ner") == check_task("token-classification")
    for task in ("translation_de", "translations", "translation_to_"):
        with pytest.raises(KeyError):
            check_task(task)
    with pytest.raises(KeyError, match="summarization has been removed"):
        check_task("summarization")
    assert "translation" in untouched.get_supported_tasks()


def test_a_second_call_changes_nothing(untouched, caplog):
    pipelines.install()
    tasks, aliases = dict(untouched.supported_tasks), untouched.task_aliases
    config = transformers.AutoConfig.from_pretrained
    pipelines.install()
    assert transformers.AutoConfig.from_pretrained == config
    assert untouched.supported_tasks == tasks and untouched.task_aliases is aliases
    assert not caplog.records


def test_the_pipeline_of_another_package_stays(untouched):
    class Other(Pipeline):
        pass

    transformers.pipelines.REMOVED_TASKS.pop("translation")
    untouched.register_pipeline("translation", pipeline_class=Other)
    pipelines.install()
    assert check_task("translation") is Other
    assert check_task("translation_de_to_en") is Other


def test_transformers_may_stop_refusing(untouched, monkeypatch):
    monkeypatch.setattr(transformers.pipelines, "REMOVED_TASKS", {})
    pipelines.install()
    assert check_task("translation") is TranslationPipeline


def test_a_pipeline_without_a_model_is_told_to_name_one():
    for task in ("translation", "translation_de_to_en"):
        with pytest.raises(ValueError, match=r'needs a model .* none is given: write pipeline\("translation", model='):
            transformers.pipeline(task)


def test_a_run_folder_is_answered_with_the_model_in_it(tmp_path):
    run = tmp_path / "de-en-20261121-080000"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"is a run folder; its model is in best/: write model={run}/best\."):
        transformers.pipeline("translation", model=str(run))


KNOWN = """
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
from transformers.pipelines import check_task
config = AutoConfig.for_model("hf_nmt")
assert AutoModelForSeq2SeqLM._model_mapping[type(config)].__name__ == "NmtForConditionalGeneration"
assert TOKENIZER_MAPPING[type(config)].__name__ == "NmtTokenizer"
assert check_task("translation_de_to_en")[1]["impl"].__name__ == "TranslationPipeline"
import hf_nmt
assert hf_nmt._watch not in sys.meta_path and not hf_nmt._waiting
"""


@pytest.mark.parametrize(
    "first",
    [
        "import hf_nmt; assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)",
        "from transformers import pipeline, AutoTokenizer, AutoModelForSeq2SeqLM; import hf_nmt",
        pytest.param("import hf_nmt.models.modeling_nmt, hf_nmt.generation.pipelines", marks=pytest.mark.slow),
        pytest.param("import hf_nmt; from transformers import PreTrainedModel", marks=pytest.mark.slow),
    ],
)
def test_import_registers_the_family_in_every_order(first):
    subprocess.run([sys.executable, "-c", f"import sys\n{first}\n{KNOWN}"], check=True)


def test_version_is_that_of_the_installed_package():
    import importlib.metadata

    import hf_nmt

    assert hf_nmt.__version__ == importlib.metadata.version("hf_nmt")
    with pytest.raises(AttributeError, match="has no attribute 'versions'"):
        hf_nmt.versions  # noqa: B018
