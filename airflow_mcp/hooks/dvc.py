"""Ask the Git repository of DVC data which content a commit means, without DVC and without a checkout."""

from __future__ import annotations

import asyncio
import re
from pathlib import PurePosixPath

from airflow_mcp.core.dvc_pointer import pointer_files, tracked_hash
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.hooks.git import CommitContent, GitRemote

_MD5 = re.compile(r"[0-9a-f]{32}")


def recorded_hashes(remote: GitRemote, commit: str, paths: tuple[str, ...]) -> dict[str, str]:
    """Read the hashes that DVC recorded for files; blocks.

    :param remote: the repository.
    :param commit: full commit id.
    :param paths: files, relative to the repository.
    :return: path to ``md5:<hex>``; an empty text for a file inside a tracked folder, or of another kind of hash.
    :raises DatasetError: when DVC does not track a path there, or it is a folder.
    :raises GitRemoteError: when the repository cannot be asked.
    """
    return asyncio.run(_recorded_hashes(remote, commit, paths))


async def _recorded_hashes(remote: GitRemote, commit: str, paths: tuple[str, ...]) -> dict[str, str]:
    async with remote.commit(commit) as content:
        return {path: await _recorded_hash(content, path, f"commit {commit} of {remote.url}") for path in paths}


async def _recorded_hash(content: CommitContent, path: str, where: str) -> str:
    own = await hash_at(content, path)
    if own.endswith(".dir"):
        raise DatasetError(f"{path!r} in {where} is a folder; pin one file of it. Nothing was pinned")
    if own:
        return f"md5:{own}" if _MD5.fullmatch(own) else ""
    for folder in list(PurePosixPath(path).parents)[:-1]:
        if await hash_at(content, str(folder)):
            return ""
    raise DatasetError(
        f"{where} has no {path}.dvc and no dvc.lock with the hash of {path!r}: DVC does not track it there. Add it "
        "with dvc add, commit and push. Nothing was pinned"
    )


async def hash_at(content: CommitContent, path: str) -> str:
    """Read the hash that DVC recorded for a path.

    :param content: the commit.
    :param path: file or folder, relative to the repository.
    :return: the hash as DVC writes it (folders end in ``.dir``); empty when DVC does not track the path itself.
    """
    for pointer in pointer_files(path):
        text = await content.read(pointer)
        if text is not None and (found := await asyncio.to_thread(tracked_hash, text, pointer, path)):
            return found
    return ""
