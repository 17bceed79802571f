"""The model server that a pipeline deploys, as the objects of Kubernetes; works without Airflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from airflow_mcp.core.argument import located_problems
from airflow_mcp.core.manifests.model_server import model_server_manifests
from airflow_mcp.core.manifests.parts import Manifest
from airflow_mcp.core.manifests.spec import ModelServerSpec, read_model_server
from airflow_mcp.core.pipeline.file.document import FieldPath, Node
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.core.pipeline.file.stages import DeployStage
from airflow_mcp.core.pipeline.file.validation import problem_at
from airflow_mcp.core.pipeline.plan.deploying import SERVER_MEASURED, server_values
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.core.pipeline.plan.layout import DEPLOY_SERVER
from airflow_mcp.exceptions import InvalidArgumentError, SpecProblem
from airflow_mcp.routers.choose import check_router, require_copies

TRACKING_URI = "https://mlflow.invalid"
"""Stands for the address of the connection to MLflow, which only Airflow knows."""
_FIELDS_OF_STAGE = ("image", "namespace", "replicas")
_TAKEN = {
    "model_name": "is the model of the pipeline, spec.model.name or metadata.name",
    "image": "is server.image",
    "namespace": "is server.namespace",
    "replicas": "is server.replicas",
    "version": "must not be given: a pinned server never follows the champion, so the rollout could not move requests",
    "load_seconds": "is measured by the task load_check",
    "rollback_policy": "is spec.rollback",
    "traffic_policy": "is spec.trafficPolicy",
}
"""Fields of the model server that a pipeline sets itself, and by what."""


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
                kind = check_router(stage.router)
                if stage.shadow is not None:
                    require_copies(kind)
            except InvalidArgumentError as error:
                problems.append(problem_at(document, ("spec", "stages", index, "router"), str(error)))
        if stage.server is None:
            continue
        server: FieldPath = ("spec", "stages", index, "server")
        if taken := list(_taken(stage.server.options)):
            problems += [problem_at(document, (*server, "options", name), text, at_key=True) for name, text in taken]
            continue
        name = pipeline.spec.model.name or pipeline.metadata.name
        values = server_values(pipeline.spec, stage.server)
        try:
            ModelServerSpec.model_validate(_values(name, stage.server.image, stage.server.namespace, values))
        except ValidationError as error:
            for steps, text in located_problems(error, "server", ModelServerSpec, prefix="server"):
                inner = steps[:1] if steps and steps[0] in _FIELDS_OF_STAGE else ("options",)
                problems.append(problem_at(document, (*server, *inner), text))


def _taken(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find options that the pipeline sets itself, which were ignored otherwise."""
    for name in options.keys() & _TAKEN.keys():
        yield name, f"{_TAKEN[name]}. Remove it from options"


def server_manifests(plan: PipelinePlan) -> tuple[Manifest, ...]:
    """Return the objects that the task ``deploy_server`` applies; empty without that task.

    The address of MLflow is :data:`TRACKING_URI`. How long the version takes to load is known in the run only, so the
    limits of its start are those of an unknown time.

    :param plan: the plan.
    """
    for task in plan.every_task:
        if task.task_id == DEPLOY_SERVER:
            given = task.arguments
            values = _values(plan.model_name, given["image"], given["namespace"], given["server"])
            return model_server_manifests(read_model_server(values))
    return ()


def _values(model_name: str, image: str, namespace: str, server: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in server.items() if name not in SERVER_MEASURED}
    named = {"model_name": model_name, "image": image, "namespace": namespace}
    return {"tracking_uri": TRACKING_URI, **known, **named}
