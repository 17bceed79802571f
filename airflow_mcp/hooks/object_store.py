"""The one door to data outside: files on a disk, web servers, and stores that Airflow's object storage can open.

What cannot be read is the same error everywhere: :class:`DataUnreachableError` where a retry may help,
:class:`DatasetError` where it will not, :class:`InvalidArgumentError` where this machine has no client for the URL.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import httpx

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.exceptions import DatasetError, DataUnreachableError, InvalidArgumentError

T = TypeVar("T")

TIMEOUT_SECONDS = 30.0
_OPTIONS: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "follow_redirects": True}
_CHUNK_BYTES = 1024 * 1024
_AT_ONCE = 16
"""Questions to one server at the same time: enough to hide its latency, few enough not to be throttled."""
_GONE = (httpx.codes.NOT_FOUND, httpx.codes.GONE)
_TEMPORARY = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)


def local_path(uri: str) -> Path | None:
    """Return the path that a plain path or a ``file`` URL names; None for anything that is not on a disk."""
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return None if "://" in uri else Path(uri)


def is_web(uri: str) -> bool:
    """Return whether a URL is ``http`` or ``https``."""
    return urlsplit(uri).scheme in ("http", "https")


def stat(uri: str, *, hint: str = "") -> dict[str, Any] | None:
    """Return what a disk, server or store says about one object, without reading it; blocks.

    :param uri: a path or URL.
    :param hint: what to do when the object may not be read; ends the message of a refusal.
    :return: names in lower case, as headers and fsspec have them, with ``size`` in bytes where it is known, and
        ``type`` and ``mtime_ns`` for files; None when there is no such object.
    :raises InvalidArgumentError: when this machine has no client for such a URL.
    :raises DatasetError: when access is refused.
    :raises DataUnreachableError: when there is no usable answer; a retry may succeed.
    """
    path = local_path(uri)
    if path is not None:
        return _stat_file(path)
    if is_web(uri):
        with asking(uri), httpx.Client(**_OPTIONS) as client:
            response = client.head(uri)
        return _headers(uri, response, hint)
    return _in_store(uri, hint, lambda: {str(key).lower(): value for key, value in _store_path(uri).stat().items()})


async def astat(uri: str, *, hint: str = "") -> dict[str, Any] | None:
    """Return the same as :func:`stat`, without blocking the event loop."""
    if not is_web(uri):
        return await asyncio.to_thread(stat, uri, hint=hint)
    with asking(uri):
        async with httpx.AsyncClient(**_OPTIONS) as client:
            response = await client.head(uri)
    return _headers(uri, response, hint)


def read(uri: str, *, max_bytes: int = -1, conn_id: str | None = None, hint: str = "") -> bytes | None:
    """Return the content of one object; blocks.

    :param uri: a path or URL.
    :param max_bytes: read no more than this; negative reads everything.
    :param conn_id: Airflow connection that opens a store.
    :param hint: what to do when the object may not be read; ends the message of a refusal.
    :return: the bytes; None when there is no such object.
    :raises InvalidArgumentError: when this machine has no client for such a URL.
    :raises DatasetError: when access is refused.
    :raises DataUnreachableError: when there is no usable answer; a retry may succeed.
    """
    path = local_path(uri)
    if path is not None:
        return _read_file(path, max_bytes)
    if is_web(uri):
        return _read_web(uri, max_bytes, hint)
    return _in_store(uri, hint, lambda: _read_store(_store_path(uri, conn_id), max_bytes))


def hash_file(path: Path) -> tuple[str, int]:
    """Hash a file; blocks.

    :param path: the file.
    :return: ``sha256:<hex>`` of its bytes, and how many there are.
    :raises DatasetError: when it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            return f"sha256:{digest.hexdigest()}", file.tell()
    except OSError as error:
        raise _unreadable(path, error) from None


def missing_objects(base: str, paths: Sequence[str], *, hint: str = "") -> list[str]:
    """Return the objects that do not exist, in the order given; blocks.

    :param base: path or URL below which they should be.
    :param paths: paths of the objects, relative to it.
    :param hint: what to do when an object may not be read; ends the message of a refusal.
    :raises InvalidArgumentError: when this machine has no client for such a URL.
    :raises DatasetError: when access is refused: then nothing is known about any of them.
    :raises DataUnreachableError: when there is no usable answer; a retry may succeed.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool, httpx.Client(**_OPTIONS) as client:

        def exists(path: str) -> bool:
            uri = join(base, path)
            if not is_web(uri):
                found = stat(uri, hint=hint)
                return found is not None and found.get("type") != "directory"
            with asking(uri):
                response = client.head(uri)
            return _headers(uri, response, hint) is not None

        found = list(pool.map(exists, paths))
    return [path for path, is_there in zip(paths, found, strict=True) if not is_there]


def join(base: str, path: str) -> str:
    """Return the address of an object below a path or URL."""
    return f"{base.rstrip('/')}/{quote(path) if is_web(base) or base.startswith('file:') else path}"


# --- disks -----------------------------------------------------------------------------------------------------------


def _stat_file(path: Path) -> dict[str, Any] | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    kind = "directory" if path.is_dir() else "file"
    return {"type": kind, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _read_file(path: Path, max_bytes: int) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return stream.read(max_bytes)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> DatasetError:
    return DatasetError(f"{path} cannot be read: {error.strerror}")


# --- web servers -----------------------------------------------------------------------------------------------------


@contextmanager
def asking(uri: str, what: str = "") -> Iterator[None]:
    """Raise a server's silence inside the block as :class:`DataUnreachableError`.

    :param uri: what is asked for.
    :param what: the server in words, for the message; empty takes the URL.
    """
    try:
        yield
    except httpx.HTTPError as error:
        name = what or public_uri(uri)
        raise DataUnreachableError(f"{name} does not answer: {type(error).__name__}. A retry may succeed") from None


def require_service(what: str, status: int) -> None:
    """Check that a server is able to answer.

    :param what: the server or object, for the message.
    :param status: HTTP status of its answer.
    :raises DataUnreachableError: for 5xx, 408 and 429: a retry may succeed.
    """
    if status >= 500 or status in _TEMPORARY:
        raise DataUnreachableError(f"{what}: the server answered {status}. A retry may succeed")


def _headers(uri: str, response: httpx.Response, hint: str) -> dict[str, Any] | None:
    if response.status_code in _GONE:
        return None
    require_service(public_uri(uri), response.status_code)
    if not response.is_success:
        raise DatasetError(
            _ended(f"{public_uri(uri)} may not be read: the server answered {response.status_code}", hint)
        )
    size = response.headers.get("content-length")
    return {**response.headers, **({"size": int(size)} if size else {})}


def _read_web(uri: str, max_bytes: int, hint: str) -> bytes | None:
    with asking(uri), httpx.Client(**_OPTIONS) as client, client.stream("GET", uri) as response:
        if _headers(uri, response, hint) is None:
            return None
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if 0 <= max_bytes <= len(content):
                return bytes(content[:max_bytes])
        return bytes(content)


# --- object stores ---------------------------------------------------------------------------------------------------


def _store_path(uri: str, conn_id: str | None = None) -> Any:
    from airflow.sdk import ObjectStoragePath  # noqa: PLC0415  (takes time, and few Dags need a store)

    return ObjectStoragePath(uri, conn_id=conn_id)


def _read_store(path: Any, max_bytes: int) -> bytes:
    with path.open("rb") as stream:
        return bytes(stream.read(max_bytes))


def _in_store(uri: str, hint: str, action: Callable[[], T]) -> T | None:
    """Run an action on a store; None when there is no such object."""
    try:
        return action()
    except FileNotFoundError:
        return None
    except (ValueError, ImportError) as error:
        raise InvalidArgumentError(_ended(f"{public_uri(uri)} cannot be opened here: {error}", hint)) from None
    except (PermissionError, IsADirectoryError) as error:
        raise DatasetError(_ended(f"{public_uri(uri)} may not be read: {type(error).__name__}", hint)) from None
    except Exception as error:  # every store's client raises its own kinds
        name = type(error).__name__
        raise DataUnreachableError(f"{public_uri(uri)} does not answer: {name}. A retry may succeed") from None


def _ended(message: str, hint: str) -> str:
    return f"{message}. {hint}" if hint else message
