"""Pin data that DVC tracks, from its Git repository and its DVC remote; without DVC itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.core.data.dataset import LEAVE_UNCHECKED, RepositoryData, public_uri
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
from airflow_mcp.hooks.object_store import join, missing_objects, read

_SHOWN = 3


@dataclass(frozen=True)
class _Found:
    """What a commit says about a path."""

    output: TrackedOutput
    inside: str = ""
    """Path inside a tracked folder; empty when the path itself is tracked."""
    config: bytes = field(default=b"", repr=False)
    """Text of ``.dvc/config``."""


class DvcRemote:
    """Data that DVC tracks in a Git repository.

    :param remote: the Git repository; not empty.
    :param dvc_remote: name of the DVC remote; empty for the repository's default.
    :param verify: whether the remote must hold the content; False leaves the remote alone.
    """

    def __init__(self, remote: GitRemote, dvc_remote: str = "", *, verify: bool = True) -> None:
        self.remote, self.dvc_remote, self.verify = remote, dvc_remote, verify

    def pins(self, at: ResolvedRef, paths: Sequence[str]) -> dict[str, DatasetPin]:
        """Pin files and folders as they are in one commit; blocks.

        :param at: the commit, and the name that led to it.
        :param paths: paths in the repository.
        :return: a pin for each path, with the hash and size that DVC recorded and its address in the remote. The
            hash of a file inside a tracked folder is read from the remote.
        :raises DatasetError: when DVC does not track a path there, or the remote lacks content or refuses access.
        :raises InvalidArgumentError: when this machine has no client for the remote.
        :raises SourceError: when DVC did not write the repository's files.
        :raises GitRemoteError: when the repository does not answer.
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
            f"commit {commit} of {self.remote.url} has no {path}.dvc and no dvc.lock with the hash of {path!r}: "
            "DVC does not track it there. Add it with dvc add, commit and push. Nothing was pinned"
        )

    def _pin(self, at: ResolvedRef, path: str, found: _Found) -> DatasetPin:
        data = RepositoryData("dvc", self.remote.url, path, at.sha, self.dvc_remote, self.remote.conn_id or "")
        pin = DatasetPin(uri=data.uri, version=at.sha, ref=at.ref if at.ref != at.sha else "")
        own = {} if found.inside else {"hash": found.output.pinned_hash, "size": found.output.size}
        if not self.verify:
            return pin.model_copy(update=own)
        return pin.model_copy(update={**own, **self._kept(path, found)})

    def _kept(self, path: str, found: _Found) -> dict[str, str]:
        """Check that the remote holds the content; return its address there, and the hash of a file inside a folder."""
        output, wanted = found.output, found.output.object_path()
        if not wanted:
            raise DatasetError(f"{path!r} is not stored by its MD5, so the remote cannot be checked. {LEAVE_UNCHECKED}")
        try:
            base = remote_url(found.config, self.dvc_remote)
        except SourceError as error:
            raise DatasetError(f"{error}. {LEAVE_UNCHECKED}") from None
        where = self._require(path, base, [wanted], output)
        if not output.is_folder:
            return where
        listing = read(join(base, wanted), hint=LEAVE_UNCHECKED)
        if listing is None:  # it was there a moment ago
            raise DatasetError(f"{where['remote']} was deleted meanwhile. Nothing was pinned")
        return self._kept_folder(path, base, found, read_folder(listing, where["remote"]))

    def _kept_folder(self, path: str, base: str, found: _Found, files: dict[str, str]) -> dict[str, str]:
        output = found.output
        if folder_hash(files) != output.hash:
            raise DatasetError(
                f"the list of the folder that holds {path!r} in {public_uri(base)} is not the one that DVC recorded "
                f"({output.hash}). Push it again with dvc push. Nothing was pinned"
            )
        if not found.inside:
            self._require(path, base, [output.object_path(md5) for md5 in files.values()], output)
            return {"remote": join(public_uri(base), output.object_path())}
        if found.inside not in files:
            raise DatasetError(f"the tracked folder has no file {found.inside!r} ({path!r}). Nothing was pinned")
        md5 = files[found.inside]
        self._require(path, base, [output.object_path(md5)], output)
        digest = {} if output.is_legacy else {"hash": f"md5:{md5}"}
        return {"remote": join(public_uri(base), output.object_path(md5)), **digest}

    def _require(self, path: str, base: str, wanted: Sequence[str], output: TrackedOutput) -> dict[str, str]:
        missing = missing_objects(base, list(dict.fromkeys(wanted)), hint=LEAVE_UNCHECKED)
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise DatasetError(
                f"the DVC remote {public_uri(base)} does not hold {path!r}: {', '.join(missing[:_SHOWN])}{more} "
                f"{'is' if len(missing) == 1 else 'are'} missing. Push it with dvc push. Nothing was pinned"
            )
        return {"remote": join(public_uri(base), output.object_path())}


async def output_at(content: CommitContent, path: str) -> TrackedOutput | None:
    """Read what DVC recorded about a path in a commit.

    :param content: the commit.
    :param path: file or folder, relative to the repository.
    :return: None when DVC does not track the path itself.
    """
    for pointer in pointer_files(path):
        text = await content.read(pointer)
        if text is not None and (found := await asyncio.to_thread(tracked_output, text, pointer, path)):
            return found
    return None
