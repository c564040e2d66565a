"""The errors a user may meet."""

from __future__ import annotations

import json

import pytest

from hf_nmt.errors import ConfigError, DataError, GateError, NmtError, need


def test_exit_statuses():
    assert [kind.exit_status for kind in (NmtError, ConfigError, DataError, GateError)] == [2, 2, 2, 1]


def test_config_error_holds_all_findings_and_is_a_value_error():
    error = ConfigError(["a: wrong", "b: wrong"])
    assert isinstance(error, ValueError) and isinstance(error, NmtError)
    assert (error.findings, str(error)) == (["a: wrong", "b: wrong"], "a: wrong\nb: wrong")
    assert ConfigError("a: wrong").findings == ["a: wrong"]


def test_need_returns_the_module():
    assert need("json", "tmx") is json
    assert need("json.decoder", "tmx") is json.decoder


def test_need_tells_the_pip_line():
    with pytest.raises(NmtError) as caught:
        need("surely_not_installed.part", "wandb")
    assert str(caught.value) == (
        "The package 'surely_not_installed' is needed here and is not installed. "
        'Install it with: pip install "hf_nmt[wandb]"'
    )
