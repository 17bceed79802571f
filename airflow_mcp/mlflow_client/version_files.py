"""The files of a model version behind MLflow's artifact proxy: which there are, and one of them streamed to disk.

The server alone has the credentials of the artifact store. A file may be larger than memory, so it is never held whole,
and a download that broke off goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

import httpx

from airflow_mcp.core.mlflow_entities import FileInfo, ModelVersion
from airflow_mcp.exceptions import (
    InvalidArgumentError,
    MlflowError,
    MlflowNotFoundError,
    MlflowProtocolError,
)
from airflow_mcp.mlflow_client import answers
from airflow_mcp.mlflow_client.api import ARTIFACT_PROXY, artifact_path, get_logged_model
from airflow_mcp.mlflow_client.outcome import Judge, NoAnswer, Received
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import MAX_ERROR_BYTES, client_options, no_answer
from airflow_mcp.mlflow_client.wire import MlflowRequest, Operation

MAX_FILES = 10_000
"""A version with more files is refused: it was not meant to be served."""
MAX_LISTINGS = 1_000
"""Requests for the files of one version; each folder takes one."""
MAX_DEPTH = 32
"""Folders inside each other; a listing of a folder that holds itself never ends."""
MAX_FILE_BYTES = 1 << 40
"""1 TiB: no model file is larger, and a listing that says so is wrong."""


@dataclass(frozen=True)
class VersionFiles:
    """The files of a version, by their paths relative to its folder."""

    root: str
    """Folder below the artifact proxy."""
    sizes: Mapping[str, int]
    """Path to bytes."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


def version_files(version: ModelVersion) -> Operation[VersionFiles]:
    """Return the files of a version.

    :param version: the version.
    :raises InvalidArgumentError: when its files are not behind the artifact proxy, so that only a client with storage
        credentials could read them, or when their listing goes beyond a limit of this module.
    :raises MlflowNotFoundError: when there are none.
    """
    root = yield from _root(version)
    sizes: dict[str, int] = {}
    folders, listings = [""], 0
    while folders:
        folder, listings = folders.pop(), listings + 1
        if listings > MAX_LISTINGS:
            raise InvalidArgumentError(f"{_named(version)} must have at most {MAX_LISTINGS} folders; got more")
        for entry in (yield from _list(version, root, folder)):
            path = artifact_path(f"{folder}/{entry.path}".lstrip("/"))
            if entry.is_dir:
                folders.append(_checked_folder(version, path))
            else:
                sizes[path] = _checked_size(version, path, entry.file_size or 0)
            if len(sizes) + len(folders) > MAX_FILES:
                raise InvalidArgumentError(f"{_named(version)} must have at most {MAX_FILES} files; got more")
    if not sizes:
        raise MlflowNotFoundError(f"{_named(version)} has no files in {root!r}")
    return VersionFiles(root, dict(sorted(sizes.items())))


def _checked_folder(version: ModelVersion, path: str) -> str:
    if path.count("/") >= MAX_DEPTH:
        raise InvalidArgumentError(
            f"{_named(version)} must have at most {MAX_DEPTH} folders inside each other; got more"
        )
    return path


def _checked_size(version: ModelVersion, path: str, size: int) -> int:
    if not 0 <= size <= MAX_FILE_BYTES:
        raise InvalidArgumentError(
            f"the size of {path!r} of {_named(version)} must be from 0 to {MAX_FILE_BYTES} bytes; got {size}"
        )
    return size


def _root(version: ModelVersion) -> Operation[str]:
    place = version.source
    if version.model_id:
        place = (yield from get_logged_model(version.model_id)).artifact_uri
    url = urlsplit(place)
    if url.scheme != "mlflow-artifacts":
        raise InvalidArgumentError(
            f"the files of {_named(version)} are in {url.scheme or 'a folder of the MLflow server'}, not behind its "
            "artifact proxy. Start the MLflow server with --serve-artifacts and --artifacts-destination, without "
            "--default-artifact-root, and register the model again"
        )
    return url.path.strip("/")


def _list(version: ModelVersion, root: str, folder: str) -> Operation[list[FileInfo]]:
    where = f"{root}/{folder}".rstrip("/")
    request = MlflowRequest(f"list the files of {_named(version)}", "GET", ARTIFACT_PROXY, params=(("path", where),))
    return answers.read_all((yield request), "files", answers.file_info)


def _named(version: ModelVersion) -> str:
    return f"version {version.version} of {version.name!r}"


class FileStream:
    """Streams files of one MLflow server to disk.

    :param settings: address and credentials of the server.
    :param transport: replaces the network, for tests.
    """

    def __init__(self, settings: MlflowSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(transport=transport, **client_options(settings))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def save(self, files: VersionFiles, path: str, target: Path) -> None:
        """Write one file to disk, from where an earlier try stopped.

        :param files: the files of the version.
        :param path: path of the file, relative to the folder of the version.
        :param target: where to write it; its folder exists.
        :raises MlflowError: when the server does not answer properly, or the file has another size than was listed.
        :raises OSError: when it cannot be written.
        """
        size = files.sizes[path]
        request = MlflowRequest(
            f"download {path!r}",
            "GET",
            f"{ARTIFACT_PROXY}/{quote(files.root)}/{quote(artifact_path(path))}",
            expects="bytes",
        )
        judge, best = Judge(request, self._settings), 0
        while (present := _present(target, size)) < size:
            if present > best:  # an attempt that brought something does not count against the others
                judge, best = Judge(request, self._settings), present
            result = await self._attempt(request, target, present, size)
            if result is None:
                continue
            after = judge.judge(result, now=datetime.now(UTC), jitter=random.random())  # noqa: S311
            if isinstance(after, MlflowError | InvalidArgumentError):
                raise after
            if not isinstance(after, float):
                raise MlflowProtocolError(f"{after.asked}: the file has another size than the {size} bytes listed")
            await asyncio.sleep(after)

    async def _attempt(
        self, request: MlflowRequest, target: Path, present: int, size: int
    ) -> Received | NoAnswer | None:
        """Make one request; return None when it brought the file to its full size."""
        headers = {"Accept-Encoding": "identity"}
        if present:
            headers["Range"] = f"bytes={present}-"
        url = f"{self._settings.base_url}/{request.path}"
        try:
            async with self._client.stream("GET", url, headers=headers) as response:
                if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                    return await _refusal(response)
                begins = _begins_at(response, present)
                if begins is None:
                    return NoAnswer("lost", "the answer is another part of the file than was asked for")
                await _write(response.aiter_raw(), target, begins, size)
        except httpx.RequestError as error:
            return no_answer(error, self._settings)
        return None if _present(target, size) == size else Received(HTTPStatus.OK, {}, b"")


def _present(target: Path, size: int) -> int:
    """Return how many bytes of a file are there, after removing more than it can have; an empty one is made at once."""
    if size == 0:
        target.touch()
        return 0
    present = target.stat().st_size if target.exists() else 0
    if present > size:
        target.unlink()
    return present if present <= size else 0


def _begins_at(response: httpx.Response, asked: int) -> int | None:
    """Return where the body of an answer begins in the file; None when that is not what was asked for."""
    if response.status_code == HTTPStatus.OK:
        return 0
    written = response.headers.get("content-range", "")
    return asked if written.startswith(f"bytes {asked}-") else None


async def _refusal(response: httpx.Response) -> Received:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ERROR_BYTES:
            break
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Received(response.status_code, headers, bytes(body[:MAX_ERROR_BYTES]))


async def _write(chunks: AsyncIterator[bytes], target: Path, begins: int, size: int) -> None:
    """Write a body to disk; one that is longer than the file is cut off behind its first surplus byte."""
    with await asyncio.to_thread(target.open, "r+b" if begins else "wb") as stream:
        stream.seek(begins)
        written = begins
        async for chunk in chunks:
            await asyncio.to_thread(_append, stream, chunk[: size + 1 - written])
            written += len(chunk)
            if written > size:
                return


def _append(stream: IO[bytes], chunk: bytes) -> None:
    stream.write(chunk)
    stream.flush()  # a process that is killed keeps what has arrived
