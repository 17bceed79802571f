"""The tasks of the stage ``deploy``: the model server, and the rollout whose last step is the promotion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mcp.core.pipeline.file.deploy import ServerSpec
from airflow_mcp.core.pipeline.file.pipeline import PipelineSpec
from airflow_mcp.core.pipeline.file.stages import DeployStage
from airflow_mcp.core.pipeline.plan.entities import PlannedTask, Reference
from airflow_mcp.core.pipeline.plan.layout import BEGIN, DEPLOY_SERVER, LOAD_CHECK, ROLLOUT, Layout
from airflow_mcp.core.pipeline.plan.registry import DRY_RUN
from airflow_mcp.core.pipeline.plan.values import seconds
from airflow_mcp.core.rollout.plan import BLUE_GREEN_STEPS, CANARY_STEPS, DEFAULT_RULES

SERVER_MEASURED = ("load_seconds",)
"""Fields of the model server that only the load check of the run knows."""
_CLUSTER = ("kubernetes_conn_id", "in_cluster", "cluster_context", "config_file")
"""Options of ``spec.kubernetes`` that say where the cluster is; the others are about pods of steps."""


def deploy_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan the stage ``deploy``: deploy the model server if it is in the file, roll the version out, and promote it.

    :param layout: the pipeline.
    """
    stage = layout.deploy
    needs = layout.needs("deploy", *layout.before("deploy"))
    if stage.server is not None:
        yield _deploy_server(layout, stage.server, needs)
        needs = (DEPLOY_SERVER,)
    arguments: dict[str, Any] = {
        "model_name": layout.model_name,
        "version": Reference(LOAD_CHECK, "version"),
        "expected_champion": Reference("gate", "champion_version"),
        "experiment_name": layout.experiment_name,
        "serving_conn_id": stage.conn_id,
        "reason": Reference(BEGIN, "reason"),
        "dry_run": DRY_RUN,
        **rollout_values(layout.spec, stage),
    }
    if stage.router is not None:
        arguments |= {"router": stage.router, "kubernetes": _cluster(layout)}
    more = {
        "prometheus_conn_id": stage.prometheus_conn_id,
        "metrics_source": stage.metrics_source if stage.metrics_source != "replicas" else None,
        "prometheus_selector": stage.prometheus_selector,
        "poll_interval": seconds(stage.poll_interval),
    }
    arguments |= {name: value for name, value in more.items() if value is not None}
    yield PlannedTask(ROLLOUT, "rollout", "deploy", arguments, needs, layout.origin("deploy"))


def needed_to_deploy(layout: Layout) -> dict[str, Any]:
    """Return what the first task must find in the registry, so that no model is trained that cannot be deployed.

    :param layout: the pipeline.
    """
    if "deploy" not in layout.built_in:
        return {}
    needed: dict[str, Any] = {}
    if layout.spec.rollback is not None:
        needed["stable_version"] = layout.spec.rollback.strategy.stable_version
    if layout.deploy.server is not None:
        needed["server_resources"] = layout.deploy.server.options.get("resources", {})
    return needed


def _deploy_server(layout: Layout, server: ServerSpec, needs: tuple[str, ...]) -> PlannedTask:
    cluster = _cluster(layout)
    arguments = {
        "model_name": layout.model_name,
        "image": server.image,
        "namespace": server.namespace,
        "server": server_values(layout.spec, server),
        "dry_run": DRY_RUN,
        **({"kubernetes": cluster} if cluster else {}),
    }
    timeout = seconds(layout.spec.timeouts.deploy_server)
    return PlannedTask(DEPLOY_SERVER, "deploy_server", "deploy", arguments, needs, layout.origin("deploy"), timeout)


def _cluster(layout: Layout) -> dict[str, Any]:
    return {name: value for name, value in layout.spec.kubernetes.items() if name in _CLUSTER}


def server_values(spec: PipelineSpec, server: ServerSpec) -> dict[str, Any]:
    """Return what a file says about its model server, as fields of the spec behind the manifests.

    The server follows the alias ``champion``, so that the rollout can split its requests.

    :param spec: the pipeline's spec, for its policies.
    :param server: the server.
    """
    policies = {"rollback_policy": spec.rollback, "traffic_policy": spec.traffic_policy}
    return {
        **server.options,
        "replicas": server.replicas,
        "load_seconds": Reference(LOAD_CHECK, "load_seconds"),
        **{
            name: policy.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            for name, policy in policies.items()
            if policy is not None
        },
    }


def rollout_values(spec: PipelineSpec, stage: DeployStage) -> dict[str, Any]:
    """Return what a stage says about its rollout, as fields of :class:`~airflow_mcp.core.rollout.plan.RolloutPlan`.

    :param spec: the pipeline's spec, for its rollback policy.
    :param stage: the stage.
    """
    values = {
        "steps": rollout_steps(stage),
        "rules": list(stage.analysis.rules or DEFAULT_RULES),
        "queries": stage.analysis.queries,
        "sticky": stage.sticky,
        "on_inconclusive": stage.analysis.on_inconclusive,
        "on_lost": stage.on_lost,
        "max_duration": seconds(stage.max_duration),
        "bake": seconds(stage.bake),
    }
    if spec.rollback is not None:
        rule = spec.rollback.trigger.rule.model_dump()
        stable = spec.rollback.strategy.stable_version
        values |= {"breaker": rule, "rollback": rule, "stable_version": stable}
    return {name: value for name, value in values.items() if value not in (None, {})}


def rollout_steps(stage: DeployStage) -> list[dict[str, Any]]:
    """Return the steps of a rollout, as the operator takes them.

    :param stage: the stage.
    """
    steps: list[dict[str, Any]] = []
    if stage.shadow is not None:
        steps.append({"shadow": stage.shadow.model_dump(by_alias=True)})
    if stage.steps is None:
        usual = CANARY_STEPS if stage.strategy == "canary" else BLUE_GREEN_STEPS
        return [*steps, *map(dict, usual)]
    return [*steps, *(step.model_dump(by_alias=True, exclude_none=True) for step in stage.steps)]
