"""Files of a version on their way into the cache: a full disk, missing files, and a connection that breaks off."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.exceptions import MlflowUnreachableError
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.version_files import VersionFiles
from airflow_mcp.serving import download
from airflow_mcp.serving.cache import ModelCache
from airflow_mcp.serving.download import DownloadError, fetch

KEY = ServedVersion("fraud", "8")
VERSION = ModelVersion("fraud", "8", "READY")


class Registry:
    """An MLflow server that lists some files."""

    def __init__(self, *names: str) -> None:
        self.settings = MlflowSettings("m", "http://127.0.0.1:9", "http://127.0.0.1:9")
        self._files = VersionFiles("root", dict.fromkeys(names, 4))

    async def aperform(self, operation: Any) -> VersionFiles:
        operation.close()
        return self._files


def run(cache: ModelCache, registry: Registry) -> Path:
    return asyncio.run(fetch(registry, VERSION, cache, ())).path  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", 1000)


def save_with(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Exception]) -> list[str]:
    saved: list[str] = []

    async def save(self: object, files: VersionFiles, path: str, target: Path) -> None:
        saved.append(path)
        if path in outcomes:
            raise outcomes[path]
        await asyncio.to_thread(target.write_bytes, b"data")

    monkeypatch.setattr(download.FileStream, "save", save)
    return saved


def test_complete_files_are_in_the_cache_and_not_fetched_twice(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_with(monkeypatch, {})
    path = run(cache, Registry("MLmodel", "data/deep/model.bin"))
    assert (path / "data" / "deep" / "model.bin").read_bytes() == b"data"
    assert run(cache, Registry("MLmodel")) == path
    assert saved == ["MLmodel", "data/deep/model.bin"]


def test_a_full_disk_leaves_nothing_behind(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    save_with(monkeypatch, {"model.bin": OSError(28, "No space left on device")})
    with pytest.raises(DownloadError, match=r"files: they cannot be written to .*: No space left on device"):
        run(cache, Registry("MLmodel", "model.bin"))
    assert cache.find(KEY) is None
    assert list((cache.folder).rglob("MLmodel")) == []


def test_what_has_arrived_is_kept_when_the_connection_breaks_off(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_with(monkeypatch, {"model.bin": MlflowUnreachableError("no answer")})
    with pytest.raises(DownloadError, match="files: no answer"):
        run(cache, Registry("MLmodel", "model.bin"))
    assert cache.find(KEY) is None
    assert (cache.part(KEY) / "MLmodel").exists()


def test_files_without_an_mlmodel_are_not_a_model(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    save_with(monkeypatch, {})
    with pytest.raises(DownloadError, match="there is no MLmodel file"):
        run(cache, Registry("model.bin"))


def test_an_empty_entry_is_fetched(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = save_with(monkeypatch, {})
    cache.path(KEY).mkdir(parents=True)
    assert (run(cache, Registry("MLmodel")) / "MLmodel").read_bytes() == b"data"
    assert saved == ["MLmodel"]
