"""Translation models on Hugging Face Transformers.

`import hf_nmt` teaches Transformers the model family (`AutoConfig`, `AutoModelForSeq2SeqLM`, `AutoTokenizer`) and
gives it back `pipeline("translation")`. It imports neither torch nor Transformers for that: each registration waits
for the module of Transformers that holds the registry, and is done when that import ends; at once where it has.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any

MODEL_TYPE = "hf_nmt"


def _register_configuration() -> None:
    from transformers import AutoConfig

    from hf_nmt.models.configuration_nmt import NmtConfig

    AutoConfig.register(MODEL_TYPE, NmtConfig, exist_ok=True)


def _register_tokenizer() -> None:
    from transformers import AutoTokenizer

    from hf_nmt.models.configuration_nmt import NmtConfig
    from hf_nmt.models.tokenization_nmt import NmtTokenizer

    AutoTokenizer.register(NmtConfig, NmtTokenizer, exist_ok=True)


def _register_model() -> None:
    from transformers import AutoModelForSeq2SeqLM

    from hf_nmt.models.configuration_nmt import NmtConfig
    from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration

    AutoModelForSeq2SeqLM.register(NmtConfig, NmtForConditionalGeneration, exist_ok=True)


def _install_pipeline() -> None:
    from hf_nmt.generation import pipelines

    pipelines.install()


_waiting: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_configuration,
    "transformers.models.auto.tokenization_auto": _register_tokenizer,
    "transformers.models.auto.modeling_auto": _register_model,
    "transformers.pipelines": _install_pipeline,
}


class _ImportWatch(threading.local):
    """A finder that finds as the others do, and registers once the outermost import has ended.

    Registering inside an import would meet half-imported modules: the modelling code imports Transformers, and parts
    of Transformers import each other. So the depth of the imports under way in this thread is counted.
    """

    depth = 0

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith(("transformers.", "hf_nmt.")):
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    self._watch(spec.loader)
                return spec
        return None

    def _watch(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            self.depth += 1
            try:
                execute(module)
            finally:
                self.depth -= 1
            self.register()

        loader.exec_module = exec_module

    def register(self) -> None:
        """Do what can be done now; the finder leaves when nothing waits."""
        if self.depth:
            return
        self.depth += 1  # what a registration imports must not come back here
        try:
            while ready := [name for name in _waiting if name in sys.modules]:
                for name in ready:
                    _waiting[name]()
                    _waiting.pop(name, None)
        finally:
            self.depth -= 1
        if not _waiting and self in sys.meta_path:
            sys.meta_path.remove(self)


def __getattr__(name: str) -> Any:
    if name == "push_to_hub":
        return importlib.import_module("hf_nmt.sharing").push_to_hub
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    metadata = importlib.import_module("importlib.metadata")  # slow enough to be worth waiting until asked for
    try:
        return metadata.version("hf_nmt")
    except metadata.PackageNotFoundError:
        return "0+unknown"


_watch = _ImportWatch()
sys.meta_path.insert(0, _watch)
_watch.register()
