"""One object of Kubernetes that decides where requests go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.exceptions import InvalidArgumentError


class RoutingObject:
    """One object, read again before each change, so that a change of somebody else is never overwritten.

    :param cluster: its namespace.
    :param api_version: its API.
    :param kind: its kind.
    :param name: its name.
    """

    def __init__(self, cluster: ClusterObjects, api_version: str, kind: str, name: str) -> None:
        self._cluster, self._api_version, self._kind, self._name = cluster, api_version, kind, name

    def __str__(self) -> str:
        """Return kind, name and namespace."""
        return f"{self._kind} {self._name} in namespace {self._cluster.namespace!r}"

    def read(self) -> dict[str, Any]:
        """Return the object.

        :raises InvalidArgumentError: when there is none.
        :raises ClusterUnreachableError: when Kubernetes does not answer, or refuses the right.
        """
        found = self._cluster.find(self._api_version, self._kind, self._name)
        if found is None:
            raise InvalidArgumentError(f"router: there is no {self}. Nothing was changed; create it first")
        return found

    def change(self, found: Mapping[str, Any], patch: Mapping[str, Any], *, subresource: str = "") -> None:
        """Change the object, unless somebody else has since it was read.

        :param found: the object as it was read.
        :param patch: JSON merge patch: fields to change; lists are replaced as a whole.
        :param subresource: ``status``, or empty.
        :raises ManifestRefusedError: when somebody else has changed it, or Kubernetes refuses the change.
        """
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        body = {**patch, "metadata": version}
        self._cluster.merge(self._api_version, self._kind, self._name, body, subresource=subresource)
