"""Look at a place of data: folders of versions, one file or object, or what DVC or Git LFS keeps in a repository."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from airflow_mcp.core.code.git_refs import check_question
from airflow_mcp.core.code.source import path_inside
from airflow_mcp.core.data.dataset import LATEST, TRACKERS, TrackedBy, choose_version, dataset_pin, public_uri
from airflow_mcp.core.watermark import Sighting
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError, SourceError
from airflow_mcp.hooks.dvc import output_at
from airflow_mcp.hooks.git import GitRemote
from airflow_mcp.hooks.lfs import pointer_at
from airflow_mcp.hooks.remote_objects import local_path

HASHED_BYTES = 8 * 1024 * 1024
"""Up to this size a file is known by its content, above by its size and the time it was changed."""
_HTTP_TIMEOUT_SECONDS = 30
_REPOSITORY_KEYS = ("repo", "path", "rev", "connection")


class DataPlace:
    """Where data is; exactly one of ``root``, ``uri``, ``dvc`` and ``lfs`` is given.

    :param root: folder of versions, ``<root>/<version>/<file>``.
    :param uri: a path, or a ``file``, ``http`` or ``https`` URL; or an object in a store that Airflow can read.
    :param dvc: ``repo`` (Git URL), ``path`` of the tracked file or folder, and perhaps ``rev`` (branch or tag) and
        ``connection``.
    :param lfs: the same for a file that Git LFS keeps.
    :raises InvalidArgumentError: when not exactly one is given, or it is not usable.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        uri: str | None = None,
        dvc: Mapping[str, str] | None = None,
        lfs: Mapping[str, str] | None = None,
    ) -> None:
        given = {name: value for name, value in (("root", root), ("uri", uri), ("dvc", dvc), ("lfs", lfs)) if value}
        if len(given) != 1:
            raise InvalidArgumentError(
                f"given: {', '.join(given) or 'nothing'}; allowed: exactly one of root, uri, dvc, lfs"
            )
        if uri:
            dataset_pin("data", {"uri": uri}, hash_or_version=False)
        self.root, self.uri = root, uri
        self.tracked = {kind: _checked(kind, given[kind]) for kind in TRACKERS if kind in given}
        self._last: tuple[str, str] = ("", "")

    @property
    def subject(self) -> str:
        """What is looked at, in words."""
        for kind, given in self.tracked.items():
            return f"{'DVC' if kind == 'dvc' else 'LFS'} data {given['path']} of {given['repo']}"
        return f"data {public_uri(self.uri) if self.uri else self.root}"

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return {"root": self.root, "uri": self.uri, **{kind: self.tracked.get(kind) for kind in TRACKERS}}

    async def look(self) -> Sighting | None:
        """Look at the data.

        :return: the version that is there, with a payload of plain JSON; None when there is nothing (yet).
        :raises DatasetError: when the place cannot be read.
        :raises SourceError: when DVC or Git LFS does not keep the path.
        :raises GitRemoteError: when the repository does not answer.
        """
        for kind, given in self.tracked.items():
            return await self._look_at_repository(kind, given)
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

    async def _look_at_repository(self, kind: TrackedBy, given: Mapping[str, str]) -> Sighting | None:
        remote = GitRemote(given["repo"], given.get("connection"))
        found = await remote.afind(given.get("rev"))
        if found is None:
            return None
        if self._last[0] != found.sha:
            self._last = (found.sha, await _hash_in(remote, found.sha, kind, given["path"]))
        commit, content = self._last
        payload = {"kind": "data", "repo": remote.url, "path": given["path"], "commit": commit, "hash": content}
        return Sighting(content, payload, once=content)


def _checked(kind: TrackedBy, given: Any) -> dict[str, str]:
    keys = _REPOSITORY_KEYS
    if (
        not isinstance(given, Mapping)
        or not given.get("repo")
        or not given.get("path")
        or not given.keys() <= set(keys)
    ):
        raise InvalidArgumentError(
            f"{kind} is {given!r}; allowed: a mapping with repo and path, and perhaps rev and connection"
        )
    texts = {name: str(value) for name, value in given.items() if value}
    check_question(texts.get("rev"), None)
    GitRemote(texts["repo"])
    return {**texts, "path": path_inside(f"{kind}.path", texts["path"])}


async def _hash_in(remote: GitRemote, commit: str, kind: TrackedBy, path: str) -> str:
    """Read which content of a path a commit means.

    :raises SourceError: when it is not tracked there.
    """
    async with remote.commit(commit) as content:
        if kind == "lfs":
            if pointer := await pointer_at(content, path):
                return pointer.pinned_hash
            raise SourceError(f"{path!r} in commit {commit} of {remote.url} is not a file that Git LFS keeps")
        if output := await output_at(content, path):
            return output.hash
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
    path = local_path(uri)
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
