"""Carry out a rollout: write each step, promote, watch the bake time, and leave the evidence. Without Airflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.rollout.advance import (
    LONGEST,
    Abort,
    Finish,
    Promote,
    RollBack,
    Wait,
    Write,
    failed_document,
    first_document,
    next_action,
)
from airflow_mcp.core.rollout.plan import RolloutPlan
from airflow_mcp.core.rollout.state import (
    Journal,
    RolloutState,
    record_of,
    with_event,
)
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK, RollbackDocument
from airflow_mcp.core.serving.traffic import RolloutDocument
from airflow_mcp.exceptions import (
    AliasConflictError,
    EvidenceError,
    FailedError,
    MlflowNotFoundError,
    RefusedError,
    RolloutConflictError,
)
from airflow_mcp.registry.guard import Cleared, ComplianceGuard
from airflow_mcp.registry.promotion import Promotion, check_promotion, promote
from airflow_mcp.registry.releases import find_stable_version
from airflow_mcp.registry.rollback import roll_back
from airflow_mcp.registry.rollout_control import way_back
from airflow_mcp.registry.rollout_evidence import RolloutEvidence
from airflow_mcp.registry.rollout_lease import RolloutLease
from airflow_mcp.registry.rollouts import RolloutStore, bake_document, require_no_bake

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion
    from airflow_mcp.core.rollout.router import TrafficRouter
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.governance import Governance

_MARGIN = timedelta(hours=1)
"""The servers' rule outlives the bake time by this, so that no opening is missed between two looks."""
_MOST_ROUNDS = 50
"""Writes of one start of the task; more would mean that somebody else writes all the time."""
_ROUTER_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class RolloutOrder:
    """A rollout, who asks for it, and the conditions of the promotion at its end."""

    promotion: Promotion
    plan: RolloutPlan
    experiment_name: str
    """MLflow experiment of the run that keeps the journal and the report."""
    tags: Mapping[str, str]
    """Tags of that run."""

    @property
    def identity(self) -> str:
        """Name of the rollout, the same on every retry."""
        return self.promotion.order.identity


class RolloutRun:
    """One rollout. Everything that it needs to go on is in the registry and in its MLflow run.

    :param mlflow: the MLflow server.
    :param order: the rollout.
    :param log: where steps are logged.
    :param governance: in which audit log the promotion, and a rollback in the bake time, are recorded.
    :param router: what moves the requests; None when the model servers do it by themselves.
    """

    def __init__(
        self,
        mlflow: MlflowOperations,
        order: RolloutOrder,
        *,
        log: TaskLog,
        governance: Governance,
        router: TrafficRouter | None = None,
    ) -> None:
        self._mlflow, self._log, self._governance = mlflow, log, governance
        self.order = order
        """The rollout as it goes on: with the identity and the plan that it began with."""
        self._name, self._canary = order.promotion.model_name, order.promotion.version
        self._store = RolloutStore(mlflow, self._name, actor=order.promotion.order.by, log=log, governance=governance)
        self._lease = RolloutLease(mlflow, self._name)
        self._evidence = RolloutEvidence(mlflow, self._name, self._canary, log)
        self._router = router

    @property
    def run_id(self) -> str:
        """Its MLflow run; empty when there is none because nothing was compared."""
        return self._evidence.run_id

    @property
    def _by(self) -> str:
        return str(self.order.promotion.order.by)

    def begin(self, unkept: Journal | None = None) -> Journal | None:
        """Find the rollout that an earlier try began, or begin it: every replica then loads the canary.

        A task that was edited goes on with the plan of its rollout. If the MLflow run is lost, a new one is created.

        :param unkept: what was measured, when it could not be kept in the MLflow run.
        :return: its journal; None when there is nothing to compare with, so that :meth:`promote_at_once` remains.
        :raises RefusedError: when the version may not be promoted, or the champion is another one; nothing was written.
        :raises RolloutConflictError: when another rollout of the model is in progress; nothing was written.
        """
        stable = self.order.promotion.expected_champion
        if stable is None:
            return None
        state = self._store.read()
        self._go_on(state, stable)
        known = self._standing(state)
        experiment = self._mlflow.get_or_create_experiment(self.order.experiment_name)
        found = self._evidence.find_run(experiment, self.order.identity)
        if not found and known is None:
            if state.champion is not None and state.champion.version == self._canary:
                return None
            self._require_possible(state, stable)
            check_promotion(self._mlflow, self.order.promotion, log=self._log)
        if not found and known is not None and self._evidence.is_live(known.run_id):
            found = known.run_id  # it is in another experiment, because the argument was edited
        if not found:
            found = self._evidence.create_run(experiment, self.order.identity, self.order.tags)
        self._evidence.run_id = found
        journal = self._journal(known, stable, unkept)
        if known is not None and known.is_active and known.run_id != found:
            self._log.warning("%s: MLflow run %s is lost; %s goes on", self._name, known.run_id, found)
            known = self._store.write(known.model_copy(update={"run_id": found}), expected=known.generation)
            journal = self._kept_measured(journal, known)
        return journal if journal.events else self._start(journal, state)

    def _kept_measured(self, journal: Journal, document: RolloutDocument) -> Journal:
        """Note a generation whose split is that of the one before, so that what was measured still counts."""
        tally = journal.tally
        if tally is not None and tally.generation == document.generation - 1:
            tally = tally.model_copy(update={"generation": document.generation})
        measured = {"errors": journal.errors, "error": journal.error, "tally": tally}
        return self._noted(journal, document).model_copy(update=measured)

    def _journal(self, known: RolloutDocument | None, stable: str, unkept: Journal | None) -> Journal:
        """Return what was measured; an empty journal when there is none, or when it is lost."""
        found = unkept if unkept is not None and unkept.identity == self.order.identity else None
        journal = found or self._evidence.journal(self.run_id)
        if journal is None and known is not None and known.run_id != self.run_id:
            journal = self._evidence.journal(known.run_id)
        is_new = journal is None
        if journal is None:
            journal = Journal(
                identity=self.order.identity,
                plan=self.order.plan,
                model_name=self._name,
                stable=stable,
                canary=self._canary,
                started=(known.step_since if known is not None else None) or _now(),
            )
        if is_new or found is not None:
            self._evidence.keep(journal)
        return journal

    def check(self) -> None:
        """Check that the rollout could begin; nothing is written.

        :raises RefusedError: as :meth:`begin`.
        """
        stable = self.order.promotion.expected_champion
        if stable is not None:
            self._require_possible(self._store.read(), stable)
        check_promotion(self._mlflow, self.order.promotion, log=self._log)

    def promote_at_once(self) -> Finish:
        """Promote without steps, because there is no champion to compare with, or the version is champion already.

        :raises RefusedError: as :func:`~airflow_mcp.registry.promotion.promote`.
        """
        plan = promote(self._mlflow, self.order.promotion, log=self._log, governance=self._governance)
        reason = "promoted at once: there was no champion" if plan.has_moved else "the version was champion already"
        return Finish(succeeded=True, cause="", reason=reason)

    def step(self, journal: Journal) -> tuple[Journal, Wait | Finish]:
        """Write everything that is due.

        :param journal: what was measured.
        :return: the journal with what was written, and what is left: to wait, or to finish.
        :raises ClaimUnavailableError: when another task works on the model's aliases; a retry goes on.
        """
        for _ in range(_MOST_ROUNDS):
            try:
                ended = self._recorded(journal)
            except MlflowNotFoundError:
                ended = Finish(succeeded=False, cause="lost", reason=f"version {self._canary} was deleted")
            if ended is not None:
                return journal, ended
            state = self._store.read()
            journal = self._noted(journal, state.document)
            if state.active is not None and state.active.identity == journal.identity:
                self._route(journal, state.active.weight)
            action = next_action(journal, state, _now())
            if isinstance(action, Finish):  # the reason of a document begins with the cause
                return journal, replace(action, reason=action.reason.removeprefix(f"{action.cause}: "))
            if isinstance(action, Wait):
                return journal, action
            if isinstance(action, Write | Abort):
                journal, left = self._written(journal, state, action)
            elif isinstance(action, Promote):
                journal, left = self._promoted(journal, action.document)
            else:
                left = self._rolled_back(action, journal.stable)
            if left is not None:
                return journal, left
        raise FailedError(
            f"rollout {self.order.identity!r} of {self._name!r}: its document changed {_MOST_ROUNDS} times while this "
            "task wrote. A retry goes on from what the registry says"
        )

    def finish(self, journal: Journal, end: Finish) -> None:
        """Leave the evidence: report, record on the version, end of the MLflow run. Doing it twice changes nothing.

        :param journal: what was measured.
        :param end: how it ended.
        :raises AliasConflictError: when it succeeded, but a person went back at the end of the bake time.
        """
        if self._router is not None and end.cause != "superseded":
            self._router.finish(succeeded=end.succeeded)
        if not end.succeeded:
            self._store.close(journal.stable, journal.identity, "FAILED", f"{end.cause}: {end.reason}")
        now = _now()
        self._evidence.keep(journal)
        self._evidence.report(journal, end, now)
        try:
            self._record("SUCCEEDED" if end.succeeded else "FAILED", journal, end)
        except MlflowNotFoundError as error:  # the version was deleted, and its record with it
            self._log.warning("%s: the end of the rollout is only in its MLflow run: %s", self._name, error)
        self._evidence.end_run(now, None if end.succeeded else f"{end.cause}: {end.reason}")
        if end.succeeded and journal.plan.bake:
            self._recorded(journal)  # raises when a person went back meanwhile

    def _record(self, phase: str, journal: Journal, end: Finish | None) -> None:
        self._evidence.record(phase, journal, end, self._by)

    # --- begin -------------------------------------------------------------------------------------------------------

    def _require_possible(self, state: RolloutState, stable: str) -> None:
        champion = state.champion
        if champion is None or champion.version != stable:
            there = f"version {champion.version}" if champion is not None else "no version"
            raise AliasConflictError(
                f"{self._name!r}: the candidate (version {self._canary}) was compared with version {stable}, but alias "
                f"{ALIAS_CHAMPION!r} now points at {there}. Nothing was written; evaluate the candidate against the "
                "present champion"
            )
        active = state.active
        if active is not None and active.identity != self.order.identity:
            raise RolloutConflictError(
                f"{self._name!r}: rollout {active.identity!r} of version {active.canary} is {active.phase}, so none of "
                f"version {self._canary} can begin. Nothing was written; wait until it ends, or run airflow-mcp "
                f"rollout abort {self._name}"
            )
        require_no_bake(champion, self._name, self.order.identity)
        self._way_back_of(stable)
        if self._router is not None:
            self._router.prepare()

    def _standing(self, state: RolloutState) -> RolloutDocument | None:
        """Return the document of this rollout, or what stands for it in the bake time; None when it has not begun."""
        found = bake_document(state.champion, _now()) or state.document
        return found if found is not None and found.identity == self.order.identity else None

    def _go_on(self, state: RolloutState, stable: str) -> None:
        """Take identity and plan of the rollout that this task began, if its arguments were edited meanwhile."""
        found = bake_document(state.champion, _now()) or state.active
        if found is None or found.identity == self.order.identity or not self.order.tags:
            return
        if (found.canary, found.stable) != (self._canary, stable):
            return
        try:
            tags = self._mlflow.get_run(found.run_id).tags
        except MlflowNotFoundError:
            return
        wanted = {**self.order.tags, contract.TAG_IDENTITY: found.identity}
        journal = self._evidence.journal(found.run_id)
        if journal is None or any(tags.get(name) != value for name, value in wanted.items()):
            return
        self._log.warning(
            "%s: the arguments of this task have changed since its rollout began. It goes on with the plan that it "
            "began with; to begin anew, abort it and trigger a new Dag run",
            self._name,
        )
        move = replace(self.order.promotion.order, identity=found.identity)
        self.order = replace(self.order, promotion=replace(self.order.promotion, order=move), plan=journal.plan)

    def _start(self, journal: Journal, state: RolloutState) -> Journal:
        """Write the first document, unless a try that died has written it."""
        document, now = state.document, _now()
        if document is None or document.identity != journal.identity:
            first = first_document(journal, run_id=self.run_id, by=self._by, now=now)
            try:
                document = self._begin(first)
            except RefusedError as error:
                self._evidence.end_run(now, str(error))
                raise
            self._log.info("%s: version %s is loaded by every replica, at weight 0", self._name, self._canary)
        return self._noted(journal, document)

    def _begin(self, first: RolloutDocument) -> RolloutDocument:
        """Write the first document; access, passport and approvals are checked before the version gets any request.

        :raises RefusedError: as :class:`ComplianceGuard`; nothing was written.
        """
        guard = ComplianceGuard(self._mlflow, self._governance, self._name, self._log)
        found: list[tuple[ModelVersion, Cleared]] = []

        def require() -> None:
            model = self._mlflow.get_registered_model(self._name)
            version = self._mlflow.get_model_version(self._name, self._canary)
            found.append((version, guard.require("rollout", self.order.promotion.order, model, [version])))

        def sign(written: RolloutDocument) -> None:
            version, cleared = found[-1]
            guard.sign_canary(version, written, cleared)

        return self._store.write(first, expected=0, require=require, intended=sign)

    def _noted(self, journal: Journal, document: RolloutDocument | None) -> Journal:
        """Note a change of the document, also one by a person, or by a try that died before it noted it."""
        if document is None or document.identity != journal.identity:
            return journal
        noted = with_event(journal, document, _now())
        if noted is not journal:
            self._evidence.keep(noted)
        return noted

    # --- steps -------------------------------------------------------------------------------------------------------

    def _recorded(self, journal: Journal) -> Finish | None:
        """Return how the rollout ended, if that is recorded.

        :raises AliasConflictError: when it succeeded, and another version is champion since: success would say that
            the promotion holds.
        """
        record = record_of(self._mlflow.get_model_version(self._name, self._canary), journal.identity)
        if record is None or record.phase == "PROMOTING":
            return None
        if record.phase == "FAILED":
            return Finish(succeeded=False, cause=record.cause, reason=record.reason)
        champion = self._store.read().champion
        if champion is not None and champion.version == journal.canary:
            return Finish(succeeded=True, cause="", reason=record.reason) if record.phase == "SUCCEEDED" else None
        there = f"version {champion.version}" if champion is not None else "no version"
        if record.phase == "SUCCEEDED":
            raise AliasConflictError(
                f"{self._name!r}: this task made version {journal.canary} the champion, but alias {ALIAS_CHAMPION!r} "
                f"has moved since and now points at {there}. Nothing was moved; trigger a new Dag run to roll it out "
                "again"
            )
        return Finish(
            succeeded=False,
            cause="superseded",
            reason=f"the alias {ALIAS_CHAMPION} was moved to {there} in the bake time of version {journal.canary}",
        )

    def _written(self, journal: Journal, state: RolloutState, action: Write | Abort) -> tuple[Journal, Finish | None]:
        before = state.document
        if before is None:
            return journal, None
        if isinstance(action, Write):  # by the task, also after a person has resumed it
            wanted = action.document.model_copy(update={"by": self._by})
        else:
            wanted = failed_document(before, action.cause, action.reason, self._by)
        self._lease.grant(wanted)
        try:
            document = self._store.write(wanted, expected=before.generation)
        except RolloutConflictError as error:
            self._log.info("%s: the rollout was changed by somebody else; it is read again: %s", self._name, error)
            return journal, None
        self._log.info(
            "%s: version %s %s at %g %%: %s", self._name, self._canary, document.phase, document.weight, document.reason
        )
        journal = self._noted(journal, document)
        if isinstance(action, Abort):
            return journal, Finish(succeeded=False, cause=action.cause, reason=action.reason)
        return journal, None

    def _route(self, journal: Journal, weight: float) -> None:
        """Put the weight of the document in force; a retry does it again when the router has another one.

        :raises FailedError: when the router does not follow in time; a retry goes on.
        """
        router, deadline = self._router, _now() + timedelta(seconds=journal.plan.follow_timeout)
        if router is None or router.get_weight() == weight:
            return
        router.set_weight(weight)
        self._log.info("%s: the router sends %g %% to version %s", self._name, weight, self._canary)
        while (why := router.ready()) or router.get_weight() not in (None, weight):
            if _now() >= deadline:
                problem = why or "it reports another weight"
                raise FailedError(f"the router does not send {weight:g} % to version {self._canary}: {problem}")
            time.sleep(_ROUTER_POLL_SECONDS)

    def _promoted(self, journal: Journal, document: RolloutDocument | None) -> tuple[Journal, Finish | None]:
        """Move the alias; the way back is on the new champion before it is champion."""
        plan, now = self.order.plan, _now()
        self._route(journal, 100)
        try:
            if document is not None:
                self._record("PROMOTING", journal, None)
                if plan.rollback is not None:
                    back = _way_back(plan, self._way_back_of(journal.stable), now)
                    text = dump_document(back, indent=None)
                    self._mlflow.set_model_version_tag(self._name, self._canary, TAG_ROLLBACK, text)
            wanted = replace(self.order.promotion, rollout_generation=document.generation if document else 0)
            promote(self._mlflow, wanted, log=self._log, governance=self._governance)
        except RefusedError as error:
            if document is not None and self._store.read().document != document:
                self._log.info("%s: the rollout was changed by somebody else; it is read again: %s", self._name, error)
                return journal, None
            return self._refused(journal, document, str(error))
        self._store.close(journal.stable, journal.identity, "SUCCEEDED", f"version {journal.canary} was promoted")
        if not plan.bake:
            return journal, Finish(succeeded=True, cause="", reason="every step passed, and the version was promoted")
        self._record("BAKING", journal, None)
        return journal, None

    def _way_back_of(self, champion: str) -> str:
        """Return the version that servers go back to after the promotion.

        :param champion: the champion before.
        :raises EvidenceError: when the plan names a version that is not in the registry, or the new version itself.
        """
        named = self.order.plan.stable_version
        if named == ALIAS_PREVIOUS_CHAMPION:
            return champion
        found = find_stable_version(self._mlflow, self._name, named)
        if found.version == self._canary:
            raise EvidenceError(
                f"stableVersion {named!r} of model {self._name!r} is version {found.version}, which is the one to roll "
                "out. Nothing was changed; name another version"
            )
        return found.version

    def _refused(
        self, journal: Journal, document: RolloutDocument | None, reason: str
    ) -> tuple[Journal, Finish | None]:
        end = Finish(succeeded=False, cause="refused", reason=f"the promotion was refused: {reason}")
        if document is None:
            return journal, end
        try:
            self._store.write(failed_document(document, "refused", reason, self._by), expected=document.generation)
        except RolloutConflictError as error:  # the champion has moved, so the split has ended by itself
            self._log.info("%s: the split needs no end: %s", self._name, error)
        return journal, end

    def _rolled_back(self, action: RollBack, stable: str) -> Finish:
        """Make the version before champion again."""
        order = self.order.promotion.order
        wanted = MoveOrder(action="rollback", identity=f"{order.identity}-back", by=order.by, reason=action.reason)
        back = way_back(wanted, self._name, stable, is_automatic=True)
        roll_back(self._mlflow, back, log=self._log, governance=self._governance)
        return Finish(succeeded=False, cause="breaker", reason=f"{action.reason}; the alias was moved back")


def _way_back(plan: RolloutPlan, stable: str, now: datetime) -> RollbackDocument:
    rule = plan.rollback
    if rule is None:
        raise ValueError("the plan has no rollback")
    return RollbackDocument(
        metric=rule.metric,
        threshold=rule.threshold,
        duration=rule.duration,
        min_requests=rule.min_requests,
        stable=stable,
        until=now + timedelta(seconds=LONGEST * plan.bake) + _MARGIN,
    )


def _now() -> datetime:
    return datetime.now(UTC)
