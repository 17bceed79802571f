"""DatasetVersionTrigger on real folders, files, an HTTP server and repositories with DVC's pointers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.exceptions import DatasetError, DataUnreachableError, InvalidArgumentError, SourceError
from airflow_mcp.hooks.data_place import HASHED_BYTES, _of_object
from airflow_mcp.hooks.object_store import stat
from airflow_mcp.triggers.data import DatasetVersionTrigger
from tests.support.git_server import Repository
from tests.support.watching import StateOfAssets, watching


async def test_a_new_newest_version_below_root_gives_an_event_and_an_older_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v9").mkdir()
    async with watching(DatasetVersionTrigger(root=str(tmp_path)), StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        (tmp_path / "v8").mkdir()
        (tmp_path / "latest").mkdir()
        await seen.more_looks()
        assert seen.events == []
        (tmp_path / "v10").mkdir()
        assert await seen.event(1) == {"kind": "data", "root": str(tmp_path), "version": "v10"}
        (tmp_path / "v10").rmdir()
        await seen.more_looks()
        (tmp_path / "v10").mkdir()
        await seen.more_looks()
    assert len(seen.events) == 1


async def test_a_root_that_cannot_be_read_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        await DatasetVersionTrigger(root=str(tmp_path / "gone")).look()


@pytest.mark.parametrize("form", ["{}", "file://{}"])
async def test_a_file_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    path = tmp_path / "train 1.csv"
    path.write_text("a")
    uri = form.format(path).replace(" ", "%20") if form.startswith("file") else str(path)
    async with watching(DatasetVersionTrigger(uri=uri), StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        os.utime(path, (1, 1))
        await seen.more_looks()
        assert seen.events == []
        path.write_text("b")
        changed = await seen.event(1)
        path.unlink()
        await seen.more_looks()
        path.write_text("a")
        back = await seen.event(2)
    assert (changed["kind"], changed["uri"]) == ("data", uri)
    assert changed["fingerprint"].startswith("sha256:")
    assert back["fingerprint"] != changed["fingerprint"]


async def test_a_large_file_is_known_by_its_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.truncate(HASHED_BYTES + 1)
    os.utime(path, ns=(5, 5))
    found = await DatasetVersionTrigger(uri=str(path)).look()
    assert found is not None
    assert found.mark == f"size:{HASHED_BYTES + 1}:mtime_ns:5"


async def test_a_folder_as_uri_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is a folder\. Give the folder of all versions as root"):
        await DatasetVersionTrigger(uri=str(tmp_path)).look()


def test_an_object_is_known_by_what_its_store_says(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("abc")
    before = stat(f"file://{path}")
    assert before is not None
    assert "size:3" in _of_object(before)
    path.write_text("abcd")
    assert _of_object(stat(f"file://{path}") or {}) != _of_object(before)
    assert stat(f"file://{path}.gone") is None


class FileServer:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(outer.status)
                for name, text in outer.headers.items():
                    self.send_header(name, text)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Stay silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/train.csv"


@pytest.fixture
def server() -> Iterator[FileServer]:
    running = FileServer()
    threading.Thread(target=running.server.serve_forever, daemon=True).start()
    yield running
    running.server.shutdown()
    running.server.server_close()


async def test_a_file_on_a_server_is_known_by_its_etag(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.headers = {"ETag": '"1"'}
    trigger = DatasetVersionTrigger(uri=f"{server.url}?signature=s3cret")
    async with watching(trigger, StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        server.headers = {"ETag": '"2"'}
        assert await seen.event(1) == {"kind": "data", "uri": server.url, "fingerprint": 'etag:"2"'}


async def test_without_an_etag_the_time_and_size_count(server: FileServer) -> None:
    server.headers = {"Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT", "Content-Length": "7"}
    found = await DatasetVersionTrigger(uri=server.url).look()
    assert found is not None
    assert found.mark == "last-modified:Sat, 21 Nov 2026 10:00:00 GMT:size:7"


async def test_a_server_that_says_nothing_to_go_by_is_an_error(server: FileServer) -> None:
    with pytest.raises(DatasetError, match="neither ETag nor Last-Modified"):
        await DatasetVersionTrigger(uri=server.url).look()
    server.status = 500
    with pytest.raises(DataUnreachableError, match="the server answered 500"):
        await DatasetVersionTrigger(uri=server.url).look()
    server.status = 404
    assert await DatasetVersionTrigger(uri=server.url).look() is None
    server.server.server_close()


async def test_a_server_that_is_gone_is_an_error(server: FileServer) -> None:
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(DataUnreachableError, match="does not answer: ConnectError"):
        await DatasetVersionTrigger(uri=server.url).look()


async def test_data_that_dvc_tracks_is_known_by_the_hash_in_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "models")
    repository.commit("outs:\n- md5: aa11\n  path: train.csv\n", "data/train.csv.dvc")
    trigger = DatasetVersionTrigger(dvc={"repo_url": repository.url, "path": "data/train.csv", "revision": "main"})
    async with watching(trigger, StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        repository.commit("something else")
        await seen.more_looks()
        assert seen.events == []
        commit = repository.commit("outs:\n- md5: bb22\n  path: train.csv\n", "data/train.csv.dvc")
        assert await seen.event(1) == {
            "kind": "data",
            "repo_url": repository.url,
            "path": "data/train.csv",
            "commit": commit,
            "hash": "bb22",
        }
        repository.git("rm", "--quiet", "data/train.csv.dvc")
        repository.commit("stages: {a: {outs: [{path: data/train.csv, md5: cc33}]}}\n", "dvc.lock")
        assert (await seen.event(2))["hash"] == "cc33"
        repository.commit("stages: {a: {outs: [{path: data/train.csv, md5: bb22}]}}\n", "dvc.lock")
        await seen.more_looks()
    assert len(seen.events) == 2, "a version that was there before is no news, also under a new commit"


def lfs_pointer(digit: str) -> str:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digit * 64}\nsize 5\n"


async def test_a_file_of_git_lfs_is_known_by_the_hash_in_its_pointer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "models")
    repository.commit(lfs_pointer("a"), "train.csv")
    trigger = DatasetVersionTrigger(lfs={"repo_url": repository.url, "path": "train.csv"})
    state = StateOfAssets()
    async with watching(trigger, state, monkeypatch) as seen:
        await seen.more_looks()
        commit = repository.commit(lfs_pointer("b"), "train.csv")
        event = await seen.event(1)
        await seen.more_looks()
    assert (event["commit"], event["hash"]) == (commit, f"sha256:{'b' * 64}")
    async with watching(DatasetVersionTrigger(**trigger.arguments()), state, monkeypatch) as again:
        await again.more_looks()
        repository.commit(lfs_pointer("a"), "train.csv")
        await again.more_looks()
    assert again.events == [], "after a restart no version is given twice"
    repository.commit("a,b\n", "train.csv")
    with pytest.raises(SourceError, match="is not a file that Git LFS keeps"):
        await DatasetVersionTrigger(lfs={"repo_url": repository.url, "path": "train.csv"}).look()


async def test_a_path_that_dvc_does_not_track_is_an_error(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    repository.commit("first")
    with pytest.raises(ValueError, match=r"has no data/train\.csv\.dvc and no dvc\.lock"):
        await DatasetVersionTrigger(dvc={"repo_url": repository.url, "path": "data/train.csv"}).look()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"root": "/data", "uri": "/data/x.csv"},
        {"uri": "https://bob:s3cret@example.com/x.csv"},
        {"dvc": {"repo_url": "https://example.com/x"}},
        {"lfs": {"repo_url": "https://example.com/x"}},
        {"lfs": {"repo_url": "https://example.com/x", "path": "a"}, "root": "/data"},
        {"dvc": {"repo_url": "https://example.com/x", "path": "a", "remote": "b"}},
        {"dvc": {"repo_url": "https://example.com/x", "path": "/a"}},
        {"dvc": {"repo_url": "https://example.com/x", "path": "a", "revision": "-x"}},
        {"dvc": {"repo_url": "ext::id", "path": "a"}},
    ],
)
def test_what_cannot_be_watched_is_refused_when_the_dag_is_read(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        DatasetVersionTrigger(**arguments)
    assert "s3cret" not in str(caught.value)
