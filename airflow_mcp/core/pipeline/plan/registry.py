"""The tasks that bring a model into the registry: register, check that it loads, promote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mcp.core.pipeline.file.stages import RegisterStage
from airflow_mcp.core.pipeline.plan.entities import PlannedTask, Reference, Template
from airflow_mcp.core.pipeline.plan.layout import BEGIN, LOAD_CHECK, RECORD_APPROVAL, Layout
from airflow_mcp.core.pipeline.plan.values import seconds

DRY_RUN = Template("{{ params.dry_run }}")


def register_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan the stage ``register``: register the model, then check that the version loads.

    :param layout: the pipeline.
    """
    uri = Reference(layout.chosen, "model_uri")
    arguments: dict[str, Any] = {"model_name": layout.model_name, "model_uri": uri, "dry_run": DRY_RUN}
    asked: tuple[str, ...] = ()
    if layout.asks_a_person:  # after a conclusive gate the approval is skipped, which must not skip the registration
        asked, arguments["trigger_rule"] = (RECORD_APPROVAL,), "none_failed_min_one_success"
    needs = layout.needs("register", *layout.before("register"), *asked)
    yield PlannedTask("register", "register", "register", arguments, needs, layout.origin("register"))
    yield _load_check(layout)


def promote_tasks(layout: Layout) -> Iterator[PlannedTask]:
    """Plan the stage ``promote``: make the version that was loaded the champion.

    :param layout: the pipeline.
    """
    arguments = {
        "model_name": layout.model_name,
        "version": Reference(LOAD_CHECK, "version"),
        "expected_champion": Reference("gate", "champion_version"),
        "reason": Reference(BEGIN, "reason"),
        "dry_run": DRY_RUN,
    }
    needs = layout.needs("promote", *layout.before("promote"))
    yield PlannedTask("promote", "promote", "promote", arguments, needs, layout.origin("promote"))


def _load_check(layout: Layout) -> PlannedTask:
    stage = layout.stage(RegisterStage) or RegisterStage(name="register")
    arguments = {
        "model_name": layout.model_name,
        "version": Reference("register", "version"),
        "require_example": stage.require_example,
        **layout.workload(stage, stage.image, stage.resources),
    }
    origin, timeout = layout.origin("register", "load_check"), seconds(layout.spec.timeouts.load_check)
    return PlannedTask(LOAD_CHECK, "load_check", "register", arguments, ("register",), origin, timeout)
