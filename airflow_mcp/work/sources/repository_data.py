"""Data that a Git repository tracks with DVC or Git LFS: fetched for one commit and checked against its hash."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from airflow_mcp.core import contract
from airflow_mcp.core.code.source import CodeSource
from airflow_mcp.core.data.dataset import RepositoryData, repository_data
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.work.run.environment import require
from airflow_mcp.work.sources.data_hash import data_hash
from airflow_mcp.work.sources.git_checkout import fetch_commit

_log = logging.getLogger(__name__)


def fetch_pinned_data(environ: Mapping[str, str]) -> Path:
    """Fetch the data that the environment names.

    :param environ: environment variables.
    :return: the file or folder.
    :raises DatasetError: as :func:`fetch_data`.
    """
    require(environ, (contract.ENV_DATA_SOURCE, contract.ENV_DATA_PATH))
    target = Path(environ[contract.ENV_DATA_PATH])
    target.parent.mkdir(parents=True, exist_ok=True)
    fetch_data(environ[contract.ENV_DATA_SOURCE], target, environ)
    return target


def fetch_data(uri: str, target: Path, environ: Mapping[str, str]) -> str:
    """Fetch data and check it against the hash that DVC or Git LFS recorded.

    :param uri: address of the data, ``dvc+<repository>#path=<path>&rev=<commit>`` or ``lfs+…``.
    :param target: file or folder to write.
    :param environ: environment variables, which may include the credentials of the repository.
    :return: the recorded hash, which the data have; empty when none was recorded.
    :raises DatasetError: when the commit does not track the data, the remote lacks them or has others, or the tool is
        not installed.
    :raises SourceError: when the repository lacks the commit.
    :raises GitRemoteError: when the repository cannot be reached or refuses the credentials.
    """
    data = repository_data(uri)
    if data is None:
        raise InvalidArgumentError(
            f"{contract.ENV_DATA_SOURCE} must be an address of DVC or Git LFS data; got {uri!r}. Nothing was fetched"
        )
    login = {
        contract.ENV_GIT_USERNAME: environ.get(contract.ENV_DATA_GIT_USERNAME, ""),
        contract.ENV_GIT_PASSWORD: environ.get(contract.ENV_DATA_GIT_PASSWORD, ""),
    }
    recorded = _download(data, target, {**environ, **login})
    found = data_hash(target, DatasetPin(uri=data.uri, hash=recorded)) if recorded else ""
    if recorded != found:
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)
        tool, push = ("DVC", "dvc push") if data.kind == "dvc" else ("Git LFS", "git lfs push --all")
        raise DatasetError(
            f"dataset {data.uri} is not what {tool} recorded: expected {recorded}, its remote has {found}. The data "
            f"was not used; push it again with {push}"
        )
    _log.info("dataset %s: %s", data.uri, recorded or "no hash was recorded")
    return recorded


def _download(data: RepositoryData, target: Path, environ: Mapping[str, str]) -> str:
    with tempfile.TemporaryDirectory(prefix="airflow-mcp-data-") as folder:
        repository = fetch_commit(CodeSource(data.repo, data.rev), Path(folder) / "repository", environ)
        if data.kind == "lfs":
            from airflow_mcp.work.sources.lfs_data import download_from_lfs  # noqa: PLC0415  (each needs its own tool)

            return download_from_lfs(data, repository, target, environ)
        from airflow_mcp.work.sources.dvc_data import download_from_dvc  # noqa: PLC0415

        return download_from_dvc(data, repository, target)
