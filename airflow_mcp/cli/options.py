"""Options and actions of several commands: which MLflow server, which cluster, which form of the answer."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mcp.mlflow_client.settings import MlflowSettings


def add_cluster(command: argparse.ArgumentParser) -> None:
    """Add ``--namespace`` and ``--context``, for ``airflow_mcp.cluster.client.connect``."""
    command.add_argument("--namespace", default="", help="namespace; default: that of the context, or of this pod")
    command.add_argument("--context", default="", help="context of the kubeconfig; default: the current one")


def add_tracking_uri(command: argparse.ArgumentParser) -> None:
    """Add ``--tracking-uri``, for :func:`mlflow_settings`."""
    command.add_argument("--tracking-uri", default="", help="MLflow server; default: MLFLOW_TRACKING_URI")


def add_format(command: argparse.ArgumentParser) -> None:
    """Add ``--format``: text for people, or JSON for programs; ``--json`` is the short form."""
    command.add_argument("--format", choices=("text", "json"), default="text")
    command.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")


def mlflow_settings(tracking_uri: str) -> MlflowSettings:
    """Read address and credentials from the same environment variables as MLflow's own tools.

    :param tracking_uri: value of ``--tracking-uri``; empty takes ``MLFLOW_TRACKING_URI``.
    :raises InvalidArgumentError: when it is not an HTTP address.
    """
    from airflow_mcp.mlflow_client.settings import settings_from_environment  # noqa: PLC0415  (not for every command)

    return settings_from_environment(os.environ, tracking_uri)


def add_action(
    actions: Any, name: str, what: str, answer: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add an action to a command that has several, and return its parser.

    :param actions: the sub-parsers of the command.
    :param name: what is typed.
    :param what: what it does, for the help.
    :param answer: carries it out and returns the exit code; kept as ``answer`` of the parsed arguments.
    """
    action: argparse.ArgumentParser = actions.add_parser(name, help=what, description=what)
    action.set_defaults(answer=answer)
    return action
