"""Look whether objects are where they should be: on a disk, on a web server, or in a store that Airflow can read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.exceptions import DatasetError, DataUnreachableError

TIMEOUT_SECONDS = 30.0
LEAVE_UNCHECKED = "give verify: false to leave that to the step that reads the data. Nothing was pinned"
_AT_ONCE = 16


def missing_objects(base: str, paths: Sequence[str]) -> list[str]:
    """Name the objects that are not there; blocks.

    :param base: path or URL below which they are.
    :param paths: paths of the objects, relative to it.
    :return: those that are missing, in the order given.
    :raises DatasetError: when this machine has no way to ask: then nothing is known about any of them.
    :raises DataUnreachableError: when the place does not answer.
    """
    scheme = urlsplit(base).scheme
    if scheme in ("", "file"):
        folder = local_path(base)
        return [path for path in paths if not (folder / path).is_file()]
    if scheme in ("http", "https"):
        with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
            ask = [(client, f"{base.rstrip('/')}/{quote(path)}") for path in paths]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                found = list(pool.map(lambda given: _answer(*given).status_code != 404, ask))
    else:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(lambda path: _in_store(f"{base.rstrip('/')}/{path}") is not None, paths))
    return [path for path, is_there in zip(paths, found, strict=True) if not is_there]


def read_object(base: str, path: str) -> bytes:
    """Read a small object; blocks.

    :param base: path or URL below which it is.
    :param path: path of the object, relative to it.
    :raises DatasetError: when it is not there, or this machine has no way to read it.
    :raises DataUnreachableError: when the place does not answer.
    """
    scheme = urlsplit(base).scheme
    if scheme in ("", "file"):
        try:
            return (local_path(base) / path).read_bytes()
        except OSError as error:
            raise DatasetError(f"{base}/{path} cannot be read: {error.strerror}. Nothing was pinned") from None
    url = f"{base.rstrip('/')}/{path}"
    if scheme in ("http", "https"):
        with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
            answer = _answer(client, url, method="GET")
        if answer.status_code == 404:
            raise DatasetError(f"{public_uri(url)} is not there. Nothing was pinned")
        return answer.content
    content = _in_store(url, read=True)
    if content is None:
        raise DatasetError(f"{public_uri(url)} is not there. Nothing was pinned")
    return content


def local_path(base: str) -> Path:
    """Give the file or folder of this machine that a path or a ``file`` URL names."""
    return Path(unquote(urlsplit(base).path) if base.startswith("file:") else base)


def _answer(client: httpx.Client, url: str, method: str = "HEAD") -> httpx.Response:
    """Ask a web server; what comes back is a success, or says that there is nothing."""
    try:
        answer = client.request(method, url)
    except httpx.HTTPError as error:
        raise DataUnreachableError(f"{public_uri(url)} does not answer ({type(error).__name__})") from None
    if answer.status_code >= 500:
        raise DataUnreachableError(f"{public_uri(url)}: the server answered {answer.status_code}")
    if answer.status_code >= 400 and answer.status_code not in (404, 410):
        raise DatasetError(
            f"{public_uri(url)}: the server answered {answer.status_code}, so this worker may not look; "
            f"{LEAVE_UNCHECKED}"
        )
    if answer.status_code == 410:
        answer.status_code = 404
    return answer


def _in_store(uri: str, *, read: bool = False) -> bytes | None:
    """Look into a store; None when the object is not there, else its content if that is wanted."""
    from airflow.sdk import ObjectStoragePath  # noqa: PLC0415  (few remotes are stores)

    try:
        path = ObjectStoragePath(uri)
        if read:
            return path.read_bytes()
        path.stat()
    except FileNotFoundError:
        return None
    except (ValueError, ImportError) as error:
        raise DatasetError(
            f"{public_uri(uri)} cannot be looked at by this worker: {error}; {LEAVE_UNCHECKED}"
        ) from None
    except Exception as error:  # every store's client raises its own kinds
        raise DataUnreachableError(
            f"{public_uri(uri)} cannot be looked at by this worker ({type(error).__name__})"
        ) from None
    return b""
