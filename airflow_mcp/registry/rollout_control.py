"""Pause, resume and abort the rollout of a model: what a person does, or a task that is ended by one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.load_check import LoadCheckRule
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.rollout.advance import failed_document, paused_document, resumed_document
from airflow_mcp.core.rollout.state import ARTIFACT_JOURNAL, Journal, RolloutRecord, parse_journal
from airflow_mcp.core.serving.traffic import ACTIVE
from airflow_mcp.exceptions import EvidenceError, RolloutConflictError
from airflow_mcp.registry.governance import NOT_GOVERNED
from airflow_mcp.registry.guard import Act, ComplianceGuard
from airflow_mcp.registry.rollback import Rollback, roll_back
from airflow_mcp.registry.rollouts import RolloutStore, bake_document, write_record

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
        self._log, self._governance = log, governance
        self._guard = ComplianceGuard(mlflow, governance, model_name, log)
        self._store = RolloutStore(mlflow, model_name, actor=actor, log=log, governance=governance)

    def document(self) -> RolloutDocument | None:
        """Return the document of the champion's latest rollout, also of one that has ended; None when there is none.

        In the bake time of a new champion it is that of the rollout which watches it, in phase ``BAKING``.
        """
        state = self._store.read()
        return bake_document(state.champion, _now()) or state.document

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
                f"the rollout of {self._model_name!r} is {document.phase} and cannot be paused now{_why(document)}. "
                "Nothing was written; abort it instead"
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
                f"the rollout of {self._model_name!r} is {document.phase}, so there is nothing to resume"
                f"{_why(document)}. Nothing was written"
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
        """End the rollout: all requests go back to the champion. In the bake time the alias goes back too.

        :param reason: why.
        :param identity: only the rollout of this identity; empty for any.
        :raises RolloutConflictError: when no such rollout is in progress.
        :raises RefusedError: when the alias must not move back; nothing was moved.
        """
        document = self._active()
        if identity and document.identity != identity:
            raise RolloutConflictError(
                f"the active rollout of {self._model_name!r} is {document.identity!r}, not {identity!r}. Nothing was "
                "written"
            )
        # Whoever names the rollout is its own task, which a person has ended.
        is_own = bool(identity)
        if document.phase == "BAKING":
            return self._taken_back(document, reason, is_automatic=is_own)
        require = None if is_own else self._permit("abort", document, reason)
        aborted = failed_document(document, "aborted", reason, self._by)
        return self._store.write(aborted, expected=document.generation, require=require)

    def end(self, reason: str, *, identity: str, stable: str) -> None:
        """End a rollout whose task a person has ended, in whatever phase it is.

        :param reason: why.
        :param identity: the rollout.
        :param stable: version that was champion when it began.
        :raises RolloutConflictError: when another rollout is in progress; this one has ended.
        """
        document = self.document()
        if document is not None and document.identity == identity and document.phase in (*ACTIVE, "BAKING"):
            self.abort(reason, identity=identity)
        else:  # the alias has moved, so only what is left on the old champion must not come back
            self._store.close(stable, identity, "FAILED", f"aborted: {reason}")

    def _taken_back(self, document: RolloutDocument, reason: str, *, is_automatic: bool) -> RolloutDocument:
        """Move the alias back to the champion before, and record that the rollout was aborted."""
        order = MoveOrder("rollback", f"{document.identity}-back", self._actor, reason)
        wanted = way_back(order, self._model_name, document.stable, is_automatic=is_automatic)
        roll_back(self._mlflow, wanted, log=self._log, governance=self._governance)
        record = RolloutRecord(
            phase="FAILED",
            stable=document.stable,
            since=_now(),
            cause="aborted",
            reason=f"{reason}; the alias was moved back to version {document.stable}",
            run_id=document.run_id,
            by=self._by,
        )
        write_record(self._mlflow, self._model_name, document.canary, document.identity, record)
        return failed_document(document, "aborted", record.reason, self._by)

    def _permit(self, act: Act, document: RolloutDocument, reason: str) -> Callable[[], object]:
        """Return what checks access before the document is written."""
        order = MoveOrder("transition", f"{document.identity}-{act}-{document.generation}", self._actor, reason)
        return lambda: self._guard.require(act, order, self._mlflow.get_registered_model(self._model_name), ())

    def _active(self) -> RolloutDocument:
        state = self._store.read()
        if (bake := bake_document(state.champion, _now())) is not None:
            return bake
        if state.active is None:
            problem = f" ({state.error})" if state.error else ""
            raise RolloutConflictError(
                f"no rollout of {self._model_name!r} is in progress{problem}. Nothing was written"
            )
        return state.active


def way_back(order: MoveOrder, model_name: str, stable: str, *, is_automatic: bool) -> Rollback:
    """Return the move back to the champion before; it served until just now, so no recent load check is needed.

    :param order: who goes back, and why.
    :param model_name: registered model.
    :param stable: version that was champion when the rollout began.
    :param is_automatic: whether the rollout itself goes back, so that nobody is asked.
    """
    return Rollback(
        order=order, model_name=model_name, rule=LoadCheckRule(False), to_version=stable, is_automatic=is_automatic
    )


def _why(document: RolloutDocument) -> str:
    baking = f": version {document.canary} is the champion already, and is watched"
    return baking if document.phase == "BAKING" else ""


def _now() -> datetime:
    return datetime.now(UTC)
