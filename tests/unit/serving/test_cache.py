"""Versions on disk: complete or not there, the oldest first to go, and a plan that survives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mcp.core.serving.control_settings import ControlSettings
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.serving.cache import ModelCache, digest_of
from airflow_mcp.serving.control import Control, Policies
from airflow_mcp.serving.models import ServedModels

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
        assert list(cache.folder.rglob(".part-*")) == []

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

    def test_is_taken_by_versions_that_are_not_complete(self, cache: ModelCache) -> None:
        cached(cache, V7)
        other = ModelCache(cache.folder, 250)
        (other.part(V9) / "model.bin").write_bytes(b"x" * 100)
        cache.make_room(100, keep=())
        assert cache.find(V7) is None
        assert (other.part(V9) / "model.bin").exists()

    def test_is_made_by_unfinished_versions_that_nobody_wants(self, cache: ModelCache) -> None:
        cached(cache, V7)
        for key in (V8, V9):
            (cache.part(key) / "model.bin").write_bytes(b"x" * 50)
        cache.make_room(100, keep={V8})
        assert cache.find(V7) is not None
        assert [path.name for path in cache.folder.rglob("*.bin")] == ["model.bin"]
        assert (cache.part(V8) / "model.bin").exists()


class TestADamagedVersion:
    @pytest.mark.parametrize("damage", ["empty", "no MLmodel", "changed", "a file", "a link inside", "no digest"])
    def test_is_deleted_so_that_it_is_fetched_again(self, cache: ModelCache, damage: str, tmp_path: Path) -> None:
        path = cached(cache, V8)
        if damage in ("empty", "a file", "no MLmodel"):
            (path / "MLmodel").unlink()
        if damage == "no MLmodel":
            (path / "model.pkl").touch()
        elif damage == "a file":
            path.rmdir()
            path.touch()
        elif damage == "changed":
            (path / "MLmodel").write_text("other")
        elif damage == "a link inside":
            (path / "link").symlink_to(tmp_path)
        elif damage == "no digest":
            path.with_name(".digest-8").unlink()
        assert cache.find(V8) is None
        assert not path.exists()
        assert cache.find(V8) is None
        cached(cache, V8)
        assert cache.find(V8) is not None

    def test_is_not_made_of_nothing(self, cache: ModelCache) -> None:
        complete = cached(cache, V8)
        with pytest.raises(OSError, match="it has no file MLmodel"):
            cache.complete(V8)
        assert (complete / "MLmodel").exists()


class TestSeveralServers:
    def test_complete_a_version_each_from_its_own_parts(self, cache: ModelCache) -> None:
        other = ModelCache(cache.folder, 250)
        (cache.part(V8) / "MLmodel").write_text("the model")
        with pytest.raises(OSError, match="it has no file MLmodel"):
            other.complete(V8)
        (other.part(V8) / "MLmodel").write_text("the model")
        complete = cache.complete(V8)
        inode = complete.path.stat().st_ino
        assert other.complete(V8) == complete
        assert complete.path.stat().st_ino == inode  # a server may be loading it
        assert list(cache.folder.rglob(".part-*")) == []

    def test_delete_the_parts_of_those_that_have_ended_alone(self, cache: ModelCache) -> None:
        (cache.part(V8) / "MLmodel").touch()
        script = (
            "import os, sys; from pathlib import Path; from airflow_mcp.serving.cache import ModelCache;"
            "from airflow_mcp.core.serving.versions import ServedVersion;"
            "cache = ModelCache(Path(sys.argv[1]), 0);"
            "(cache.part(ServedVersion('ended', '1')) / 'x').touch(); os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", script, str(cache.folder)], check=True)
        assert len(list(cache.folder.rglob("*ended*"))) == 1
        ModelCache(cache.folder, 250)
        assert list(cache.folder.rglob("*ended*")) == []
        assert (cache.part(V8) / "MLmodel").exists()


class TestSymbolicLinks:
    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        """A folder with a file that must survive, in the form of the folder of a model."""
        folder = tmp_path / "outside"
        (folder / "8").mkdir(parents=True)
        (folder / "8" / "MLmodel").write_bytes(b"x" * 1000)
        return folder

    def test_to_a_model_is_not_followed(self, cache: ModelCache, outside: Path) -> None:
        (cache.folder / "fraud").symlink_to(outside)
        cache.make_room(10_000, keep=())
        assert cache.find(V8) is None
        cache.drop(V8)
        assert (outside / "8" / "MLmodel").exists()
        path = cached(cache, V8)
        assert path.resolve() == path
        assert (outside / "8" / "MLmodel").stat().st_size == 1000

    def test_to_a_version_is_not_followed(self, cache: ModelCache, outside: Path) -> None:
        cached(cache, V7)
        (cache.folder / "fraud" / "8").symlink_to(outside / "8")
        cache.make_room(10_000, keep=())
        assert cache.find(V8) is None
        (cache.folder / "fraud").mkdir(exist_ok=True)
        (cache.folder / "fraud" / "8").symlink_to(outside / "8")
        cache.drop(V8)
        assert not os.path.lexists(cache.folder / "fraud" / "8")
        assert (outside / "8" / "MLmodel").exists()

    def test_of_a_server_that_ended_is_not_followed(self, cache: ModelCache, outside: Path) -> None:
        (cache.folder / ".own-1").symlink_to(outside)
        ModelCache(cache.folder, 0).make_room(10_000, keep=())
        assert (outside / "8" / "MLmodel").exists()

    def test_inside_a_version_is_deleted_alone(self, cache: ModelCache, outside: Path) -> None:
        (cached(cache, V8) / "link").symlink_to(outside)
        cache.make_room(10_000, keep=())
        assert not cache.path(V8).exists()
        assert (outside / "8" / "MLmodel").exists()


class TestTheFolder:
    def test_is_made_for_this_user_alone(self, tmp_path: Path) -> None:
        assert ModelCache(tmp_path / "new", 0).folder.stat().st_mode & 0o777 == 0o700

    def test_must_not_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with pytest.raises(InvalidArgumentError, match=r"cache_folder must be .*/link', which is a symbolic link"):
            ModelCache(tmp_path / "link", 0)

    def test_must_not_be_open_to_others(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        with pytest.raises(InvalidArgumentError, match=r"cache_folder must be .* to which every user can write"):
            ModelCache(tmp_path, 0)
        tmp_path.chmod(0o770)
        ModelCache(tmp_path, 0)

    def test_must_not_belong_to_another_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        with pytest.raises(InvalidArgumentError, match=f"cache_folder must be .* which belongs to user {owner}"):
            ModelCache(tmp_path, 0)

    def test_must_be_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InvalidArgumentError, match=r"cache_folder .*/file' cannot be made: File exists"):
            ModelCache(tmp_path / "file", 0)

    def test_of_the_log_must_not_be_a_link_either(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path)
        control = ControlSettings(log_uri="file:///nowhere", log_folder=str(tmp_path / "link"))
        with pytest.raises(InvalidArgumentError, match=r"log_folder must be .* which is a symbolic link"):
            Control(ServingSettings(), control, Policies(), ServedModels(lambda *_: None), None)  # type: ignore[arg-type]


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
