"""Pushing a saved model or adapter to the Hub: what belongs to it, whole, in one commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nmt import artifacts
from hf_nmt.errors import NmtError
from hf_nmt.translators import model_folder

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

CARD = "README.md"
_ADAPTER = "adapter_config.json"
_TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "source.spm")


@dataclass(frozen=True)
class Contents:
    """What would be pushed of a folder.

    Attributes:
        folder: of the model or the adapter.
        files: name in the repository -> path, or content where it is not that of a file.
    """

    folder: Path
    files: dict[str, Path | bytes]

    def lines(self) -> list[str]:
        """A line for each file: size and name, the largest first."""
        from hf_nmt.models.hub_nmt import size_of, size_text

        sizes = sorted(((size_of(content), name) for name, content in self.files.items()), reverse=True)
        return [f"{size_text(size):>10}  {name}" for size, name in sizes]


def contents_of(folder: Path | str) -> Contents:
    """What is to be pushed of a folder, once it is certain that it is whole and may be pushed; asks no network.

    Args:
        folder: of a saved model, of an adapter, or of a run, whose best model is taken.

    Raises:
        NmtError: there is no model, a file is missing or damaged, a file is no part of a model that may be pushed.
    """
    from hf_nmt.models.hub_nmt import unfit
    from hf_nmt.models.sharing_nmt import add_pipeline, files_of

    path = Path(folder)
    is_adapter = (path / _ADAPTER).is_file()
    if not is_adapter:
        path = _model_folder(path)
    found = files_of(path)
    found.pop(artifacts.COMPLETE, None)
    problems = [*unfit(found), *_damages(path, found)]
    if not any(name in found for name in _TOKENIZERS) and not is_adapter:
        problems.append("there is no tokenizer in it. Save it there: tokenizer.save_pretrained(folder).")
    if problems:
        raise NmtError("\n".join([f"{path} is not pushed:", *problems]))
    if not is_adapter:
        add_pipeline(found)
    return Contents(path, found)


def _model_folder(path: Path) -> Path:
    try:
        return model_folder(path)
    except NmtError:
        if artifacts.may_be_hub_id(path):
            raise NmtError(
                f"{path}: there is no such folder. What is pushed is a folder on this machine, such as runs/<id>/best."
            ) from None
        raise


def _damages(path: Path, found: Mapping[str, Path | bytes]) -> list[str]:
    """What is not whole: files other than their mark says, cut weights, JSON that is none, shards that are missing."""
    from safetensors import SafetensorError, safe_open

    problems = artifacts.verify(path) if (path / artifacts.COMPLETE).is_file() else []
    for name, file in found.items():
        try:
            if name.endswith(".safetensors"):
                with safe_open(file, framework="np") as weights:
                    weights.keys()
            elif name.endswith(".json"):
                value = json.loads(Path(str(file)).read_text(encoding="utf-8"))
                if name.endswith(".safetensors.index.json"):
                    shards = sorted({*value["weight_map"].values()} - {*found})
                    problems += [f"{shard}, which {name} names, is missing." for shard in shards]
        except (SafetensorError, ValueError, KeyError, OSError) as error:
            problems.append(f"{name} is damaged ({str(error).splitlines()[0]}). Copy or write the folder again.")
    if not any(name.endswith(".safetensors") for name in found):
        problems.append("there are no weights in safetensors. Load the model and save it again.")
    return problems


def push_to_hub(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    exist_ok: bool | None = None,
    commit_message: str | None = None,
) -> CommitInfo:
    """Push a saved model or adapter to the Hub, ready for use: weights, configuration, tokenizer, generation settings,
    code, pipeline and card, in one commit.

    Args:
        folder: of a saved model, of an adapter, or of a run, whose best model is taken.
        repo_id: `owner/name`, or a name alone for a repository of your own. It is made where there is none.
        private: visibility of a new repository; None for the default of its owner.
        token: of the Hub; None takes that of `hf auth login` or HF_TOKEN.
        revision: branch, made where there is none; None for main.
        create_pr: open a pull request in place of a commit to the branch.
        exist_ok: whether the repository may be there already. None: if it is empty or holds a model of this kind and
            these languages, which is replaced.
        commit_message: None for one that says what is pushed.

    Returns:
        The commit, with `oid` and `commit_url`.

    Raises:
        NmtError: the folder cannot be pushed, or the push did not take place; nothing of it is in the repository then.
    """
    from hf_nmt.models.hub_nmt import PushError, find_repository, push_files
    from hf_nmt.models.sharing_nmt import card_without_facts

    contents = contents_of(folder)
    files: dict[str, Any] = dict(contents.files)
    try:
        repository = find_repository(repo_id, token=token, revision=revision)
        if CARD not in files:
            files[CARD] = (repository.texts.get(CARD) or card_without_facts(files, repository.id)).encode()
        return push_files(
            files, repository, token=token, revision=revision, private=private, create_pr=create_pr,
            exist_ok=exist_ok, commit_message=commit_message,
        )  # fmt: skip
    except PushError as error:
        raise NmtError(str(error)) from error
