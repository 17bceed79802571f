"""Hook for model servers: where all replicas of one answer."""

from __future__ import annotations

from airflow.sdk import BaseHook, Connection

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.replica_metrics import DEFAULT_PORT, ReplicaAddresses, ReplicaText, read_addresses


class ServingHook(BaseHook):
    """Read what every replica of a model server counts.

    :param serving_conn_id: id of a connection of type ``model_server``.
    """

    conn_name_attr = "serving_conn_id"
    default_conn_name = "model_server_default"
    conn_type = "model_server"
    hook_name = "Model server"

    def __init__(self, serving_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.serving_conn_id = serving_conn_id

    async def read(self, path: str = "/metrics") -> list[ReplicaText]:
        """Return the metrics, or another page, of every replica.

        :param path: path of the page.

        :raises InvalidArgumentError: when a field of the connection is not usable.
        :raises ServerUnreachableError: when a replica does not answer.
        """
        return await addresses_of(await self.aget_connection(self.serving_conn_id)).read(path)


def addresses_of(connection: Connection) -> ReplicaAddresses:
    """Return where the replicas of a connection answer.

    :param connection: a connection of type ``model_server``.
    :raises InvalidArgumentError: when a field is not usable.
    """
    extra = connection.extra_dejson
    scheme, timeout = connection.schema or "http", extra.get("timeout", ReplicaAddresses.timeout)
    verify = extra.get("ca_bundle") or extra.get("verify", True)
    where = f"connection {connection.conn_id!r}"
    if scheme not in ("http", "https"):
        raise InvalidArgumentError(f"schema of {where} must be one of http, https; got {scheme!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 60:
        raise InvalidArgumentError(f"extra timeout of {where} must be seconds, at most 60; got {timeout!r}")
    if not isinstance(verify, bool | str):
        raise InvalidArgumentError(f"extra verify of {where} must be true or false; got {verify!r}")
    hosts = read_addresses(connection.host or "", connection.port or DEFAULT_PORT)
    return ReplicaAddresses(hosts, scheme, verify, float(timeout))
