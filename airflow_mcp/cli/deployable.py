"""What the registry says against the deployment of a pipeline file: the option ``--registry``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from airflow_mcp.cli.options import add_tracking_uri, mlflow_settings
from airflow_mcp.cli.pipeline_files import seen_from_here
from airflow_mcp.core.argument import read_argument
from airflow_mcp.core.manifests.spec import Resources
from airflow_mcp.core.pipeline.file.document import FieldPath
from airflow_mcp.core.pipeline.file.stages import DeployStage, built_in_stages
from airflow_mcp.core.pipeline.file.validation import problem_at
from airflow_mcp.core.pipeline.plan.values import seconds
from airflow_mcp.core.quantity import amount_of
from airflow_mcp.dag_rendering.loader import LoadedPipeline, load_pipeline_file, pipelines_root
from airflow_mcp.exceptions import PipelineSpecError, SpecProblem
from airflow_mcp.mlflow_client.operations import DirectMlflow, MlflowOperations
from airflow_mcp.registry.deployment import ServerBudget, deploy_problems

_SERVER = ("server", "options")


def add_registry(command: argparse.ArgumentParser) -> None:
    """Add ``--registry`` and the address of MLflow."""
    command.add_argument(
        "--registry",
        action="store_true",
        help="ask the model registry too: does stableVersion exist, does the server fit what load checks measured",
    )
    add_tracking_uri(command)


def registry_check(parsed: argparse.Namespace) -> Callable[[LoadedPipeline], list[SpecProblem]] | None:
    """Return the check against the registry; None when it was not asked for.

    :raises InvalidArgumentError: when there is no address of MLflow.
    """
    if not parsed.registry:
        return None
    settings = mlflow_settings(parsed.tracking_uri)
    return lambda loaded: _asked(DirectMlflow(settings), loaded)


def require_registry_agrees(parsed: argparse.Namespace) -> None:
    """Check one file against the registry, if that was asked for.

    :param parsed: arguments with ``file``, ``env``, ``root`` and those of :func:`add_registry`.
    :raises PipelineSpecError: with every problem; paths are relative to the working folder.
    """
    check = registry_check(parsed)
    if check is None:
        return
    folder = Path(parsed.root) if parsed.root else pipelines_root(parsed.file)
    if problems := check(load_pipeline_file(parsed.file, parsed.env, root=folder)):
        raise PipelineSpecError([seen_from_here(problem, folder) for problem in problems])


def _asked(mlflow: DirectMlflow, loaded: LoadedPipeline) -> list[SpecProblem]:
    try:
        return list(registry_problems(mlflow, loaded))
    finally:
        mlflow.close()


def registry_problems(mlflow: MlflowOperations, loaded: LoadedPipeline) -> Iterator[SpecProblem]:
    """Yield what the registry says against a deployment, each at the place of its field.

    :param mlflow: the MLflow server.
    :param loaded: the pipeline for one environment.
    :raises MlflowError: when MLflow does not answer.
    """
    pipeline = loaded.pipeline
    spec = pipeline.spec
    if "deploy" not in built_in_stages({stage.name for stage in spec.stages}, spec.stop_after):
        return
    index, stage = next(
        ((index, stage) for index, stage in enumerate(spec.stages) if isinstance(stage, DeployStage)), (0, None)
    )
    options: FieldPath = ("spec", "stages", index, *_SERVER)
    places: dict[str, FieldPath] = {
        "stable_version": ("spec", "rollback", "strategy", "stableVersion"),
        "memory": (*options, "resources", "memory"),
        "load_timeout": (*options, "settings", "LOAD_TIMEOUT"),
        "deploy_timeout": ("spec", "timeouts", "deployServer"),
    }
    stable = spec.rollback.strategy.stable_version if spec.rollback is not None else ""
    budget = _budget(stage, seconds(spec.timeouts.deploy_server))
    name = spec.model.name or pipeline.metadata.name
    for problem in deploy_problems(mlflow, name, stable_version=stable, server=budget):
        yield problem_at(loaded.document, places[problem.field], f"{problem.what}; {problem.advice}")


def _budget(stage: DeployStage | None, deploy_timeout: int | None) -> ServerBudget | None:
    """Return what a stage gives its model server; None without one."""
    if stage is None or stage.server is None:
        return None
    options = stage.server.options
    resources = read_argument(Resources, "resources", options.get("resources", {}))
    settings = {name.upper(): value for name, value in options.get("settings", {}).items()}
    limit = settings.get("LOAD_TIMEOUT")
    return ServerBudget(
        amount_of(resources.memory_limit or resources.memory),
        load_timeout=float(limit) if limit is not None else None,
        deploy_timeout=deploy_timeout,
    )
