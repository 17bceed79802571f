"""Values of Airflow connections for a workload's environment: what is read, refused, and never shown."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from airflow.sdk.log import redact

from airflow_mcp.core.workload.connection_values import connection_values
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.connection_values import read_connection_values

WAREHOUSE = {
    "conn_type": "postgres",
    "login": "reader",
    "password": "pass-word-1",
    "host": "db.example.com",
    "port": 5432,
    "schema": "sales",
    "extra": {"role": "analyst-role", "a.b": "dotted", "nested": {"x": 1}, "flag": False, "empty": ""},
}


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for conn_id in ("warehouse", "team.warehouse"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(WAREHOUSE))


def read(reference: Any) -> str:
    return read_connection_values(connection_values({"VALUE": reference}))["VALUE"]


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("warehouse.login", "reader"),
        ("warehouse.password", "pass-word-1"),
        ("warehouse.host", "db.example.com"),
        ("warehouse.port", "5432"),
        ("warehouse.schema", "sales"),
        ("warehouse.extra.role", "analyst-role"),
        ("warehouse.extra.a.b", "dotted"),
        ("warehouse.extra.flag", "False"),
        ("team.warehouse.password", "pass-word-1"),
    ],
)
def test_every_field_and_key_can_be_read(reference: str, value: str) -> None:
    assert read(reference) == value


def test_the_uri_holds_everything() -> None:
    uri = read("warehouse.uri")
    assert uri.startswith("postgres://reader:pass-word-1@db.example.com:5432/sales?")


def test_several_values_of_several_connections_are_read_at_once() -> None:
    given = {"A": "warehouse.login", "B": "team.warehouse.password", "C": "warehouse.port"}
    assert read_connection_values(connection_values(given)) == {"A": "reader", "B": "pass-word-1", "C": "5432"}
    assert read_connection_values(connection_values(None)) == {}


@pytest.mark.parametrize(
    "reference", ["warehouse", "warehouse.", ".password", "warehouse.passwd", "warehouse.extra.", "", 7]
)
def test_a_reference_that_cannot_be_read_is_refused_without_repeating_it(reference: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"VALUE must be '<connection>\.<field>'") as caught:
        connection_values({"VALUE": reference})
    if reference and isinstance(reference, str):
        assert f"'{reference}'" not in str(caught.value)


@pytest.mark.parametrize("variable", ["", "1ST", "WITH-DASH", "A B", 7])
def test_what_is_no_name_of_a_variable_is_refused(variable: Any) -> None:
    with pytest.raises(
        InvalidArgumentError,
        match=re.escape(
            f"connection_env must map names of variables (letters, digits and _, no digit first); got {variable!r}"
        ),
    ):
        connection_values({variable: "warehouse.login"})


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nowhere.password", "VALUE needs nowhere.password, but there is no connection 'nowhere'"),
        ("warehouse.extra.typo", "extra key 'typo' of connection 'warehouse' is empty or missing"),
        ("warehouse.extra.empty", "extra key 'empty' of connection 'warehouse' is empty or missing"),
        ("warehouse.extra.nested", "extra key 'nested' of connection 'warehouse' is an object or a list"),
    ],
)
def test_a_missing_connection_or_field_is_named(reference: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(says)):
        read(reference)


def test_an_empty_field_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BARE", '{"conn_type": "http"}')
    with pytest.raises(InvalidArgumentError, match="field 'password' of connection 'bare' is empty or missing"):
        read("bare.password")


@pytest.mark.parametrize("extra", ['"a text"', "[1]", "no JSON"])
def test_an_extra_that_is_no_object_has_no_keys(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps({"conn_type": "http", "extra": extra}))
    with pytest.raises(InvalidArgumentError, match="extra key 'key' of connection 'odd' is empty or missing"):
        read("odd.extra.key")


def test_values_are_registered_with_airflows_masker(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"harmless_name": "value-to-be-masked"}
    monkeypatch.setenv("AIRFLOW_CONN_MASKED", json.dumps({"conn_type": "http", "extra": extra}))
    assert read("masked.extra.harmless_name") == "value-to-be-masked"
    assert "value-to-be-masked" not in str(redact("a line with value-to-be-masked"))
