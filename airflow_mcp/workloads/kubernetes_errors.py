"""Errors of this package for pods that fail and for clusters that do not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.providers.cncf.kubernetes.exceptions import KubernetesApiError
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import KubernetesApiException
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodNotFoundException
from airflow.sdk.exceptions import AirflowException
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from airflow_mcp.core.contract import EXIT_REFUSED
from airflow_mcp.core.workload.pod import SOURCE_CONTAINER
from airflow_mcp.core.workload.pod_ending import PodEnding
from airflow_mcp.exceptions import (
    ClusterUnreachableError,
    InvalidArgumentError,
    SourceError,
    WorkloadError,
    WorkloadFailedError,
    WorkloadLostError,
    WorkloadTimeoutError,
)

_MESSAGE_LINES = 20
_GONE = 404
API_ERRORS = (ApiException, KubernetesApiError, KubernetesApiException, HTTPError, ConnectionError)
"""What the clients of Kubernetes raise when it refuses or does not answer."""


def refused_pod(pod: Any, error: Exception) -> Exception:
    if getattr(error, "status", None) in (400, 403, 422):
        return InvalidArgumentError(
            f"Kubernetes refuses pod {pod.metadata.name} in namespace {pod.metadata.namespace!r} "
            f"({getattr(error, 'reason', '')}): {getattr(error, 'body', '')}. Nothing was started."
        )
    return error


def pod_failure(ending: PodEnding, lines: tuple[str, ...], says: str = "") -> WorkloadError | SourceError:
    """Return the error of a pod that failed.

    :param ending: how it ended.
    :param lines: the last lines of its output.
    :param says: the message; empty describes the ending.
    """
    message = with_output(says or ending.describe(), lines)
    if ending.is_timeout:
        return WorkloadTimeoutError(message)
    if ending.is_lost:
        return WorkloadLostError(message)
    if ending.container == SOURCE_CONTAINER and ending.exit_code == EXIT_REFUSED:
        return SourceError(message)
    return WorkloadFailedError(message, -1 if ending.exit_code is None else ending.exit_code, lines)


def with_output(message: str, lines: tuple[str, ...]) -> str:
    """Add the last lines of an output to a message."""
    tail = "\n".join(lines[-_MESSAGE_LINES:])
    return message + (f"\nLast lines of its output:\n{tail}" if tail else "\nIts output cannot be read.")


@contextmanager
def translated_errors(what: Callable[[], str]) -> Iterator[None]:
    """Translate errors of the Kubernetes clients into those of this package.

    :param what: returns what the call is about, for the message.
    """
    try:
        yield
    except PodNotFoundException as error:
        raise WorkloadLostError(f"{what()} is gone: deleted, or lost with its node ({error})") from error
    except API_ERRORS as error:
        if getattr(error, "status", None) == _GONE:
            raise WorkloadLostError(f"{what()} is gone: deleted, or lost with its node") from error
        how = f"answered {error}" if getattr(error, "status", None) else f"does not answer ({type(error).__name__})"
        raise ClusterUnreachableError(f"{what()}: Kubernetes {how}. A retry attaches to it again") from error
    except AirflowException as error:
        raise WorkloadFailedError(f"{what()} failed: {error}", -1) from error
