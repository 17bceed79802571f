"""``airflow-mcp``: pipeline files before they are merged, and answers for the on-call person; without Airflow."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError

COMMANDS: Mapping[str, str] = {
    "version": "print the version",
    "status": "which version is the champion, why, and how to go back",
    "registry": "history of a model's champion, who moved it and when; stages, and the way from them to aliases",
    "retrain": "why a model is, or is not, retrained; pause and resume it",
    "doctor": "what is wrong with MLflow, cluster and image, and what to do",
    "drift": "profile data, and compare two datasets or their profiles",
    "pods": "pods of workloads, and which of them are left over",
    "init": "begin a project: pipeline file, training script and test",
    "validate": "every problem of every pipeline file, at once",
    "plan": "what a pipeline file will do, and what an edit changes about it",
    "graph": "the Dag of a pipeline file as a picture",
    "render": "write the Dag files of a folder of pipeline files",
    "schema": "JSON Schema of pipeline files, for editors",
}
"""Every command and its line of help. The module of that name here has ``add_arguments(parser)`` and ``run(parsed)``,
which returns the exit code; it is imported only when its command is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: arguments; None takes those of the process.
    :return: exit code: 0 done, 1 MLflow, Airflow or the cluster could not be asked, or a file is not valid, 2 the call
        is wrong.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser(given[0] if given else "").parse_args(given)
    try:
        return int(parsed.run(parsed))
    except ModelControlPlaneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidArgumentError) else 1
    except BrokenPipeError:  # the reader, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser(called: str) -> argparse.ArgumentParser:
    """Make a parser that knows every command, and the arguments of the one that is called."""
    parser = argparse.ArgumentParser(prog="airflow-mcp", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_line in COMMANDS.items():
        command = commands.add_parser(name, help=help_line)
        if name == called:
            module = import_module(f"{__name__}.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
