"""The doctor's checks of an MLflow server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from airflow_mcp.core.contract import ALIASES_OF_OURS, TAG_LOAD_CHECK
from airflow_mcp.core.doctor.diagnosis import Diagnosis
from airflow_mcp.core.doctor.mlflow_server import (
    judge_artifacts,
    judge_deleted,
    judge_load_checks,
    judge_mlflow_version,
    judge_moves,
    judge_rehearsals,
    judge_store,
)
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.mlflow_versions import keeps_aliases_of_deleted
from airflow_mcp.core.registry.rehearsal import REHEARSAL_NOT_PASSED
from airflow_mcp.exceptions import MlflowAuthError, MlflowError, MlflowNotFoundError
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client import registry_api as mlflow_registry_api
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import SyncDriver
from airflow_mcp.mlflow_client.wire import MlflowRequest, Operation

_ARTIFACT = "api/2.0/mlflow-artifacts/artifacts/airflow-mcp-doctor"
_NO_SUCH_MODEL = "airflow-mcp-doctor-asks-for-a-model-that-does-not-exist"


def check_mlflow(settings: MlflowSettings) -> Iterator[Diagnosis]:
    """Check an MLflow server from this machine.

    :param settings: address and login of the server.
    :return: findings as they arise; the first one is whether the server answers.
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
            yield from _check_moves(driver, version)
        yield from _check_artifacts(driver)
    finally:
        driver.close()


def server_version(settings: MlflowSettings) -> str:
    """Return the version of the MLflow server; empty when it is not available."""
    driver = SyncDriver(settings)
    try:
        return driver.perform(mlflow_api.server_version())
    finally:
        driver.close()


def _advice_for(error: MlflowError) -> str:
    if isinstance(error, MlflowAuthError):
        return "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or _TOKEN), and what that account may do"
    if error.status is not None:
        return "another server answers there, or MLflow has a problem: look at its log"
    return "check --tracking-uri, the network and certificates, and whether the server runs"


def _store_type() -> Operation[str | None]:
    """Request where the server keeps runs; None before MLflow 3.9 or so, which do not report it."""
    try:
        response = yield MlflowRequest("get the server's setup", "GET", "api/3.0/mlflow/server-info")
    except MlflowError:
        return None
    found = response.data.get("store_type")
    return found if isinstance(found, str) else None


def _check_moves(driver: SyncDriver, version: str) -> list[Diagnosis]:
    deleted: frozenset[tuple[str, str]] = frozenset()
    try:
        models = driver.perform(mlflow_registry_api.search_registered_models())
        if keeps_aliases_of_deleted(version):
            deleted = driver.perform(mlflow_registry_api.find_deleted_versions(models, ALIASES_OF_OURS))
    except MlflowError as error:
        return [Diagnosis("MLflow aliases", "warning", f"cannot be compared with the recorded moves: {error}")]
    return [*judge_moves(models), *judge_deleted(models, deleted), *_check_load_checks(driver, models)]


def _check_load_checks(driver: SyncDriver, models: list[RegisteredModel]) -> list[Diagnosis]:
    """Check the aliases with one search for unusable versions and one for rehearsals, however many models there are."""
    failed = f"tags.`{TAG_LOAD_CHECK}` = 'failed'"
    try:
        unusable = driver.perform(mlflow_registry_api.search_model_versions(failed))
        not_ready = driver.perform(mlflow_registry_api.search_model_versions(REHEARSAL_NOT_PASSED))
    except MlflowError as error:
        return [Diagnosis("MLflow load checks", "warning", f"cannot be read: {error}")]
    return [*judge_load_checks(models, unusable), *judge_rehearsals(models, not_ready)]


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
            subject, "warning", "there is no experiment 'Default' to read the location from", "check it by hand"
        )
        return
    finding = judge_artifacts(default.artifact_location)
    yield finding
    if finding.level == "ok":
        yield _try_to_write(driver)


def _try_to_write(driver: SyncDriver) -> Diagnosis:
    """Store a small file through the server, and delete it again."""
    subject = "MLflow artifacts: write"
    name = f"{_ARTIFACT}-{uuid.uuid4().hex[:8]}.txt"
    try:
        driver.perform(_put_and_delete(name))
    except MlflowAuthError as error:
        return Diagnosis(subject, "warning", str(error), "this account may not write; that of Airflow must")
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
