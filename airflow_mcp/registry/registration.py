"""Create a model version once, however many tasks try, and wait until it is READY."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_mcp.exceptions import FailedError, MlflowConflictError, MlflowNotFoundError
from airflow_mcp.registry.claims import Claims

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion
    from airflow_mcp.mlflow_client.operations import MlflowOperations

log = logging.getLogger(__name__)
READY_POLLS = 30
"""How often a new version's status is read before giving up, once a second."""


def create_once(
    claims: Claims, find: Callable[[], ModelVersion | None], create: Callable[[], ModelVersion]
) -> ModelVersion:
    """Create a version while nobody else can create the same one; before it the registered model, when missing.

    :param claims: claims on what is to be registered.
    :param find: looks for a version that was made before, now that nobody else can make one.
    :param create: creates it.
    :return: the version found or created.
    :raises ClaimUnavailableError: when another task is registering the same.
    """
    try:
        return _create_alone(claims, find, create)
    except MlflowNotFoundError:
        log.debug("registered model %s does not exist yet", claims.model_name)
    try:
        claims.mlflow.create_registered_model(claims.model_name)
    except MlflowConflictError:
        log.debug("registered model %s was created by another task", claims.model_name)
    return _create_alone(claims, find, create)


def _create_alone(
    claims: Claims, find: Callable[[], ModelVersion | None], create: Callable[[], ModelVersion]
) -> ModelVersion:
    with claims.held() as claim:
        version = find()
        if version is not None:
            return version
        claims.require_valid(claim)
        return create()


def wait_until_ready(mlflow: MlflowOperations, version: ModelVersion) -> ModelVersion:
    """Wait until MLflow has finished registering a version.

    :param mlflow: the MLflow server.
    :param version: the version.
    :return: the version as it is then.
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
        f"({version.status_message or 'no message'}) after {READY_POLLS} s at the most; it was not promoted, and a "
        "retry looks at the same version again"
    )
