"""``airflow-mcp graph``: draws the Dag of a pipeline file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from airflow_mcp.cli.pipeline_files import add_environment, add_root, plan_of
from airflow_mcp.core.pipeline.plan.picture import mermaid, svg, text_picture


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the file, the environment and the format."""
    command.add_argument("file", metavar="FILE", help="pipeline file")
    add_environment(command)
    add_root(command)
    command.add_argument("--format", choices=("text", "svg", "mermaid"), default="text", help="default: text")
    command.add_argument("--output", metavar="FILE", help="file to write; default: standard output")


def run(parsed: argparse.Namespace) -> int:
    """Print the picture, or write it to a file."""
    draw = {"text": text_picture, "svg": svg, "mermaid": mermaid}[parsed.format]
    found = plan_of(parsed.file, parsed.env, parsed.root)
    picture = draw(found.plan)
    if found.defaults:
        print(f"note: merged with {found.defaults}", file=sys.stderr)
    if parsed.output:
        Path(parsed.output).write_text(picture, encoding="utf-8")
    else:
        print(picture, end="")
    return 0
