"""Data that DVC tracks: a file or folder of one commit, from the repository's DVC remote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow_mcp.core.data.dataset import RepositoryData
from airflow_mcp.exceptions import DatasetError


def download_from_dvc(data: RepositoryData, repository: Path, target: Path) -> str:
    """Download a file or folder with DVC.

    :param data: the data.
    :param repository: checkout of its commit.
    :param target: file or folder to write.
    :return: hash that DVC recorded: ``md5:<hex>`` for a file, ``md5:<hex>.dir`` for a folder, or empty.
    :raises DatasetError: when the commit does not track the path, the remote lacks it, or DVC is not installed.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    os.environ.setdefault(
        "DVC_SITE_CACHE_DIR", f"{repository.parent}/site"
    )  # the default is a system folder, which pods may not write
    try:
        from dvc.api import DVCFileSystem  # noqa: PLC0415
    except ModuleNotFoundError:
        raise DatasetError(
            f"dataset {data.uri} needs DVC, which is not installed: pip install airflow-mcp[runtime]. The data was not "
            "used"
        ) from None
    try:
        files = DVCFileSystem(url=str(repository), **({"remote": data.remote} if data.remote else {}))
        info = files.info(data.path)
        if info["type"] == "file":
            files.get_file(data.path, str(target))
        else:
            files.get(data.path, str(target), recursive=True)
    except Exception as error:  # DVC, its file systems and their clients each raise their own errors
        where = str(repository)
        said = " ".join(str(error).replace(f"{where}/", "").replace(where, data.repo).split())
        raise DatasetError(
            f"dataset {data.uri} cannot be fetched from its DVC remote: {type(error).__name__}: {said}. The data was "
            "not used; check that it was pushed (dvc push) and that the workload can reach the remote"
        ) from None
    return _recorded(info)


def _recorded(info: dict[str, Any]) -> str:
    entry = (info.get("dvc_info") or {}).get("entry")
    recorded = getattr(entry, "hash_info", None)
    return f"md5:{recorded.value}" if recorded and recorded.name == "md5" and recorded.value else ""
