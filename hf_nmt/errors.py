"""The exceptions that a user may meet. Each message says what was given, what is allowed and what to do."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Sequence
from types import ModuleType


class NmtError(Exception):
    """Base of all errors that the user can mend. A recipe ends with `exit_status` and prints no stack trace."""

    exit_status = 2


class ConfigError(NmtError, ValueError):
    """Settings that cannot be used.

    Args:
        findings: every mistake found, one sentence each, opening with the dotted path of the key.
    """

    def __init__(self, findings: str | Sequence[str]):
        self.findings = [findings] if isinstance(findings, str) else list(findings)
        super().__init__("\n".join(self.findings))


class DataError(NmtError):
    """Input text or a file that cannot be used; the message names the file and, where there is one, the line."""


class GateError(NmtError):
    """A quality gate failed."""

    exit_status = 1


def why_not_written(error: BaseException) -> tuple[str, str] | None:
    """Why there was no room for a file, and what to do; None where that is not what the error says.

    Writers outside Python (torch, safetensors) tell it in words, without an errno.
    """
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text or "Disk quota exceeded" in text:
        return "the disk is full", "Free space or choose another folder, then run again."
    if number == errno.EFBIG or "File too large" in text:
        return (
            "it is larger than a file may be here",
            "Raise the limit (see `ulimit -f`) or choose another folder, then run again.",
        )
    return None


def need(module: str, extra: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: name to import, such as `lxml.etree`.
        extra: the extra of hf_nmt that installs it.

    Raises:
        NmtError: the package is not installed; the message holds the exact pip line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NmtError(
            f"The package {module.split('.')[0]!r} is needed here and is not installed. "
            f'Install it with: pip install "hf_nmt[{extra}]"'
        ) from error
