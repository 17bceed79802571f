"""Move a model version between stages, for teams that still use Staging and Production."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.core.argument import NO_CHAMPION, flag, required_text, version_number
from airflow_mcp.core.identity import identity
from airflow_mcp.core.mlflow_entities import Stage
from airflow_mcp.core.registry.moves import Action, MoveOrder
from airflow_mcp.core.registry.stages import require_archivable, require_one_production, require_stage
from airflow_mcp.links.mlflow import MlflowModelVersionLink
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.registry.promotion import (
    Promotion,
    StageTransition,
    check_promotion,
    check_transition,
    promote,
    transition,
)

if TYPE_CHECKING:
    from airflow.sdk import Context


class TransitionModelStageOperator(ModelControlOperator):
    """Move a version to ``Staging``, ``Production``, ``Archived`` or ``None``, by moving aliases.

    A move to Production is a promotion, with all conditions of
    :class:`~airflow_mcp.operators.registry.PromoteModelOperator`; Staging is the alias ``challenger``. A retry after
    success changes nothing.

    XCom: ``model_name``, ``version``, ``stage``, ``current_stage`` (its stage now, which differs when it was moved on
    after an earlier try), ``archived`` (versions that this task archived), ``moved`` (whether this try moved it, or
    completed the move of a try that died).

    :param model_name: registered model (templated).
    :param version: version to move (templated).
    :param stage: ``None``, ``Staging``, ``Production`` or ``Archived`` (templated).
    :param archive_existing: archive the other versions of that stage, as MLflow's ``archive_existing_versions`` does;
        for Staging and Production only. Production has one version, so it must be true when there is a champion
        (templated).
    :param expected_champion: for Production, required: version that the gate compared with, or ``none`` (templated).
    :param require_gate: for Production: refuse a version whose gate decision is not ``passed``, ``warned`` or
        ``approved``.
    :param require_load_check: for Production: refuse a version that has not passed its load check; a version that
        failed it is refused in any case (templated).
    :param reason: why it is moved; recorded with the move (templated).
    :param dry_run: check the version, log what would be moved, and skip (templated).
    """

    template_fields: Sequence[str] = (
        "model_name",
        "version",
        "stage",
        "archive_existing",
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
        stage: str,
        archive_existing: bool | str = False,
        expected_champion: str = "",
        require_gate: bool = True,
        require_load_check: bool | str = True,
        reason: str = "",
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version = version
        self.stage = stage
        self.archive_existing = archive_existing
        self.expected_champion = expected_champion
        self.require_gate = require_gate
        self.require_load_check = require_load_check
        self.reason = reason
        self.dry_run = dry_run

    def act(self, context: Context) -> dict[str, Any]:
        """Move the aliases, unless an earlier try has moved them.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises AliasConflictError: when the champion is a different version by now, or would leave Production without
            a version in its place; nothing is moved.
        :raises GateRejectedError: for Production, when no gate accepted the version.
        :raises LoadCheckFailedError: for Staging and Production, when the version's load check failed.
        :raises EvidenceError: when the version is not READY; for Production, when it has not passed a load check.
        :raises ClaimUnavailableError: when another move of the model's aliases is in progress.
        """
        name = required_text("model_name", self.model_name)
        version = version_number("version", self.version)
        stage = require_stage("stage", self.stage)
        archive = flag("archive_existing", self.archive_existing)
        require_archivable(stage, archive)
        self.mlflow_model_version_url = self.hook.model_version_url(name, version)
        moved = self._to_production if stage == "Production" else self._to_another
        return {"model_name": name, "version": version, "stage": stage, **moved(context, name, version, stage, archive)}

    def _to_production(self, context: Context, name: str, version: str, stage: Stage, archive: bool) -> dict[str, Any]:
        """Promote; return the part of the XCom that says what was moved."""
        given = version_number("expected_champion", self.expected_champion, none_allowed=True)
        expected = None if given == NO_CHAMPION else given
        require_one_production(version, expected, archive_existing=archive)
        promotion = Promotion(
            order=self._order(context, "promote", {"model_name": name, "version": version}),
            model_name=name,
            version=version,
            expected_champion=expected,
            require_gate=self.require_gate,
            require_load_check=flag("require_load_check", self.require_load_check),
        )
        if flag("dry_run", self.dry_run):
            check_promotion(self.hook, promotion, log=self.log)
            self._skip(name, version, stage)
        plan = promote(self.hook, promotion, log=self.log, governance=self.governance)
        before = [plan.champion_before] if plan.champion_before not in (None, version) else []
        return {"current_stage": stage, "archived": before, "moved": plan.has_moved}

    def _to_another(self, context: Context, name: str, version: str, stage: Stage, archive: bool) -> dict[str, Any]:
        inputs = {"model_name": name, "version": version, "stage": stage, "archive_existing": archive}
        wanted = StageTransition(
            order=self._order(context, "transition", inputs),
            model_name=name,
            version=version,
            stage=stage,
            archive_existing=archive,
        )
        if flag("dry_run", self.dry_run):
            check_transition(self.hook, wanted)
            self._skip(name, version, stage)
        plan = transition(self.hook, wanted, log=self.log, governance=self.governance)
        return {
            "current_stage": plan.stage_now or stage,
            "archived": [other for other in plan.archived if other != version],
            "moved": plan.has_moved,
        }

    def _order(self, context: Context, action: Action, inputs: dict[str, Any]) -> MoveOrder:
        key = identity(self.task_key(context), {"action": action, **inputs})
        return MoveOrder(action=action, identity=key, by=self.actor(context), reason=self.reason)

    def _skip(self, name: str, version: str, stage: Stage) -> None:
        raise AirflowSkipException(f"dry run: version {version} of {name!r} would go to {stage}")
