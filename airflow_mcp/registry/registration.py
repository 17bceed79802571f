"""Creation of one model version, however many tasks try, and the wait until it is READY."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_mcp.exceptions import FailedError, MlflowAuthError, MlflowConflictError, MlflowNotFoundError
from airflow_mcp.registry.claims import Claims
from airflow_mcp.registry.guard import mark_environment

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion
    from airflow_mcp.mlflow_client.operations import MlflowOperations

log = logging.getLogger(__name__)
READY_POLLS = 30
"""Number of times a new version's status is read, once a second, before the task fails."""


def create_once(
    claims: Claims, find: Callable[[], ModelVersion | None], create: Callable[[], ModelVersion]
) -> ModelVersion:
    """Create a version while no other task can create the same one; create a missing registered model first.

    :param claims: claims on the logged model.
    :param find: finds the version that another task created before the claim was held.
    :param create: creates the version.
    :return: the version found or created.
    :raises ClaimUnavailableError: when another task is registering the same model.
    """
    forbidden: MlflowAuthError | None = None
    try:
        return _create_under_claim(claims, find, create)
    except MlflowNotFoundError:
        log.debug("registered model %s does not exist yet", claims.model_name)
    except MlflowAuthError as error:
        forbidden = error  # so MLflow's basic-auth answers for a model that does not exist, too
    try:
        claims.mlflow.create_registered_model(claims.model_name)
    except MlflowConflictError:
        if forbidden is not None:
            raise forbidden from None
        log.debug("registered model %s was created by another task", claims.model_name)
    return _create_under_claim(claims, find, create)


def _create_under_claim(
    claims: Claims, find: Callable[[], ModelVersion | None], create: Callable[[], ModelVersion]
) -> ModelVersion:
    with claims.held() as claim:
        version = find()
        if version is not None:
            return version
        claims.require_valid(claim)
        return create()


def mark_model(mlflow: MlflowOperations, model_name: str, environment: str) -> None:
    """Leave the environment on the registered model of a new version; ``dev`` leaves nothing.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :param environment: dev, test or prod.
    """
    if environment != "dev":
        mark_environment(mlflow, mlflow.get_registered_model(model_name), environment)


def wait_until_ready(mlflow: MlflowOperations, version: ModelVersion) -> ModelVersion:
    """Wait until MLflow has finished registering a version.

    :param mlflow: the MLflow server.
    :param version: the version.
    :return: the READY version.
    :raises FailedError: when it does not become READY.
    """
    for _ in range(READY_POLLS):
        if version.status == "READY":
            return version
        if version.status == "FAILED_REGISTRATION":
            break
        time.sleep(1)
        version = mlflow.get_model_version(version.name, version.version)
    raise FailedError(
        f"version {version.version} of {version.name!r} is {version.status} "
        f"({version.status_message or 'no message'}) after at most {READY_POLLS} s. The version stays "
        "registered; a retry looks at the same version again"
    )
