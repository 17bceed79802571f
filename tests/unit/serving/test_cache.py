"""Versions on disk: complete or not there, the oldest first to go, and a plan that survives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.cache import ModelCache, digest_of

V7, V8, V9 = (ServedVersion("fraud", number) for number in "789")


def cached(cache: ModelCache, key: ServedVersion, size: int = 100, used: float = 0.0) -> Path:
    part = cache.part(key)
    (part / "MLmodel").write_bytes(b"x" * size)
    path = cache.complete(key).path
    os.utime(path, (used, used))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", 250)


class TestAVersion:
    def test_is_not_there_until_it_is_complete(self, cache: ModelCache) -> None:
        (cache.part(V8) / "MLmodel").write_text("half of it")
        assert cache.find(V8) is None
        complete = cache.complete(V8)
        assert cache.find(V8) == complete
        assert complete.path.name == "8"
        assert list(cache.folder.glob(".part-*")) == []

    def test_replaces_a_damaged_one(self, cache: ModelCache) -> None:
        cached(cache, V8)
        (cache.path(V8) / "left over").touch()
        cached(cache, V8)
        assert [path.name for path in cache.path(V8).iterdir()] == ["MLmodel"]

    def test_is_dropped_with_its_parts(self, cache: ModelCache) -> None:
        cached(cache, V8)
        cache.part(V8)
        cache.drop(V8)
        assert cache.find(V8) is None

    @pytest.mark.parametrize("name", ["..", ".", "a b", "ü", ".hidden", "a%2Fb"])
    def test_stays_in_the_folder_whatever_the_name(self, cache: ModelCache, name: str) -> None:
        path = cached(cache, ServedVersion(name, "1"))
        assert path.parent.parent == cache.folder
        assert cache.find(ServedVersion(name, "1")) is not None

    def test_has_a_digest_that_does_not_count_what_python_leaves_behind(self, cache: ModelCache) -> None:
        path = cached(cache, V8)
        before = digest_of(path)
        (path / "code" / "__pycache__").mkdir(parents=True)
        (path / "code" / "__pycache__" / "a.pyc").touch()
        assert digest_of(path) == before
        (path / "code" / "a.py").touch()
        assert digest_of(path) != before


class TestRoom:
    def test_is_made_by_the_version_that_was_used_longest_ago(self, cache: ModelCache) -> None:
        cached(cache, V7, used=20)
        cached(cache, V8, used=10)
        cache.make_room(100, keep=())
        assert cache.find(V8) is None
        assert cache.find(V7) is not None

    def test_is_not_made_by_what_is_wanted(self, cache: ModelCache) -> None:
        cached(cache, V7, used=10)
        cached(cache, V8, used=20)
        cache.make_room(100, keep={V7})
        assert cache.find(V7) is not None
        assert cache.find(V8) is None
        cache.make_room(10_000, keep={V7})
        assert cache.find(V7) is not None

    def test_is_not_made_where_there_is_enough(self, cache: ModelCache) -> None:
        cached(cache, V7)
        cached(cache, V8)
        cache.make_room(50, keep=())
        assert cache.find(V7) is not None
        assert cache.find(V8) is not None

    def test_counts_a_version_as_used_when_it_is_found(self, cache: ModelCache) -> None:
        cached(cache, V7, used=10)
        cached(cache, V8, used=20)
        cache.find(V7)
        cache.make_room(100, keep=())
        assert cache.find(V7) is not None


class TestThePlan:
    def test_survives(self, cache: ModelCache) -> None:
        cache.write_plan({"looks": {"fraud": 1}})
        assert ModelCache(cache.folder, 0).read_plan() == {"looks": {"fraud": 1}}

    @pytest.mark.parametrize("text", ["", "{", "[]", "\ud800"])
    def test_that_cannot_be_read_is_none(self, cache: ModelCache, text: str) -> None:
        (cache.folder / "plan.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        assert cache.read_plan() == {}

    def test_that_cannot_be_written_is_only_logged(
        self, cache: ModelCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (cache.folder / "plan.json").mkdir()  # nothing can be put in its place
        cache.write_plan({})
        assert "the plan cannot be kept" in caplog.text
