"""An event for each new version of data: folders of versions, one file or object, or a file tracked by DVC."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from airflow_mcp.core.code_source import path_inside
from airflow_mcp.core.dataset import LATEST, choose_version, dataset_pin, public_uri
from airflow_mcp.core.git_refs import check_question
from airflow_mcp.core.watch import Sighting
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError, SourceError
from airflow_mcp.hooks.dvc import hash_at
from airflow_mcp.hooks.git import GitRemote
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, WatchTrigger

HASHED_BYTES = 8 * 1024 * 1024
"""Up to this size a file is known by its content, above by its size and the time it was changed."""
_HTTP_TIMEOUT_SECONDS = 30
_DVC_KEYS = ("repo", "path", "rev", "connection")


class DatasetVersionTrigger(WatchTrigger):
    """Watch data; exactly one of ``root``, ``uri`` and ``dvc`` says which.

    A version below ``root`` gives one event, when it is the newest. A file or object, and what DVC tracks, give an
    event for each change, also back to an earlier content.

    Payload: ``kind`` (``data``) and ``root``, ``version``; or ``uri``, ``fingerprint``; or ``repo``, ``path``,
    ``commit``, ``hash``.

    :param root: folder of versions, ``<root>/<version>/<file>``, that the triggerer can read; a folder counts as soon
        as it is there, so move a complete one into place.
    :param uri: a path, or a ``file``, ``http`` or ``https`` URL; or an object in a store that Airflow can read, such as
        ``s3://…``.
    :param dvc: ``repo`` (Git URL), ``path`` of the tracked file or folder, and perhaps ``rev`` (branch or tag; default:
        the default branch) and ``connection`` (Airflow connection with login and password for the repository).
    :param poll_seconds: seconds between two looks, at least 1.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        uri: str | None = None,
        dvc: Mapping[str, str] | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        given = [name for name, value in (("root", root), ("uri", uri), ("dvc", dvc)) if value]
        if len(given) != 1:
            raise InvalidArgumentError(
                f"given: {', '.join(given) or 'nothing'}; allowed: exactly one of root, uri, dvc"
            )
        if uri:
            dataset_pin("data", {"uri": uri}, hash_or_version=False)
        self.root, self.uri = root, uri
        self.dvc = _checked_dvc(dvc) if dvc else None
        self._last: tuple[str, str] = ("", "")

    @property
    def subject(self) -> str:
        """What is watched, in words."""
        if self.dvc:
            return f"DVC data {self.dvc['path']} of {self.dvc['repo']}"
        return f"data {public_uri(self.uri) if self.uri else self.root}"

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return {"root": self.root, "uri": self.uri, "dvc": self.dvc}

    async def look(self) -> Sighting | None:
        """Look at the data."""
        if self.dvc:
            return await self._look_at_dvc(self.dvc)
        if self.uri:
            return await self._look_at_uri(self.uri)
        return await asyncio.to_thread(_look_at_folders, self.root or "")

    async def _look_at_uri(self, uri: str) -> Sighting | None:
        scheme = urlsplit(uri).scheme
        if scheme in ("http", "https"):
            fingerprint = await _of_http(uri)
        else:
            fingerprint = await asyncio.to_thread(_of_file if scheme in ("", "file") else _of_object, uri)
        payload = {"kind": "data", "uri": public_uri(uri), "fingerprint": fingerprint}
        return Sighting(fingerprint, payload) if fingerprint else None

    async def _look_at_dvc(self, dvc: Mapping[str, str]) -> Sighting | None:
        remote = GitRemote(dvc["repo"], dvc.get("connection"))
        found = await remote.afind(dvc.get("rev"))
        if found is None:
            return None
        if self._last[0] != found.sha:
            self._last = (found.sha, await _hash_in(remote, found.sha, dvc["path"]))
        commit, content = self._last
        payload = {"kind": "data", "repo": remote.url, "path": dvc["path"], "commit": commit, "hash": content}
        return Sighting(content, payload)


def _checked_dvc(dvc: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(dvc, Mapping) or not dvc.get("repo") or not dvc.get("path") or not dvc.keys() <= set(_DVC_KEYS):
        raise InvalidArgumentError(
            f"dvc is {dvc!r}; allowed: a mapping with repo and path, and perhaps rev and connection"
        )
    given = {name: str(value) for name, value in dvc.items() if value}
    check_question(given.get("rev"), None)
    GitRemote(given["repo"])
    return {**given, "path": path_inside("dvc.path", given["path"])}


async def _hash_in(remote: GitRemote, commit: str, path: str) -> str:
    """Read which content of a path a commit means.

    :raises SourceError: when DVC does not track the path there.
    """
    async with remote.commit(commit) as content:
        if found := await hash_at(content, path):
            return found
    raise SourceError(
        f"commit {commit} of {remote.url} has no {path}.dvc and no dvc.lock with the hash of {path!r}; add it with DVC"
    )


def _look_at_folders(root: str) -> Sighting | None:
    folder = Path(root)
    try:
        names = [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise DatasetError(f"root {root!r} cannot be read by the triggerer: {error.strerror}") from None
    try:
        version = choose_version(LATEST, names, root=root)
    except DatasetError:
        return None
    return Sighting(version, {"kind": "data", "root": root, "version": version}, once=version)


def _of_file(uri: str) -> str:
    """Fingerprint a file; empty when there is none."""
    path = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)
    try:
        state = path.stat()
        if not path.is_file():
            raise DatasetError(f"data {str(path)!r} is not a file; folders of versions are watched as root")
        if state.st_size > HASHED_BYTES:
            return f"size:{state.st_size}:mtime_ns:{state.st_mtime_ns}"
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DatasetError(f"data {str(path)!r} cannot be read by the triggerer: {error.strerror}") from None


def _of_object(uri: str) -> str:
    """Fingerprint an object by what its store says; empty when there is none."""
    from airflow.sdk import ObjectStoragePath  # noqa: PLC0415  (every Dag imports this module, few need a store)

    try:
        state = ObjectStoragePath(uri).stat()
    except FileNotFoundError:
        return ""
    known = {name: state.get(name) for name in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "size")}
    return ":".join(f"{name}:{value}" for name, value in known.items() if value is not None)


async def _of_http(uri: str) -> str:
    """Fingerprint what a server says about a file; empty when there is none.

    :raises DatasetError: when it says nothing to go by, or answers with an error.
    """
    try:
        async with httpx.AsyncClient(timeout=_HTTP_TIMEOUT_SECONDS, follow_redirects=True) as client:
            answer = await client.head(uri)
    except httpx.HTTPError as error:
        raise DatasetError(f"data {public_uri(uri)!r} does not answer: {type(error).__name__}") from None
    if answer.status_code in (404, 410):
        return ""
    if not answer.is_success:
        raise DatasetError(f"data {public_uri(uri)!r} answers with status {answer.status_code}")
    etag = answer.headers.get("etag")
    changed, size = answer.headers.get("last-modified"), answer.headers.get("content-length", "")
    if etag or changed:
        return f"etag:{etag}" if etag else f"last-modified:{changed}:size:{size}"
    raise DatasetError(
        f"data {public_uri(uri)!r}: its server sends neither ETag nor Last-Modified; watch a root instead"
    )
