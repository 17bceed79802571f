"""The split of a model's traffic in the registry: read, and written by one task at a time with a generation number."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.moves import fitted_reason
from airflow_mcp.core.rollout.state import TAG_ROLLOUT_RECORD, RolloutRecord, RolloutState, ended_document, record_of
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK, RollbackDocument
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RolloutDocument
from airflow_mcp.exceptions import MlflowNotFoundError, ModelControlPlaneError, RolloutConflictError
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.registry.claims import Claims
from airflow_mcp.registry.governance import NOT_GOVERNED
from airflow_mcp.registry.recording import STEP_INTENDED, STEP_TAKEN, record, rollout_event

if TYPE_CHECKING:
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.audit.event import AuditEvent
    from airflow_mcp.core.mlflow_entities import ModelVersion
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.governance import Governance

_RECORD_REASON = 1000
"""Characters of a reason in the record; the report has all of them."""


class RolloutStore:
    """The one document that splits the traffic of a model: the tag of the champion's version.

    It is written under the claim on the model's aliases, so a promotion and a step of a rollout never interleave. When
    the alias ``champion`` moves, the document stays behind on the old version and is void.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :param actor: who writes.
    :param log: where waiting for other tasks is logged.
    :param governance: in which audit log every step is recorded, before and after it is written.
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
        self._mlflow, self._model_name = mlflow, model_name
        self._actor, self._log, self._governance = actor, log, governance
        self._claims = Claims(mlflow, model_name, holder=actor, log=log)

    def read(self) -> RolloutState:
        """Return the champion and its document as they are now.

        :raises MlflowError: when MLflow does not answer.
        """
        return RolloutState.of(champion_of(self._mlflow, self._model_name))

    def write(
        self,
        document: RolloutDocument,
        *,
        expected: int,
        require: Callable[[], object] | None = None,
        intended: Callable[[RolloutDocument], object] | None = None,
    ) -> RolloutDocument:
        """Write a document if nobody has written since it was read, and return it with its new generation.

        A retry whose document was written already, with the same content, finds it and writes nothing.

        :param document: what to write; its generation is not looked at.
        :param expected: generation that was read; 0 when this rollout had no document.
        :param require: raises when it must not be written; called under the claim.
        :param intended: called with the document after its intent was recorded, before it is written.
        :raises RolloutConflictError: when somebody else has written, another rollout is active, or the champion is not
            the document's stable version; nothing was written.
        :raises ClaimUnavailableError: when another task works on the model's aliases; nothing was written.
        :raises MlflowError: when MLflow does not answer; a retry finds what was written.
        :raises AuditUnavailableError: when the audit log does not answer; nothing was written. A rollout is ended all
            the same, as a rollback goes on.
        """
        wanted = _fitted(document.model_copy(update={"generation": expected + 1}))
        with self._claims.held() as claim:
            state = self.read()
            if state.document == wanted:
                self.record_taken(wanted)
                return wanted
            champion = self._require_unchanged(state, wanted, expected)
            if require is not None:
                require()
            self._intend(wanted)
            if intended is not None:
                intended(wanted)
            self._claims.require_valid(claim)
            text = dump_document(wanted, indent=None)
            self._mlflow.set_model_version_tag(self._model_name, champion.version, TAG_ROLLOUT, text)
            after = self.read()
            if after.champion is None or after.champion.version != champion.version or after.document != wanted:
                raise RolloutConflictError(
                    f"{self._named(wanted)}: generation {wanted.generation} was written, but the registry now says "
                    f"something else ({after.error or _describe(after)}). Read it again before the next step"
                )
        self.record_taken(wanted)
        return wanted

    def close(self, version: str, identity: str, phase: Literal["SUCCEEDED", "FAILED"], reason: str) -> None:
        """End the document that a rollout left on a version, whichever version is champion now.

        Otherwise its split would come back as soon as that version is champion again.

        :param version: version that was champion during the rollout.
        :param identity: the rollout; the document of another one is left alone.
        :param phase: how it ended.
        :param reason: why.
        :raises ClaimUnavailableError: when another task works on the model's aliases; a retry closes it.
        """
        if self._left_on(version, identity) is None:
            return
        with self._claims.held() as claim:
            found = self._left_on(version, identity)
            if found is None:
                return
            changes = {"generation": found.generation + 1, "step_since": datetime.now(UTC), "by": str(self._actor)}
            ended = _fitted(ended_document(found, phase, reason, **changes))
            self._claims.require_valid(claim)
            text = dump_document(ended, indent=None)
            self._mlflow.set_model_version_tag(self._model_name, version, TAG_ROLLOUT, text)
        self.record_taken(ended)

    def _left_on(self, version: str, identity: str) -> RolloutDocument | None:
        """Return the active document of a rollout on a version; None when there is none."""
        try:
            found = RolloutState.of(self._mlflow.get_model_version(self._model_name, version)).document
        except MlflowNotFoundError:
            return None
        return found if found is not None and found.identity == identity and found.is_active else None

    def _intend(self, document: RolloutDocument) -> None:
        """Record a step before it is written.

        :raises AuditUnavailableError: when the log does not answer, unless the step ends the rollout.
        """
        try:
            record(self._governance, partial(self._event, STEP_INTENDED, document))
        except ModelControlPlaneError as error:
            if document.is_active or not self._governance.rollback_without_log:
                raise
            self._report(document, error)

    def record_taken(self, document: RolloutDocument) -> None:
        """Record a step that is written; a failure is only reported, because a reconciliation finds the step."""
        try:
            record(self._governance, partial(self._event, STEP_TAKEN, document))
        except ModelControlPlaneError as error:
            self._report(document, error)

    def _event(self, action: str, document: RolloutDocument, environment: str) -> AuditEvent:
        return rollout_event(action, self._model_name, document, environment, self._actor)

    def _report(self, document: RolloutDocument, error: Exception) -> None:
        self._log.warning(
            "ALERT: generation %d of the %s is not in the audit log; airflow-mcp audit reconcile adds it: %s",
            *(document.generation, self._named(document), error),
        )

    def _require_unchanged(self, state: RolloutState, wanted: RolloutDocument, expected: int) -> ModelVersion:
        champion, found = state.champion, state.document
        what = self._named(wanted)
        if champion is None or champion.version != wanted.stable:
            now = f"version {champion.version}" if champion else "no version"
            is_promoted = champion is not None and champion.version == wanted.canary
            back = f"; to go back, run airflow-mcp rollback {self._model_name}" if is_promoted else ""
            raise RolloutConflictError(
                f"{what}: alias {ALIAS_CHAMPION!r} points at {now}, not at version {wanted.stable}, so the rollout is "
                f"over. Nothing was written{back}"
            )
        if found is not None and found.identity != wanted.identity and found.is_active:
            raise RolloutConflictError(
                f"{what}: rollout {found.identity!r} of version {found.canary} is {found.phase}. Nothing was written; "
                "wait until it ends, or abort it"
            )
        present = found.generation if found is not None and found.identity == wanted.identity else 0
        if present != expected:
            raise RolloutConflictError(
                f"{what}: generation {expected} was expected and {present} found, so somebody else has written. "
                "Nothing was written; read the document again"
            )
        return champion

    def _named(self, document: RolloutDocument) -> str:
        return f"rollout {document.identity!r} of {self._model_name!r}"


def write_record(mlflow: MlflowOperations, model_name: str, version: str, identity: str, record: RolloutRecord) -> None:
    """Write on a version how far its rollout is.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :param version: version that is rolled out.
    :param identity: name of the rollout.
    :param record: the record; its reason is cut to what every database of MLflow keeps.
    :raises MlflowNotFoundError: when the version was deleted.
    """
    short = record.model_copy(update={"reason": record.reason[:_RECORD_REASON]})
    name, text = TAG_ROLLOUT_RECORD + identity, dump_document(short, indent=None)
    mlflow.set_model_version_tag(model_name, version, name, text)


def bake_document(champion: ModelVersion | None, now: datetime) -> RolloutDocument | None:
    """Return the rollout that watches a champion since its promotion, as a document; None when there is none.

    In the bake time the state is in the record on the new champion, and no version is split off.

    :param champion: the champion's version as it was read.
    :param now: present time, with a time zone.
    :raises EvidenceError: when a record cannot be read.
    """
    if champion is None or not (text := champion.tags.get(TAG_ROLLBACK, "")):
        return None
    rule = parse_document(RollbackDocument, text, f"tag {TAG_ROLLBACK!r} of version {champion.version}")
    if rule.until is None or rule.until <= now:  # whoever watched it is gone for good
        return None
    for name in champion.tags:
        identity = name.removeprefix(TAG_ROLLOUT_RECORD)
        record = record_of(champion, identity) if identity != name else None
        if record is not None and record.phase in ("PROMOTING", "BAKING"):
            return RolloutDocument(
                identity=identity,
                generation=1,
                phase="BAKING",
                stable=record.stable,
                canary=champion.version,
                weight=100.0,
                step_since=record.since,
                run_id=record.run_id,
                by=record.by,
                reason="the new champion is watched",
            )
    return None


def require_no_bake(champion: ModelVersion, model_name: str, identity: str) -> None:
    """Check that no other rollout watches the champion.

    :param champion: the champion's version.
    :param model_name: registered model.
    :param identity: the rollout that asks, which may.
    :raises RolloutConflictError: when one does; nothing was written.
    """
    bake = bake_document(champion, datetime.now(UTC))
    if bake is None or bake.identity == identity:
        return
    raise RolloutConflictError(
        f"{model_name!r}: rollout {bake.identity!r} still watches version {bake.canary}, which is in its bake time. "
        f"Nothing was written; wait until it ends, or go back to version {bake.stable} with airflow-mcp rollout abort "
        f"{model_name}"
    )


def _describe(state: RolloutState) -> str:
    if state.champion is None:
        return "no champion"
    document = state.document
    written = f"generation {document.generation} of {document.identity!r}" if document else "no document"
    return f"champion {state.champion.version}, {written}"


def _fitted(document: RolloutDocument) -> RolloutDocument:
    """Return the document with its reason cut so far that every database of MLflow keeps it."""

    def written(reason: str) -> str:
        return dump_document(document.model_copy(update={"reason": reason}), indent=None)

    return document.model_copy(update={"reason": fitted_reason(document.reason, written)})
