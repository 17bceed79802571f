"""Ask the Git repository of DVC data which content a commit means, and its remote whether it holds it; without DVC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.core.data.dataset import RepositoryData, public_uri
from airflow_mcp.core.data.dvc_pointer import (
    DVC_CONFIG,
    TrackedOutput,
    folder_hash,
    pointer_files,
    read_folder,
    remote_url,
    tracked_output,
)
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError, SourceError
from airflow_mcp.hooks.git import CommitContent, GitRemote
from airflow_mcp.hooks.remote_objects import LEAVE_UNCHECKED, missing_objects, read_object

_SHOWN = 3


@dataclass(frozen=True)
class _Found:
    """What a commit says about a path."""

    output: TrackedOutput
    inside: str = ""
    """Path inside a tracked folder; empty when the path itself is tracked."""
    config: bytes = field(default=b"", repr=False)
    """Text of ``.dvc/config``."""


class DvcHook:
    """Turns paths that DVC tracks into pins.

    :param remote: the Git repository; not empty.
    :param dvc_remote: name of the DVC remote; empty for the repository's default.
    :param verify: whether the remote must hold the content. Without it nothing is asked of the remote.
    """

    def __init__(self, remote: GitRemote, dvc_remote: str = "", *, verify: bool = True) -> None:
        self.remote, self.dvc_remote, self.verify = remote, dvc_remote, verify

    def pins(self, at: ResolvedRef, paths: Sequence[str]) -> dict[str, DatasetPin]:
        """Pin files and folders as one commit has them; blocks.

        :param at: the commit, and the name it was asked for by.
        :param paths: paths in the repository.
        :return: path to pin, with the hash and the size that DVC recorded and the address of the object in the remote.
            The hash of a file inside a tracked folder is read from the remote.
        :raises DatasetError: when DVC does not track a path there, the remote lacks content, or cannot be asked.
        :raises SourceError: when the repository's files are not what DVC writes.
        :raises GitRemoteError: when the repository cannot be asked.
        :raises DataUnreachableError: when the remote does not answer.
        """
        found = asyncio.run(self._look(at.sha, paths))
        return {path: self._pin(at, path, found[path]) for path in paths}

    async def _look(self, commit: str, paths: Sequence[str]) -> dict[str, _Found]:
        async with self.remote.commit(commit) as content:
            config = await content.read(DVC_CONFIG) or b""
            return {path: await self._find(content, path, commit, config) for path in paths}

    async def _find(self, content: CommitContent, path: str, commit: str, config: bytes) -> _Found:
        for tracked in (PurePosixPath(path), *list(PurePosixPath(path).parents)[:-1]):
            if output := await output_at(content, str(tracked)):
                inside = "" if str(tracked) == path else str(PurePosixPath(path).relative_to(tracked))
                return _Found(output, inside, config)
        raise DatasetError(
            f"commit {commit} of {self.remote.url} has no {path}.dvc and no dvc.lock with the hash of {path!r}: DVC "
            "does not track it there. Add it with dvc add, commit and push. Nothing was pinned"
        )

    def _pin(self, at: ResolvedRef, path: str, found: _Found) -> DatasetPin:
        data = RepositoryData("dvc", self.remote.url, path, at.sha, self.dvc_remote, self.remote.conn_id or "")
        pin = DatasetPin(uri=data.uri, version=at.sha, ref=at.ref if at.ref != at.sha else "")
        own = {} if found.inside else {"hash": found.output.pinned_hash, "size": found.output.size}
        if not self.verify:
            return pin.model_copy(update=own)
        return pin.model_copy(update={**own, **self._kept(path, found)})

    def _kept(self, path: str, found: _Found) -> dict[str, str]:
        """Make sure that the remote holds the content; say where, and the hash of a file inside a folder."""
        output, wanted = found.output, found.output.object_path()
        if not wanted:
            raise DatasetError(
                f"{path!r} is not kept by its MD5, so its remote cannot be asked for it; {LEAVE_UNCHECKED}"
            )
        try:
            base = remote_url(found.config, self.dvc_remote)
        except SourceError as error:
            raise DatasetError(f"{error}; {LEAVE_UNCHECKED}") from None
        where = self._require(path, base, [wanted], output)
        if not output.is_folder:
            return where
        files = read_folder(read_object(base, wanted), where["remote"])
        return self._kept_folder(path, base, found, files)

    def _kept_folder(self, path: str, base: str, found: _Found, files: dict[str, str]) -> dict[str, str]:
        output = found.output
        if folder_hash(files) != output.hash:
            raise DatasetError(
                f"the list of the folder that holds {path!r} in {public_uri(base)} is not the one that DVC recorded "
                f"({output.hash}); push it again with dvc push. Nothing was pinned"
            )
        if not found.inside:
            self._require(path, base, [output.object_path(md5) for md5 in files.values()], output)
            return {"remote": _address(base, output.object_path())}
        if found.inside not in files:
            raise DatasetError(f"the tracked folder has no file {found.inside!r} ({path!r}). Nothing was pinned")
        md5 = files[found.inside]
        self._require(path, base, [output.object_path(md5)], output)
        digest = {} if output.is_legacy else {"hash": f"md5:{md5}"}
        return {"remote": _address(base, output.object_path(md5)), **digest}

    def _require(self, path: str, base: str, wanted: Sequence[str], output: TrackedOutput) -> dict[str, str]:
        missing = missing_objects(base, list(dict.fromkeys(wanted)))
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise DatasetError(
                f"the DVC remote {public_uri(base)} does not hold {path!r} as commit and pointer name it: "
                f"{', '.join(missing[:_SHOWN])}{more} not there. Push it with dvc push. Nothing was pinned"
            )
        return {"remote": _address(base, output.object_path())}


async def output_at(content: CommitContent, path: str) -> TrackedOutput | None:
    """Read what DVC recorded about a path.

    :param content: the commit.
    :param path: file or folder, relative to the repository.
    :return: None when DVC does not track the path itself.
    """
    for pointer in pointer_files(path):
        text = await content.read(pointer)
        if text is not None and (found := await asyncio.to_thread(tracked_output, text, pointer, path)):
            return found
    return None


def _address(base: str, path: str) -> str:
    return f"{public_uri(base).rstrip('/')}/{path}"
