"""The command ``airflow-mcp``: checks pipeline files, and reports on models and the cluster. Works without Airflow."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError

COMMANDS: Mapping[str, str] = {
    "version": "print the version",
    "status": "show all models, worst first; or the champion of one, why, and how to roll back",
    "rollback": "make the previous champion, or a named version, the champion again",
    "rollout": "show the rollout of a model; pause, resume and abort it",
    "registry": "show the history of a model's champion; migrate from stages to aliases",
    "retrain": "show why a model is or is not retrained; pause and resume retraining",
    "serve": "serve models over HTTP",
    "manifests": "write the Kubernetes objects of a model server",
    "audit": "create, list, verify, export, checkpoint, reconcile and erase in the audit log",
    "passport": "show and verify what a model version was made from",
    "policy": "check, propose, activate and show the policy that decides who may move models",
    "approvals": "list, show and withdraw requests for a release; let somebody else vote for you",
    "doctor": "check MLflow, the cluster and the image, and say what to fix",
    "drift": "profile data, and compare two datasets or their profiles",
    "quality": "judge logged predictions by labels that arrive later",
    "pods": "list workload pods, and which of them are orphaned",
    "init": "create a project: pipeline file, training script and test",
    "validate": "check pipeline files and list every problem",
    "migrate": "rewrite pipeline files of earlier versions with the names of this one",
    "plan": "show what a pipeline file will do, or what an edit changes",
    "graph": "draw the Dag of a pipeline file",
    "render": "write the Dag files for a folder of pipeline files",
    "schema": "print the JSON Schema of pipeline files, for editors",
}
"""Every command with its help. Each has a module of its name in this package, with ``add_arguments(parser)`` and
``run(parsed)``, which returns the exit code; the module is imported only when its command is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: arguments; None takes those of the process.
    :return: exit code: 0 for success; 1 when a file is not valid, or MLflow, Airflow or the cluster did not answer; 2
        when the call is wrong.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser(given[0] if given else "").parse_args(given)
    try:
        return int(parsed.run(parsed))
    except ModelControlPlaneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidArgumentError) else 1
    except BrokenPipeError:  # the reader, for example head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser(called: str) -> argparse.ArgumentParser:
    """Return a parser with every command, and the arguments of the called one."""
    parser = argparse.ArgumentParser(
        prog="airflow-mcp", description="Check pipeline files, and report on models and the cluster, without Airflow."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_line in COMMANDS.items():
        command = commands.add_parser(name, help=help_line)
        if name == called:
            module = import_module(f"{__name__}.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
