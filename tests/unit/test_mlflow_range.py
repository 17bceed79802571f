"""The range of MLflow versions that is promised is the one that is tested, wherever it is written."""

from __future__ import annotations

import re
import tomllib

import pytest

from airflow_mcp.core.mlflow_versions import FIRST_UNKNOWN_MLFLOW, OLDEST_MLFLOW, why_too_old
from tests.support import old_mlflow
from tests.support.paths import DOCS, ROOT

OLDEST = ".".join(map(str, OLDEST_MLFLOW))
TESTED = re.search(r"^mlflow==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_the_package_metadata_has_the_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"mlflow>={OLDEST},<{FIRST_UNKNOWN_MLFLOW[0]}" in project["optional-dependencies"]["runtime"]


def test_make_installs_the_oldest_version_that_the_tests_start() -> None:
    assert f"OLDEST_MLFLOW := {old_mlflow.VERSION}\n" in (ROOT / "Makefile").read_text()


def test_the_docs_name_the_range_and_what_is_tested() -> None:
    assert TESTED is not None
    text = " ".join((DOCS / "connections.md").read_text().split())
    assert f"MLflow {OLDEST} or newer, below {FIRST_UNKNOWN_MLFLOW[0]}." in text
    assert f"The tests run on {old_mlflow.VERSION} and {TESTED[1]}," in text


@pytest.mark.parametrize(
    ("version", "is_too_old"),
    [
        ("2.22.1", True),
        ("3.0.1", True),
        ("3.9.9", True),
        ("3.10.0", False),
        ("3.17.2", False),
        ("4.0", False),
        ("", False),
    ],
)
def test_what_is_too_old(version: str, is_too_old: bool) -> None:
    assert bool(why_too_old(version)) is is_too_old
