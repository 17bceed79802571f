"""Audit logs for the tests: a database or a file of their own, with one login for each right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airflow_mcp.audit.postgresql import connect
from airflow_mcp.audit.settings import AuditSettings, settings_from_url
from airflow_mcp.audit.stores import create_log
from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id
from airflow_mcp.core.audit.log import created

ACTOR = AuditActor("user", "lena", via="tests")
RIGHTS = {
    "mcp_release": (
        *("registry.", "promotion.", "access.", "rollout.", "deployment.", "approval.", "delegation."),
        *("version.copied", "audit.reconciled"),
    ),
    "mcp_train": ("gate.", "version.", "passport."),
    # Of an Airflow whose tasks all share one connection.
    "mcp_worker": (
        *("gate.", "load_check.", "retrain.", "version.", "passport."),
        *("registry.", "promotion.", "access.", "approval."),
    ),
    "mcp_policy": ("policy.",),
    "mcp_people": ("audit.read", "access.refused", "approval.withdrawn", "delegation."),
    "mcp_reader": ("audit.read", "access.refused"),
    "mcp_keeper": ("audit.",),
}


def moved(number: int | str, *, subject: str = "model:fraud", action: str = "registry.moved") -> AuditEvent:
    """Return an event; equal numbers give the same event."""
    name = event_id(action, subject, number)
    return AuditEvent(name, action, subject, "dev", ACTOR, new={"champion": str(number)})


def new_key() -> tuple[bytes, bytes]:
    """Return a new key pair as PEM: private, public."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


class Logs:
    """One log, as each login sees it.

    :param owner: settings of the superuser, or of the file.
    """

    def __init__(self, owner: AuditSettings) -> None:
        self.owner = owner
        self.is_postgresql = not owner.sqlite_path

    def as_login(self, login: str) -> AuditSettings:
        """Return the settings of a login; SQLite has none."""
        return replace(self.owner, login=login) if self.is_postgresql else self.owner

    def url(self, login: str) -> str:
        """Return the address for ``AIRFLOW_MCP_AUDIT_LOG`` with a login; SQLite has none."""
        settings = self.as_login(login)
        if not self.is_postgresql:
            return f"sqlite://{settings.sqlite_path}"
        return f"postgresql://{login}@{settings.host}:{settings.port}/{settings.database}"

    def sql(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a statement as the owner of the database, or of the file; PostgreSQL's placeholders."""
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            if self.is_postgresql:
                cursor.execute(statement, values)
            else:
                cursor.execute(statement.replace("airflow_mcp_audit.", "").replace("%s", "?"), values)
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
            return rows

    def _connect(self) -> Any:
        if self.is_postgresql:
            return connect(self.owner)
        import sqlite3

        return sqlite3.connect(self.owner.sqlite_path)


def sqlite_logs(folder: Path) -> Logs:
    """Return a new log in a file."""
    settings = AuditSettings(sqlite_path=str(folder / "audit" / "log.db"))
    assert create_log(settings, created(ACTOR, "dev"), {})
    return Logs(settings)


@contextlib.contextmanager
def postgresql_logs(uri: str) -> Iterator[Logs]:
    """Yield a new log in a database of its own.

    :param uri: the server, with a superuser.
    """
    server = settings_from_url(uri.replace("+psycopg2", ""), "dev")
    database = f"audit_{uuid4().hex[:12]}"
    with closing(connect(server)) as connection:
        cursor = connection.cursor()
        cursor.execute(f"CREATE DATABASE {database}")
        for login in RIGHTS:
            cursor.execute(
                f"DO $$ BEGIN CREATE ROLE {login} LOGIN; "
                "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
            )
        logs = Logs(replace(server, database=database))
        assert create_log(logs.owner, created(ACTOR, "dev"), RIGHTS)
        try:
            yield logs
        finally:
            cursor.execute(f"DROP DATABASE {database} WITH (FORCE)")
