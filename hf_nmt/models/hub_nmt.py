"""One commit to a repository of the Hub: what it may hold, what is there already, in plain words what hinders it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypedDict

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelCard, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

logger = logging.getLogger(__name__)

CARD = "README.md"
# The Hub answers in well under a second.
_TIMEOUT_SECONDS = 10.0
# What tells one model from another.
_IDENTITY = ("model_type", "source_language", "target_language", "base_model_name_or_path")
_CONFIGS = ("config.json", "adapter_config.json")
# Files that the libraries look for beside a model: what an older push left of them would be read with the new weights.
_OF_A_MODEL = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*_nmt.py", "config.json",
    "generation_config.json", "adapter_config.json", "tokenizer*.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "*.spm", "*.model", "chat_template.jinja",
)  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack", ".dill")
_SECRET_NAMES = (
    ".env*", "*.env", "*.pem", "*.key", "*.p12", "id_rsa*", "id_ed25519*", ".netrc", ".git-credentials", "token",
    "token.txt", "*credentials*", "*secret*", "*password*",
)  # fmt: skip
_SECRETS = re.compile(
    rb"\b(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36}|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{40,})\b"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_OFFLINE = "Nothing is pushed, as HF_HUB_OFFLINE is set. Unset it to push."
# Larger files are weights and vocabularies.
_MAX_SEARCHED_BYTES = 2**20


class PushError(RuntimeError):
    """A push that did not take place; the message says why and what to do."""


@dataclass
class Repository:
    """A repository of the Hub before a push.

    Attributes:
        id: `owner/name`.
        exists: whether it is there.
        commit: the newest of the branch; None where there is no such branch yet.
        private: None where it does not exist.
        files: names.
        texts: contents of the card and of the configurations, by name.
        token, revision: that it was asked for with, and is pushed to with.
    """

    id: str
    exists: bool = False
    commit: str | None = None
    private: bool | None = None
    files: frozenset[str] = frozenset()
    texts: dict[str, str] = field(default_factory=dict)
    token: str | None = field(default=None, repr=False)
    revision: str | None = None


class PushOptions(TypedDict, total=False):
    """How a repository is pushed to, for `push_files` and all that goes through it.

    Attributes:
        private: visibility of a new repository; None for the default of its owner.
        create_pr: open a pull request in place of a commit to the branch.
        exist_ok: whether the repository may be there already. None: if it is empty or holds a model of this kind and
            these languages, which is replaced.
        commit_message: None for one that says what is pushed.
    """

    private: bool | None
    create_pr: bool
    exist_ok: bool | None
    commit_message: str | None


def find_repository(repo_id: str, *, token: str | None = None, revision: str | None = None) -> Repository:
    """Ask the Hub for a repository to push to.

    Args:
        repo_id: `owner/name`, or a name alone for one of the token's owner.
        token: of the Hub; None takes that of `hf auth login` or HF_TOKEN.
        revision: branch; None for main.

    Raises:
        PushError: the name is none, there is no token or a wrong one, the Hub cannot be reached.
    """
    _check_call(repo_id, token)
    api = huggingface_hub.HfApi(token=token)
    with _told(repo_id, token):
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
        found = Repository(repo_id, token=token, revision=revision)
        try:
            info = api.model_info(repo_id, revision=revision, timeout=_TIMEOUT_SECONDS)
            found.commit = info.sha
        except RevisionNotFoundError:
            info = api.model_info(repo_id, timeout=_TIMEOUT_SECONDS)  # a new branch starts from main
            revision = None
        except RepositoryNotFoundError as error:
            if error.response.status_code == 401 and "nvalid" in (error.server_message or ""):
                raise
            return found
        found.exists, found.private = True, info.private
        found.files = frozenset(sibling.rfilename for sibling in info.siblings or ())
        for name in found.files.intersection((CARD, *_CONFIGS)):
            with tempfile.TemporaryDirectory() as folder:
                path = api.hf_hub_download(repo_id, name, revision=revision or info.sha, local_dir=folder)
                found.texts[name] = Path(path).read_text(encoding="utf-8", errors="replace")
    return found


def push_files(
    files: Mapping[str, Path | bytes],
    repository: Repository,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    exist_ok: bool | None = None,
    commit_message: str | None = None,
) -> huggingface_hub.CommitInfo:
    """Push the files of a model in one commit; what an older push left of a model goes with the same commit.

    Args:
        files: name in the repository -> path, or content.
        repository: from `find_repository`.
        private, create_pr, exist_ok, commit_message: see `PushOptions`.

    Returns:
        The commit, with `oid` and `commit_url`; the newest one where nothing differs.

    Raises:
        PushError: something of `files` may not be pushed, the repository holds something else, the Hub refused. No
            commit was made then.
    """
    findings = unfit(files)
    if not findings and repository.exists:
        findings = _unlike(files, repository, exist_ok)
    if findings:
        raise PushError("\n".join(findings))
    if repository.exists and private is not None and private != repository.private:
        logger.warning(
            "%s is %s and stays so: a push does not change it. Its settings on the Hub do.",
            repository.id, "private" if repository.private else "public",
        )  # fmt: skip
    stale = sorted(
        name
        for name in repository.files - {*files}
        if "/" not in name and any(fnmatch(name, pattern) for pattern in _OF_A_MODEL)
    )
    replaced = repository.files & {*files}
    logger.info(
        "%s: %d files, %s; %d of them take the place of older ones, %d older ones go%s",
        repository.id, len(files), size_text(sum(map(size_of, files.values()))), len(replaced), len(stale),
        f": {', '.join(stale)}" if stale else "",
    )  # fmt: skip
    api = huggingface_hub.HfApi(token=repository.token)
    revision = repository.revision
    operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
    operations += [CommitOperationDelete(name) for name in stale]
    with _told(repository.id, repository.token):
        if not repository.exists:
            api.create_repo(repository.id, private=private)
        if revision is not None and repository.commit is None and not create_pr:
            api.create_branch(repository.id, branch=revision, exist_ok=True)
        # With the commit that was looked at, a push of somebody else in between is refused by the Hub.
        commit = api.create_commit(
            repository.id,
            operations,
            commit_message=commit_message or "Upload a translation model",
            revision=revision,
            create_pr=create_pr,
            parent_commit=repository.commit if not create_pr else None,
        )
    if commit.oid == repository.commit:
        logger.info("%s has all of it already; there is no new commit.", repository.id)
    return commit


def unfit(files: Mapping[str, Path | bytes]) -> list[str]:
    """Why files may not be pushed, a sentence for each kind: pickles, and what looks like a secret."""
    pickles = [name for name, content in files.items() if is_pickle(name, content)]
    named = [name for name in files if any(fnmatch(Path(name).name.lower(), pattern) for pattern in _SECRET_NAMES)]
    holding = [name for name, content in files.items() if name not in named and _holds_secret(content)]
    findings = []
    if pickles:
        findings.append(
            f"{', '.join(pickles)}: weights and states other than safetensors can run code when they are read, and "
            "are not pushed. Push the folder of a model, such as runs/<id>/best, or load the model and save it again."
        )
    if named or holding:
        findings.append(
            f"{', '.join([*named, *holding])}: this looks like a secret, such as a token or a private key, and is not "
            "pushed. Take it out of the folder."
        )
    return findings


def is_pickle(name: str, content: Path | bytes) -> bool:
    """Whether a file is a pickle by its name, or by its first bytes whatever it is called."""
    if name.endswith(_PICKLES):
        return True
    start = _head(content, 2)
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return True
    if start == b"PK" and isinstance(content, Path) and zipfile.is_zipfile(content):
        return any(entry.endswith(".pkl") for entry in zipfile.ZipFile(content).namelist())
    return False


def _holds_secret(content: Path | bytes) -> bool:
    return size_of(content) <= _MAX_SEARCHED_BYTES and bool(_SECRETS.search(_head(content, _MAX_SEARCHED_BYTES)))


def _head(content: Path | bytes, count: int) -> bytes:
    if isinstance(content, bytes):
        return content[:count]
    with content.open("rb") as file:
        return file.read(count)


def size_of(content: Path | bytes) -> int:
    """Bytes of a file or a content."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def size_text(num_bytes: float) -> str:
    """`812 B`, `3.4 KB`, `27.1 MB`."""
    for unit in ("B", "KB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.{0 if unit == 'B' else 1}f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def _unlike(files: Mapping[str, Path | bytes], repository: Repository, exist_ok: bool | None) -> list[str]:
    """Why an existing repository is not pushed to."""
    if exist_ok is True:
        return []
    if exist_ok is False:
        return [f"{repository.id} exists already. Choose another name, or allow it with exist_ok=True."]
    ours = {name: _head(files[name], 10**8).decode() for name in (CARD, *_CONFIGS) if name in files}
    before, now = _identity(repository.texts), _identity(ours)
    different = [
        f"{key} is {before[key]}, to be {now[key]}" for key in now if key in before and before[key] != now[key]
    ]
    others = sorted(repository.files - {".gitattributes", ".gitignore", CARD, "LICENSE"})
    if different:
        what = f"holds another model ({'; '.join(different)})"
    elif others and not repository.files.intersection(_CONFIGS):
        what = f"holds something else ({', '.join(others[:5])}{', ...' if len(others) > 5 else ''})"
    else:
        return []
    return [
        f"{repository.id} exists and {what}. Choose another name, or replace what is there with exist_ok=True; the "
        "Hub keeps the older commits."
    ]


def _identity(texts: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _CONFIGS:
        with contextlib.suppress(KeyError, ValueError, AttributeError):
            config = json.loads(texts[name])
            found |= {key: config[key] for key in _IDENTITY if config.get(key) is not None}
    with contextlib.suppress(Exception):  # a card may be anything
        languages = ModelCard(texts[CARD], ignore_metadata_errors=True).data.language
        if languages:
            found["languages"] = sorted([languages] if isinstance(languages, str) else languages)
    return found


# What hinders


def check_name(repo_id: str) -> None:
    """
    Raises:
        PushError: the text cannot name a repository.
    """
    try:
        huggingface_hub.utils.validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(
            f"{repo_id!r} is no name of a repository: {str(error).rstrip('.')}. Write owner/name, such as "
            "me/nmt-de-en."
        ) from error


def _check_call(repo_id: str, token: str | None) -> None:
    """Refuse what needs no answer of the Hub."""
    check_name(repo_id)
    if huggingface_hub.is_offline_mode():
        raise PushError(_OFFLINE)
    token = huggingface_hub.get_token() if token is None else token
    if not token:
        raise PushError(
            "A push needs a token of the Hub, and there is none. Log in with `hf auth login`, or set HF_TOKEN; the "
            f"token needs the right to write ({constants.ENDPOINT}/settings/tokens)."
        )
    if not re.fullmatch(r"[!-~]+", token):
        # Further down the client would quote it in an error.
        raise PushError("The token of the Hub holds white space or characters that no token has. Copy it once more.")


@contextlib.contextmanager
def _told(repo_id: str, token: str | None) -> Iterator[None]:
    """Turn what the client of the Hub raises into a PushError. A commit is whole or was not made."""
    nothing = f"Nothing of it is in {repo_id}: files appear there with their commit only"
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("Stopped. %s. The same call again completes it.", nothing)
        raise
    except PushError:
        raise
    except Exception as error:
        # What goes wrong in a thread that uploads comes wrapped.
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ is not None else error
        told = _in_words(cause, repo_id, token)
        if told is None:
            raise
        raise PushError(told.replace("{nothing}", nothing)) from error


def _in_words(error: BaseException, repo_id: str, token: str | None) -> str | None:
    """What an error of the Hub's client means, and what to do; None for one that is not expected."""
    if isinstance(error, OfflineModeIsEnabled):
        return _OFFLINE
    if isinstance(error, HfHubHTTPError):
        return f"{_refusal(repo_id, error)} {{nothing}}."
    reason = _innermost(error) if _is_of_the_network(error) else " ".join(str(error).split())
    for secret in filter(None, (token, huggingface_hub.get_token())):
        reason = reason.replace(secret, "<token>")
    if _is_of_the_network(error):
        return (
            f"{constants.ENDPOINT} could not be reached, or the connection broke ({reason}). {{nothing}}. Look at the "
            "network; the same call again completes it."
        )
    if isinstance(error, OSError | ValueError):
        return f"{repo_id} was not pushed: {reason.rstrip('.')}. {{nothing}}."
    return None


def _is_of_the_network(error: BaseException) -> bool:
    """Whatever client the Hub's uses, its errors are of its own package, or Python's."""
    package = type(error).__module__.partition(".")[0]
    return package.startswith(("httpx", "httpcore", "requests")) or isinstance(error, ConnectionError | TimeoutError)


def _innermost(error: BaseException) -> str:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


def _refusal(repo_id: str, error: HfHubHTTPError) -> str:
    status = getattr(error.response, "status_code", 0)
    said = f" ({error.server_message})" if error.server_message else ""
    owner = repo_id.partition("/")[0]
    if status == 401:
        return f"The Hub does not take the token{said}. Log in again with `hf auth login`, or set HF_TOKEN to another."
    if status == 403:
        return (
            f"The token may not write to {repo_id}{said}. It needs the right to write, and {owner} must be you or an "
            "organisation that lets you: `hf auth whoami` tells. Log in with another token: `hf auth login`."
        )
    if status == 404:
        return f"The Hub has no {repo_id} that this token may see{said}. Check the name and the token."
    if status in (409, 412):
        return f"{repo_id} was changed by somebody else meanwhile{said}. Look at it and push again."
    if status >= 500:
        return f"The Hub failed with status {status}{said}. The same call again completes it."
    return f"The Hub refused with status {status}{said}."
