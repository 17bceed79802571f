"""The operators for users, as the provider's metadata lists them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

from airflow_mcp.get_provider_info import get_provider_info
from airflow_mcp.operators.base import ModelControlOperator


def operator_classes() -> list[type[ModelControlOperator]]:
    """Return every operator that the metadata lists, by name."""
    return sorted(_operators(), key=lambda operator: operator.__name__)


def _operators() -> Iterator[type[ModelControlOperator]]:
    for module in get_provider_info()["operators"][0]["python-modules"]:
        for value in vars(importlib.import_module(module)).values():
            if inspect.isclass(value) and value.__module__ == module and issubclass(value, ModelControlOperator):
                yield value
