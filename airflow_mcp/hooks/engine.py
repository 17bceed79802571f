"""The address of a cluster of Spark or Dask, from an Airflow connection."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mcp.core.engine import Engine, connect_address, engine_address
from airflow_mcp.exceptions import InvalidArgumentError


def read_engine_address(engine: Engine, conn_id: str | None = None) -> str:
    """Read the address of a cluster; Airflow's provider for Spark need not be installed.

    :param engine: ``spark`` or ``dask``.
    :param conn_id: connection; None takes ``spark_default`` or ``dask_default``. For Spark its type is ``spark`` (host:
        the master) or ``spark_connect`` (login: user ID, password: token, extra ``use_ssl``), as in Airflow's provider.
        For Dask any type will do, with the host and port of the scheduler.
    :return: the address; it may hold a token, which is masked in the task's log from now on.
    :raises InvalidArgumentError: when there is no such connection, or it has no address of this engine.
    """
    name = conn_id or f"{engine}_default"
    try:
        connection: Connection = Connection.get(name)
    except AirflowNotFoundException:
        raise InvalidArgumentError(
            f"engine {engine!r} needs the connection {name!r}, which does not exist. Create it, or name another with "
            "engine_conn_id. Nothing was started"
        ) from None
    if not connection.host:
        raise InvalidArgumentError(
            f"connection {name!r} must have a host, the address of {engine}; got none. Nothing was started"
        )
    if connection.password:
        mask_secret(connection.password)
    return engine_address(f"connection {name!r}", engine, _address(engine, connection))


def _address(engine: Engine, connection: Connection) -> str:
    host, port = str(connection.host), connection.port
    if engine == "spark" and (connection.conn_type == "spark_connect" or host.startswith("sc://")):
        return connect_address(
            host, port, connection.login or "", connection.password or "", use_ssl=_uses_ssl(connection.extra_dejson)
        )
    place = f"{host}:{port}" if port else host
    if engine == "spark" and port and "://" not in host:  # from a connection that is written as an address
        return f"spark://{place}"
    return place


def _uses_ssl(extra: Any) -> bool:
    return isinstance(extra, dict) and str(extra.get("use_ssl", "")).lower() in ("true", "1")
