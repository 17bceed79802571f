"""Options and actions of several commands: which MLflow server, which cluster, which files and form of the answer."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mcp.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from airflow_mcp.mlflow_client.settings import MlflowSettings


def add_cluster(command: argparse.ArgumentParser) -> None:
    """Add ``--namespace`` and ``--context``, for ``airflow_mcp.cluster.client.connect``."""
    command.add_argument("--namespace", default="", help="namespace; default: that of the context, or of this pod")
    command.add_argument("--context", default="", help="context of the kubeconfig; default: the current one")


def add_tracking_uri(command: argparse.ArgumentParser) -> None:
    """Add ``--tracking-uri``, for :func:`mlflow_settings`."""
    command.add_argument("--tracking-uri", default="", help="MLflow server; default: MLFLOW_TRACKING_URI")


def add_format(command: argparse.ArgumentParser, *more: str) -> None:
    """Add ``--format``: text for people, or JSON for programs; ``--json`` is the short form.

    :param more: further forms of the answer.
    """
    command.add_argument("--format", choices=("text", "json", *more), default="text", help="default: text")
    command.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")


def print_answer(parsed: argparse.Namespace, document: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print an answer in the form that was asked for.

    :param parsed: arguments with those of :func:`add_format`.
    :param document: the answer for programs.
    :param lines: the answer for people.
    """
    print(json.dumps(document, indent=2) if parsed.format == "json" else "\n".join(lines))


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


def require_data_reader(command: str) -> None:
    """Check that data can be read here.

    :param command: name of the command, for the message.
    :raises InvalidArgumentError: when the extra ``runtime`` is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise InvalidArgumentError(
            f"airflow-mcp {command} reads data, and pyarrow is not installed: pip install airflow-mcp[runtime]"
        ) from None


def read_policy_file(path: str, then: str) -> dict[str, Any]:
    """Read the fields of a policy from a YAML or JSON file.

    :param path: value of ``--policy``.
    :param then: what happened in consequence of an error, for the message.
    :raises InvalidArgumentError: when the file cannot be read or has no mapping.
    """
    import yaml  # noqa: PLC0415  (not for every command)

    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"--policy {path} cannot be read: {' '.join(str(error).split())}. {then}") from None
    if not isinstance(read, dict):
        raise InvalidArgumentError(
            f"--policy must be a file with a mapping of fields; got {path}, a {type(read).__name__}. {then}"
        )
    return read


def write_file(argument: str, path: str, text: str) -> None:
    """Write a file as a whole: a reader sees the old or the new one.

    :param argument: name of the option, for the message.
    :raises InvalidArgumentError: when it cannot be written.
    """
    unfinished = Path(f"{path}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise InvalidArgumentError(
            f"--{argument} must be a file that can be written; got {path!r}: {error.strerror}. Nothing was written"
        ) from None
