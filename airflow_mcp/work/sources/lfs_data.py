"""Data in Git LFS: a file of one commit, from the repository's LFS store."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from airflow_mcp.core import contract
from airflow_mcp.core.code.git_environment import git_environment
from airflow_mcp.core.data.dataset import RepositoryData
from airflow_mcp.core.data.lfs_pointer import MAX_POINTER_BYTES, LfsPointer, read_pointer
from airflow_mcp.exceptions import DatasetError

_OUTPUT_LIMIT = 500
"""Last characters of the output of Git LFS in an error message."""


def download_from_lfs(data: RepositoryData, repository: Path, target: Path, environ: Mapping[str, str]) -> str:
    """Download a file with Git LFS.

    :param data: the data.
    :param repository: checkout of its commit, in which files of Git LFS are still pointers.
    :param target: file to write.
    :param environ: environment variables, which may include the credentials of the repository.
    :return: hash that the pointer names, ``sha256:<hex>``.
    :raises DatasetError: when the path is not in Git LFS, the store lacks it, or Git LFS is not installed.
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
                f"dataset {data.uri} needs Git LFS, which is not installed where the workload runs: add git-lfs to the "
                "image. The data was not used"
            )
        raise DatasetError(
            f"dataset {data.uri} cannot be fetched from its LFS store: {said[-_OUTPUT_LIMIT:]}. The data was not "
            "used; check that it was pushed (git lfs push --all) and that the workload can reach the store"
        )
    return pointer.pinned_hash


def _pointer(data: RepositoryData, path: Path) -> LfsPointer:
    try:
        with path.open("rb") as stream:
            pointer = read_pointer(stream.read(MAX_POINTER_BYTES))
    except OSError as error:
        raise DatasetError(f"dataset {data.uri} cannot be read: {error.strerror}. The data was not used") from None
    if pointer is None:
        raise DatasetError(f"dataset {data.uri} is not a file in Git LFS. The data was not used")
    return pointer
