"""What a measured figure depends on beside its settings: versions, code revision, processor, command line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = (
    "hf_nmt", "torch", "transformers", "tokenizers", "datasets", "accelerate", "deepspeed", "sacrebleu", "numpy"
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Versions, code revision, processor and command line."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def processor() -> str:
    """The model of the processor, such as "AMD EPYC"."""
    try:
        lines: Sequence[str] = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = ()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the checkout this file belongs to, with "-dirty" where it was changed; None where there is none."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        if not git("ls-files", here.name):  # installed, perhaps inside somebody else's checkout
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.TimeoutExpired):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
