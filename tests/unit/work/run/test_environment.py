from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.summary import DriftRequest
from airflow_mcp.core.evaluation.evidence import EvaluationRequest
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.work.run.environment import read_request, read_training_environment

MINIMUM = {"MLFLOW_TRACKING_URI": "http://mlflow", "AIRFLOW_MCP_RUN_ID": "abc"}


def test_every_missing_name_is_reported_at_once() -> None:
    with pytest.raises(InvalidArgumentError, match=r"MLFLOW_TRACKING_URI, AIRFLOW_MCP_RUN_ID"):
        read_training_environment({"AIRFLOW_MCP_RUN_ID": ""})
    with pytest.raises(InvalidArgumentError, match=r"MLFLOW_TRACKING_URI, AIRFLOW_MCP_REQUEST_PATH"):
        read_request({}, EvaluationRequest)


def test_config_and_dataset_are_optional() -> None:
    settings = read_training_environment(MINIMUM)
    assert (settings.run_id, settings.config_path, settings.dataset) == ("abc", None, None)


def test_the_whole_contract_is_read(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("seed: 1")
    settings = read_training_environment(
        {
            **MINIMUM,
            "MLFLOW_RUN_ID": "abc",
            "AIRFLOW_MCP_CONFIG_PATH": str(config),
            "AIRFLOW_MCP_DATA_PATH": "data.csv",
            "AIRFLOW_MCP_DATA_VERSION": "v3",
            "AIRFLOW_MCP_DATA_HASH": "sha256:" + "0" * 64,
        }
    )
    assert settings.config_path == config
    assert settings.dataset == DatasetPin(uri="data.csv", version="v3", hash="sha256:" + "0" * 64)
    assert settings.profiles_data
    assert settings.data_source == ""
    fetched = {**MINIMUM, "AIRFLOW_MCP_DATA_SOURCE": "lfs+https://h/x#path=a.csv"}
    assert read_training_environment(fetched).data_source == "lfs+https://h/x#path=a.csv"


def test_that_data_is_not_to_be_profiled_is_read() -> None:
    assert not read_training_environment({**MINIMUM, "AIRFLOW_MCP_PROFILE_DATA": "false"}).profiles_data


@pytest.mark.parametrize(
    ("more", "rank"), [({}, 0), ({"RANK": "1", "WORLD_SIZE": "2"}, 1), ({"RANK": "7"}, 0), ({"WORLD_SIZE": "7"}, 0)]
)
def test_a_rank_counts_only_with_the_number_of_replicas(more: dict[str, str], rank: int) -> None:
    assert read_training_environment(MINIMUM | more).rank == rank


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"MLFLOW_RUN_ID": "other"}, "name different runs"),
        (
            {"AIRFLOW_MCP_CONFIG_PATH": "no/such.yaml"},
            "AIRFLOW_MCP_CONFIG_PATH must be the path of a file; got 'no/such.yaml'",
        ),
        ({"AIRFLOW_MCP_DATA_HASH": "sha256:00"}, "nothing to verify"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must be a whole number from 0 to below WORLD_SIZE; got '2'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "must be a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "must be a whole number"),
    ],
)
def test_a_contradictory_environment_is_refused(more: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_training_environment(MINIMUM | more)


def test_a_request_that_is_absent_or_broken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    environ = {"MLFLOW_TRACKING_URI": "http://mlflow", "AIRFLOW_MCP_REQUEST_PATH": str(path)}
    with pytest.raises(InvalidArgumentError, match="cannot be read: No such file"):
        read_request(environ, DriftRequest)
    path.write_text('{"identity": "i", "surprise": 1}')
    with pytest.raises(EvidenceError, match="surprise"):
        read_request(environ, DriftRequest)
