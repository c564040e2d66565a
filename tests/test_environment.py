from __future__ import annotations

import subprocess
from pathlib import Path

from hf_nmt.environment import environment

ROOT = Path(__file__).resolve().parents[1]


def test_the_environment_names_the_revision_of_the_code():
    commit = environment()["commit"]
    inside = subprocess.run(
        ["git", "ls-files", "hf_nmt/environment.py"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    if not inside:
        assert commit is None
    else:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        assert commit.removesuffix("-dirty") == head
