"""Where an audit log is and who reads or writes it: from an Airflow connection or a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_mcp.core.argument import ENVIRONMENTS
from airflow_mcp.exceptions import InvalidArgumentError

EXTRAS = ("sslmode", "sslrootcert", "environment", "sqlite_path")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class ConnectionFields(Protocol):
    """The fields of an Airflow connection that are read."""

    conn_id: str
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra fields."""


@dataclass(frozen=True)
class AuditSettings:
    """A database of PostgreSQL, or a file of SQLite."""

    environment: str = "dev"
    """Environment that events are recorded with."""
    sqlite_path: str = ""
    """Absolute path of the file; empty for PostgreSQL."""
    host: str = ""
    port: int = 5432
    database: str = ""
    login: str = ""
    password: str = field(default="", repr=False)
    ssl: Mapping[str, str] = field(default_factory=dict)
    """``sslmode`` and ``sslrootcert`` as PostgreSQL's client library takes them."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.environment not in ENVIRONMENTS:
            raise InvalidArgumentError(f"environment must be one of dev, test, prod; got {self.environment!r}")
        if self.sqlite_path:
            if self.environment == "prod":
                raise InvalidArgumentError(
                    "sqlite_path must not be used in environment prod: whoever owns the file can change the log. "
                    f"Use PostgreSQL; got {self.sqlite_path!r}"
                )
            if not self.sqlite_path.startswith("/"):
                raise InvalidArgumentError(f"sqlite_path must be an absolute path; got {self.sqlite_path!r}")
        elif not (self.host and self.database and self.login):
            raise InvalidArgumentError(
                "an audit log in PostgreSQL must have host, database and login; got "
                f"{self.host!r}, {self.database!r}, {self.login!r}"
            )
        if (mode := self.ssl.get("sslmode", "prefer")) not in _SSL_MODES:
            raise InvalidArgumentError(f"sslmode must be one of {', '.join(_SSL_MODES)}; got {mode!r}")

    @property
    def name(self) -> str:
        """The store, for messages; without a credential."""
        return self.sqlite_path or f"{self.login}@{self.host}:{self.port}/{self.database}"


def settings_from_connection(connection: ConnectionFields, environment: str) -> AuditSettings:
    """Read the fields of an Airflow connection of type ``audit_log``.

    :param connection: the connection.
    :param environment: environment when the connection names none.
    :raises InvalidArgumentError: naming the connection and the field, when one of them is not usable.
    """
    extra = connection.extra_dejson
    if unknown := sorted(set(extra) - set(EXTRAS)):
        raise InvalidArgumentError(
            f"connection {connection.conn_id!r}: extra must have the keys {', '.join(EXTRAS)} only; got "
            f"{', '.join(unknown)}"
        )
    try:
        return AuditSettings(
            environment=str(extra.get("environment") or environment),
            sqlite_path=str(extra.get("sqlite_path") or ""),
            host=connection.host or "",
            port=connection.port or 5432,
            database=connection.schema or "",
            login=connection.login or "",
            password=connection.password or "",
            ssl={key: str(extra[key]) for key in ("sslmode", "sslrootcert") if extra.get(key)},
        )
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"connection {connection.conn_id!r}: {error}") from None


def settings_from_url(url: str, environment: str) -> AuditSettings:
    """Read ``postgresql://login:password@host:port/database?sslmode=require`` or ``sqlite:///absolute/path``.

    :param url: the URL.
    :param environment: environment that events are recorded with.
    :raises InvalidArgumentError: when it is neither; the URL is not repeated, because it may hold a password.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    try:
        port = parts.port or 5432
    except ValueError:
        port = 0
    if parts.scheme == "sqlite" and not parts.netloc:
        return AuditSettings(environment=environment, sqlite_path=unquote(parts.path))
    if parts.scheme != "postgresql" or not port or set(query) - {"sslmode", "sslrootcert"}:
        raise InvalidArgumentError(
            "the audit log must be postgresql://login:password@host:port/database, with at most sslmode and "
            "sslrootcert after a question mark, or sqlite:///absolute/path; got a value that is not shown"
        )
    return AuditSettings(
        environment=environment,
        host=parts.hostname or "",
        port=port,
        database=unquote(parts.path.removeprefix("/")),
        login=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        ssl=query,
    )
