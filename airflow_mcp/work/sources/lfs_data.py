"""Data that Git LFS keeps: a file of one commit, downloaded by Git LFS from the repository's LFS store."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from airflow_mcp.core import contract
from airflow_mcp.core.code.git_environment import git_environment
from airflow_mcp.core.data.dataset import RepositoryData
from airflow_mcp.core.data.lfs_pointer import MAX_POINTER_BYTES, LfsPointer, read_pointer
from airflow_mcp.exceptions import DatasetError

_SAID_LIMIT = 500


def download(data: RepositoryData, repository: Path, target: Path, environ: Mapping[str, str]) -> str:
    """Download with Git LFS.

    :param data: what to download.
    :param repository: checkout of its commit, in which files of Git LFS are pointers.
    :param target: file to write.
    :param environ: environment variables; may hold the credentials of the repository.
    :return: hash that the pointer names, ``sha256:<hex>``.
    :raises DatasetError: when the path is not kept by Git LFS, its store lacks it, or Git LFS is not installed.
    """
    pointer = _pointer(data, repository / data.path)
    login = (environ.get(contract.ENV_GIT_USERNAME, ""), environ.get(contract.ENV_GIT_PASSWORD, ""))
    with target.open("wb") as stream:
        done = subprocess.run(
            ["git", "-C", str(repository), "lfs", "smudge", "--", data.path],  # noqa: S607  (git is in PATH)
            input=(repository / data.path).read_bytes(),
            stdout=stream,
            stderr=subprocess.PIPE,
            check=False,
            env=git_environment(data.repo, environ, *login),
        )
    if done.returncode != 0:
        target.unlink()
        said = " ".join(done.stderr.decode(errors="replace").split())
        if "'lfs' is not a git command" in said:
            raise DatasetError(
                f"Dataset {data.uri} needs Git LFS, which is not installed where the work runs: add git-lfs to the "
                "image. The data was not used."
            )
        raise DatasetError(
            f"Dataset {data.uri} cannot be fetched from its LFS store: {said[-_SAID_LIMIT:]}. Is it pushed (git lfs "
            "push --all), and is the store reachable from where the work runs? The data was not used."
        )
    return pointer.pinned_hash


def _pointer(data: RepositoryData, path: Path) -> LfsPointer:
    try:
        with path.open("rb") as stream:
            pointer = read_pointer(stream.read(MAX_POINTER_BYTES))
    except OSError as error:
        raise DatasetError(f"Dataset {data.uri} cannot be read: {error.strerror}. The data was not used.") from None
    if pointer is None:
        raise DatasetError(f"Dataset {data.uri} is not a file that Git LFS keeps. The data was not used.")
    return pointer
