"""What a workload reads from its environment, as frozen values; every missing name is reported at once."""

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
from airflow_mcp.core.registry.copies import CopyRequest
from airflow_mcp.core.registry.load_check import LoadCheckRequest
from airflow_mcp.core.workload.replicas import ENV_RANK, ENV_WORLD_SIZE
from airflow_mcp.exceptions import InvalidArgumentError

_RequestT = TypeVar("_RequestT", EvaluationRequest, DriftRequest, ReplayRequest, CopyRequest, LoadCheckRequest)


@dataclass(frozen=True)
class TrainingEnvironment:
    """The contract as a training step sees it."""

    run_id: str
    config_path: Path | None
    """Config file; None when the pipeline gives none."""
    dataset: DatasetPin | None
    """Pinned dataset; None when the pipeline gives none."""
    rank: int = 0
    """Number of this replica where several train together; rank 0 concludes the run."""
    profiles_data: bool = True
    """Whether the dataset is profiled before the script starts."""
    data_source: str = ""
    """Address that the dataset was fetched from; empty when it was not fetched."""


def read_training_environment(environ: Mapping[str, str]) -> TrainingEnvironment:
    """Read the contract of a training step.

    :param environ: environment variables.
    :raises InvalidArgumentError: when names are missing, when the two run ids differ, when the config file does
        not exist, when a hash is given without a dataset, or when rank and number of replicas make no sense.
    """
    require(environ, (contract.ENV_TRACKING_URI, contract.ENV_RUN_ID))
    run_id = environ[contract.ENV_RUN_ID]
    mlflow_run_id = environ.get(contract.ENV_MLFLOW_RUN_ID) or run_id
    if mlflow_run_id != run_id:
        raise InvalidArgumentError(
            f"{contract.ENV_MLFLOW_RUN_ID}={mlflow_run_id!r} and {contract.ENV_RUN_ID}={run_id!r} name different "
            "runs; they must be equal. The script was not started."
        )
    config = environ.get(contract.ENV_CONFIG_PATH)
    if config and not Path(config).is_file():
        raise InvalidArgumentError(f"{contract.ENV_CONFIG_PATH}={config!r} is not a file. The script was not started.")
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
    :param model: the class of request expected.
    :raises InvalidArgumentError: when names are missing or the file cannot be read.
    :raises EvidenceError: when the file is not such a request.
    """
    require(environ, (contract.ENV_TRACKING_URI, contract.ENV_REQUEST_PATH))
    path = environ[contract.ENV_REQUEST_PATH]
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"{contract.ENV_REQUEST_PATH}={path!r} cannot be read: {error.strerror}. Nothing was measured."
        ) from None
    return parse_document(model, text, f"the request in {path}")


def _rank(environ: Mapping[str, str]) -> int:
    """Read the rank; one without a number of replicas is somebody else's variable."""
    rank, size = environ.get(ENV_RANK, ""), environ.get(ENV_WORLD_SIZE, "")
    if not rank or not size:
        return 0
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise InvalidArgumentError(
            f"{ENV_RANK}={rank!r} and {ENV_WORLD_SIZE}={size!r} are no rank and number of replicas; allowed: whole "
            "numbers, the rank from 0 and below the other. The script was not started."
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
            "The script was not started."
        )
    return None


def require(environ: Mapping[str, str], names: Sequence[str]) -> None:
    """Refuse an environment that lacks variables.

    :param environ: environment variables.
    :param names: those that must be there with something in them.
    :raises InvalidArgumentError: naming all that are missing.
    """
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise InvalidArgumentError(
            f"Environment variables missing or empty: {', '.join(missing)}. They are set by the operator that "
            "starts this step; see docs/work-plane.md to run it by hand. Nothing was done."
        )
