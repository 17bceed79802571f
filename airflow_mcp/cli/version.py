"""``airflow-mcp version``: prints the version."""

from __future__ import annotations

import argparse

from airflow_mcp import __version__


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no arguments."""


def run(parsed: argparse.Namespace) -> int:
    """Print the version of the package."""
    print(f"airflow-mcp {__version__}")
    return 0
