"""The model server that a ModelPipeline file describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.core.manifests.spec import ModelServerSpec, read_model_server
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.core.pipeline.file.stages import DeployStage


def server_of_pipeline(pipeline: ModelPipeline, **given: Any) -> ModelServerSpec | None:
    """Return the model server of a pipeline; None when its stage ``deploy`` has no server.

    :param pipeline: the file, for one environment.
    :param given: fields that the file does not have, such as ``tracking_uri`` and ``version``, or that take precedence.
    :raises InvalidArgumentError: listing every problem.
    """
    fields = server_fields(pipeline)
    return read_model_server({**fields, **given}) if fields else None


def server_fields(pipeline: ModelPipeline) -> Mapping[str, Any]:
    """Return the fields of the model server of a pipeline; empty when its stage ``deploy`` has no server."""
    spec = pipeline.spec
    stage = next((each for each in spec.stages if isinstance(each, DeployStage)), None)
    if stage is None or stage.server is None:
        return {}
    return {
        "model_name": spec.model.name or pipeline.metadata.name,
        "namespace": stage.server.namespace,
        "image": stage.server.image,
        "replicas": stage.server.replicas,
        "traffic_policy": spec.traffic_policy,
        "rollback_policy": spec.rollback,
    }
