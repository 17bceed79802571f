"""An Airflow connection is checked field by field before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.mlflow_client.settings import MlflowSettings, settings_from_connection


def read(extra: dict[str, Any] | None = None, **fields: Any) -> MlflowSettings:
    fields = {"host": "http://mlflow:5000", **fields}
    text = json.dumps(extra) if extra is not None else None
    return settings_from_connection(Connection(conn_id="c", conn_type="mlflow", extra=text, **fields))


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "https://mlflow.example.com/base/"}, "https://mlflow.example.com/base"),
        ({"host": "mlflow", "port": 5000}, "http://mlflow:5000"),
        ({"host": "mlflow", "port": 443, "schema": "https"}, "https://mlflow:443"),
        ({"host": "https://mlflow", "port": 8443}, "https://mlflow:8443"),
        ({"host": "http://mlflow:5000", "port": 5000, "schema": "http"}, "http://mlflow:5000"),
        ({"host": "::1", "port": 5000}, "http://[::1]:5000"),
        ({"host": "mlflow/base", "port": None}, "http://mlflow/base"),
    ],
)
def test_every_usual_way_to_write_the_address_gives_one_url(fields: dict[str, Any], url: str) -> None:
    settings = read(**fields)
    assert (settings.base_url, settings.ui_url) == (url, url)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": ""}, "host is missing"),
        ({"host": None}, "host is missing"),
        ({"host": "ftp://mlflow"}, r"host must be a URL .*; got 'ftp://mlflow'"),
        ({"host": "http://"}, "host must be a URL .*; got 'http://'"),
        ({"host": "http://mlflow:port"}, "host must be a URL"),
        ({"host": "http://mlflow?x=1"}, "host must be a URL"),
        ({"host": "http://ml flow"}, "host must be a URL"),
        ({"host": "https://mlflow", "schema": "http"}, "schema 'http' differs"),
        ({"host": "http://mlflow:1", "port": 2}, "port 2 differs"),
        ({"login": "ann"}, "password is missing"),
        ({"password": "pw-secret"}, "login is missing"),
    ],
)
def test_an_unusable_field_is_named_and_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        read(**fields)
    assert "connection 'c'" in str(caught.value)
    assert "pw-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"tokn": "s3cret"}, "every extra must be one of token, verify"),
        ({"token": 5}, "extra 'token' must be a string; got a value of type int; it is not shown"),
        ({"token": "Bearer s3cret"}, "white space"),
        ({"verify": "maybe"}, "extra 'verify' must be .*; got 'maybe'"),
        ({"verify": 1}, "extra 'verify' must be .*; got 1"),
        ({"verify": False, "ca_bundle": "/x"}, "'verify' is false"),
        ({"ca_bundle": "/no/such.pem"}, "must be the path of a readable PEM file"),
        ({"timeout": 0}, "extra 'timeout' must be a number from 0.1 to 3600; got 0"),
        ({"timeout": "soon"}, "extra 'timeout' must be .*; got 'soon'"),
        ({"timeout": True}, "extra 'timeout' must be .*; got True"),
        ({"timeout": "nan"}, "extra 'timeout' must be .*; got 'nan'"),
        ({"retries": -1}, "extra 'retries' must be .*; got -1"),
        ({"retries": 1.5}, "must be a whole number"),
        ({"workspace": "Team A"}, "extra 'workspace' must be lower-case letters, .*; got 'Team A'"),
        ({"ui_url": "mlflow.example.com"}, "extra 'ui_url' must be a URL"),
    ],
)
def test_an_unusable_extra_is_named_and_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        read(extra)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["{token", '["token"]'])
def test_an_extra_that_is_no_json_object_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="extra must be a JSON object") as caught:
        settings_from_connection(Connection(conn_id="c", conn_type="mlflow", host="m", extra=text))
    assert text not in str(caught.value)


def test_a_password_inside_the_host_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidArgumentError, match="contains a user or a password") as caught:
        read(host="https://ann:pw-secret@mlflow")
    assert "pw-secret" not in str(caught.value)


def test_token_and_login_together_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'token' and login/password are both set") as caught:
        read({"token": "s3cret"}, login="ann", password="pw-secret")
    assert not any(secret in str(caught.value) for secret in ("s3cret", "pw-secret"))


def test_extras_written_as_text_are_read_and_defaults_fill_the_rest(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    settings = read({"verify": "True", "timeout": "5", "retries": "2", "ca_bundle": str(bundle)})
    assert (settings.verify, settings.timeout, settings.retries) == (str(bundle), 5.0, 2)
    assert read({"verify": "false"}).verify is False
    plain = read()
    assert (plain.verify, plain.timeout, plain.retries, plain.secrets) == (True, 30.0, 5, ())


def test_secrets_are_not_in_the_repr() -> None:
    shown = repr(read({"token": "s3cret"})) + repr(read(login="ann", password="pw-secret"))
    assert "s3cret" not in shown
    assert "pw-secret" not in shown
