"""Data that DVC tracks: one file of one commit, fetched from the repository's DVC remote."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from airflow_mcp.core import contract
from airflow_mcp.core.code_source import CodeSource
from airflow_mcp.core.dataset import DvcData, dvc_data
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.runtime.checkout import fetch_commit
from airflow_mcp.runtime.environment import require

_log = logging.getLogger(__name__)


def fetch_pinned_data(environ: Mapping[str, str]) -> Path:
    """Fetch the DVC data that the environment names to the path that it names.

    :param environ: environment variables, the contract among them.
    :return: the file.
    :raises DatasetError: when the commit does not track the file, its remote does not hold it, or DVC is not installed.
    """
    require(environ, (contract.ENV_DATA_SOURCE, contract.ENV_DATA_PATH))
    target = Path(environ[contract.ENV_DATA_PATH])
    target.parent.mkdir(parents=True, exist_ok=True)
    return fetch_dvc(environ[contract.ENV_DATA_SOURCE], target, environ)


def fetch_dvc(uri: str, target: Path, environ: Mapping[str, str]) -> Path:
    """Fetch a file that DVC tracks, and check its bytes against the hash that DVC recorded.

    :param uri: address of the data, ``dvc+<repository>#path=<file>&rev=<commit>``.
    :param target: file to write.
    :param environ: environment variables; may hold the credentials of the repository.
    :return: the file.
    :raises DatasetError: when the commit does not track the file, its remote does not hold it, or DVC is not installed.
    :raises SourceError: when the repository has no such commit.
    :raises GitRemoteError: when the repository cannot be reached or refuses the credentials.
    """
    data = dvc_data(uri)
    if data is None:
        raise InvalidArgumentError(f"{contract.ENV_DATA_SOURCE}={uri!r} is not the address of DVC data")
    login = {
        contract.ENV_GIT_USERNAME: environ.get(contract.ENV_DATA_GIT_USERNAME, ""),
        contract.ENV_GIT_PASSWORD: environ.get(contract.ENV_DATA_GIT_PASSWORD, ""),
    }
    with tempfile.TemporaryDirectory(prefix="airflow-mcp-dvc-") as folder:
        os.environ.setdefault("DVC_NO_ANALYTICS", "1")
        os.environ.setdefault("DVC_SITE_CACHE_DIR", f"{folder}/site")  # its own default may not be writable
        repository = fetch_commit(CodeSource(data.repo, data.rev), Path(folder) / "repository", {**environ, **login})
        recorded = _download(data, repository, target)
    found = _md5(target)
    if recorded not in ("", found):
        target.unlink()
        raise DatasetError(
            f"Dataset {data.uri} is not what DVC recorded: expected md5 {recorded}, its remote holds {found}. The data "
            "was not used; push it again with dvc push."
        )
    _log.info("dataset %s: md5 %s", data.uri, found)
    return target


def _download(data: DvcData, repository: Path, target: Path) -> str:
    """Download the file with DVC and give the MD5 that it recorded, or an empty text."""
    try:
        from dvc.api import DVCFileSystem  # noqa: PLC0415
    except ModuleNotFoundError:
        raise DatasetError(
            f"Dataset {data.uri} needs DVC, which is not installed: pip install airflow-mcp[runtime]. The data was not "
            "used."
        ) from None
    try:
        files = DVCFileSystem(url=str(repository), **({"remote": data.remote} if data.remote else {}))
        info = files.info(data.path)
        if info["type"] != "file":
            raise DatasetError(f"Dataset {data.uri} is a folder; one file is needed. The data was not used.")
        files.get_file(data.path, str(target))
    except DatasetError:
        raise
    except Exception as error:  # DVC, its file systems and their clients each raise their own kinds
        where = str(repository)
        said = " ".join(str(error).replace(f"{where}/", "").replace(where, data.repo).split())
        raise DatasetError(
            f"Dataset {data.uri} cannot be fetched from its DVC remote: {type(error).__name__}: {said}. Is it pushed "
            "(dvc push), and is the remote reachable from where the work runs? The data was not used."
        ) from None
    entry = (info.get("dvc_info") or {}).get("entry")
    recorded = getattr(entry, "hash_info", None)
    return str(recorded.value or "") if recorded and recorded.name == "md5" else ""


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
