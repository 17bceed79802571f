"""Addresses of clusters: their forms, their hosts, and that nothing secret is shown."""

from __future__ import annotations

import pytest

from airflow_mcp.core.engine import (
    connect_address,
    engine_address,
    places_of,
    plain_engine_address,
    public_engine_address,
)
from airflow_mcp.exceptions import InvalidArgumentError

TOKEN = "sc://spark.example.com:443/;user_id=ann;token=s3cret"


@pytest.mark.parametrize(
    ("engine", "address", "found"),
    [
        ("spark", TOKEN, TOKEN),
        ("spark", "spark://one:7077,two:7077", "spark://one:7077,two:7077"),
        ("spark", "k8s://https://api.example.com:6443", "k8s://https://api.example.com:6443"),
        ("spark", "yarn", "yarn"),
        ("spark", "local[2,3]", "local[2,3]"),
        ("dask", "scheduler:8786", "tcp://scheduler:8786"),
        ("dask", "tls://scheduler", "tls://scheduler"),
    ],
)
def test_addresses_of_an_engine_are_taken(engine: str, address: str, found: str) -> None:
    assert engine_address("engine_address", engine, address) == found


@pytest.mark.parametrize(
    ("engine", "address"),
    [("spark", "tcp://hidden:1"), ("spark", "master:77"), ("dask", "sc://hidden:1")],
)
def test_other_addresses_are_refused_and_not_shown(engine: str, address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="engine_address must be an address of") as refused:
        engine_address("engine_address", engine, address)
    assert address not in str(refused.value)


@pytest.mark.parametrize(
    ("engine", "address"), [("spark", TOKEN), ("spark", "sc://ann:s3cret@host:1"), ("dask", "tcp://ann:s3cret@host:1")]
)
def test_an_address_with_a_secret_belongs_into_a_connection(engine: str, address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="engine_conn_id") as refused:
        plain_engine_address("engine_address", engine, address)
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in public_engine_address(address)


def test_an_address_without_secrets_may_be_shown() -> None:
    for address in ("sc://spark.example.com:15002", "sc://spark.example.com:15002/", "yarn", "k8s://https://api:6443"):
        assert plain_engine_address("engine_address", "spark", address) == address


def test_the_address_of_spark_connect_is_made_of_a_connection() -> None:
    assert connect_address("spark.example.com", None, "", "", use_ssl=False) == "sc://spark.example.com:15002/"
    assert connect_address("sc://spark:9", None, "ann", "a b;c", use_ssl=False) == (
        "sc://spark:9/;user_id=ann;token=a%20b%3Bc;use_ssl=true"
    )


@pytest.mark.parametrize(
    ("address", "places"),
    [
        (TOKEN, (("spark.example.com", 443),)),
        ("sc://spark", (("spark", 15002),)),
        ("spark://one:7077,two:7078", (("one", 7077), ("two", 7078))),
        ("k8s://https://api.example.com", (("api.example.com", 443),)),
        ("tcp://scheduler", (("scheduler", 8786),)),
        ("local[2]", ()),
        ("yarn", ()),
    ],
)
def test_the_hosts_that_must_answer_are_known(address: str, places: tuple[tuple[str, int], ...]) -> None:
    assert places_of(address) == places
