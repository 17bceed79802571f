"""Register a model version, promote it to champion, and roll back to an earlier champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.core import contract
from airflow_mcp.core.argument import NO_CHAMPION, flag, required_text, version_number
from airflow_mcp.core.audit.decisions import version_registered
from airflow_mcp.core.identity import identity
from airflow_mcp.core.mlflow_entities import LoggedModel, ModelVersion, Run
from airflow_mcp.core.registry.gate_check import require_passed_gate
from airflow_mcp.core.registry.load_check import ROLLBACK_CHECK_AGE, LoadCheckRule
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.registry.plans import AliasPlan
from airflow_mcp.core.registry.publishing import parse_source
from airflow_mcp.exceptions import (
    EvidenceError,
    InvalidArgumentError,
    MlflowError,
)
from airflow_mcp.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.operators.base import ModelControlOperator, require_active
from airflow_mcp.registry.claims import Claims
from airflow_mcp.registry.promotion import Promotion, check_promotion, promote
from airflow_mcp.registry.registration import create_once, mark_model, wait_until_ready
from airflow_mcp.registry.rollback import Rollback, check_rollback, roll_back

if TYPE_CHECKING:
    from airflow.sdk import Context


class RegisterModelOperator(ModelControlOperator):
    """Register a logged model as a version of a registered model. Each logged model gets one version.

    The registered model is created when it does not exist. The version carries the run's provenance and gate verdict
    as tags. A logged model whose gate decision is not ``passed``, ``warned`` or ``approved`` is refused.

    XCom: ``model_name``, ``version``, ``model_uri`` (``models:/<name>/<version>``), ``run_id``.

    :param model_name: registered model (templated).
    :param model_uri: ``models:/<model id>`` or ``runs:/<run id>/<name of the logged model>``; nothing else (templated).
    :param require_gate: refuse unless the run's gate decision is ``passed``, ``warned`` or ``approved``.
    :param tags: additional tags of the version (templated).
    :param description: text for the version's page (templated).
    :param dry_run: check everything, log what would be registered, and skip (templated).
    """

    template_fields: Sequence[str] = ("model_name", "model_uri", "tags", "description", "dry_run")
    operator_extra_links = (MlflowModelVersionLink(), MlflowRunLink())
    ui_color = "#dceefb"

    def __init__(
        self,
        *,
        model_name: str,
        model_uri: str,
        require_gate: bool = True,
        tags: Mapping[str, str] | None = None,
        description: str = "",
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.model_uri = model_uri
        self.require_gate = require_gate
        self.tags = tags
        self.description = description
        self.dry_run = dry_run

    def act(self, context: Context) -> dict[str, Any]:
        """Return the version of this model; create it if needed and wait until it is READY.

        :raises InvalidArgumentError: when ``model_uri`` is not of an accepted form.
        :raises EvidenceError: when the model is not READY or its run is deleted.
        :raises GateRejectedError: when no gate accepted the run.
        :raises ClaimUnavailableError: when another task is registering the same model; a retry helps.
        :raises FailedError: when the version does not become READY.
        """
        name = required_text("model_name", self.model_name)
        self._require_texts()
        model = self._logged_model(required_text("model_uri", self.model_uri))
        run = self.hook.get_run(model.source_run_id)
        require_active(run)
        self.mlflow_run_url = self.hook.run_url(run)
        if self.require_gate:
            self._require_passed_gate(run)
        if flag("dry_run", self.dry_run):
            raise AirflowSkipException(f"dry run: {model.uri} would be registered as a version of {name!r}")
        version = self._existing(name, model) or self._create(context, name, model, run)
        version = wait_until_ready(self.hook, version)
        mark_model(self.hook, name, self.governance.environment)
        self.record(context, partial(version_registered, version))
        self.hook.set_tag(run.run_id, contract.TAG_MODEL_VERSION, f"{name}/{version.version}")
        self.mlflow_model_version_url = self.hook.model_version_url(name, version.version)
        self.log.info("%s is version %s of %s", model.uri, version.version, name)
        return {
            "model_name": name,
            "version": version.version,
            "model_uri": version.uri,
            "run_id": run.run_id,
        }

    def _require_texts(self) -> None:
        """Check the values that are written as they are given."""
        tags = self.tags or {}
        if not isinstance(tags, Mapping) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
            raise InvalidArgumentError(f"tags must be a mapping of text to text; got {self.tags!r}")
        if not isinstance(self.description, str):
            raise InvalidArgumentError(f"description must be text; got {self.description!r}")

    def _require_passed_gate(self, run: Run) -> None:
        if warning := require_passed_gate(f"MLflow run {run.run_id}", run.tags.get(contract.TAG_GATE_VERDICT)):
            self.log.warning(warning)

    def _logged_model(self, model_uri: str) -> LoggedModel:
        source = parse_source("model_uri", model_uri, "models:/<model id> or runs:/<run id>/<name of the logged model>")
        if source.kind == "model":
            return _require_ready_model(self.hook.get_logged_model(source.id))
        if source.kind == "upload":
            raise InvalidArgumentError(
                f"model_uri must name a logged model; got {model_uri!r}. PublishModelOperator makes one of an upload"
            )
        run = self.hook.get_run(source.id)
        models = [self.hook.get_logged_model(model_id) for model_id in run.model_ids]
        found = [model for model in models if model.name == source.path]
        if not found:
            names = ", ".join(sorted(model.name for model in models)) or "none"
            raise InvalidArgumentError(
                f"model_uri {model_uri!r}: the run has logged no model named {source.path!r} (logged: {names})"
            )
        return _require_ready_model(found[-1])

    def _existing(self, name: str, model: LoggedModel) -> ModelVersion | None:
        """Return the version that an earlier try created from this logged model: the oldest, if there are two."""
        found = [
            version
            for version in self.hook.search_model_versions(
                f"name = {filter_value(name)} and run_id = '{model.source_run_id}'"
            )
            if model.model_id in (version.model_id, version.source.removeprefix("models:/"))
        ]
        return min(found, key=lambda version: int(version.version), default=None)

    def _create(self, context: Context, name: str, model: LoggedModel, run: Run) -> ModelVersion:
        """Create the version, unless another task has created it at the same moment."""
        provenance = {key: value for key, value in run.tags.items() if key.startswith(contract.TAG_PREFIX) and value}
        claims = Claims(self.hook, name, holder=self.actor(context), log=self.log, subject=model.uri)
        try:
            return create_once(
                claims,
                lambda: self._existing(name, model),
                lambda: self.hook.create_model_version(
                    name,
                    model.uri,
                    run_id=run.run_id,
                    model_id=model.model_id,
                    tags={**(self.tags or {}), **provenance},
                    description=self.description,
                ),
            )
        except MlflowError as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            raise InvalidArgumentError(
                f"MLflow refuses model_name, tags or description, and would refuse them again: {error}. No version was "
                "created"
            ) from error


class PromoteModelOperator(ModelControlOperator):
    """Promote a version to champion, if the champion is still the version that it was compared with.

    ``previous_champion`` then points at the champion before it, for a rollback. Promotions of one model run one at a
    time: while another is in progress this task waits briefly and then fails, and a retry continues. A retry after
    success changes nothing.

    XCom: ``model_name``, ``version``, ``previous_version`` (``none`` when there was no champion), ``champion_version``
    (the champion now), ``moved`` (whether this try moved it, or completed the move of a try that died).

    :param model_name: registered model (templated).
    :param version: version to promote (templated).
    :param expected_champion: version that the gate compared with, or ``none`` (``gate.output["champion_version"]``;
        templated). A missing value is refused, because it does not mean that there is no champion.
    :param require_gate: refuse a version whose gate decision is not ``passed``, ``warned`` or ``approved``.
    :param require_load_check: refuse a version that has not passed its load check. False accepts a version that was
        never checked, which is recorded with the move; a version that failed its check is refused in any case
        (templated).
    :param reason: why it is promoted; recorded with the move (templated).
    :param dry_run: check the version, log what would be moved, and skip (templated).
    """

    template_fields: Sequence[str] = (
        "model_name",
        "version",
        "expected_champion",
        "require_load_check",
        "reason",
        "dry_run",
    )
    operator_extra_links = (MlflowModelVersionLink(),)
    ui_color = "#cfe8d5"

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        expected_champion: str,
        require_gate: bool = True,
        require_load_check: bool | str = True,
        reason: str = "",
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version = version
        self.expected_champion = expected_champion
        self.require_gate = require_gate
        self.require_load_check = require_load_check
        self.reason = reason
        self.dry_run = dry_run

    def act(self, context: Context) -> dict[str, Any]:
        """Move the aliases, unless an earlier try has moved them.

        :raises AliasConflictError: when the champion is a different version by now, also if an earlier try had promoted
            this one; nothing is moved.
        :raises GateRejectedError: when no gate accepted the version.
        :raises LoadCheckFailedError: when the version's load check failed.
        :raises EvidenceError: when the version is not READY, or has not passed a load check although one is required.
        :raises ClaimUnavailableError: when another promotion of the model is in progress.
        """
        name = required_text("model_name", self.model_name)
        wanted = version_number("version", self.version)
        expected = version_number("expected_champion", self.expected_champion, none_allowed=True)
        key = identity(self.task_key(context), {"action": "promote", "model_name": name, "version": wanted})
        promotion = Promotion(
            order=MoveOrder(action="promote", identity=key, by=self.actor(context), reason=self.reason),
            model_name=name,
            version=wanted,
            expected_champion=None if expected == NO_CHAMPION else expected,
            require_gate=self.require_gate,
            require_load_check=flag("require_load_check", self.require_load_check),
        )
        self.mlflow_model_version_url = self.hook.model_version_url(name, wanted)
        if flag("dry_run", self.dry_run):
            check_promotion(self.hook, promotion, log=self.log)
            raise AirflowSkipException(f"dry run: version {wanted} of {name!r} would become the champion")
        plan = promote(self.hook, promotion, log=self.log, governance=self.governance)
        return _moved(name, plan)


class RollbackModelOperator(ModelControlOperator):
    """Make the previous champion, or a named version, the champion again, if it still loads.

    The version that was champion is tagged with the reason, and ``previous_champion`` is removed, so that rolling back
    twice never rolls forward. A retry after success changes nothing.

    XCom: ``model_name``, ``version``, ``previous_version`` (the version that was rolled back), ``champion_version``
    (the champion now), ``moved`` (whether this try moved it, or completed the move of a try that died).

    :param model_name: registered model (templated).
    :param to_version: version to roll back to; empty takes ``previous_champion``. A version that never was champion
        needs a gate decision of ``passed``, ``warned`` or ``approved`` (templated).
    :param force: accept a version that never was champion and that no gate accepted; logged, and recorded with the
        move (templated).
    :param require_load_check: refuse a version that has not passed a recent load check. False is for an emergency in
        which nothing can be checked, and is recorded with the move; a version that failed its check is refused in any
        case (templated).
    :param max_load_check_age: maximum age of the load check that passed; None: any age.
    :param reason: why the model is rolled back; recorded with the move and on the version that was champion
        (templated).
    :param dry_run: check everything, push what would be moved to XCom, and skip (templated).
    """

    template_fields: Sequence[str] = ("model_name", "to_version", "force", "require_load_check", "reason", "dry_run")
    operator_extra_links = (MlflowModelVersionLink(),)
    ui_color = "#fbe3c8"

    def __init__(
        self,
        *,
        model_name: str,
        to_version: str = "",
        force: bool | str = False,
        require_load_check: bool | str = True,
        max_load_check_age: timedelta | None = ROLLBACK_CHECK_AGE,
        reason: str = "",
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.to_version = to_version
        self.force = force
        self.require_load_check = require_load_check
        self.max_load_check_age = max_load_check_age
        self.reason = reason
        self.dry_run = dry_run
        if max_load_check_age is not None and max_load_check_age <= timedelta(0):
            raise InvalidArgumentError(f"max_load_check_age must be longer than zero; got {max_load_check_age!r}")

    def act(self, context: Context) -> dict[str, Any]:
        """Move the champion alias back.

        :raises AliasConflictError: when there is no version to roll back to, or it was deleted; nothing is moved, and
            the message names the earlier champions that still exist. Also when an earlier try had rolled back and
            the champion has moved since.
        :raises GateRejectedError: when the named version never was champion and no gate accepted it.
        :raises LoadCheckFailedError: when the version failed its load check; the message names others.
        :raises EvidenceError: when the version is not READY, or has not passed a recent load check.
        :raises ClaimUnavailableError: when another move of the model's aliases is in progress.
        """
        name = required_text("model_name", self.model_name)
        is_named = not isinstance(self.to_version, str) or bool(self.to_version)
        wanted = version_number("to_version", self.to_version) if is_named else None
        key = identity(self.task_key(context), {"action": "rollback", "model_name": name, "to_version": wanted})
        rollback = Rollback(
            order=MoveOrder(action="rollback", identity=key, by=self.actor(context), reason=self.reason),
            model_name=name,
            to_version=wanted,
            force=flag("force", self.force),
            rule=LoadCheckRule(flag("require_load_check", self.require_load_check), self.max_load_check_age),
        )
        is_dry_run = flag("dry_run", self.dry_run)
        if is_dry_run:
            plan = check_rollback(self.hook, rollback, log=self.log)
        else:
            plan = roll_back(self.hook, rollback, log=self.log, governance=self.governance)
        self.mlflow_model_version_url = self.hook.model_version_url(name, plan.champion_after)
        if is_dry_run:
            champion = plan.champion_before or NO_CHAMPION
            self.push(context, {**_moved(name, plan), "champion_version": champion, "moved": False})
            raise AirflowSkipException(f"dry run: version {plan.champion_after} of {name!r} would become the champion")
        return _moved(name, plan)


def _moved(name: str, plan: AliasPlan) -> dict[str, Any]:
    return {
        "model_name": name,
        "version": plan.champion_after,
        "previous_version": plan.champion_before or NO_CHAMPION,
        "champion_version": plan.champion_after,
        "moved": plan.has_moved,
    }


def _require_ready_model(model: LoggedModel) -> LoggedModel:
    if model.status != "READY":
        raise EvidenceError(f"logged model {model.uri} is {model.status}, not READY. Nothing was registered")
    return model
