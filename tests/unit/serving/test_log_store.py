"""Addresses of the prediction log that can never work are refused before the server starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.serving.settings import PREFIX, ModelAddress, ServingSettings
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.serving.__main__ import run
from airflow_mcp.serving.log_store import check_log_uri


@pytest.mark.parametrize("uri", ["", "/srv/log", "file:///srv/log", "memory://log", "simplecache::memory://log"])
def test_addresses_that_fsspec_can_use_are_accepted(uri: str) -> None:
    check_log_uri(uri)


@pytest.mark.parametrize("uri", ["nosuch://x", "nosuch::memory://x", "s4://me:s3cret@x"])
def test_others_are_refused_with_the_variable_and_without_credentials(uri: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{PREFIX}LOG_URI must be .* fsspec can use; got") as caught:
        check_log_uri(uri)
    assert "s3cret" not in str(caught.value)


def test_a_store_whose_package_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without_s3fs(name: str, *arguments: Any) -> Any:
        return None if name == "s3fs" else find(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", without_s3fs)
    with pytest.raises(InvalidArgumentError, match=f"{PREFIX}LOG_URI 's3://log' needs the package s3fs"):
        check_log_uri("s3://log")


def test_the_server_does_not_start_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}LOG_URI", "nosuch://x")
    with pytest.raises(InvalidArgumentError, match="Nothing was started"):
        run(ServingSettings(models=(ModelAddress("fraud", "", str(tmp_path)),)))
