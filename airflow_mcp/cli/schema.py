"""``airflow-mcp schema``: prints the JSON Schema of pipeline files, for editors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add ``--output``."""
    command.add_argument("--output", metavar="FILE", help="file to write; default: standard output")


def run(parsed: argparse.Namespace) -> int:
    """Print the schema, or write it to a file."""
    text = json.dumps(schema(), indent=2) + "\n"
    if parsed.output:
        Path(parsed.output).write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a pipeline file, short forms included."""
    return {"$schema": DIALECT, **ModelPipeline.model_json_schema(by_alias=True)}
