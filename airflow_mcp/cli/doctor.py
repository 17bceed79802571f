"""``airflow-mcp doctor``: problems of MLflow, cluster and image, and what to do about them."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from airflow_mcp.cli.audit_finding import anchor_finding, audit_finding, policy_finding
from airflow_mcp.cli.options import add_cluster, add_format, add_tracking_uri, mlflow_settings
from airflow_mcp.cluster.client import Cluster, connect
from airflow_mcp.core.doctor.diagnosis import Diagnosis, as_json, as_text, worst
from airflow_mcp.core.workload.sweep import parse_age
from airflow_mcp.doctor.check_cluster import check_cluster
from airflow_mcp.doctor.check_mlflow import check_mlflow, server_version
from airflow_mcp.doctor.check_pod import PodCheck, check_pod
from airflow_mcp.exceptions import InvalidArgumentError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments: what to check, and the format of the findings."""
    add_tracking_uri(command)
    add_cluster(command)
    command.add_argument("--image", default="", help="start a pod with this image and check it inside")
    command.add_argument("--from-pod", action="store_true", help="connect to MLflow from that pod too; needs --image")
    command.add_argument("--pod-tracking-uri", default="", help="address of MLflow for pods; default: --tracking-uri")
    command.add_argument("--image-pull-secret", action="append", default=[], help="Secret to pull the image with")
    command.add_argument("--service-account", help="service account of the pod")
    command.add_argument("--timeout", default="120s", help="time within which the pod must report; default: 120s")
    command.add_argument("--no-cluster", action="store_true", help="check MLflow only")
    add_format(command)


def run(parsed: argparse.Namespace) -> int:
    """Check MLflow, then the cluster, then a pod; return 1 if there is a problem, otherwise 0."""
    settings, timeout = mlflow_settings(parsed.tracking_uri), parse_age("--timeout", parsed.timeout)
    if parsed.from_pod and not parsed.image:
        raise InvalidArgumentError("--from-pod needs --image, the image to start the pod with")
    findings = list(check_mlflow(settings))
    mlflow_answers = findings[0].level == "ok"
    findings.append(audit_finding(settings if mlflow_answers else None))
    findings += filter(None, (policy_finding(), anchor_finding()))
    cluster = None if parsed.no_cluster else _cluster(parsed)
    if isinstance(cluster, Diagnosis):
        findings.append(cluster)
    elif cluster is not None:
        seen = list(check_cluster(cluster))
        findings += seen
        if parsed.image and not any(
            item.level == "problem" for item in seen if item.subject in ("cluster", "namespace")
        ):
            url = (parsed.pod_tracking_uri.rstrip("/") or settings.base_url) if parsed.from_pod else ""
            secrets = tuple(parsed.image_pull_secret)
            check = PodCheck(parsed.image, url, timeout.total_seconds(), parsed.service_account, secrets)
            findings += check_pod(cluster, check, server_version(settings) if mlflow_answers else "")
    print(as_json(findings) if parsed.format == "json" else as_text(findings))
    return 1 if worst(findings) == "problem" else 0


def _cluster(parsed: argparse.Namespace) -> Cluster | Diagnosis:
    """Connect to the cluster; return a finding when that is not possible on this machine.

    :raises InvalidArgumentError: when a context was given that is not usable.
    """
    is_wanted = bool(parsed.namespace or parsed.context or parsed.image)
    try:
        return connect(parsed.namespace, parsed.context)
    except InvalidArgumentError as error:
        if parsed.context and find_spec("kubernetes") is not None:
            raise
        advice = "pass --no-cluster if workloads do not run on Kubernetes (runtime: local)"
        return Diagnosis("cluster", "problem" if is_wanted else "warning", f"was not checked: {error}", advice)
