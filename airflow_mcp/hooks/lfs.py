"""Pin files that Git LFS stores, from their Git repository and its LFS store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.core.data.dataset import LEAVE_UNCHECKED, RepositoryData, public_uri
from airflow_mcp.core.data.lfs_pointer import LFS_CONFIG, LfsPointer, lfs_url, read_pointer
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.hooks.git import CommitContent, GitRemote
from airflow_mcp.hooks.object_store import TIMEOUT_SECONDS, asking, is_web, local_path, require_service

_MEDIA_TYPE = "application/vnd.git-lfs+json"


class LfsRemote:
    """Files that Git LFS stores for a Git repository.

    :param remote: the Git repository; not empty.
    :param verify: whether the LFS store must hold the content; False leaves the store alone.
    """

    def __init__(self, remote: GitRemote, *, verify: bool = True) -> None:
        self.remote, self.verify = remote, verify

    def pins(self, at: ResolvedRef, paths: Sequence[str]) -> dict[str, DatasetPin]:
        """Pin files as they are in one commit; blocks.

        :param at: the commit, and the name that led to it.
        :param paths: paths of files in the repository.
        :return: a pin for each path, with the hash and size from its pointer, and the LFS store.
        :raises DatasetError: when Git LFS does not store a path, or the store lacks content or refuses access.
        :raises GitRemoteError: when the repository does not answer.
        :raises DataUnreachableError: when the store does not answer.
        """
        found, store = asyncio.run(self._look(at.sha, paths))
        if self.verify:
            self._require(store, found)
        return {
            path: DatasetPin(
                uri=RepositoryData("lfs", self.remote.url, path, at.sha, connection=self.remote.conn_id or "").uri,
                version=at.sha,
                hash=pointer.pinned_hash,
                size=pointer.size,
                remote=public_uri(store) if self.verify else "",
                ref=at.ref if at.ref != at.sha else "",
            )
            for path, pointer in found.items()
        }

    async def _look(self, commit: str, paths: Sequence[str]) -> tuple[dict[str, LfsPointer], str]:
        async with self.remote.commit(commit) as content:
            found = {path: await self._pointer(content, commit, path) for path in paths}
            return found, lfs_url(self.remote.url, await content.read(LFS_CONFIG))

    async def _pointer(self, content: CommitContent, commit: str, path: str) -> LfsPointer:
        pointer = await pointer_at(content, path)
        if pointer is None:
            raise DatasetError(
                f"{path!r} in commit {commit} of {self.remote.url} is not a file that Git LFS keeps. Add it with "
                "git lfs track, commit and push. Nothing was pinned"
            )
        return pointer

    def _require(self, store: str, found: Mapping[str, LfsPointer]) -> None:
        """Check that the store holds the content of every file."""
        folder = local_path(store)
        if folder is not None:
            missing = _not_on_disk(folder, found)
        elif is_web(store):
            missing = self._not_on_server(store, found)
        else:
            scheme = urlsplit(store).scheme
            raise DatasetError(f"the LFS store {public_uri(store)} cannot be checked over {scheme}. {LEAVE_UNCHECKED}")
        if missing:
            raise DatasetError(
                f"the LFS store {public_uri(store)} does not hold {', '.join(map(repr, missing))}. Push it with git "
                "lfs push --all. Nothing was pinned"
            )

    def _not_on_server(self, store: str, found: Mapping[str, LfsPointer]) -> list[str]:
        """Ask the batch API for a download of every object; return the paths of those that it does not offer."""
        asked = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": pointer.oid, "size": pointer.size} for pointer in found.values()],
        }
        login = self.remote.credentials()
        is_own = urlsplit(store).netloc == urlsplit(self.remote.url).netloc
        answer = _post(f"{store}/objects/batch", asked, login if any(login) and is_own else None)
        held = {item.get("oid") for item in answer if isinstance(item, Mapping) and "download" in _actions(item)}
        return [path for path, pointer in found.items() if pointer.oid not in held]


async def pointer_at(content: CommitContent, path: str) -> LfsPointer | None:
    """Read the LFS pointer at a path of a commit; None when there is none.

    :param content: the commit.
    :param path: file, relative to the repository.
    """
    text = await content.read(path)
    return read_pointer(text) if text is not None else None


def _not_on_disk(folder: Path, found: Mapping[str, LfsPointer]) -> list[str]:
    places = (folder / "lfs/objects", folder / ".git/lfs/objects")
    return [
        path for path, pointer in found.items() if not any((place / pointer.object_path).is_file() for place in places)
    ]


def _actions(item: Mapping[str, Any]) -> Mapping[str, Any]:
    actions = item.get("actions")
    return actions if isinstance(actions, Mapping) else {}


def _post(url: str, asked: Mapping[str, Any], login: tuple[str, str] | None) -> list[Any]:
    """Send a request to an LFS server and return the objects of its answer."""
    store = f"the LFS store {public_uri(url)}"
    with asking(url, store):
        answer = httpx.post(
            url,
            json=asked,
            headers={"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE},
            auth=login,
            timeout=TIMEOUT_SECONDS,
        )
    require_service(store, answer.status_code)
    try:
        objects = answer.json()["objects"] if answer.is_success else None
    except (ValueError, KeyError, TypeError):
        objects = None
    if not isinstance(objects, list):
        raise DatasetError(f"{store} answered {answer.status_code} and no list of objects. {LEAVE_UNCHECKED}")
    return objects
