"""``airflow-mcp schema``: prints the JSON Schema of pipeline files, for editors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from airflow_mcp.core.metrics import KNOWN_METRICS
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
    """Return the JSON Schema of a pipeline file, short forms included.

    Titles made from field names and empty defaults are left out: editors show them in place of the description and
    complete them as values.
    """
    made: dict[str, Any] = _for_editors(ModelPipeline.model_json_schema(by_alias=True))
    definitions = made["$defs"]
    cron = definitions["Trigger"]["properties"]["cron"]
    cron["anyOf"] = [choice for choice in cron["anyOf"] if choice != {"type": "null"}]
    bounds = definitions["EvaluateStage"]["properties"]["metricsThreshold"]
    (bound,) = bounds["patternProperties"].values()
    bounds["properties"] = {
        name: {**bound, "description": f"{'Lower' if direction == 'maximize' else 'Upper'} bound, or a comparison."}
        for name, (_, direction) in KNOWN_METRICS.items()
    }
    return {"$schema": DIALECT, **made}


def _for_editors(node: Any) -> Any:
    if isinstance(node, list):
        return [_for_editors(each) for each in node]
    if not isinstance(node, dict):
        return node
    cleaned = {}
    for name, value in node.items():
        if name == "title" and isinstance(value, str):
            continue
        kept = _given(value) if name == "default" else value
        if name != "default" or kept not in (None, {}):
            cleaned[name] = _for_editors(kept)
    return cleaned


def _given(default: Any) -> Any:
    """Return a default without what is not given in it; None when nothing is left."""
    if not isinstance(default, dict):
        return default
    given = {name: kept for name, value in default.items() if (kept := _given(value)) not in (None, {})}
    return given or None
