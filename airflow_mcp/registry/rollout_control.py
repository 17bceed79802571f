"""Pause, resume and abort the rollout of a model: what a person does, or a task that is ended by one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.rollout.advance import failed_document, paused_document, resumed_document
from airflow_mcp.core.rollout.state import ARTIFACT_JOURNAL, Journal, parse_journal
from airflow_mcp.exceptions import EvidenceError, RolloutConflictError
from airflow_mcp.registry.governance import NOT_GOVERNED
from airflow_mcp.registry.guard import Act, ComplianceGuard
from airflow_mcp.registry.rollouts import RolloutStore

if TYPE_CHECKING:
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.serving.traffic import RolloutDocument
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.governance import Governance


def read_journal(mlflow: MlflowOperations, run_id: str) -> Journal | None:
    """Return the journal of a rollout; None when its MLflow run holds none.

    :param mlflow: the MLflow server.
    :param run_id: MLflow run of the rollout.
    :raises EvidenceError: when it cannot be read.
    """
    text = mlflow.find_artifact(run_id, ARTIFACT_JOURNAL) if run_id else None
    return parse_journal(text, run_id) if text is not None else None


class RolloutControl:
    """The active rollout of one model.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :param actor: who acts; recorded in the document.
    :param log: where waiting for other tasks is logged.
    :param governance: in which audit log every step is recorded.
    """

    def __init__(
        self,
        mlflow: MlflowOperations,
        model_name: str,
        *,
        actor: Actor,
        log: TaskLog,
        governance: Governance = NOT_GOVERNED,
    ) -> None:
        self._mlflow, self._model_name, self._by, self._actor = mlflow, model_name, str(actor), actor
        self._guard = ComplianceGuard(mlflow, governance, model_name, log)
        self._store = RolloutStore(mlflow, model_name, actor=actor, log=log, governance=governance)

    def document(self) -> RolloutDocument | None:
        """Return the document of the champion's latest rollout, also of one that has ended; None when there is none."""
        return self._store.read().document

    def pause(self, reason: str) -> RolloutDocument:
        """Keep the weight until somebody resumes; broken rules and breakers still end the rollout.

        :param reason: why.
        :return: the document that was written, or the present one when it waits already.
        :raises RolloutConflictError: when no rollout is in progress.
        """
        document = self._active()
        if document.phase == "WAITING":
            return document
        if document.phase != "PROGRESSING":
            raise RolloutConflictError(
                f"the rollout of {self._model_name!r} is {document.phase} and cannot be paused now. Nothing was "
                "written; abort it instead"
            )
        paused = paused_document(document, f"paused: {reason}", self._by, _now())
        return self._store.write(paused, expected=document.generation, require=self._permit("steer", document, reason))

    def resume(self, reason: str, *, skip: bool = False) -> RolloutDocument:
        """Go on with a rollout that waits: with the next step after a pause, otherwise with the same step anew.

        :param reason: why.
        :param skip: go on with the next step in any case.
        :raises RolloutConflictError: when no rollout waits.
        :raises EvidenceError: when its plan is not in its MLflow run.
        """
        document = self._active()
        if document.phase != "WAITING":
            raise RolloutConflictError(
                f"the rollout of {self._model_name!r} is {document.phase}, so there is nothing to resume. Nothing was "
                "written"
            )
        journal = read_journal(self._mlflow, document.run_id)
        if journal is None or journal.plan.hash != document.plan:
            raise EvidenceError(
                f"the plan of rollout {document.identity!r} is not in MLflow run {document.run_id!r}. Nothing was "
                "written; abort the rollout"
            )
        resumed = resumed_document(
            journal.plan, document, reason=f"resumed: {reason}", by=self._by, now=_now(), skip=skip
        )
        return self._store.write(resumed, expected=document.generation, require=self._permit("steer", document, reason))

    def abort(self, reason: str, *, identity: str = "") -> RolloutDocument:
        """End the rollout: all requests go back to the champion.

        :param reason: why.
        :param identity: only the rollout of this identity; empty for any.
        :raises RolloutConflictError: when no such rollout is in progress.
        """
        document = self._active()
        if identity and document.identity != identity:
            raise RolloutConflictError(
                f"the active rollout of {self._model_name!r} is {document.identity!r}, not {identity!r}. Nothing was "
                "written"
            )
        # Whoever names the rollout is its own task, which a person has ended.
        require = None if identity else self._permit("abort", document, reason)
        aborted = failed_document(document, "aborted", reason, self._by)
        return self._store.write(aborted, expected=document.generation, require=require)

    def _permit(self, act: Act, document: RolloutDocument, reason: str) -> Callable[[], object]:
        """Return what checks access before the document is written."""
        order = MoveOrder("transition", f"{document.identity}-{act}-{document.generation}", self._actor, reason)
        return lambda: self._guard.require(act, order, self._mlflow.get_registered_model(self._model_name), ())

    def _active(self) -> RolloutDocument:
        state = self._store.read()
        if state.active is None:
            problem = f" ({state.error})" if state.error else ""
            raise RolloutConflictError(
                f"no rollout of {self._model_name!r} is in progress{problem}. Nothing was written"
            )
        return state.active


def _now() -> datetime:
    return datetime.now(UTC)
