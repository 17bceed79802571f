"""The address of a cluster, from Airflow connections of the types that Airflow's provider for Spark has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk.log import redact

from airflow_mcp.core.engine import Engine
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.engine import read_engine_address


@pytest.mark.parametrize(
    ("engine", "connection", "address"),
    [
        ("spark", {"conn_type": "spark", "host": "spark://master", "port": 7077}, "spark://master:7077"),
        ("spark", {"conn_type": "spark", "host": "master", "port": 7077}, "spark://master:7077"),
        ("spark", {"conn_type": "spark", "host": "yarn", "extra": {"queue": "q"}}, "yarn"),
        ("spark", {"conn_type": "spark", "host": "local[2]"}, "local[2]"),
        ("spark", {"conn_type": "spark_connect", "host": "server"}, "sc://server:15002/"),
        (
            "spark",
            {"conn_type": "spark_connect", "host": "sc://server", "port": 443, "extra": {"use_ssl": True}},
            "sc://server:443/;use_ssl=true",
        ),
        ("dask", {"conn_type": "generic", "host": "scheduler", "port": 8786}, "tcp://scheduler:8786"),
        ("dask", {"conn_type": "generic", "host": "tls://scheduler:8786"}, "tls://scheduler:8786"),
    ],
)
def test_a_connection_gives_the_address(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, connection: dict[str, Any], address: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{engine.upper()}_DEFAULT", json.dumps(connection))
    assert read_engine_address(engine) == address


def test_a_token_is_in_the_address_and_masked_in_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "spark_connect", "host": "server", "login": "ann", "password": "token-of-ann"}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
    address = read_engine_address("spark", "lake")
    assert address == "sc://server:15002/;user_id=ann;token=token-of-ann;use_ssl=true"
    assert "token-of-ann" not in str(redact(address))


def test_a_missing_connection_and_one_without_a_host_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgumentError, match="needs the connection 'dask_default', which does not exist"):
        read_engine_address("dask")
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "spark"}))
    with pytest.raises(InvalidArgumentError, match="connection 'lake' must have a host"):
        read_engine_address("spark", "lake")
