"""Operations: the arguments of every description are documented, and no operation needs Airflow."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_mcp.mlflow_client import api, registry_api
from tests.support.paths import DOCS

PROBES = {"server_version", "check_server"}
"""Operations of the connection test and of ``doctor``, which perform them with a driver."""
HELPERS = {"paged"}
"""Parts of descriptions."""


def descriptions() -> Iterator[Callable[..., Any]]:
    """Find the public functions that return an operation, except probes and helpers."""
    for module in (api, registry_api):
        for name, function in vars(module).items():
            is_own = inspect.isfunction(function) and function.__module__ == module.__name__
            if (
                is_own
                and not name.startswith("_")
                and name not in PROBES | HELPERS
                and "Operation[" in str(function.__annotations__["return"])
            ):
                yield function


@pytest.mark.parametrize("function", list(descriptions()), ids=lambda function: function.__name__)
def test_the_page_of_the_hook_names_the_arguments_of_every_operation(function: Callable[..., Any]) -> None:
    page = (DOCS / "hook.md").read_text(encoding="utf-8")
    documented = re.search(rf"^\| `{function.__name__}\((.*?)\)`", page, re.M)
    assert documented
    assert documented[1] == ", ".join(inspect.signature(function).parameters)


def test_operations_can_be_performed_where_airflow_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['airflow'] = None\n"
        "from airflow_mcp.mlflow_client.operations import DirectMlflow\n"
        "from airflow_mcp.mlflow_client.settings import MlflowSettings\n"
        "mlflow = DirectMlflow(MlflowSettings('', 'http://127.0.0.1:9', '', retries=0))\n"
        "try:\n"
        "    mlflow.get_run('a')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "MlflowUnreachableError"
