"""Pushing a saved model or adapter to the Hub: what belongs to it, whole, in one commit."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

from hf_nmt import artifacts
from hf_nmt.cards import CARD, CardChoices, is_ours, make_card, run_of
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.translators import model_folder

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from hf_nmt.models.hub_nmt import PushOptions

logger = logging.getLogger(__name__)

CardSource = Literal["auto", "keep", "write"]

_ADAPTER = "adapter_config.json"
_TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "source.spm")


@dataclasses.dataclass(frozen=True)
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


def contents_of(folder: Path | str, *, base_model: str | None = None) -> Contents:
    """What is to be pushed of a folder, once it is certain that it is whole and may be pushed; asks no network.

    Args:
        folder: of a saved model, of an adapter, or of a run, whose best model is taken.
        base_model: for an adapter: id of the model that it belongs to; None where its configuration names it.

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
    if is_adapter:
        problems = problems or _name_base(found, base_model)
    elif not any(name in found for name in _TOKENIZERS):
        problems.append("there is no tokenizer in it. Save it there: tokenizer.save_pretrained(folder).")
    if problems:
        raise NmtError("\n".join([f"{path} is not pushed:", *problems]))
    if not is_adapter:
        add_pipeline(found)
    return Contents(path, found)


def _name_base(found: dict[str, Path | bytes], base_model: str | None) -> list[str]:
    """Put the id of the adapter's model into its configuration; returns what is wrong with it."""
    config = json.loads(Path(str(found[_ADAPTER])).read_text(encoding="utf-8"))
    named = base_model or config.get("base_model_name_or_path") or ""
    if not artifacts.may_be_hub_id(named) and (not named or "/" in named or Path(named).exists()):
        return [
            f"the adapter belongs to {named or 'a model without a name'}, which nobody else has. Push that model "
            "first, and give its id: base_model=owner/name."
        ]
    if named != config.get("base_model_name_or_path"):
        config["base_model_name_or_path"] = named
        found[_ADAPTER] = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    return []


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


def name_problem(repo_id: str) -> str | None:
    """Why a text cannot name a repository of the Hub."""
    from hf_nmt.models.hub_nmt import PushError, check_name

    try:
        check_name(repo_id)
    except PushError as error:
        return str(error)
    return None


def check_card(card: str, choices: CardChoices) -> None:
    """Refuse what cannot go together.

    Raises:
        ConfigError: card is unknown, or choices are given that a kept card does not take.
    """
    if card not in get_args(CardSource):
        raise ConfigError(f"card: {card!r} is not one of {', '.join(get_args(CardSource))}.")
    if card == "keep" and (given := _given(choices)):
        raise ConfigError(f"{given}: a card that is kept does not take it. Leave it out, or write card=write.")


def _given(choices: CardChoices) -> str:
    names = ("license", "num_samples", "scores")
    return ", ".join(name for name in names if getattr(choices, name))


def card_text(contents: Contents, card: str, choices: CardChoices, on_the_hub: str | None = None) -> str | None:
    """The card to push; None where there is none, and nothing is recorded to write one from.

    Args:
        card: see `push_to_hub`.
        on_the_hub: the card that is there already.

    Raises:
        NmtError: there is no card to keep, or the choices cannot go into the one that is kept.
    """
    path = contents.files.get(CARD)
    here = path.read_text(encoding="utf-8") if isinstance(path, Path) else None
    has_text = bool(on_the_hub and re.sub(r"^---\n.*?\n---(\n|$)", "", on_the_hub, flags=re.DOTALL).strip())
    theirs = on_the_hub if has_text else None
    if card == "keep":
        if here is None and theirs is None:
            raise NmtError(f"card=keep: there is no {CARD} in {contents.folder}, nor on the Hub. Write card=auto.")
        return here if here is not None else theirs
    kept = None
    if card == "auto":
        kept = here if here is not None and not is_ours(here) else None
        if kept is None and theirs is not None and not is_ours(theirs):
            kept = theirs
            logger.warning("The card on the Hub was written or changed by a person and stays; card=write replaces it.")
    if kept is None and run_of(contents.folder) is not None:
        return make_card(contents.folder, choices)
    if given := _given(choices):
        why = "was written or changed by a person" if kept else "cannot be written, as the folder lies in no run"
        raise NmtError(f"{given}: the card {why}. Leave it out, and change {CARD} by hand.")
    return kept if kept is not None else here


def push_to_hub(
    folder: Path | str,
    repo_id: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    card: CardSource = "auto",
    license: str | None = None,
    base_model: str | None = None,
    num_samples: int = 0,
    scores: Sequence[Path | str] = (),
    **options: Unpack[PushOptions],
) -> CommitInfo:
    """Push a saved model or adapter to the Hub, ready for use: weights, configuration, tokenizer, generation settings,
    code, pipeline and card, in one commit.

    Args:
        folder: of a saved model, of an adapter, or of a run, whose best model is taken.
        repo_id: `owner/name`, or a name alone for a repository of your own. It is made where there is none.
        token: of the Hub; None takes that of `hf auth login` or HF_TOKEN.
        revision: branch, made where there is none; None for main.
        card: auto writes one from the records of the run, unless a person has changed it, here or on the Hub; keep
            takes the one that is there; write takes no notice of changes.
        license: of the model, for the card: an id of the Hub's list, such as "cc-by-4.0".
        base_model: id of the model that was trained further; needed for an adapter of a model in a folder.
        num_samples: sample translations of the last validation in the card: sentences of your text, public then.
        scores: folders that recipes/validate.py wrote for this model; their scores go into the card.
        options: private, create_pr, exist_ok, commit_message; see `hub_nmt.PushOptions`.

    Returns:
        The commit, with `oid` and `commit_url`.

    Raises:
        NmtError: the folder cannot be pushed, or the push did not take place; nothing of it is in the repository then.
    """
    from hf_nmt.models.hub_nmt import PushError, find_repository, push_files
    from hf_nmt.models.sharing_nmt import card_without_facts

    choices = CardChoices(repo_id, license, base_model, num_samples, scores)
    check_card(card, choices)
    contents = contents_of(folder, base_model=base_model)
    files: dict[str, Any] = dict(contents.files)
    try:
        repository = find_repository(repo_id, token=token, revision=revision)
        choices = dataclasses.replace(choices, repo_id=repository.id)
        text = card_text(contents, card, choices, repository.texts.get(CARD))
        files[CARD] = (text or card_without_facts(files, repository.id, base_model)).encode()
        return push_files(files, repository, **options)
    except PushError as error:
        raise NmtError(str(error)) from error
