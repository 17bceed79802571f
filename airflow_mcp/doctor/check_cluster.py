"""The doctor's checks of a Kubernetes cluster: connection, namespace and rights."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_mcp.cluster.client import Cluster
from airflow_mcp.core.doctor.cluster_rights import RIGHTS, judge_rights
from airflow_mcp.core.doctor.diagnosis import Diagnosis
from airflow_mcp.exceptions import ClusterUnreachableError


def check_cluster(cluster: Cluster) -> Iterator[Diagnosis]:
    """Check a cluster and the rights in one namespace.

    :param cluster: the cluster.
    :return: findings as they arise; the first one is whether the cluster answers.
    """
    try:
        yield Diagnosis("cluster", "ok", f"{cluster.server} answers, Kubernetes {cluster.version()}")
        exists = cluster.namespace_exists()
        if exists is False:
            yield Diagnosis(
                "namespace",
                "problem",
                f"{cluster.namespace!r} does not exist",
                f"kubectl create namespace {cluster.namespace}",
            )
            return
        says = "exists" if exists else "these credentials may not read it, and need not"
        yield Diagnosis("namespace", "ok", f"{cluster.namespace!r} {says}")
        allowed = {
            (resource, verb): cluster.may(verb, resource) for resource, verbs in RIGHTS.items() for verb in verbs
        }
        yield from judge_rights(allowed, cluster.namespace)
    except ClusterUnreachableError as error:
        yield Diagnosis("cluster", "problem", str(error), "check kubeconfig, context and network: kubectl version")
