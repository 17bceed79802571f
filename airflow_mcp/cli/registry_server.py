"""What the commands for the model registry share: the server, who acts, and near names of a model that is not there."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from airflow_mcp.cli.options import mlflow_settings
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.argument import closest
from airflow_mcp.core.registry.moves import Action, MoveOrder
from airflow_mcp.exceptions import (
    AirflowApiError,
    InvalidArgumentError,
    MlflowAuthError,
    MlflowNotFoundError,
    ModelControlPlaneError,
)
from airflow_mcp.hooks.airflow_api import AirflowApi
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.mlflow_client.operations import DirectMlflow

MOST_NAMES = 1000
"""Number of models among which a near name is searched: one page, so that a typo does not read a large registry."""
log = logging.getLogger("airflow_mcp.cli")


@contextmanager
def registry_server(parsed: argparse.Namespace) -> Iterator[DirectMlflow]:
    """Yield the MLflow server; log its changes to stderr, and name the nearest model when there is none of a name.

    :param parsed: arguments, with ``tracking_uri``, and with ``model_name`` or ``model_names`` if there are models.
    """
    mlflow = DirectMlflow(mlflow_settings(parsed.tracking_uri))
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield mlflow
    except (MlflowNotFoundError, MlflowAuthError) as error:
        names = [getattr(parsed, "model_name", None) or "", *(getattr(parsed, "model_names", None) or [])]
        problem = next(filter(None, (_why_missing(mlflow, name) for name in names if name)), "")
        if not problem:
            raise
        raise MlflowNotFoundError(problem, error.status, error.error_code) from error
    finally:
        log.removeHandler(handler)
        mlflow.close()


def order_of(action: Action, reason: str) -> MoveOrder:
    """Return the order of the person who calls.

    :param action: what is done.
    :param reason: why.
    """
    return MoveOrder(action=action, identity=uuid4().hex, by=actor(), reason=reason)


def require_reason(reason: str) -> None:
    """Check that the argument ``--reason`` says something.

    :raises InvalidArgumentError: when it is empty.
    """
    if not reason.strip():
        raise InvalidArgumentError(f"--reason must be text that is not empty; got {reason!r}")


def actor() -> Actor:
    """Return the person who calls: the account that Airflow has checked, where its address and a token are set."""
    api = airflow_api()
    if api is not None:
        try:
            with api:
                return actor_of(api)
        except AirflowApiError as error:  # a rollback must not wait for Airflow
            log.warning("nobody checked who calls: %s", error)
    return Actor.of_user(getpass.getuser(), socket.gethostname())


def actor_of(api: AirflowApi) -> Actor:
    """Return the person who calls, whose account Airflow has checked.

    :param api: open connection.
    :raises AirflowApiError: when Airflow does not answer.
    """
    return Actor.of_user(getpass.getuser(), socket.gethostname(), account=api.who_am_i()[0])


def airflow_api() -> AirflowApi | None:
    """Return Airflow's REST API as the person who calls, for a ``with`` block; None without its address and a token."""
    url, token = os.environ.get("AIRFLOW_MCP_AIRFLOW_URL", ""), os.environ.get("AIRFLOW_MCP_AIRFLOW_TOKEN", "")
    return AirflowApi(url.rstrip("/"), token=token) if url and token else None


def _why_missing(mlflow: DirectMlflow, name: str) -> str:
    """Return that a registered model does not exist, with the nearest name; empty when it exists, or nobody knows."""
    try:
        if mlflow.search_registered_models(f"name = {filter_value(name)}", 1):
            return ""
        near = closest(name, [model.name for model in mlflow.search_registered_models("", MOST_NAMES)])
    except ModelControlPlaneError:  # no answer, or a name that a filter cannot hold
        return ""
    hint = f"Did you mean {near!r}? " if near else ""
    return (
        f"there is no registered model {name!r} on {mlflow.settings.base_url}, or this account may not read it. {hint}"
        "To list the models, run airflow-mcp status"
    )
