"""Ask a Git repository which content Git LFS keeps for a commit, and its LFS store whether it holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.core.data.dataset import RepositoryData, public_uri
from airflow_mcp.core.data.lfs_pointer import LFS_CONFIG, LfsPointer, lfs_url, read_pointer
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError, DataUnreachableError
from airflow_mcp.hooks.git import CommitContent, GitRemote
from airflow_mcp.hooks.remote_objects import LEAVE_UNCHECKED, TIMEOUT_SECONDS, local_path

_MEDIA_TYPE = "application/vnd.git-lfs+json"


class LfsHook:
    """Turns files that Git LFS keeps into pins.

    :param remote: the Git repository; not empty.
    :param verify: whether the LFS store must hold the content. Without it nothing is asked of the store.
    """

    def __init__(self, remote: GitRemote, *, verify: bool = True) -> None:
        self.remote, self.verify = remote, verify

    def pins(self, at: ResolvedRef, paths: Sequence[str]) -> dict[str, DatasetPin]:
        """Pin files as one commit has them; blocks.

        :param at: the commit, and the name it was asked for by.
        :param paths: paths of files in the repository.
        :return: path to pin, with the hash and the size that the pointers name, and the LFS store.
        :raises DatasetError: when a path is not kept by Git LFS, the store lacks content, or cannot be asked.
        :raises GitRemoteError: when the repository cannot be asked.
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
                f"{path!r} in commit {commit} of {self.remote.url} is not a file that Git LFS keeps. Add it with git "
                "lfs track, commit and push. Nothing was pinned"
            )
        return pointer

    def _require(self, store: str, found: Mapping[str, LfsPointer]) -> None:
        """Make sure that the store holds the content of every file."""
        scheme = urlsplit(store).scheme
        if scheme == "file":
            missing = _not_on_disk(store, found)
        elif scheme in ("http", "https"):
            missing = self._not_on_server(store, found)
        else:
            raise DatasetError(f"the LFS store {public_uri(store)} cannot be asked over {scheme}; {LEAVE_UNCHECKED}")
        if missing:
            raise DatasetError(
                f"the LFS store {public_uri(store)} does not hold {', '.join(map(repr, missing))}. Push it with git "
                "lfs push --all. Nothing was pinned"
            )

    def _not_on_server(self, store: str, found: Mapping[str, LfsPointer]) -> list[str]:
        """Ask by the batch API for a download of every object."""
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
    """Read the pointer at a path; None when there is none.

    :param content: the commit.
    :param path: file, relative to the repository.
    """
    text = await content.read(path)
    return read_pointer(text) if text is not None else None


def _not_on_disk(store: str, found: Mapping[str, LfsPointer]) -> list[str]:
    folder = local_path(store)
    places = (folder / "lfs/objects", folder / ".git/lfs/objects")
    return [
        path for path, pointer in found.items() if not any((place / pointer.object_path).is_file() for place in places)
    ]


def _actions(item: Mapping[str, Any]) -> Mapping[str, Any]:
    actions = item.get("actions")
    return actions if isinstance(actions, Mapping) else {}


def _post(url: str, asked: Mapping[str, Any], login: tuple[str, str] | None) -> list[Any]:
    """Ask an LFS server; gives its objects."""
    try:
        answer = httpx.post(
            url,
            json=asked,
            headers={"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE},
            auth=login,
            timeout=TIMEOUT_SECONDS,
        )
    except httpx.HTTPError as error:
        raise DataUnreachableError(
            f"the LFS store {public_uri(url)} does not answer ({type(error).__name__})"
        ) from None
    if answer.status_code >= 500:
        raise DataUnreachableError(f"the LFS store {public_uri(url)} answered {answer.status_code}")
    try:
        objects = answer.json()["objects"] if answer.is_success else None
    except (ValueError, KeyError, TypeError):
        objects = None
    if not isinstance(objects, list):
        raise DatasetError(
            f"the LFS store {public_uri(url)} answered {answer.status_code} and no list of objects; {LEAVE_UNCHECKED}"
        )
    return objects
