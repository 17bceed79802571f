"""Records moves in the audit log: the intent before and the outcome after. Only a rollback moves without the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from airflow_mcp.core.access.requester import Requester, requester_of_actor
from airflow_mcp.core.audit.moves import AnyMove, intended, intent_action, model_subject, outcome
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.moves import MoveRecord
from airflow_mcp.exceptions import AuditUnavailableError, InvalidArgumentError, ModelControlPlaneError

if TYPE_CHECKING:
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.core.ports import Signer
    from airflow_mcp.core.registry.moves import MoveOrder
    from airflow_mcp.registry.guard import Approvals, Cleared
    from airflow_mcp.registry.release_tags import CodeRepositories

AUDIT_PENDING = "pending"
"""Field ``audit`` of the record of a rollback that began while the log was down."""
_MoveT = TypeVar("_MoveT", bound=AnyMove)


@dataclass(frozen=True)
class Governance:
    """Whether moves are recorded in an audit log, and in which one."""

    environment: str = "dev"
    open_log: Callable[[], AuditLog] | None = None
    """Returns the log when something is to be recorded; None: not governed."""
    rollback_without_log: bool = True
    """Whether a rollback goes on while the log is down; it is recorded later then."""
    off_reason: str = ""
    """Why the policy is not enforced; empty: it is. Recorded with every move."""
    requester: Callable[[Actor], Requester] = requester_of_actor
    """Returns who is behind a task or a command."""
    approvals: Approvals | None = None
    """Knows whether people have approved a release; None: nothing does."""
    open_signer: Callable[[], Signer] | None = None
    """Returns what signs clearances; None: nothing does."""
    repositories: CodeRepositories | None = None
    """Knows where the release tags of the code are; None: nothing does, and prod releases nothing."""

    def noted(self, order: MoveOrder) -> MoveOrder:
        """Return an order whose reason says that no policy was enforced, if that is so."""
        if not self.off_reason:
            return order
        return replace(order, reason=f"{order.reason} (no policy enforced: {self.off_reason})".strip())

    def require_log(self) -> None:
        """Check that prod has a log, and one that its users cannot change.

        :raises InvalidArgumentError: when it has none; nothing was moved.
        """
        if self.environment != "prod":
            return
        if self.open_log is None:
            raise InvalidArgumentError(
                "environment prod promotes only what an audit log records, and no log is configured. Nothing was "
                "moved; set [airflow_mcp] audit_conn_id, or AIRFLOW_MCP_AUDIT_LOG for the command line"
            )
        if not (log := self.open_log()).serves_prod:
            raise InvalidArgumentError(
                f"environment prod needs an audit log in PostgreSQL, and this one is {log.name}: whoever owns the file "
                "can change it. Nothing was moved"
            )


NOT_GOVERNED = Governance()
"""Nothing is recorded but in MLflow."""


class MoveBook:
    """Records the moves of one registered model.

    :param governance: in which log.
    :param model_name: registered model.
    :param log: where a move that could not be recorded is reported.
    """

    def __init__(self, governance: Governance, model_name: str, log: TaskLog) -> None:
        self.governance, self.model_name, self.log = governance, model_name, log

    def intend(self, move: _MoveT, order: MoveOrder, cleared: Cleared) -> _MoveT:
        """Record that a move is about to be made; return its record, which says so when that was not possible.

        :param move: the record of the move.
        :param order: who moves and why.
        :param cleared: what the guard found.
        :raises InvalidArgumentError: when the log refuses the event; nothing was moved.
        :raises AuditUnavailableError: when the log does not answer; nothing was moved.
        """
        governance = self.governance
        if governance.open_log is None:
            return move
        event = intended(move, order, self.model_name, cleared.environment, cleared.basis)
        try:
            governance.open_log().append(event)
        except ModelControlPlaneError as error:
            if order.action == "rollback" and isinstance(move, MoveRecord) and governance.rollback_without_log:
                self.log.warning(
                    "ALERT: %s is rolled back without the audit log, which does not answer; add the move later with "
                    "airflow-mcp audit reconcile: %s",
                    *(self.model_name, error),
                )
                return replace(move, audit=AUDIT_PENDING)
            raise unmoved(error) from error
        return move

    def moved(self, move: AnyMove) -> None:
        """Record that a move is done; a failure is only reported after a rollback.

        :raises AuditUnavailableError: when the log does not answer; the move is done, and a retry records it.
        """
        try:
            self._record(move)
        except ModelControlPlaneError as error:
            if move.action != "rollback":
                raise
            self.report(move, error)

    def complete(self, move: AnyMove) -> None:
        """Record a move that another task had begun; a failure is only reported, because a reconciliation finds it."""
        try:
            self._record(move)
        except ModelControlPlaneError as error:
            self.report(move, error)

    def report(self, move: AnyMove, error: Exception) -> None:
        """Report a move that is done and not recorded."""
        self.log.warning(
            "ALERT: the %s of %s is done, but not in the audit log; airflow-mcp audit reconcile adds it: %s",
            *(move.action, self.model_name, error),
        )

    def _record(self, move: AnyMove) -> None:
        if self.governance.open_log is None:
            return
        log = self.governance.open_log()
        intents = log.facts(model_subject(self.model_name), intent_action(move))
        log.append(outcome(move, self.model_name, self.governance.environment, intents))


def unmoved(error: ModelControlPlaneError) -> ModelControlPlaneError:
    """Return the error of a log that cannot be used, with what that means for a move."""
    said = f"{error}. Nothing was moved: a move is recorded before it is made"
    return AuditUnavailableError(said) if isinstance(error, AuditUnavailableError) else InvalidArgumentError(said)
