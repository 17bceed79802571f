"""``airflow-mcp graph``: draws the Dag of a pipeline file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from airflow_mcp.cli.options import add_format
from airflow_mcp.cli.pipeline_files import add_environment, add_root, plan_of
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.core.pipeline.plan.picture import mermaid, svg, text_picture


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the file, the environment and the format."""
    command.add_argument("file", metavar="FILE", help="pipeline file")
    add_environment(command)
    add_root(command)
    add_format(command, "svg", "mermaid")
    command.add_argument("--output", metavar="FILE", help="file to write; default: standard output")


def run(parsed: argparse.Namespace) -> int:
    """Print the picture, or write it to a file."""
    draw = {"text": text_picture, "json": _json, "svg": svg, "mermaid": mermaid}[parsed.format]
    found = plan_of(parsed.file, parsed.env, parsed.root)
    picture = draw(found.plan)
    if found.defaults:
        print(f"note: merged with {found.defaults}", file=sys.stderr)
    if parsed.output:
        Path(parsed.output).write_text(picture, encoding="utf-8")
    else:
        print(picture, end="")
    return 0


def _json(plan: PipelinePlan) -> str:
    """Return the tasks, each with those that it needs."""
    tasks = [{"task_id": task.task_id, "needs": list(task.needs)} for task in plan.every_task]
    return json.dumps({"dag_id": plan.dag_id, "environment": plan.environment, "tasks": tasks}, indent=2) + "\n"
