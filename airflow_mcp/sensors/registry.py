"""Wait until an alias of a registered model points at the right version, or a new version exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mcp.core.argument import required_text, version_number
from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIASES_OF_OURS
from airflow_mcp.core.registry.goal import ModelGoal
from airflow_mcp.core.registry.history import mover_of
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.links.mlflow import MlflowModelVersionLink
from airflow_mcp.sensors.waiting import WaitingSensor
from airflow_mcp.triggers.model import ModelGoalTrigger, found_version


class _RegistrySensor(WaitingSensor):
    """Base of both sensors: they wait for a version of a registered model."""

    operator_extra_links = (MlflowModelVersionLink(),)
    ui_color = "#e8e3f5"

    def __init__(self, *, model_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name

    def goal(self) -> ModelGoal:
        """Return the goal of the rendered arguments.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        raise TypeError(f"{type(self).__name__} does not implement goal()")

    def goal_trigger(self) -> ModelGoalTrigger:
        """Return the trigger for the goal; errors are those of :meth:`goal`."""
        conn_id = self.hook.mlflow_conn_id
        return ModelGoalTrigger(goal=self.goal().to_json(), mlflow_conn_id=conn_id, poll_seconds=self.poll_seconds)

    def look(self) -> dict[str, Any] | None:
        """Search the registry once."""
        goal = self.goal()
        versions = self.hook.find_model_versions(goal.model_name, goal.alias, goal.version, every=bool(goal.tags))
        found = goal.first_met(versions)
        return None if found is None else found_version(found)

    def result(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the version that was found, and link to it."""
        name = self.goal().model_name
        self.mlflow_model_version_url = self.hook.model_version_url(name, found["version"])
        self.log.info("found version %s of %s", found["version"], name)
        return {"model_name": name, **found}


class ModelAliasSensor(_RegistrySensor):
    """Wait until an alias of a registered model points at a version that is ``READY``.

    Model and alias need not exist yet. With ``deferrable`` the task looks once and then waits in the triggerer.

    XCom: ``model_name``, ``alias``, ``version``, ``model_uri``, ``run_id``, ``moved_by`` (who moved the alias;
    empty when no move is recorded: the alias was moved outside airflow-mcp, or airflow-mcp does not manage it).

    :param model_name: registered model (templated).
    :param alias: alias (templated).
    :param version: wait until it points at this version; empty: any version (templated).
    :param other_than: wait until it points at a version other than this; empty: any version (templated).
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("model_name", "alias", "version", "other_than")

    def __init__(
        self,
        *,
        model_name: str,
        alias: str = ALIAS_CHAMPION,
        version: str = "",
        other_than: str = "",
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name=model_name, deferrable=deferrable, **kwargs)
        self.alias = alias
        self.version = version
        self.other_than = other_than

    def goal(self) -> ModelGoal:
        """Return the goal of the rendered arguments.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        version, other = _version("version", self.version), _version("other_than", self.other_than)
        if version and other:
            raise InvalidArgumentError(
                f"only one of version and other_than must be given; got {version!r} and {other!r}"
            )
        name, alias = required_text("model_name", self.model_name), required_text("alias", self.alias)
        return ModelGoal(name, alias=alias, version=version, other_than=other)

    def result(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the version that was found, and who moved the alias to it."""
        goal, version = self.goal(), found["version"]
        model = self.hook.get_registered_model(goal.model_name)
        is_there_still = model.aliases.get(goal.alias) == version
        move = mover_of(model, goal.alias) if is_there_still else None
        if move is None and is_there_still and goal.alias in ALIASES_OF_OURS:
            self.log.warning(
                "no recorded move set alias %s of %s to version %s: it was moved outside airflow-mcp",
                *(goal.alias, goal.model_name, version),
            )
        return {**super().result(found), "alias": goal.alias, "moved_by": move.by if move else ""}


class ModelVersionSensor(_RegistrySensor):
    """Wait until a registered model has a version that is ``READY``; of several, the newest is returned.

    The model need not exist yet. With ``deferrable`` the task looks once and then waits in the triggerer.

    XCom: ``model_name``, ``version``, ``model_uri``, ``run_id``.

    :param model_name: registered model (templated).
    :param version: wait for this version; empty: any version (templated).
    :param newer_than: wait for a version with a higher number than this; empty: any version (templated).
    :param tags: tags that the version must have, such as ``{"airflow_mcp.gate_verdict": "passed"}`` (templated).
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("model_name", "version", "newer_than", "tags")

    def __init__(
        self,
        *,
        model_name: str,
        version: str = "",
        newer_than: str = "",
        tags: Mapping[str, str] | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name=model_name, deferrable=deferrable, **kwargs)
        self.version = version
        self.newer_than = newer_than
        self.tags = tags

    def goal(self) -> ModelGoal:
        """Return the goal of the rendered arguments.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        version, newer = _version("version", self.version), _version("newer_than", self.newer_than)
        if version and newer:
            raise InvalidArgumentError(
                f"only one of version and newer_than must be given; got {version!r} and {newer!r}"
            )
        tags = self.tags or {}
        if not isinstance(tags, Mapping) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
            raise InvalidArgumentError(f"tags must be a mapping of text to text; got {tags!r}")
        name = required_text("model_name", self.model_name)
        return ModelGoal(name, version=version, newer_than=newer, tags=dict(tags))


def _version(name: str, value: Any) -> str:
    """Check that a value is a version number, or empty for any version."""
    return "" if value == "" else version_number(name, value)
