"""The doctor's round: ask MLflow, ask the cluster, start one pod, and have everything judged."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from airflow_mcp import __version__
from airflow_mcp.cluster.client import Cluster
from airflow_mcp.core.contract import ENV_TRACKING_URI, TAG_LOAD_CHECK
from airflow_mcp.core.doctor.judgement import (
    RIGHTS,
    Diagnosis,
    judge_address,
    judge_artifacts,
    judge_ending,
    judge_load_checks,
    judge_mlflow_version,
    judge_moves,
    judge_probe,
    judge_rights,
    judge_store,
    read_probe,
)
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.workload.definition import Resources, Workload
from airflow_mcp.core.workload.pod import LABEL_MANAGED_BY, pod_manifest
from airflow_mcp.core.workload.pod_ending import ended_well, read_ending
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.doctor import probe
from airflow_mcp.exceptions import ClusterUnreachableError, MlflowAuthError, MlflowError, MlflowNotFoundError
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client import registry_api as mlflow_registry_api
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import SyncDriver
from airflow_mcp.mlflow_client.wire import MlflowRequest, Operation

_ARTIFACT = "api/2.0/mlflow-artifacts/artifacts/airflow-mcp-doctor"
_NO_SUCH_MODEL = "airflow-mcp-doctor-asks-for-a-model-that-does-not-exist"
_LOST_CAUSES = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff", "CreateContainerConfigError"})
"""Reasons of waiting after which the probe pod is given up."""


@dataclass(frozen=True)
class PodCheck:
    """What to check with a pod."""

    image: str
    mlflow_url: str
    """Address that the pod is to ask; empty: none."""
    timeout: float
    """Seconds until the pod must have reported."""
    service_account: str | None = None
    pull_secrets: tuple[str, ...] = ()


def check_mlflow(settings: MlflowSettings) -> Iterator[Diagnosis]:
    """Check an MLflow server, from here.

    :param settings: where it is.
    :return: findings as they come; the first one says whether it answers at all.
    """
    driver = SyncDriver(settings)
    try:
        try:
            version = driver.perform(mlflow_api.check_server())
        except MlflowError as error:
            yield Diagnosis("MLflow", "problem", str(error), _advice_for(error))
            return
        yield Diagnosis("MLflow", "ok", f"answers at {settings.base_url}")
        yield judge_mlflow_version(version)
        yield judge_store(driver.perform(_store_type()))
        registry = _check_registry(driver)
        yield registry
        if registry.level == "ok":
            yield from _check_moves(driver)
        yield from _check_artifacts(driver)
    finally:
        driver.close()


def server_version(settings: MlflowSettings) -> str:
    """Return the version of the MLflow server; empty when it cannot be had."""
    driver = SyncDriver(settings)
    try:
        return driver.perform(mlflow_api.server_version())
    finally:
        driver.close()


def _advice_for(error: MlflowError) -> str:
    if isinstance(error, MlflowAuthError):
        return "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or _TOKEN), and what that account may do"
    if error.status is not None:
        return "something else than MLflow answers there, or MLflow is ill: look at its log"
    return "is it running, and is this its address? check --tracking-uri, network, and certificates"


def _store_type() -> Operation[str | None]:
    """Ask where the server keeps runs; it tells from MLflow 3.9 or so on."""
    try:
        response = yield MlflowRequest("get the server's setup", "GET", "api/3.0/mlflow/server-info")
    except MlflowError:
        return None
    found = response.data.get("store_type")
    return found if isinstance(found, str) else None


def _check_moves(driver: SyncDriver) -> list[Diagnosis]:
    try:
        models = driver.perform(mlflow_registry_api.search_registered_models())
    except MlflowError as error:
        return [Diagnosis("MLflow aliases", "warning", f"cannot be compared with the recorded moves: {error}")]
    return [*judge_moves(models, datetime.now(UTC)), *_check_load_checks(driver, models)]


def _check_load_checks(driver: SyncDriver, models: list[RegisteredModel]) -> list[Diagnosis]:
    """Ask for all versions that failed in one search, however many models there are."""
    failed = f"tags.`{TAG_LOAD_CHECK}` = 'failed'"
    try:
        return judge_load_checks(models, driver.perform(mlflow_registry_api.search_model_versions(failed)))
    except MlflowError as error:
        return [Diagnosis("MLflow load checks", "warning", f"cannot be looked at: {error}")]


def _check_registry(driver: SyncDriver) -> Diagnosis:
    subject = "MLflow registry"
    try:
        driver.perform(mlflow_registry_api.get_registered_model(_NO_SUCH_MODEL))
    except MlflowNotFoundError as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return Diagnosis(subject, "ok", "answers")
        return Diagnosis(subject, "problem", str(error), "this server has no model registry: start it with a database")
    except MlflowError as error:
        return Diagnosis(subject, "problem", str(error), "models cannot be registered: look at the server's log")
    return Diagnosis(subject, "ok", "answers")


def _check_artifacts(driver: SyncDriver) -> Iterator[Diagnosis]:
    subject = "MLflow artifacts"
    try:
        default = driver.perform(mlflow_api.get_experiment_by_name("Default"))
    except MlflowError as error:
        yield Diagnosis(subject, "warning", str(error), "it is not known where artifacts go")
        return
    if default is None:
        yield Diagnosis(
            subject, "warning", "there is no experiment 'Default' to read the location from", "look by hand"
        )
        return
    finding = judge_artifacts(default.artifact_location)
    yield finding
    if finding.level == "ok":
        yield _try_to_write(driver)


def _try_to_write(driver: SyncDriver) -> Diagnosis:
    """Store a small file through the server, and delete it."""
    subject = "MLflow artifacts: write"
    name = f"{_ARTIFACT}-{uuid.uuid4().hex[:8]}.txt"
    try:
        driver.perform(_put_and_delete(name))
    except MlflowAuthError as error:
        return Diagnosis(subject, "warning", str(error), "this account may not; that of Airflow has to")
    except MlflowError as error:
        return Diagnosis(
            subject,
            "problem",
            str(error),
            "the server cannot write to --artifacts-destination: a folder that belongs to root (PermissionError), a "
            "full disk, or missing credentials; its log says which",
        )
    return Diagnosis(subject, "ok", "a file was stored and deleted")


def _put_and_delete(path: str) -> Operation[None]:
    yield MlflowRequest("store a small artifact", "PUT", path, content=b"airflow-mcp doctor", expects="bytes")
    yield MlflowRequest("delete it again", "DELETE", path, expects="bytes")


def check_cluster(cluster: Cluster) -> Iterator[Diagnosis]:
    """Check a cluster and the rights in one namespace.

    :param cluster: the cluster.
    :return: findings as they come; the first one says whether it answers at all.
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
        says = "exists" if exists else "these credentials may not look at it, and need not"
        yield Diagnosis("namespace", "ok", f"{cluster.namespace!r} {says}")
        allowed = {
            (resource, verb): cluster.may(verb, resource) for resource, verbs in RIGHTS.items() for verb in verbs
        }
        yield from judge_rights(allowed, cluster.namespace)
    except ClusterUnreachableError as error:
        yield Diagnosis("cluster", "problem", str(error), "check kubeconfig, context and network: kubectl version")


def check_pod(cluster: Cluster, check: PodCheck, version: str) -> Iterator[Diagnosis]:
    """Start a pod as workloads do, and look around in it.

    :param cluster: where.
    :param check: what to check.
    :param version: version of the MLflow server as seen from here; may be empty.
    """
    if check.mlflow_url and (finding := judge_address(check.mlflow_url)):
        yield finding
    name = f"airflow-mcp-doctor-{uuid.uuid4().hex[:8]}"
    try:
        cluster.create_pod(_manifest(name, check))
        try:
            pod = cluster.wait_for_end(name, check.timeout, _LOST_CAUSES)
            report = read_probe(_log(cluster, name)) if ended_well(pod) else None
        finally:
            cluster.delete_pod(name)
    except ClusterUnreachableError as error:
        yield Diagnosis("image", "problem", str(error), "no pod could be started and read: see the rights above")
        return
    if report is None:
        yield judge_ending(read_ending(pod))
        return
    yield from judge_probe(
        report,
        image=check.image,
        own_python=platform.python_version(),
        own_version=__version__,
        server_version=version,
        asked_mlflow=bool(check.mlflow_url),
    )


def _log(cluster: Cluster, name: str) -> str:
    """Read the log; it may lag behind the pod's end."""
    for _ in range(5):
        text = cluster.log(name)
        if text.strip():
            return text
        time.sleep(0.5)
    return ""


def _manifest(name: str, check: PodCheck) -> dict[str, object]:
    """Write the manifest with the defaults of every workload; only the probe's size is its own."""
    options = PodOptions(
        image=check.image, service_account=check.service_account, image_pull_secrets=check.pull_secrets
    )
    workload = Workload(
        name,
        ("python", "-c", Path(probe.__file__).read_text(encoding="utf-8")),
        env={ENV_TRACKING_URI: check.mlflow_url} if check.mlflow_url else {},
        resources=Resources(cpu="100m", memory="128Mi"),
        timeout=check.timeout,
        labels={"identity": name},
    )
    manifest = pod_manifest(workload, options, name=name, run_id="", companion=name)
    manifest["metadata"]["labels"][LABEL_MANAGED_BY] = "airflow-mcp-doctor"  # no business of the sweeper
    return manifest
