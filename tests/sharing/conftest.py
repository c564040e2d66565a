"""A Hub on this machine, as this process or another one sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import TOKEN, HubServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(server, monkeypatch, tmp_path) -> HubServer:
    """The server as the Hub of this process, which is logged in as `me`."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.endpoint)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it keeps the address of the first Hub it asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    huggingface_hub.utils.disable_progress_bars()
    return server


@pytest.fixture
def elsewhere(server, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in a process and a folder of its own, with the server as the Hub: `elsewhere(arguments, **options)`.

    Options: token (None for none), with_package (whether hf_nmt can be imported), environment.
    """
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def run(arguments: list[str], *, token: str | None = TOKEN, with_package: bool = False, **environment: str):
        variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
        variables |= {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        variables |= ({"HF_TOKEN": token} if token else {}) | ({"PYTHONPATH": str(ROOT)} if with_package else {})
        return subprocess.run(
            [sys.executable, *arguments], env=variables | environment, cwd=folder, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip

    return run
