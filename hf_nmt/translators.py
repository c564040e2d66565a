"""Open any saved model as a `Translator`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nmt import artifacts
from hf_nmt.config import fingerprint
from hf_nmt.data.text_lines import existing_file
from hf_nmt.errors import NmtError, need
from hf_nmt.generation import adapters, hub

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from hf_nmt.generation.translator import TorchTranslator

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


# What the tokenizers of all families are kept in.
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.*",
    "*.spm",
    "*.model",
)


def model_folder(path: str | Path) -> Path:
    """The folder of a saved model that can be loaded; of a run folder, its `best`.

    Raises:
        NmtError: there is none, or it is not whole.
    """
    path = Path(path)
    if path.is_file():
        raise NmtError(f"{path} is a file; a model is a folder with config.json, such as runs/<id>/best.")
    if not path.is_dir():
        raise NmtError(f"{path}: there is no such folder. Give the folder of a saved model, such as runs/<id>/best.")
    if (path / "run.json").is_file():
        if not (path / "best" / "config.json").is_file():
            raise NmtError(
                f"{path} is a run without a best model: none was saved, as training was stopped before its end or "
                f"still goes on. Continue it with: recipes/train.py resume={path}"
            )
        path = path / "best"
    if (path / artifacts.COMPLETE).is_file() and not artifacts.is_complete(path):
        raise NmtError("\n".join([f"{path} is not whole. Copy or write it again.", *artifacts.verify(path)]))
    if adapters.is_adapter(path):
        if not (path / adapters.ADAPTER_WEIGHTS).is_file():
            raise NmtError(f"{path} is an adapter without weights: {adapters.ADAPTER_WEIGHTS} is missing.")
        return path
    if not (path / "config.json").is_file():
        inside = sorted(str(file.parent) for file in path.glob("*/config.json"))
        hint = f" There is a model in {', '.join(inside[:5])}." if inside else ""
        raise NmtError(f"{path} holds no model: config.json is missing.{hint}")
    if not any((path / name).is_file() for name in _WEIGHTS):
        raise NmtError(f"{path} holds no weights: none of {', '.join(_WEIGHTS)} is there. Was it written to the end?")
    if not any(file.is_file() for pattern in _TOKENIZERS for file in path.glob(pattern)):
        raise NmtError(
            f"{path} holds no tokenizer: none of {', '.join(_TOKENIZERS)} is there. Copy it from the model that this "
            "one was made of; hf_nmt and save_pretrained of the tokenizer write it beside the weights."
        )
    for file in sorted(path.glob("*.safetensors")):
        if (whole := _size_told(file)) > (found := file.stat().st_size):
            raise NmtError(f"{file} is cut short: it has {found:,} of {whole:,} bytes. Copy or write it again.")
    return path


def _size_told(file: Path) -> int:
    """Bytes that a file of safetensors has by its own header; 0 where the header tells nothing."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > 100_000_000:  # safetensors' own limit
            return 0
        header = stream.read(length)
    if len(header) < length:
        return 8 + length
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, IndexError):
        ends = [tensor["data_offsets"][1] for name, tensor in json.loads(header).items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0)
    return 0


def find_model(path: str | Path) -> str:
    """The folder of a saved model (see `model_folder`), or an id of the Hub.

    Raises:
        NmtError: there is no such model, or the Hub cannot tell (see `hub.look_up`).
    """
    if not artifacts.may_be_hub_id(path):
        return str(model_folder(path))
    hub.look_up(str(path))
    return str(path)


def problems_of_translation(
    model: str | None, source: str | None, output: str | None, *, overwrite: bool
) -> list[str]:
    """Findings on `model`, `input` and `output` of a recipe that translates; None are the standard streams."""
    findings = []
    try:
        if model is None:
            raise NmtError("none is given. Write model=FOLDER, such as model=runs/<id>/best.")
        find_model(model)
    except NmtError as error:
        findings.append(f"model: {error}")
    try:
        if source is not None:
            existing_file(source)
    except NmtError as error:
        findings.append(f"input: {error}")
    return findings + artifacts.problems_of_output(output, source, overwrite=overwrite)


@dataclass(frozen=True)
class SavedModel:
    """A model that `AutoModelForSeq2SeqLM` opens, to be read part by part. No code that it carries is run.

    Attributes:
        path: its folder, or an id of the Hub.
        revision: branch, tag or commit on the Hub; None takes the newest.
    """

    path: str
    revision: str | None = None

    @classmethod
    def find(cls, path: str | Path, revision: str | None = None) -> SavedModel:
        """A model folder, a run folder (its best model is taken) or an id of the Hub.

        Raises:
            NmtError: there is no such model, or it is an adapter.
        """
        folder = find_model(path)
        if adapters.is_adapter(folder):
            raise NmtError(f"{folder} is an adapter, not a whole model. Give the merged model, best/ of its run.")
        return cls(folder, revision if artifacts.may_be_hub_id(path) else None)

    def config(self) -> PreTrainedConfig:
        """
        Raises:
            NmtError: it cannot be read, or is not that of an encoder-decoder.
        """
        from transformers import AutoConfig, AutoModelForSeq2SeqLM

        with _told(self.path):
            config = AutoConfig.from_pretrained(self.path, **self.options())
        if type(config) not in AutoModelForSeq2SeqLM._model_mapping:
            raise NmtError(
                f"{self.path} is no encoder-decoder (model_type {config.model_type!r}). Give a model that translates, "
                "such as one of Marian, M2M100, NLLB, mBART, T5 or of hf_nmt."
            )
        return config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """
        Raises:
            NmtError: it cannot be read, or needs a package that is not installed.
        """
        from transformers import AutoTokenizer

        with _told(self.path):
            try:
                return AutoTokenizer.from_pretrained(self.path, **self.options())
            except ImportError:
                need("sentencepiece", "sentencepiece")
                raise

    def model(self, **options: Any) -> PreTrainedModel:
        """Its weights, which are saved as they are where the model is saved again.

        Args:
            options: for `from_pretrained`.

        Raises:
            NmtError: they cannot be read, or some are missing.
        """
        from transformers import AutoModelForSeq2SeqLM

        from hf_nmt.models.marian_positions_nmt import keep_positions

        with _told(self.path), artifacts.quiet_files():
            model, report = AutoModelForSeq2SeqLM.from_pretrained(
                self.path,
                output_loading_info=True,
                adapter_kwargs=self._found(),  # where peft is installed, an adapter is looked for on the Hub
                **self.options(),
                **options,
            )
        if report["missing_keys"]:
            missing = sorted(report["missing_keys"])
            raise NmtError(
                f"{self.path}: the weights of {len(missing)} tensors are missing and would be random, such as "
                f"{missing[0]}. The file of weights does not belong to this config.json."
            )
        keep_positions(model)
        return model.eval()

    def record(self) -> dict[str, Any]:
        """What tells this model from another: its commit on the Hub, or the hash of the folder."""
        if not artifacts.may_be_hub_id(self.path):
            return {"path": self.path, "hash": fingerprint(artifacts.hash_model(self.path))}
        return {"path": self.path, "revision": hub.revision(self.path, self.revision) or self.revision}

    def pinned(self) -> SavedModel:
        """The model at the commit that was just read, whatever is pushed from now on."""
        return dataclasses.replace(self, revision=self.record().get("revision"))

    def _found(self) -> dict[str, Any]:
        return hub.look_up(self.path) if artifacts.may_be_hub_id(self.path) else {}

    def options(self) -> dict[str, Any]:
        """For any `from_pretrained` of a part of it."""
        revision = {} if self.revision is None else {"revision": self.revision}
        return {"trust_remote_code": False, **self._found(), **revision}


def load_translator(
    path: str | Path,
    device: str | None = None,
    *,
    base: str | Path | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    with_scores: bool = True,
) -> TorchTranslator:
    """Open a saved model: of hf_nmt, any that `AutoModelForSeq2SeqLM` opens, or an adapter of one.

    Args:
        path: folder of a model or of an adapter, a run folder (its best model is taken) or a model id on the Hub.
        device: such as `cpu` or `cuda:0`; None takes a GPU where there is one.
        base: see `load_model`.
        source_language, target_language: codes, for models of several languages.
        with_scores: see `TorchTranslator`.

    Raises:
        NmtError: there is no such model, or it is not whole or of another kind.
        ConfigError: the model does not have the language.
    """
    import torch

    from hf_nmt.generation.translator import TorchTranslator

    folder = find_model(path)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.device(device)
    except RuntimeError as error:
        raise NmtError(f"device is {device!r}; write cpu, cuda or cuda:<number>.") from error
    model, tokenizer = load_model(folder, base=base)
    return TorchTranslator(
        model,
        tokenizer,
        device,
        source_language=source_language,
        target_language=target_language,
        with_scores=with_scores,
    )


def load_model(path: str | Path, *, base: str | Path | None = None, merge: bool = True) -> tuple[Any, Any]:
    """Open a saved model (see `load_translator`) as it is.

    Args:
        path: of the model, or of an adapter, which is put on the model it names.
        base: where the model of an adapter is; None takes what the adapter says.
        merge: an adapter is merged into the weights, which is as fast as the model alone; False leaves it beside them.

    Returns:
        The model, for evaluation, and its tokenizer.

    Raises:
        NmtError: there is no such model, or it is not whole or of another kind.
    """
    import torch

    folder = find_model(path)
    if artifacts.may_be_hub_id(folder) and (downloaded := hub.adapter_folder(folder)) is not None:
        folder = str(downloaded)
    if not adapters.is_adapter(folder):
        saved = SavedModel(folder)
        tokenizer = saved.tokenizer()
        return saved.model(), tokenizer
    saved, named = _base_of(folder, base)
    try:
        config, tokenizer = saved.config(), saved.tokenizer()
        if (changed := Path(folder, adapters.MODEL_CONFIG)).is_file():
            with _told(folder):
                config = type(config).from_json_file(str(changed))
        # In full, as the adapter is: half of it would be lost in the sum.
        model = saved.model(config=config, dtype=torch.float32)
    except NmtError as error:
        raise _no_base(folder, named, error) from error
    with _told(folder), artifacts.quiet_files():
        adapters.apply_adapter(model, folder)
        if Path(folder, "generation_config.json").is_file():
            model.generation_config = type(model.generation_config).from_pretrained(folder)
        if Path(folder, "tokenizer_config.json").is_file():
            tokenizer = type(tokenizer).from_pretrained(folder)
        if merge:
            adapters.merge_adapter(model)
    return model.eval(), tokenizer


def _base_of(adapter: str, base: str | Path | None) -> tuple[SavedModel, str]:
    """The model that an adapter belongs to, and how it is named."""
    config = adapters.read_config(adapter)
    named = config.base_model_name_or_path if base is None else str(base)
    if not named:
        raise NmtError(
            f"{adapter} is an adapter and does not say of which model: write its folder or id into "
            f"base_model_name_or_path of {adapters.ADAPTER_CONFIG}."
        )
    try:
        return SavedModel.find(named, config.revision if base is None else None), named
    except NmtError as error:
        raise _no_base(adapter, named, error) from error


def _no_base(adapter: str, named: str, error: NmtError) -> NmtError:
    return NmtError(
        f"{adapter} is an adapter of {named}, which cannot be opened: {error}\nWhere the model lies elsewhere, write "
        f"its folder or id into base_model_name_or_path of {adapters.ADAPTER_CONFIG}, or take the merged model, best/ "
        "of the run."
    )


@contextlib.contextmanager
def _told(folder: str) -> Iterator[None]:
    """Turn what Transformers and safetensors raise about a folder into one kind of error."""
    try:
        yield
    except Exception as error:
        if (
            isinstance(error, OSError | ValueError | KeyError | RuntimeError)
            or "safetensor" in type(error).__name__.lower()
        ):
            raise NmtError(f"{folder} cannot be loaded{_kind(folder)}: {error}") from error
        raise


def _kind(folder: str) -> str:
    with contextlib.suppress(OSError, ValueError):
        kind: Any = json.loads(Path(folder, "config.json").read_text(encoding="utf-8")).get("model_type")
        return f" as a translation model (model_type {kind!r})"
    return ""
