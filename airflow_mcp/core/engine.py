"""Engines: what profiles data in parts, and the addresses of clusters of Spark and Dask."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args
from urllib.parse import quote, urlsplit

from airflow_mcp.exceptions import InvalidArgumentError

Engine: TypeAlias = Literal["local", "spark", "dask"]
"""``local`` is the process of the step itself."""
ENGINES: tuple[Engine, ...] = get_args(Engine)
CONNECT_PORT, DASK_PORT = 15002, 8786
_SPARK_FORMS = "sc://host:15002 (Spark Connect), spark://host:7077, yarn, k8s://https://host:443 or local[N]"
_DASK_SCHEMES = ("tcp", "tls", "ws", "wss")


def public_engine_address(address: str) -> str:
    """Return an address without user, password and parameters, which may hold a token."""
    parts = urlsplit(address.removeprefix("k8s://"))
    if not parts.netloc:
        return address
    prefix = "k8s://" if address.startswith("k8s://") else ""
    return f"{prefix}{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def engine_address(name: str, engine: str, address: str) -> str:
    """Check the form of an address.

    :param name: what holds the address, for the message.
    :param engine: ``spark`` or ``dask``.
    :param address: address; of Dask also ``host:port``.
    :return: the address, with a scheme.
    :raises InvalidArgumentError: when it is not an address of this engine; the message does not show it.
    """
    scheme, separator, rest = address.partition("://")
    if engine == "dask":
        found = address if separator else f"tcp://{address}"
        if found.partition("://")[0] in _DASK_SCHEMES and urlsplit(found).hostname:
            return found
        expected = "tcp://host:8786, tls://host:8786 or host:port"
    else:
        is_remote = bool(separator) and scheme in ("sc", "spark", "k8s") and bool(rest)
        if is_remote or address in ("yarn", "local") or address.startswith(("local[", "local-cluster[")):
            return address
        expected = _SPARK_FORMS
    raise InvalidArgumentError(
        f"{name} must be an address of {engine}: {expected}; got a value that is not shown. Nothing was started"
    )


def plain_engine_address(name: str, engine: str, address: str) -> str:
    """Check an address that is shown to people, so it must hold no secret.

    :raises InvalidArgumentError: when it has a user, a password or parameters, or is not an address of this engine.
    """
    found = engine_address(name, engine, address)
    if public_engine_address(found) not in (found, found.rstrip("/")):
        raise InvalidArgumentError(
            f"{name} must have no user, token or parameter; got a value that is not shown. Put these into a connection "
            "and name it with engine_conn_id; on the command line, set AIRFLOW_MCP_ENGINE_ADDRESS. Nothing was started"
        )
    return found


def connect_address(host: str, port: int | None, login: str, password: str, *, use_ssl: bool) -> str:
    """Return the address of a Spark Connect server.

    :param host: host, or ``sc://host``.
    :param port: port; None takes the server's default.
    :param login: user ID; may be empty.
    :param password: token; may be empty. With one, the connection is encrypted.
    :param use_ssl: whether the connection is encrypted.
    """
    place = host.removeprefix("sc://").strip("/")
    place = place if port is None and ":" in place else f"{place}:{port or CONNECT_PORT}"
    given = {"user_id": login, "token": password, "use_ssl": "true" if use_ssl or password else ""}
    parameters = "".join(f";{name}={quote(value, safe='')}" for name, value in given.items() if value)
    return f"sc://{place}/{parameters}"


def places_of(address: str) -> tuple[tuple[str, int], ...]:
    """Return the hosts and ports of an address, one of which must answer; empty when it names none."""
    scheme, _, rest = address.partition("://")
    if not rest:
        return ()
    default = {"sc": CONNECT_PORT, "spark": 7077, "k8s": 443}.get(scheme, DASK_PORT)
    hosts = rest.removeprefix("https://").removeprefix("http://").partition("/")[0].rpartition("@")[2].split(",")
    found = (urlsplit(f"//{host}") for host in hosts)
    return tuple((part.hostname, part.port or default) for part in found if part.hostname)
