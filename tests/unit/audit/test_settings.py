"""Where the log is: connections and URLs, and what is refused without showing a password."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mcp.audit.settings import AuditSettings, settings_from_connection, settings_from_url
from airflow_mcp.audit.sqlite import SqliteAuditLog
from airflow_mcp.audit.stores import create_log, open_log
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.audit.log import created
from airflow_mcp.exceptions import InvalidArgumentError


def connection(**fields: Any) -> Any:
    extra = fields.pop("extra", {})
    known = {"conn_id": "audit", "host": "db", "port": None, "schema": "audit", "login": "me", "password": "hidden"}
    return SimpleNamespace(**known | fields, extra_dejson=extra)


def test_a_connection_is_read() -> None:
    found = settings_from_connection(connection(extra={"sslmode": "require", "environment": "prod"}), "dev")
    assert found == AuditSettings("prod", "", "db", 5432, "audit", "me", "hidden", {"sslmode": "require"})
    assert found.name == "me@db:5432/audit"
    assert "hidden" not in repr(found)


def test_a_url_is_read() -> None:
    found = settings_from_url("postgresql://me:hid%40den@db:6000/audit?sslmode=verify-full", "test")
    assert found == AuditSettings("test", "", "db", 6000, "audit", "me", "hid@den", {"sslmode": "verify-full"})
    assert settings_from_url("sqlite:///tmp/a.db", "dev").sqlite_path == "/tmp/a.db"


def test_sqlite_is_taken_where_it_is_allowed() -> None:
    log = open_log(settings_from_connection(connection(extra={"sqlite_path": "/tmp/a.db"}), "dev"))
    assert isinstance(log, SqliteAuditLog)
    assert log.name == "/tmp/a.db"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"extra": {"sqlite_path": "/a.db", "environment": "prod"}},
            "sqlite_path must not be used in environment prod",
        ),
        ({"extra": {"sqlite_path": "a.db"}}, "absolute path; got 'a.db'"),
        ({"extra": {"sslmode": "on"}}, "sslmode must be one of"),
        ({"extra": {"ssl": "on"}}, "extra must have the keys"),
        ({"extra": {"environment": "live"}}, "environment must be one of"),
        ({"login": ""}, "must have host, database and login"),
        ({"host": None}, "must have host, database and login"),
    ],
)
def test_a_wrong_connection_is_named(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"connection 'audit': .*{problem}") as refused:
        settings_from_connection(connection(**fields), "dev")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["mysql://a:hidden@b/c", "postgresql://a:hidden@b:x/c", "postgresql://a:hidden@b/c?x=1", "sqlite://b/c"]
)
def test_a_wrong_url_is_not_shown(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="the audit log must be") as refused:
        settings_from_url(url, "dev")
    assert "hidden" not in str(refused.value)


def test_sqlite_has_no_logins() -> None:
    settings = AuditSettings(sqlite_path="/tmp/a.db")
    with pytest.raises(InvalidArgumentError, match="PostgreSQL only"):
        create_log(settings, created(AuditActor("cli", "me"), "dev"), {"me": ("gate.",)})


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    log = open_log(AuditSettings(host="db", database="audit", login="me"))
    with pytest.raises(InvalidArgumentError, match=r"pip install 'airflow-mcp\[audit\]'"):
        log.facts("log")
