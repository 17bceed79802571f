"""ModelPipeline files as Dags: reads files, writes stubs and renders plans."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mcp.dag_rendering.dags import load_model_pipeline, load_model_pipelines, load_pipeline_group

__all__ = ["load_model_pipeline", "load_model_pipelines", "load_pipeline_group"]


def __getattr__(name: str) -> Any:
    """Import the functions that need Airflow on first use: the command line works without Airflow."""
    if name in __all__:
        return getattr(import_module("airflow_mcp.dag_rendering.dags"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
