"""Reads the environment variables of a step, and its request; all missing variables are reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.drift.summary import DriftRequest
from airflow_mcp.core.evaluation.evidence import EvaluationRequest
from airflow_mcp.core.evaluation.replay import ReplayRequest
from airflow_mcp.core.features.summary import HistoricalRequest, SkewRequest
from airflow_mcp.core.quality.summary import QualityRequest
from airflow_mcp.core.registry.copies import CopyRequest
from airflow_mcp.core.registry.load_check import LoadCheckRequest
from airflow_mcp.core.registry.publishing import PublishRequest
from airflow_mcp.core.workload.replicas import ENV_RANK, ENV_WORLD_SIZE
from airflow_mcp.exceptions import InvalidArgumentError

_RequestT = TypeVar(
    "_RequestT",
    EvaluationRequest,
    DriftRequest,
    ReplayRequest,
    CopyRequest,
    LoadCheckRequest,
    PublishRequest,
    QualityRequest,
    HistoricalRequest,
    SkewRequest,
)


@dataclass(frozen=True)
class TrainingEnvironment:
    """The environment of a training step."""

    run_id: str
    config_path: Path | None
    """Config file, if the pipeline has one."""
    dataset: DatasetPin | None
    """Pinned dataset, if the pipeline has one."""
    rank: int = 0
    """Number of this replica, when several train together; rank 0 ends the run."""
    profiles_data: bool = True
    """Whether the dataset is profiled before the script starts."""
    data_source: str = ""
    """Address from which the dataset was fetched; empty when it was not fetched."""


def read_training_environment(environ: Mapping[str, str]) -> TrainingEnvironment:
    """Read the environment of a training step.

    :param environ: environment variables.
    :raises InvalidArgumentError: when variables are missing, the two run ids differ, the config file does not exist,
        there is a hash without a dataset, or rank and number of replicas are wrong.
    """
    require(environ, (contract.ENV_TRACKING_URI, contract.ENV_RUN_ID))
    run_id = environ[contract.ENV_RUN_ID]
    mlflow_run_id = environ.get(contract.ENV_MLFLOW_RUN_ID) or run_id
    if mlflow_run_id != run_id:
        raise InvalidArgumentError(
            f"{contract.ENV_MLFLOW_RUN_ID}={mlflow_run_id!r} and {contract.ENV_RUN_ID}={run_id!r} name different "
            "runs; they must be equal. The script was not started"
        )
    config = environ.get(contract.ENV_CONFIG_PATH)
    if config and not Path(config).is_file():
        raise InvalidArgumentError(
            f"{contract.ENV_CONFIG_PATH} must be the path of a file; got {config!r}. The script was not started"
        )
    is_profiled = environ.get(contract.ENV_PROFILE_DATA, "true") != "false"
    return TrainingEnvironment(
        run_id,
        Path(config) if config else None,
        _dataset_pin(environ),
        _rank(environ),
        is_profiled,
        environ.get(contract.ENV_DATA_SOURCE, ""),
    )


def read_request(environ: Mapping[str, str], model: type[_RequestT]) -> _RequestT:
    """Read the JSON request of a built-in step.

    :param environ: environment variables.
    :param model: class of the request.
    :raises InvalidArgumentError: when variables are missing or the file cannot be read.
    :raises EvidenceError: when the file does not contain such a request.
    """
    require(environ, (contract.ENV_TRACKING_URI, contract.ENV_REQUEST_PATH))
    path = environ[contract.ENV_REQUEST_PATH]
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"{contract.ENV_REQUEST_PATH}={path!r} cannot be read: {error.strerror}. Nothing was measured"
        ) from None
    return parse_document(model, text, f"the request in {path}")


def _rank(environ: Mapping[str, str]) -> int:
    """Read the rank; without a number of replicas the variable belongs to other software."""
    rank, size = environ.get(ENV_RANK, ""), environ.get(ENV_WORLD_SIZE, "")
    if not rank or not size:
        return 0
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise InvalidArgumentError(
            f"{ENV_RANK} must be a whole number from 0 to below {ENV_WORLD_SIZE}; got {rank!r} with "
            f"{ENV_WORLD_SIZE}={size!r}. The script was not started"
        )
    return int(rank)


def _dataset_pin(environ: Mapping[str, str]) -> DatasetPin | None:
    uri = environ.get(contract.ENV_DATA_PATH, "")
    version = environ.get(contract.ENV_DATA_VERSION, "")
    digest = environ.get(contract.ENV_DATA_HASH, "")
    if uri:
        return DatasetPin(uri=uri, version=version, hash=digest)
    if digest:
        raise InvalidArgumentError(
            f"{contract.ENV_DATA_HASH} is set but {contract.ENV_DATA_PATH} is not: there is nothing to verify. "
            "The script was not started"
        )
    return None


def require(environ: Mapping[str, str], names: Sequence[str]) -> None:
    """Check that environment variables are set.

    :param environ: environment variables.
    :param names: variables that must not be empty.
    :raises InvalidArgumentError: when some are missing or empty; names them all.
    """
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise InvalidArgumentError(
            f"environment variables are missing or empty: {', '.join(missing)}. The operator that starts this step "
            "sets them; see docs/work-plane.md to run it by hand. Nothing was done"
        )
