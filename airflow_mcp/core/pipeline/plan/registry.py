"""Arguments of the tasks that bring a model into the registry: register, check that it loads, promote."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.pipeline.file.stages import RegisterStage
from airflow_mcp.core.pipeline.plan.entities import Reference, Template

LOAD_CHECK = "load_check"
DRY_RUN = Template("{{ params.dry_run }}")


def register_arguments(model_name: str, chosen: str) -> dict[str, Any]:
    """Register the model of a training.

    :param model_name: registered model.
    :param chosen: task that hands on which training it is.
    """
    return {"model_name": model_name, "source": Reference(chosen, "model_uri"), "dry_run": DRY_RUN}


def load_check_arguments(model_name: str, stage: RegisterStage) -> dict[str, Any]:
    """Load the version that was registered.

    :param model_name: registered model.
    :param stage: what the file says of it.
    """
    version = Reference("register", "version")
    return {"model_name": model_name, "version": version, "require_example": stage.require_example}


def promote_arguments(model_name: str) -> dict[str, Any]:
    """Make the version that was loaded the champion.

    :param model_name: registered model.
    """
    return {
        "model_name": model_name,
        "version": Reference(LOAD_CHECK, "version"),
        "expected_champion": Reference("gate", "champion_version"),
        "reason": Reference("begin", "reason"),
        "dry_run": DRY_RUN,
    }
