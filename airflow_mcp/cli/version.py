"""``airflow-mcp version``: prints the version."""

from __future__ import annotations

import argparse
import json

from airflow_mcp import __version__
from airflow_mcp.cli.options import add_format


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the format."""
    add_format(command)


def run(parsed: argparse.Namespace) -> int:
    """Print the version of the package."""
    print(json.dumps({"version": __version__}) if parsed.format == "json" else f"airflow-mcp {__version__}")
    return 0
