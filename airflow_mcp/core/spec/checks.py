"""What must fit together across the fields of a pipeline."""

from __future__ import annotations

from airflow_mcp.core.spec.document import Node
from airflow_mcp.core.spec.pipeline import ModelPipeline
from airflow_mcp.exceptions import SpecProblem


def check(pipeline: ModelPipeline, document: Node, environment: str, problems: list[SpecProblem]) -> None:
    """Check a pipeline as a whole.

    :param pipeline: the pipeline for one environment.
    :param document: what it was made of, for the places.
    :param environment: dev, test or prod.
    :param problems: where everything that is wrong is added.
    """
