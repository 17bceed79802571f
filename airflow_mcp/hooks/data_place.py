"""A place where versions of data appear: a folder, a file or object, or what DVC or Git LFS tracks in a repository."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_mcp.core.code.git_refs import check_question
from airflow_mcp.core.code.source import path_inside
from airflow_mcp.core.data.dataset import LATEST, TRACKERS, TrackedBy, choose_version, dataset_pin, public_uri
from airflow_mcp.core.watermark import Sighting
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError, SourceError
from airflow_mcp.hooks.dvc import output_at
from airflow_mcp.hooks.git import GitRemote
from airflow_mcp.hooks.lfs import pointer_at
from airflow_mcp.hooks.object_store import astat, hash_file, is_web, local_path

HASHED_BYTES = 8 * 1024 * 1024
"""8 MiB: a smaller file is compared by its content; reading a larger one at every look takes too long, so its size and
modification time are compared."""
_REPOSITORY_KEYS = ("repo_url", "path", "revision", "git_conn_id")


class DataPlace:
    """The place of data; exactly one of ``root``, ``uri``, ``dvc`` and ``lfs`` is given.

    :param root: folder of versions, ``<root>/<version>/<file>``.
    :param uri: a path, or a ``file``, ``http`` or ``https`` URL; or an object in a store that Airflow can read.
    :param dvc: ``repo_url``, ``path`` of the tracked file or folder, and optionally ``revision`` (branch or tag) and
        ``git_conn_id``.
    :param lfs: the same for a file that Git LFS keeps.
    :raises InvalidArgumentError: when not exactly one is given, or one is not usable.
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
                f"exactly one of root, uri, dvc, lfs must be given; got {', '.join(given) or 'none'}"
            )
        if uri:
            dataset_pin("data", {"uri": uri}, hash_or_version=False)
        self.root, self.uri = root, uri
        self.tracked = {kind: _checked(kind, given[kind]) for kind in TRACKERS if kind in given}
        self._last: tuple[str, str] = ("", "")

    @property
    def subject(self) -> str:
        """The place in words, for messages."""
        for kind, given in self.tracked.items():
            return f"{'DVC' if kind == 'dvc' else 'LFS'} data {given['path']} of {given['repo_url']}"
        return f"data {public_uri(self.uri) if self.uri else self.root}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"root": self.root, "uri": self.uri, **{kind: self.tracked.get(kind) for kind in TRACKERS}}

    async def look(self) -> Sighting | None:
        """Return the present version, with a payload of plain JSON; None when there is none (yet).

        :raises DatasetError: when the place may not be read.
        :raises DataUnreachableError: when there is no usable answer.
        :raises SourceError: when DVC or Git LFS does not track the path.
        :raises GitRemoteError: when the repository does not answer.
        """
        for kind, given in self.tracked.items():
            return await self._look_at_repository(kind, given)
        if self.uri:
            return await self._look_at_uri(self.uri)
        return await asyncio.to_thread(_look_at_folders, self.root or "")

    async def _look_at_uri(self, uri: str) -> Sighting | None:
        fingerprint = await _fingerprint(uri)
        payload = {"kind": "data", "uri": public_uri(uri), "fingerprint": fingerprint}
        return Sighting(fingerprint, payload) if fingerprint else None

    async def _look_at_repository(self, kind: TrackedBy, given: Mapping[str, str]) -> Sighting | None:
        remote = GitRemote(given["repo_url"], given.get("git_conn_id"))
        found = await remote.afind(given.get("revision"))
        if found is None:
            return None
        if self._last[0] != found.sha:
            self._last = (found.sha, await _hash_in(remote, found.sha, kind, given["path"]))
        commit, content = self._last
        payload = {"kind": "data", "repo_url": remote.url, "path": given["path"], "commit": commit, "hash": content}
        return Sighting(content, payload, once=content)


def _checked(kind: TrackedBy, given: Any) -> dict[str, str]:
    keys = _REPOSITORY_KEYS
    if (
        not isinstance(given, Mapping)
        or not given.get("repo_url")
        or not given.get("path")
        or not given.keys() <= set(keys)
    ):
        raise InvalidArgumentError(
            f"{kind} must be a mapping with repo_url and path, optionally revision and git_conn_id; got {given!r}"
        )
    texts = {name: str(value) for name, value in given.items() if value}
    check_question(texts.get("revision"), None)
    GitRemote(texts["repo_url"])
    return {**texts, "path": path_inside(f"{kind}.path", texts["path"])}


async def _hash_in(remote: GitRemote, commit: str, kind: TrackedBy, path: str) -> str:
    """Return the hash of the content of a path in a commit.

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
        f"commit {commit} of {remote.url} has no {path}.dvc and no dvc.lock with the hash of {path!r}. Add it with DVC"
    )


def _look_at_folders(root: str) -> Sighting | None:
    folder = Path(root)
    try:
        names = [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise DatasetError(f"root {root!r} cannot be read: {error.strerror}") from None
    try:
        version = choose_version(LATEST, names, root=root)
    except DatasetError:
        return None
    return Sighting(version, {"kind": "data", "root": root, "version": version}, once=version)


async def _fingerprint(uri: str) -> str:
    """Return what changes whenever the data changes; empty when there is no such file or object.

    :raises DatasetError: when it is a folder, may not be read, or its server sends nothing to compare.
    :raises DataUnreachableError: when there is no usable answer; a later look may succeed.
    """
    state = await astat(uri)
    if state is None:
        return ""
    if is_web(uri):
        return _of_headers(uri, state)
    path = local_path(uri)
    return _of_object(state) if path is None else await asyncio.to_thread(_of_file, path, state)


def _of_file(path: Path, state: Mapping[str, Any]) -> str:
    if state["type"] == "directory":
        raise DatasetError(f"data {str(path)!r} is a folder. Give the folder of all versions as root")
    if state["size"] > HASHED_BYTES:
        return f"size:{state['size']}:mtime_ns:{state['mtime_ns']}"
    return hash_file(path)[0]


def _of_object(state: Mapping[str, Any]) -> str:
    names = ("etag", "md5hash", "lastmodified", "mtime", "mtime_ns", "updated", "size")
    return ":".join(f"{name}:{state[name]}" for name in names if state.get(name) is not None)


def _of_headers(uri: str, headers: Mapping[str, Any]) -> str:
    if etag := headers.get("etag"):
        return f"etag:{etag}"
    if changed := headers.get("last-modified"):
        return f"last-modified:{changed}:size:{headers.get('size', '')}"
    raise DatasetError(
        f"data {public_uri(uri)!r}: its server sends neither ETag nor Last-Modified. Watch a root instead"
    )
