"""The model server that a pipeline deploys, as the objects of Kubernetes; works without Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.core.manifests.model_server import model_server_manifests
from airflow_mcp.core.manifests.parts import Manifest
from airflow_mcp.core.manifests.spec import ModelServerSpec, read_model_server
from airflow_mcp.core.pipeline.file.document import Node
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.core.pipeline.file.stages import DeployStage
from airflow_mcp.core.pipeline.file.validation import problem_at
from airflow_mcp.core.pipeline.plan.deploying import SERVER_MEASURED, server_values
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.core.pipeline.plan.layout import DEPLOY_SERVER
from airflow_mcp.exceptions import InvalidArgumentError, SpecProblem
from airflow_mcp.routers.choose import check_router

TRACKING_URI = "https://mlflow.invalid"
"""Stands for the address of the connection to MLflow, which only Airflow knows."""


def check_server(pipeline: ModelPipeline, document: Node, problems: list[SpecProblem]) -> None:
    """Check the model server and the router of the stage ``deploy``, as their tasks will read them.

    :param pipeline: the pipeline.
    :param document: its document, for the places.
    :param problems: every problem is added here.
    """
    for index, stage in enumerate(pipeline.spec.stages):
        if not isinstance(stage, DeployStage):
            continue
        if stage.router is not None:
            try:
                check_router(stage.router)
            except InvalidArgumentError as error:
                problems.append(problem_at(document, ("spec", "stages", index, "router"), str(error)))
        if stage.server is None:
            continue
        name = pipeline.spec.model.name or pipeline.metadata.name
        try:
            _spec(name, stage.server.image, stage.server.namespace, server_values(pipeline.spec, stage.server))
        except InvalidArgumentError as error:
            path = ("spec", "stages", index, "server", "options")
            problems.append(problem_at(document, path, str(error)))


def server_manifests(plan: PipelinePlan) -> tuple[Manifest, ...]:
    """Return the objects that the task ``deploy_server`` applies; empty without that task.

    The address of MLflow is :data:`TRACKING_URI`. How long the version takes to load is known in the run only, so the
    limits of its start are those of an unknown time.

    :param plan: the plan.
    """
    for task in plan.every_task:
        if task.task_id == DEPLOY_SERVER:
            given = task.arguments
            return model_server_manifests(_spec(plan.model_name, given["image"], given["namespace"], given["server"]))
    return ()


def _spec(model_name: str, image: str, namespace: str, server: Mapping[str, Any]) -> ModelServerSpec:
    known = {name: value for name, value in server.items() if name not in SERVER_MEASURED}
    named = {"model_name": model_name, "image": image, "namespace": namespace}
    return read_model_server({"tracking_uri": TRACKING_URI, **known, **named})
