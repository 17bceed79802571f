"""Keep the audit log: take checkpoints to places that its owner cannot write to, and record what it missed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_mcp import settings
from airflow_mcp.audit.checkpoints import seal, why_unanchored
from airflow_mcp.core.audit.moves import audit_actor
from airflow_mcp.core.serving.replica_events import PATH_EVENTS
from airflow_mcp.exceptions import AnchorError, EvidenceError, InvalidArgumentError, ServerUnreachableError
from airflow_mcp.hooks.audit_anchors import anchors_of
from airflow_mcp.hooks.serving import ServingHook
from airflow_mcp.hooks.signing import SigningKeyHook
from airflow_mcp.operators.audit_base import AuditOperator
from airflow_mcp.operators.base import now
from airflow_mcp.registry.reconcile import reconcile

if TYPE_CHECKING:
    from airflow.sdk import Context


class CheckpointAuditOperator(AuditOperator):
    """Verify what the audit log has grown by, sign its size and root, and take the signed note to every anchor.

    The task fails when the log was tampered with, and when no anchor was reached; an anchor that fails beside another
    one is an event ``audit.anchor_failed`` and a warning. A retry takes a further checkpoint.

    XCom: ``records``, ``root``, ``verified_from``, ``places``, ``failed`` (anchor to problem).

    :param anchors: places for the note: addresses, or mappings of ``uri`` and ``conn_id`` (templated). A folder,
        ``s3://bucket/prefix`` (with object lock), ``git+https://host/repository.git#branch`` (a protected branch),
        ``mlflow:<registered model>`` (never alone), or any address that Airflow's object storage opens.
    :param signing_conn_id: Airflow connection of type ``signing_key`` with an Ed25519 key; None takes ``[airflow_mcp]
        signing_conn_id``.
    """

    template_fields: Sequence[str] = ("anchors",)

    def __init__(
        self, *, anchors: Sequence[str | Mapping[str, str]] | str, signing_conn_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.anchors = anchors
        self.signing_conn_id = signing_conn_id

    def act(self, context: Context) -> dict[str, Any]:
        """Take a checkpoint.

        :raises InvalidArgumentError: when no anchor counts alone, or a connection is missing.
        :raises AccessRefusedError: when a person made this task run who may not read the log.
        :raises EvidenceError: when the log was tampered with, or an anchor has another checkpoint of the same size.
        :raises AnchorError: when no anchor that counts alone was reached; a retry takes another checkpoint.
        :raises AuditUnavailableError: when the log does not answer.
        """
        conn_id = self.signing_conn_id or settings.signing_conn_id()
        if not conn_id:
            raise InvalidArgumentError(
                "signing_conn_id must name the connection of a signing key, here or in [airflow_mcp] signing_conn_id; "
                "got nothing. No checkpoint was taken"
            )
        signer, hook = SigningKeyHook(conn_id).get_conn(), self.audit_hook()
        environment = hook.settings.environment
        anchors = anchors_of(self.anchors, self.hook)
        with closing(hook.get_conn()) as log:
            self.require_readers(context, log, environment)
            sealed = seal(log, anchors, signer, audit_actor(self.actor(context)), environment)
            problem = "" if sealed.is_anchored else why_unanchored(log, now())
        found = sealed.found
        if not found.is_whole:
            raise EvidenceError(f"the audit log was TAMPERED with: {found.problem}. No checkpoint was taken")
        for place in sealed.places:
            self.log.info("%s: checkpoint of %d records", place, found.records)
        for place, why in sealed.failed.items():
            self.log.warning("%s was not reached: %s", place, why)
        result = {
            "records": found.records,
            "root": found.root.hex(),
            "verified_from": sealed.verified_from,
            "places": list(sealed.places),
            "failed": dict(sealed.failed),
        }
        with self.pushed_when_raising(context, result):
            if problem:
                self.log.warning("ALERT: %s", problem)
            if not sealed.is_anchored:
                raise AnchorError(f"no anchor that counts alone was reached: {'; '.join(sealed.failed.values())}")
        return result


class ReconcileAuditOperator(AuditOperator):
    """Record what MLflow and the model servers have and the audit log missed.

    Moves without an outcome, abandoned intents, aliases that somebody moved outside airflow-mcp, decisions of the last
    seven days, and what every replica started, refused and swapped. A second run adds none of them again. What the
    log says and MLflow does not is a problem: it is recorded, logged and in the XCom, and the task goes on.

    XCom: ``added`` (action to number), ``problems``.

    :param serving_conn_ids: Airflow connections of type ``model_server``, whose replicas are asked (templated).
    """

    template_fields: Sequence[str] = ("serving_conn_ids",)

    def __init__(self, *, serving_conn_ids: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.serving_conn_ids = serving_conn_ids

    def act(self, context: Context) -> dict[str, Any]:
        """Compare and record.

        :raises AccessRefusedError: when a person made this task run who may not read the log.
        :raises AuditUnavailableError: when the log does not answer; what was added stays, and a retry adds the rest.
        :raises MlflowError: when MLflow does not answer; likewise.
        """
        hook = self.audit_hook()
        environment = hook.settings.environment
        pages, problems = self._pages()
        with closing(hook.get_conn()) as log:
            self.require_readers(context, log, environment)
            done = reconcile(self.hook, log, environment, audit_actor(self.actor(context)), pages)
        added: dict[str, int] = {}
        for event in done.added:
            added[event.action] = added.get(event.action, 0) + 1
            self.log.info("recorded late: %s of %s", event.action, event.subject)
        for problem in (*problems, *done.problems):
            self.log.warning("ALERT: %s", problem)
        return {"added": added, "problems": [*problems, *done.problems]}

    def _pages(self) -> tuple[dict[str, str], list[str]]:
        """Return the events of every replica, and which servers did not answer: theirs are pulled the next time."""
        pages: dict[str, str] = {}
        problems = []
        for conn_id in self.serving_conn_ids:
            try:
                pages |= {each.replica: each.text for each in asyncio.run(ServingHook(conn_id).read(PATH_EVENTS))}
            except ServerUnreachableError as error:
                problems.append(f"the model servers of {conn_id} were not asked: {error}")
        return pages, problems
