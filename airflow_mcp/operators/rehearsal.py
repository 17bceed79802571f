"""Rehearse the way back of a model, before somebody needs it: does it load, how long does it take, is it allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.core import contract
from airflow_mcp.core.argument import NO_CHAMPION, choice
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.load_check import ROLLBACK_CHECK_AGE, LoadCheckReport, LoadCheckRule
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.registry.rehearsal import Rehearsal, Way, judge_rehearsal
from airflow_mcp.core.serving.breaker import read_rollback
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, RefusedError, RehearsalFailedError
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.registry.aliases import champion_of, model_of
from airflow_mcp.registry.rollback import Rollback, check_rollback

if TYPE_CHECKING:
    from airflow.sdk import Context


class RehearseRollbackOperator(LoadCheckOperator):
    """Load the version that a rollback would lead to, ask it, measure how long that takes, and move nothing.

    It is a load check of that version, and tags it as one. Besides, the time from the download of the files to the
    answer must not exceed ``budget``, and a rollback must not be refused now, for any reason. The result is a tag of
    the version, which ``airflow-mcp status`` and ``airflow-mcp doctor`` show, and a report in the MLflow run.

    XCom, also when the task fails: as :class:`~airflow_mcp.operators.load_check.LoadCheckOperator`, with ``verdict``
    and ``reason`` of the rehearsal, and ``way``, ``champion_version``, ``seconds`` and ``budget_seconds``.

    :param model_name: registered model (templated).
    :param way: ``previous_champion``, where a rollback leads by default; or ``stable``, where model servers go by
        themselves: the version that the tag ``airflow_mcp.rollback`` of the champion names. The task is skipped when
        there is no such way, or when both lead to the same version and the way is ``stable``.
    :param budget: longest time from the download of the files to the answer.
    """

    ui_color = "#d9e4ef"

    def __init__(
        self,
        *,
        model_name: str,
        way: Way = "previous_champion",
        budget: timedelta = timedelta(minutes=5),
        **kwargs: Any,
    ) -> None:
        if given := sorted({"version", "alias", "on_missing_alias"} & set(kwargs)):
            raise InvalidArgumentError(f"{given[0]} must not be given: way says which version is rehearsed")
        super().__init__(model_name=model_name, alias=way, on_missing_alias="skip", **kwargs)
        self.way = choice("way", way, get_args(Way))
        self.budget = budget
        if budget <= timedelta(0):
            raise InvalidArgumentError(f"budget must be longer than zero; got {budget!r}")

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Tag the version with the load check and the rehearsal, and fail the task unless both passed.

        :raises ResultMissingError: when the run is not finished, or its report is missing.
        :raises LoadCheckFailedError: when the version is unusable.
        :raises EvidenceError: when the check shows nothing about the version.
        :raises RehearsalFailedError: when it took too long, or a rollback would be refused.
        """
        self.require_finished(run)
        check = self._report(run, identity)
        try:
            super().conclude(context, run, identity)
        except RefusedError as error:
            self._keep(context, self._judged(check, run, str(error)))
            raise
        rehearsal = self._judged(check, run, self._refusal(context, check, identity))
        self._keep(context, rehearsal)
        if rehearsal.verdict != "passed":
            raise RehearsalFailedError(
                f"the way from version {rehearsal.champion} of {rehearsal.model_name!r} back to version "
                f"{rehearsal.version} is not ready ({rehearsal.verdict}): {rehearsal.reason}. Nothing was moved; the "
                f"report is {contract.ARTIFACT_REHEARSAL} of MLflow run {rehearsal.run_id}"
            )
        return dict(self.outcome)

    def _pointed_at(self, name: str) -> ModelVersion | None:
        """Return the version at the end of the way; None when there is none."""
        if self.way == contract.ALIAS_PREVIOUS_CHAMPION:
            return super()._pointed_at(name)
        champion = champion_of(self.hook, name)
        if champion is None:
            return None
        found = read_rollback(champion.tags, champion.version, datetime.now(UTC))
        if found.error:
            raise EvidenceError(f"{name!r}: model servers would not go back by themselves: {found.error}")
        if found.document is None:
            return None
        stable = found.document.stable
        if model_of(self.hook, name).aliases.get(contract.ALIAS_PREVIOUS_CHAMPION) == stable:
            raise AirflowSkipException(f"{name!r}: both ways lead to version {stable}, the previous champion")
        return self.hook.get_model_version(name, stable)

    def _refusal(self, context: Context, check: LoadCheckReport, identity: str) -> str:
        """Return why a rollback would be refused now; empty when it would not. Nothing is claimed or written."""
        order = MoveOrder(action="rollback", identity=identity, by=self.actor(context), reason="rehearsal")
        wanted = Rollback(
            order=order,
            model_name=check.model_name,
            rule=LoadCheckRule(max_age=ROLLBACK_CHECK_AGE),
            to_version=check.version,
        )
        try:
            check_rollback(self.hook, wanted, log=self.log)
        except RefusedError as error:
            return str(error)
        return ""

    def _judged(self, check: LoadCheckReport, run: Run, refusal: str) -> Rehearsal:
        verdict, reason, seconds = judge_rehearsal(check, self.budget, refusal)
        champion = champion_of(self.hook, check.model_name)
        return Rehearsal(
            model_name=check.model_name,
            version=check.version,
            champion=champion.version if champion is not None else NO_CHAMPION,
            way=self.way,
            verdict=verdict,
            reason=reason,
            seconds=seconds,
            budget_seconds=self.budget.total_seconds(),
            at=check.created_at,
            run_id=run.run_id,
        )

    def _keep(self, context: Context, rehearsal: Rehearsal) -> None:
        """Store the report, then the tags, then the result of the task."""
        data = dump_document(rehearsal).encode()
        self.hook.upload_artifact(rehearsal.run_id, contract.ARTIFACT_REHEARSAL, data, "application/json")
        if rehearsal.seconds is not None:
            at = int(datetime.fromisoformat(rehearsal.at).timestamp() * 1000)
            self.hook.log_batch(rehearsal.run_id, {"rehearsal_seconds": rehearsal.seconds}, timestamp_ms=at)
        for tag, value in rehearsal.to_tags().items():
            self.hook.set_model_version_tag(rehearsal.model_name, rehearsal.version, tag, value)
        self.log.info("Way back from %s to %s: %s", rehearsal.champion, rehearsal.version, rehearsal)
        told = {
            "verdict": rehearsal.verdict,
            "reason": rehearsal.reason,
            "way": rehearsal.way,
            "champion_version": rehearsal.champion,
            "seconds": rehearsal.seconds,
            "budget_seconds": rehearsal.budget_seconds,
        }
        self.push(context, {**self.outcome, **told})
