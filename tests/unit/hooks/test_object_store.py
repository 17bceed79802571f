"""Files, web servers and object stores through one door, with one kind of error for each kind of trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import DatasetError, DataUnreachableError, InvalidArgumentError
from airflow_mcp.hooks.object_store import astat, hash_file, join, local_path, missing_objects, read, stat


class _Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path names, and with ``abc`` as content."""

    def do_HEAD(self) -> None:
        name = self.path.partition("?")[0].strip("/")
        self.send_response(int(name) if name.isdigit() else 200)
        self.send_header("Content-Length", "3")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"abc")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Store(MemoryFileSystem):
    """A store whose client raises an error that the path names."""

    protocol = "memory"
    store: ClassVar[dict[str, Any]] = {}
    errors: ClassVar[dict[str, Exception]] = {"denied": PermissionError("s3cret"), "broken": RuntimeError("s3cret")}

    def _fail(self, path: str) -> None:
        if error := self.errors.get(path.rpartition("/")[2]):
            raise error

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self._fail(path)
        return {**super().info(path, **kwargs), "ETag": '"e"'}

    def open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._fail(path)
        return super().open(path, *args, **kwargs)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})  # what other tests attached stays for the process
    attach("memory", fs=_Store())
    _Store().pipe_file("/bucket/a.csv", b"abc")
    return "memory://bucket"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/data/a b.csv", "/data/a b.csv"),
        ("data/a%20b.csv", "data/a%20b.csv"),
        ("file:///data/a%20b.csv", "/data/a b.csv"),
        ("http://host/a.csv", None),
        ("s3://bucket/a.csv", None),
    ],
)
def test_a_file_url_is_unquoted_and_a_plain_path_is_not(uri: str, path: str | None) -> None:
    assert local_path(uri) == (None if path is None else Path(path))


@pytest.mark.parametrize("form", [str, lambda path: path.as_uri()], ids=["path", "url"])
def test_a_file_is_described_and_read(tmp_path: Path, form: Callable[[Path], str]) -> None:
    path = tmp_path / "a b.csv"
    assert (stat(form(path)), read(form(path))) == (None, None)
    path.write_bytes(b"abc")
    found = stat(form(path))
    assert found == {"type": "file", "size": 3, "mtime_ns": path.stat().st_mtime_ns}
    assert (read(form(path)), read(form(path), max_bytes=2)) == (b"abc", b"ab")
    assert hash_file(path) == (content_hash(b"abc"), 3)


def test_a_folder_is_described_and_cannot_be_read(tmp_path: Path) -> None:
    found = stat(str(tmp_path))
    assert found is not None
    assert found["type"] == "directory"
    for action in (lambda: read(str(tmp_path)), lambda: hash_file(tmp_path)):
        with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
            action()


async def test_an_object_of_a_web_server_is_described_and_read(web: str) -> None:
    for found in (stat(f"{web}/a"), await astat(f"{web}/a")):
        assert found is not None
        assert found["size"] == 3
    assert (read(f"{web}/a"), read(f"{web}/a", max_bytes=2)) == (b"abc", b"ab")


@pytest.mark.parametrize("status", [404, 410])
async def test_an_object_that_a_web_server_does_not_have_is_none(web: str, status: int) -> None:
    uri = f"{web}/{status}"
    assert (stat(uri), await astat(uri), read(uri)) == (None, None, None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, DatasetError),
        (403, DatasetError),
        (408, DataUnreachableError),
        (429, DataUnreachableError),
        (500, DataUnreachableError),
        (503, DataUnreachableError),
    ],
)
async def test_the_same_answer_is_the_same_error_for_every_question(
    web: str, status: int, kind: type[Exception]
) -> None:
    uri = f"{web}/{status}?signature=s3cret"
    for question in (stat, read, lambda uri: missing_objects(web, [str(status)])):
        with pytest.raises(kind, match=f"the server answered {status}") as caught:
            question(uri)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(kind, match=f"the server answered {status}"):
        await astat(uri)


async def test_the_same_silence_is_the_same_error_for_every_question() -> None:
    base = "http://127.0.0.1:1"
    for question in (stat, read, lambda uri: missing_objects(base, ["a"])):
        with pytest.raises(DataUnreachableError, match=r"does not answer: ConnectError\. A retry may succeed"):
            question(f"{base}/a")
    with pytest.raises(DataUnreachableError, match="does not answer: ConnectError"):
        await astat(f"{base}/a")


async def test_an_object_of_a_store_is_described_and_read(store: str) -> None:
    for found in (stat(f"{store}/a.csv"), await astat(f"{store}/a.csv")):
        assert found is not None
        assert (found["etag"], found["size"]) == ('"e"', 3)
    assert (read(f"{store}/a.csv"), read(f"{store}/a.csv", max_bytes=2)) == (b"abc", b"ab")
    assert (stat(f"{store}/gone.csv"), read(f"{store}/gone.csv")) == (None, None)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("denied", DatasetError, "bucket/denied may not be read: PermissionError. Ask for access"),
        ("broken", DataUnreachableError, "bucket/broken does not answer: RuntimeError. A retry may succeed"),
    ],
)
def test_what_a_store_raises_becomes_one_of_our_errors(
    store: str, name: str, kind: type[Exception], message: str
) -> None:
    for question in (stat, read):
        with pytest.raises(kind, match=message) as caught:
            question(f"{store}/{name}", hint="Ask for access")
        assert "s3cret" not in str(caught.value)


def test_a_url_that_this_machine_has_no_client_for_is_a_wrong_argument() -> None:
    for question in (stat, read):
        with pytest.raises(
            InvalidArgumentError, match=r"nosuchstore://bucket/a cannot be opened here: .*\. Set version"
        ):
            question("nosuchstore://bucket/a", hint="Set version")


def test_missing_objects_are_named_in_order(tmp_path: Path, web: str, store: str) -> None:
    (tmp_path / "a b").write_text("abc")
    (tmp_path / "folder").mkdir()
    assert missing_objects(str(tmp_path), ["z", "a b", "folder"]) == ["z", "folder"]
    assert missing_objects(tmp_path.as_uri(), ["a b", "y"]) == ["y"]
    assert missing_objects(web, ["404", "a b", "410"]) == ["404", "410"]
    assert missing_objects(store, ["a.csv", "gone.csv"]) == ["gone.csv"]


def test_a_path_is_quoted_where_its_base_is_a_url_of_the_web_or_of_a_file() -> None:
    assert join("http://host/base/", "a b") == "http://host/base/a%20b"
    assert join("file:///base", "a b") == "file:///base/a%20b"
    assert join("s3://bucket", "a b") == "s3://bucket/a b"
    assert join("/base", "a b") == "/base/a b"
