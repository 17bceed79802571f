"""Anchors of checkpoints by their addresses; credentials are in Airflow connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mcp.audit.anchors import FolderAnchor, GitAnchor, S3Anchor, StoreAnchor, TagAnchor
from airflow_mcp.core.argument import required_text
from airflow_mcp.exceptions import AnchorError, InvalidArgumentError, MlflowError
from airflow_mcp.hooks.git import GitRemote
from airflow_mcp.hooks.object_store import local_path

if TYPE_CHECKING:
    from airflow_mcp.audit.anchors import Anchor
    from airflow_mcp.mlflow_client.operations import MlflowOperations

_S3_EXTRAS = ("region_name", "endpoint_url")


def anchors_of(given: Sequence[Any], mlflow: MlflowOperations | None = None) -> list[Anchor]:
    """Return the anchors with these addresses.

    :param given: addresses, or mappings of ``uri`` and ``conn_id``: a folder, ``s3://bucket/prefix``,
        ``git+https://host/repository.git#branch``, ``mlflow:<registered model>``, or any address that Airflow's object
        storage opens.
    :param mlflow: the MLflow server, for ``mlflow:``.
    :raises InvalidArgumentError: when one is not usable; it names the address.
    """
    if isinstance(given, str) or not given:
        raise InvalidArgumentError(f"anchors must be a list with at least one address; got {given!r}")
    return [_anchor(each, mlflow) for each in given]


def _anchor(given: Any, mlflow: MlflowOperations | None) -> Anchor:
    fields = dict(given) if isinstance(given, Mapping) else {"uri": given}
    if unknown := sorted(fields.keys() - {"uri", "conn_id"}):
        raise InvalidArgumentError(f"an anchor must have uri and conn_id only; got {', '.join(unknown)}")
    uri, conn_id = required_text("uri of an anchor", fields.get("uri")), str(fields.get("conn_id") or "") or None
    if uri.startswith("mlflow:"):
        return _tag(uri.removeprefix("mlflow:"), mlflow)
    if uri.startswith("git+"):
        address = uri.removeprefix("git+").partition("#")[0]
        return GitAnchor(uri, GitRemote(address, conn_id).credentials) if conn_id else GitAnchor(uri)
    if uri.startswith("s3://"):
        return S3Anchor(uri, _s3_client(conn_id))
    if (path := local_path(uri)) is not None:
        if not path.is_absolute():
            raise InvalidArgumentError(f"the folder of an anchor must be an absolute path; got {uri!r}")
        return FolderAnchor(str(path))
    return StoreAnchor(uri, lambda place: _opened(place, conn_id))


def _tag(model_name: str, mlflow: MlflowOperations | None) -> Anchor:
    if mlflow is None or not model_name:
        raise InvalidArgumentError(f"anchor mlflow:{model_name} must name a registered model of an MLflow server")

    def read() -> Mapping[str, str]:
        try:
            return mlflow.get_registered_model(model_name).tags
        except MlflowError as error:
            raise AnchorError(f"mlflow:{model_name} cannot be read: {error}") from error

    def write(name: str, value: str) -> None:
        try:
            mlflow.set_registered_model_tag(model_name, name, value)
        except MlflowError as error:
            raise AnchorError(f"mlflow:{model_name} cannot be written: {error}") from error

    return TagAnchor(model_name, read, write)


def _s3_client(conn_id: str | None) -> dict[str, Any]:
    """Return how the client of S3 is made: by the connection, or as the machine is set up."""
    if conn_id is None:
        return {}
    from airflow.sdk import BaseHook  # noqa: PLC0415  (the command line works without Airflow)

    connection = BaseHook.get_connection(conn_id)
    extra = connection.extra_dejson
    client = {name: extra[name] for name in _S3_EXTRAS if extra.get(name)}
    if connection.login:
        client |= {"aws_access_key_id": connection.login, "aws_secret_access_key": connection.password or ""}
    return client


def _opened(uri: str, conn_id: str | None) -> tuple[Any, str]:
    from airflow.sdk import ObjectStoragePath  # noqa: PLC0415  (takes time, and few anchors need it)

    path = ObjectStoragePath(uri, conn_id=conn_id)
    return path.fs, path.path
