"""Address and credentials of an MLflow server, read and checked from an Airflow connection of type ``mlflow``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit, urlunsplit

from airflow_mcp.core.argument import ENVIRONMENTS
from airflow_mcp.exceptions import InvalidArgumentError

EXTRA_FIELDS = (
    "token",
    "verify",
    "ca_bundle",
    "timeout",
    "retries",
    "ui_url",
    "workload_url",
    "workspace",
    "environment",
)
DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRIES = 5
MAX_RETRIES = 20
MAX_TIMEOUT = 3600.0
COMMAND_LINE = "command line"
"""In place of a connection's id, for settings from MLflow's environment variables."""
_VARIABLES = {
    "login and password": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "token": "MLFLOW_TRACKING_TOKEN",
    "ca_bundle": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "workspace": "MLFLOW_WORKSPACE",
}
_WORKSPACE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class ConnectionFields(Protocol):
    """The fields of an Airflow connection that are read."""

    @property
    def conn_id(self) -> str: ...
    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def schema(self) -> str | None: ...
    @property
    def login(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def extra(self) -> str | None: ...


@dataclass(frozen=True)
class MlflowSettings:
    """Everything a driver needs; secrets are not in its ``repr``."""

    conn_id: str
    base_url: str
    """Address of the server without user, password and trailing slash."""
    ui_url: str
    """Address that people's browsers use, for links."""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    verify: bool | str = True
    """Whether certificates are checked, or the path of the CA bundle to check them with."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds without any data from the server before a request is given up."""
    retries: int = DEFAULT_RETRIES
    """How often a repeatable request is repeated."""
    backoff: float = 0.5
    """Seconds before the first repetition; doubles with every repetition."""
    workload_url: str = ""
    """Address that workloads use, because pods may need another one. Empty: the server's address."""
    workspace: str = ""
    """Workspace of the server; empty is the server's default."""
    environment: str = ""
    """Environment that its models belong to: dev, test or prod; empty where the connection says nothing."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must never be shown."""
        return tuple(value for value in (self.password, self.token) if value)

    @property
    def is_command_line(self) -> bool:
        """Whether the settings are from a command's options and MLflow's environment variables."""
        return self.conn_id == COMMAND_LINE

    @property
    def source(self) -> str:
        """Where the settings are from, for messages."""
        return "the command line" if self.is_command_line else f"connection {self.conn_id!r}"

    def where(self, field: str) -> str:
        """Return where a field is set, for messages.

        :param field: ``login and password``, or the name of an extra.
        """
        if self.is_command_line:
            return _VARIABLES[field]
        return field if field == "login and password" else f"extra {field!r}"


def settings_from_connection(connection: ConnectionFields) -> MlflowSettings:
    """Check an Airflow connection of type ``mlflow`` and return it as settings.

    :param connection: host is a full URL (``https://mlflow.example.com/base``), or a bare host with ``port`` and
        ``schema`` (``http``, the default, or ``https``); login and password are for basic authentication; extras:
        ``token`` (bearer), ``verify`` (bool), ``ca_bundle`` (path), ``timeout`` (seconds), ``retries``, ``ui_url``,
        ``workload_url``, ``workspace``, ``environment`` (dev, test or prod).
    :return: the settings.
    :raises InvalidArgumentError: naming the field, its value unless it may be secret, and the allowed values.
    """
    reader = _Reader(connection.conn_id, _read_extra(connection))
    base_url = _base_url(connection, reader)
    token = reader.text("token")
    username, password = connection.login or "", connection.password or ""
    if token and (username or password):
        reader.refuse("extra 'token' and login/password are both set", "set only one of them")
    if bool(username) != bool(password):
        missing = "password" if username else "login"
        reader.refuse(f"{missing} is missing", "basic authentication needs login and password, or leave both empty")
    if any(character in token for character in "\r\n \t"):
        reader.refuse("extra 'token' contains white space", "set the bare token, without 'Bearer '")
    return MlflowSettings(
        conn_id=connection.conn_id,
        base_url=base_url,
        ui_url=reader.url("ui_url") or base_url,
        workload_url=reader.url("workload_url") or base_url,
        username=username,
        password=password,
        token=token,
        verify=reader.verify(),
        timeout=reader.number("timeout", DEFAULT_TIMEOUT, 0.1, MAX_TIMEOUT),
        retries=reader.whole("retries", DEFAULT_RETRIES, 0, MAX_RETRIES),
        workspace=reader.workspace(),
        environment=reader.environment(),
    )


def settings_from_environment(environment: Mapping[str, str], tracking_uri: str = "") -> MlflowSettings:
    """Read address and credentials from the same environment variables as MLflow's own tools.

    :param environment: environment variables.
    :param tracking_uri: takes precedence over ``MLFLOW_TRACKING_URI``.
    :raises InvalidArgumentError: when it is not an HTTP address.
    """
    url = (tracking_uri or environment.get("MLFLOW_TRACKING_URI", "")).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise InvalidArgumentError(
            f"--tracking-uri must be the http:// or https:// address of an MLflow server; got {url!r}. Pass the option "
            "or set MLFLOW_TRACKING_URI"
        )
    return MlflowSettings(
        COMMAND_LINE,
        url,
        url,
        retries=1,
        username=environment.get("MLFLOW_TRACKING_USERNAME", ""),
        password=environment.get("MLFLOW_TRACKING_PASSWORD", ""),
        token=environment.get("MLFLOW_TRACKING_TOKEN", ""),
        verify=environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
        or environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() != "true",
        workspace=environment.get("MLFLOW_WORKSPACE", "").strip(),
    )


def _read_extra(connection: ConnectionFields) -> Mapping[str, Any]:
    where = f"connection {connection.conn_id!r}"
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        raise InvalidArgumentError(
            f"{where}: extra must be a JSON object with {', '.join(EXTRA_FIELDS)}; got text that is not JSON"
        ) from None
    if not isinstance(extra, dict):
        raise InvalidArgumentError(
            f"{where}: extra must be a JSON object with {', '.join(EXTRA_FIELDS)}; got another JSON value"
        )
    if unknown := sorted(set(extra) - set(EXTRA_FIELDS)):
        raise InvalidArgumentError(
            f"{where}: every extra must be one of {', '.join(EXTRA_FIELDS)}; got {', '.join(map(repr, unknown))}"
        )
    return extra


def _base_url(connection: ConnectionFields, reader: _Reader) -> str:
    host = (connection.host or "").strip()
    if not host:
        reader.refuse("host is missing", "set it to the URL of the MLflow server, for example http://mlflow:5000")
    scheme = (connection.schema or "").strip().lower()
    if "://" not in host:
        bare = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
        host = f"{scheme or 'http'}://{bare}"
    elif scheme and scheme != host.split("://", 1)[0].lower():
        reader.refuse(f"schema {scheme!r} differs from that of the host", "leave the schema empty")
    url = reader.split_url("host", host)
    if connection.port and url.port is None:
        url = url._replace(netloc=f"{url.netloc}:{connection.port}")
    elif connection.port and url.port != connection.port:
        reader.refuse(f"port {connection.port} differs from that of the host", "leave the port empty")
    return urlunsplit(url).rstrip("/")


def public_address(url: str) -> str:
    """Return a URL without user, password, query and fragment, which may hold credentials."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class _Reader:
    """Reader of the extras of one connection; its errors name the connection and the field."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any]) -> None:
        self._conn_id = conn_id
        self._extra = extra

    def refuse(self, problem: str, advice: str) -> None:
        raise InvalidArgumentError(f"connection {self._conn_id!r}: {problem}; {advice}. No request was sent")

    def refuse_value(self, name: str, expected: str, value: object) -> None:
        raise InvalidArgumentError(
            f"connection {self._conn_id!r}: {name} must be {expected}; got {value!r}. No request was sent"
        )

    def text(self, name: str) -> str:
        value = self._extra.get(name)
        if value is not None and not isinstance(value, str):
            self.refuse(
                f"extra {name!r} must be a string; got a value of type {type(value).__name__}", "it is not shown"
            )
        return str(value or "").strip()

    def url(self, name: str) -> str:
        value = self.text(name)
        return urlunsplit(self.split_url(f"extra {name!r}", value)).rstrip("/") if value else ""

    def split_url(self, name: str, value: str) -> SplitResult:
        expected = "a URL like https://mlflow.example.com/base"
        try:
            url = urlsplit(value)
            port_is_fine = url.port is None or url.port > 0
        except ValueError:
            url, port_is_fine = SplitResult("", "", "", "", ""), False
        if url.username is not None or "@" in value:
            self.refuse(
                f"{name} contains a user or a password (not shown)", "set login and password of the connection instead"
            )
        is_fine = port_is_fine and url.scheme in ("http", "https") and bool(url.hostname)
        if not is_fine or url.query or url.fragment or any(character.isspace() for character in value):
            self.refuse_value(name, expected, value)
        return url

    def workspace(self) -> str:
        value = self.text("workspace")
        if value and not _WORKSPACE.fullmatch(value):
            self.refuse_value("extra 'workspace'", "lower-case letters, digits and '-', as MLflow allows", value)
        return value

    def environment(self) -> str:
        value = self.text("environment")
        if value and value not in ENVIRONMENTS:
            self.refuse_value("extra 'environment'", f"one of {', '.join(ENVIRONMENTS)}", value)
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self._extra.get(name)
        if value is None or value == "":
            return default
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high:
            self.refuse_value(f"extra {name!r}", f"a number from {low:g} to {high:g}", value)
        return number

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        number = self.number(name, default, low, high)
        if number != int(number):
            self.refuse_value(f"extra {name!r}", f"a whole number from {low} to {high}", number)
        return int(number)

    def verify(self) -> bool | str:
        value = self._extra.get("verify")
        known = {"true": True, "false": False, "none": True, "": True}
        word = str(value).strip().lower()
        if word not in known or not isinstance(value, bool | str | None):
            self.refuse_value("extra 'verify'", "true or false (a path belongs in 'ca_bundle')", value)
        bundle = self.text("ca_bundle")
        if not bundle:
            return known[word]
        if not known[word]:
            self.refuse("extra 'ca_bundle' is set but 'verify' is false", "set only one of them")
        if not Path(bundle).is_file():
            self.refuse_value("extra 'ca_bundle'", "the path of a readable PEM file", bundle)
        return bundle
