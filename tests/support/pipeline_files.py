"""Pipeline files for tests: two stored ones, changed in one place, and the problems that loading them finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.exceptions import PipelineSpecError
from tests.support.paths import PIPELINES

CHURN = (PIPELINES / "churn.yaml").read_text(encoding="utf-8")
"""A file that says everything."""
FRAUD = (PIPELINES / "fraud_detection.yaml").read_text(encoding="utf-8")
"""A short file."""
Write = Callable[[str, str], Path]
"""Writes a file below the folder of the test: name and text."""


def changed(text: str, old: str, new: str) -> str:
    """Replace a text that must be there, once."""
    assert old in text, f"{old!r} is not in the file"
    return text.replace(old, new, 1)


def problems(path: Path, environment: str = "test") -> list[str]:
    """Load a file that must be refused, and return what is wrong with it."""
    with pytest.raises(PipelineSpecError) as caught:
        load_pipeline_file(path, environment, variables={})
    return [str(problem) for problem in caught.value.problems]
