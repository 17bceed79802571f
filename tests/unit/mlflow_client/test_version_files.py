"""Files of a version are streamed to disk from a real HTTP server that cuts, repeats and forgets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.exceptions import (
    InvalidArgumentError,
    MlflowError,
    MlflowNotFoundError,
    MlflowProtocolError,
    MlflowUnreachableError,
)
from airflow_mcp.mlflow_client import version_files as module
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import AsyncDriver
from airflow_mcp.mlflow_client.version_files import FileStream, VersionFiles, version_files

CONTENT = bytes(range(256)) * 4096  # 1 MiB
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


class Proxy(ThreadingHTTPServer):
    """An artifact proxy with the files of one version."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.cuts: list[int] = []
        """After how many bytes of the body each of the next answers breaks off."""
        self.statuses: list[int] = []
        self.knows_ranges = True
        self.wrong_range = False
        self.listing: Callable[[str], list[dict[str, object]]] | None = None
        """Entries of each folder, instead of those on disk."""
        self.listings = 0
        self.ranges: list[str] = []
        """Range of each request for a file; empty for none."""

    @property
    def settings(self) -> MlflowSettings:
        url = f"http://127.0.0.1:{self.server_port}"
        return MlflowSettings("m", url, url, backoff=0.01, retries=2, timeout=5)


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == PROXY:
            self._list(parse_qs(url.query)["path"][0])
        elif url.path.startswith("/api/2.0/mlflow/logged-models/"):
            info = {"model_id": "m-1", "status": "READY", "artifact_uri": "mlflow-artifacts:/1/models/m-1/artifacts"}
            self._json({"model": {"info": info}})
        else:
            self._file(unquote(url.path.removeprefix(PROXY + "/")))

    def _list(self, path: str) -> None:
        self.server.listings += 1
        if self.server.listing is not None:
            self._json({"files": self.server.listing(path)})
            return
        entries = sorted((self.server.folder / path).iterdir()) if (self.server.folder / path).is_dir() else []
        files = [
            {
                "path": entry.name,
                "is_dir": entry.is_dir(),
                **({} if entry.is_dir() else {"file_size": entry.stat().st_size}),
            }
            for entry in entries
        ]
        self._json({"files": files})

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, path: str) -> None:
        server = self.server
        asked = self.headers.get("Range", "")
        server.ranges.append(asked)
        status = server.statuses.pop(0) if server.statuses else 200
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, start = (server.folder / path).read_bytes(), 0
        if asked and server.knows_ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        if start:
            said = 0 if server.wrong_range else start
            self.send_header("Content-Range", f"bytes {said}-{len(body) - 1}/{len(body)}")
        rest = body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(rest)
        self.wfile.write(rest[:cut])
        self.close_connection = True


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    folder = tmp_path / "artifacts" / "1" / "models" / "m-1" / "artifacts"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}")
    (folder / "data" / "model.bin").write_bytes(CONTENT)
    (folder / "data" / "deep" / "a b+c.txt").write_text("x")
    (folder / "empty").touch()
    server = Proxy(tmp_path / "artifacts")
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def version(source: str = "models:/m-1", model_id: str = "m-1") -> ModelVersion:
    return ModelVersion("fraud", "8", "READY", source=source, model_id=model_id)


def files_of(proxy: Proxy, asked: ModelVersion) -> VersionFiles:
    return asyncio.run(AsyncDriver(proxy.settings).perform(version_files(asked)))


def save(proxy: Proxy, target: Path, path: str = "data/model.bin", size: int | None = None) -> None:
    root = "1/models/m-1/artifacts"
    content = proxy.folder / root / path
    files = VersionFiles(root, {path: content.stat().st_size if size is None else size})

    async def run() -> None:
        stream = FileStream(proxy.settings)
        try:
            await stream.save(files, path, target)
        finally:
            await stream.close()

    asyncio.run(run())


class TestTheFilesOfAVersion:
    @pytest.mark.parametrize(
        "asked", [version(), version("mlflow-artifacts:/1/models/m-1/artifacts", "")], ids=["logged model", "run"]
    )
    def test_are_listed_with_their_sizes(self, proxy: Proxy, asked: ModelVersion) -> None:
        found = files_of(proxy, asked)
        assert found.root == "1/models/m-1/artifacts"
        assert found.sizes == {"MLmodel": 11, "data/deep/a b+c.txt": 1, "data/model.bin": len(CONTENT), "empty": 0}
        assert found.size == len(CONTENT) + 12

    @pytest.mark.parametrize(
        ("source", "where"), [("s3://bucket/1/x", "s3"), ("/mlruns/1/x", "a folder of the MLflow")]
    )
    def test_outside_of_the_proxy_are_refused_with_what_to_set(self, proxy: Proxy, source: str, where: str) -> None:
        with pytest.raises(InvalidArgumentError, match=f"are in {where}.*--serve-artifacts"):
            files_of(proxy, version(source, ""))

    def test_that_do_not_exist_are_an_error(self, proxy: Proxy) -> None:
        with pytest.raises(MlflowNotFoundError, match="has no files"):
            files_of(proxy, version("mlflow-artifacts:/1/gone", ""))

    def test_in_a_folder_that_holds_itself_are_refused(self, proxy: Proxy) -> None:
        proxy.listing = lambda _: [{"path": "again", "is_dir": True}]
        with pytest.raises(InvalidArgumentError, match="at most 32 folders inside each other"):
            files_of(proxy, version())
        assert proxy.listings == 33

    def test_in_folders_without_end_are_refused(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_LISTINGS", 20)
        twice = [{"path": "a", "is_dir": True}, {"path": "b", "is_dir": True}]
        proxy.listing = lambda path: twice if path.count("/") < 9 else []
        with pytest.raises(InvalidArgumentError, match="at most 20 folders; got more"):
            files_of(proxy, version())
        assert proxy.listings == 20

    @pytest.mark.parametrize("size", [-1, 2**62])
    def test_of_an_impossible_size_are_refused(self, proxy: Proxy, size: int) -> None:
        proxy.listing = lambda _: [{"path": "model.bin", "is_dir": False, "file_size": size}]
        with pytest.raises(InvalidArgumentError, match=f"the size of 'model.bin' .* must be from 0 to .*; got {size}"):
            files_of(proxy, version())


class TestAFile:
    @pytest.mark.parametrize("path", ["data/model.bin", "data/deep/a b+c.txt", "empty"])
    def test_is_written_to_disk(self, proxy: Proxy, tmp_path: Path, path: str) -> None:
        save(proxy, tmp_path / "part", path)
        assert (tmp_path / "part").read_bytes() == (proxy.folder / "1/models/m-1/artifacts" / path).read_bytes()

    def test_that_is_complete_is_not_asked_for(self, proxy: Proxy, tmp_path: Path) -> None:
        (tmp_path / "part").write_bytes(CONTENT)
        save(proxy, tmp_path / "part")
        assert proxy.ranges == []

    def test_goes_on_where_an_earlier_try_stopped(self, proxy: Proxy, tmp_path: Path) -> None:
        (tmp_path / "part").write_bytes(CONTENT[:1000])
        save(proxy, tmp_path / "part")
        assert (tmp_path / "part").read_bytes() == CONTENT
        assert proxy.ranges == ["bytes=1000-"]

    def test_survives_more_cuts_than_retries_as_long_as_each_brings_something(
        self, proxy: Proxy, tmp_path: Path
    ) -> None:
        proxy.cuts = [200_000, 200_000, 200_000, 200_000]
        save(proxy, tmp_path / "part")
        assert (tmp_path / "part").read_bytes() == CONTENT
        assert [bool(asked) for asked in proxy.ranges] == [False, True, True, True, True]

    def test_is_given_up_when_nothing_comes(self, proxy: Proxy, tmp_path: Path) -> None:
        proxy.cuts = [0] * 10
        with pytest.raises(MlflowUnreachableError):
            save(proxy, tmp_path / "part")
        assert len(proxy.ranges) == 3

    def test_begins_anew_where_the_server_knows_no_ranges(self, proxy: Proxy, tmp_path: Path) -> None:
        proxy.knows_ranges = False
        (tmp_path / "part").write_bytes(b"x" * 1000)
        save(proxy, tmp_path / "part")
        assert (tmp_path / "part").read_bytes() == CONTENT

    def test_is_never_put_together_from_another_part(self, proxy: Proxy, tmp_path: Path) -> None:
        proxy.wrong_range = True
        (tmp_path / "part").write_bytes(CONTENT[:1000])
        with pytest.raises(MlflowUnreachableError, match="another part of the file"):
            save(proxy, tmp_path / "part")

    def test_that_became_longer_meanwhile_is_refused(self, proxy: Proxy, tmp_path: Path) -> None:
        with pytest.raises(MlflowProtocolError, match="another size than the 1000 bytes"):
            save(proxy, tmp_path / "part", size=1000)

    def test_that_became_shorter_meanwhile_is_refused(self, proxy: Proxy, tmp_path: Path) -> None:
        with pytest.raises(MlflowError):
            save(proxy, tmp_path / "part", size=len(CONTENT) + 1)

    def test_is_asked_for_again_after_an_error_of_the_server(self, proxy: Proxy, tmp_path: Path) -> None:
        proxy.statuses = [503, 500]
        save(proxy, tmp_path / "part")
        assert (tmp_path / "part").read_bytes() == CONTENT

    def test_that_the_server_refuses_is_an_error(self, proxy: Proxy, tmp_path: Path) -> None:
        proxy.statuses = [404] * 5
        with pytest.raises(MlflowError):
            save(proxy, tmp_path / "part")
        assert len(proxy.ranges) == 1
