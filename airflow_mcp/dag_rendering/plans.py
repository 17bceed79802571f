"""Plans of loaded pipelines; works without Airflow."""

from __future__ import annotations

from airflow_mcp.core.pipeline.plan.build import build_plan
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.dag_rendering.loader import LoadedPipeline
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError, SpecProblem


def plan_pipeline(loaded: LoadedPipeline) -> PipelinePlan:
    """Plan what a pipeline will do.

    :param loaded: the pipeline for one environment.
    :raises PipelineSpecError: when the pipeline turns out not to be valid.
    """
    try:
        return build_plan(loaded.pipeline, loaded.environment, loaded.source)
    except PipelineSpecError:
        raise
    except InvalidArgumentError as error:
        raise PipelineSpecError([SpecProblem(*loaded.place("spec"), "spec", str(error))]) from None
