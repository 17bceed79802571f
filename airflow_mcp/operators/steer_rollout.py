"""Pause, resume or abort the rollout of a model, as a person asks for it in a Dag or on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_mcp.core.argument import choice, required_text
from airflow_mcp.exceptions import RolloutConflictError
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.registry.rollout_control import RolloutControl

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.serving.traffic import RolloutDocument

Steering = Literal["pause", "resume", "abort"]


class SteerRolloutOperator(ModelControlOperator):
    """Pause, resume or abort the rollout of a model that is in progress.

    It does what ``airflow-mcp rollout`` does: the task of the rollout finds the change at its next look. The access
    policy is asked again, and the change is recorded with the name of whoever triggered the Dag. A retry after success
    changes nothing.

    XCom: ``model_name``, ``action``, ``rollout`` (its identity), ``version`` (of the canary), ``phase``, ``weight`` (in
    percent), ``changed`` (whether this try changed it).

    :param model_name: registered model (templated).
    :param action: ``pause``, ``resume`` or ``abort`` (templated).
    :param reason: why; recorded with the rollout (templated).
    :param rollout: identity of the rollout that is meant; another one is left alone. Empty takes the one in progress
        (templated).
    :param generation: generation of its document that was looked at; when it has changed since, nothing is done. Give
        it to ``resume``, so that a retry cannot resume twice. Empty: not compared (templated).
    """

    template_fields: Sequence[str] = ("model_name", "action", "reason", "rollout", "generation")
    ui_color = "#e3f0fb"

    def __init__(
        self, *, model_name: str, action: str, reason: str, rollout: str = "", generation: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.action = action
        self.reason = reason
        self.rollout = rollout
        self.generation = generation

    def act(self, context: Context) -> dict[str, Any]:
        """Change the rollout.

        :raises InvalidArgumentError: for an unknown action, or without a reason.
        :raises RolloutConflictError: when no such rollout is in progress, or it is not in a phase for the action.
        :raises AccessRefusedError: when the policy does not permit it.
        :raises AuditUnavailableError: when the log does not answer; nothing was changed, unless this is an abort.
        """
        name = required_text("model_name", self.model_name)
        reason = required_text("reason", self.reason)
        action = choice("action", self.action, get_args(Steering))
        actor = self.actor(context)
        control = RolloutControl(self.hook, name, actor=actor, log=self.log, governance=self.governance)
        before = control.document()
        if before is not None and before.by == str(actor):  # an earlier try of this task has written it
            return self._result(action, before, changed=False)
        self._require_as_seen(name, before)
        document = {"pause": control.pause, "resume": control.resume, "abort": control.abort}[action](reason)
        return self._result(action, document, changed=document.has_moved_from(before))

    def _require_as_seen(self, name: str, found: RolloutDocument | None) -> None:
        rollout, generation = str(self.rollout or ""), str(self.generation or "")
        if rollout and (found is None or found.identity != rollout):
            other = f"the latest is {found.identity!r}" if found is not None else "there is none"
            raise RolloutConflictError(
                f"rollout {rollout!r} of {name!r} is not in progress: {other}. Nothing was written; look again"
            )
        if generation and (found is None or str(found.generation) != generation):
            raise RolloutConflictError(
                f"the rollout of {name!r} has changed since you looked. Nothing was written; look again"
            )

    def _result(self, action: str, document: RolloutDocument, *, changed: bool) -> dict[str, Any]:
        self.log.info("Rollout %s is %s at %g %%", document.identity, document.phase, document.weight)
        return {
            "model_name": self.model_name,
            "action": action,
            "rollout": document.identity,
            "version": document.canary,
            "phase": document.phase,
            "weight": document.weight,
            "changed": changed,
        }
