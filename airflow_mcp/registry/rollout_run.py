"""Carry out a rollout: write each step, promote, watch the bake time, and leave the evidence. Without Airflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.load_check import LoadCheckRule
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.rollout.advance import (
    LONGEST,
    Abort,
    Finish,
    Promote,
    RollBack,
    Wait,
    Write,
    analysis_of,
    failed_document,
    first_document,
    next_action,
)
from airflow_mcp.core.rollout.analysis import AnalysisOutcome
from airflow_mcp.core.rollout.plan import RolloutPlan
from airflow_mcp.core.rollout.report import render_report, report_of
from airflow_mcp.core.rollout.state import (
    ARTIFACT_JOURNAL,
    ARTIFACT_REPORT_HTML,
    ARTIFACT_REPORT_JSON,
    KIND_ROLLOUT,
    TAG_ROLLOUT_RECORD,
    Journal,
    RolloutRecord,
    RolloutState,
    ended_document,
    record_of,
    with_event,
)
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK, RollbackDocument
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RolloutDocument
from airflow_mcp.exceptions import AliasConflictError, EvidenceError, FailedError, RefusedError, RolloutConflictError
from airflow_mcp.registry.guard import Cleared, ComplianceGuard
from airflow_mcp.registry.promotion import Promotion, check_promotion, promote
from airflow_mcp.registry.releases import find_stable_version
from airflow_mcp.registry.rollback import Rollback, roll_back
from airflow_mcp.registry.rollout_control import read_journal
from airflow_mcp.registry.rollout_lease import RolloutLease
from airflow_mcp.registry.rollouts import RolloutStore

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
_NOT_ANALYSED = AnalysisOutcome(verdict="inconclusive", reason="no rule was judged")


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
        self._mlflow, self._order, self._log, self._governance = mlflow, order, log, governance
        self._name, self._canary = order.promotion.model_name, order.promotion.version
        self._store = RolloutStore(mlflow, self._name, actor=order.promotion.order.by, log=log, governance=governance)
        self._lease = RolloutLease(mlflow, self._name)
        self._router = router
        self.run_id = ""
        """Its MLflow run; empty when there is none because nothing was compared."""

    def begin(self) -> Journal | None:
        """Find the rollout that an earlier try began, or begin it: every replica then loads the canary.

        :return: its journal; None when there is nothing to compare with, so that :meth:`promote_at_once` remains.
        :raises RefusedError: when the version may not be promoted, or the champion is another one; nothing was written.
        :raises RolloutConflictError: when another rollout of the model is in progress; nothing was written.
        """
        stable = self._order.promotion.expected_champion
        if stable is None:
            return None
        state = self._store.read()
        experiment = self._mlflow.get_or_create_experiment(self._order.experiment_name)
        found = self._find_run(experiment)
        if found is None:
            if state.champion is not None and state.champion.version == self._canary:
                return None
            self._require_possible(state, stable)
            check_promotion(self._mlflow, self._order.promotion, log=self._log)
        self.run_id = found or self._create_run(experiment)
        journal = read_journal(self._mlflow, self.run_id)
        if journal is None:
            journal = Journal(
                identity=self._order.identity,
                plan=self._order.plan,
                model_name=self._name,
                stable=stable,
                canary=self._canary,
                started=_now(),
            )
            self._keep(journal)
        if not journal.events:
            journal = self._start(journal, state)
        return journal

    def check(self) -> None:
        """Check that the rollout could begin; nothing is written.

        :raises RefusedError: as :meth:`begin`.
        """
        stable = self._order.promotion.expected_champion
        if stable is not None:
            self._require_possible(self._store.read(), stable)
        check_promotion(self._mlflow, self._order.promotion, log=self._log)

    def promote_at_once(self) -> Finish:
        """Promote without steps, because there is no champion to compare with, or the version is champion already.

        :raises RefusedError: as :func:`~airflow_mcp.registry.promotion.promote`.
        """
        plan = promote(self._mlflow, self._order.promotion, log=self._log, governance=self._governance)
        reason = "promoted at once: there was no champion" if plan.has_moved else "the version was champion already"
        return Finish(succeeded=True, cause="", reason=reason)

    def step(self, journal: Journal) -> tuple[Journal, Wait | Finish]:
        """Write everything that is due.

        :param journal: what was measured.
        :return: the journal with what was written, and what is left: to wait, or to finish.
        :raises ClaimUnavailableError: when another task works on the model's aliases; a retry goes on.
        """
        for _ in range(_MOST_ROUNDS):
            if (ended := self._recorded(journal)) is not None:
                return journal, ended
            state = self._store.read()
            journal = self._noted(journal, state.document)
            if state.active is not None and state.active.identity == journal.identity:
                self._route(journal, state.active.weight)
            action = next_action(journal, state, _now())
            if isinstance(action, Wait | Finish):
                return journal, action
            if isinstance(action, Write | Abort):
                journal, left = self._written(journal, state, action)
            elif isinstance(action, Promote):
                journal, left = self._promoted(journal, action.document)
            else:
                left = self._rolled_back(action)
            if left is not None:
                return journal, left
        raise FailedError(
            f"rollout {self._order.identity!r} of {self._name!r}: its document changed {_MOST_ROUNDS} times while this "
            "task wrote. A retry goes on from what the registry says"
        )

    def finish(self, journal: Journal, end: Finish) -> None:
        """Leave the evidence: report, record on the version, end of the MLflow run. Doing it twice changes nothing.

        :param journal: what was measured.
        :param end: how it ended.
        """
        if self._router is not None and end.cause != "superseded":
            self._router.finish(succeeded=end.succeeded)
        now = _now()
        analysis = self._last_analysis(journal)
        report = report_of(journal, analysis, succeeded=end.succeeded, cause=end.cause, reason=end.reason, now=now)
        self._keep(journal)
        self._upload(ARTIFACT_REPORT_JSON, dump_document(report).encode(), "application/json")
        self._upload(ARTIFACT_REPORT_HTML, render_report(report).encode(), "text/html")
        self._record("SUCCEEDED" if end.succeeded else "FAILED", journal, end)
        self._end_run(now, None if end.succeeded else f"{end.cause}: {end.reason}")

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
        if active is not None and active.identity != self._order.identity:
            raise RolloutConflictError(
                f"{self._name!r}: rollout {active.identity!r} of version {active.canary} is {active.phase}, so none of "
                f"version {self._canary} can begin. Nothing was written; wait until it ends, or run airflow-mcp "
                f"rollout abort {self._name}"
            )
        self._way_back_of(stable)
        if self._router is not None:
            self._router.prepare()

    def _find_run(self, experiment: str) -> str | None:
        """Return the oldest MLflow run of this rollout, as every try finds it."""
        wanted = f"tags.`{contract.TAG_IDENTITY}` = '{self._order.identity}'"
        runs = self._mlflow.search_runs([experiment], wanted, ["attributes.start_time ASC"])
        return runs[0].run_id if runs else None

    def _create_run(self, experiment: str) -> str:
        tags = {
            **self._order.tags,
            contract.TAG_KIND: KIND_ROLLOUT,
            contract.TAG_IDENTITY: self._order.identity,
            contract.TAG_MODEL_NAME: self._name,
            contract.TAG_MODEL_VERSION: f"{self._name}/{self._canary}",
        }
        name = f"rollout {self._name} {self._canary}"
        return self._mlflow.create_run(experiment, name, tags, int(_now().timestamp() * 1000)).run_id

    def _start(self, journal: Journal, state: RolloutState) -> Journal:
        """Write the first document, unless a try that died has written it."""
        document, now = state.document, _now()
        if document is None or document.identity != journal.identity:
            by = str(self._order.promotion.order.by)
            first = first_document(journal, run_id=self.run_id, by=by, now=now)
            try:
                document = self._begin(first)
            except RefusedError as error:
                self._end_run(now, str(error))
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
            found.append((version, guard.require("rollout", self._order.promotion.order, model, [version])))

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
            self._keep(noted)
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
        by = str(self._order.promotion.order.by)
        wanted = (
            action.document if isinstance(action, Write) else failed_document(before, action.cause, action.reason, by)
        )
        self._lease.grant(wanted)
        try:
            document = self._store.write(wanted, expected=before.generation)
        except RolloutConflictError as error:
            self._log.info("%s: read again, because somebody else has written: %s", self._name, error)
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
        plan, now = self._order.plan, _now()
        self._route(journal, 100)
        try:
            if document is not None:
                self._record("PROMOTING", journal, None)
                if plan.rollback is not None:
                    back = _way_back(plan, self._way_back_of(journal.stable), now)
                    self._tag(TAG_ROLLBACK, dump_document(back, indent=None))
            promote(self._mlflow, self._order.promotion, log=self._log, governance=self._governance)
        except RefusedError as error:
            return self._refused(journal, document, str(error))
        self._close_split(journal, now)
        if not plan.bake:
            return journal, Finish(succeeded=True, cause="", reason="every step passed, and the version was promoted")
        self._record("BAKING", journal, None)
        return journal, None

    def _way_back_of(self, champion: str) -> str:
        """Return the version that servers go back to after the promotion.

        :param champion: the champion before.
        :raises EvidenceError: when the plan names a version that is not in the registry, or the new version itself.
        """
        named = self._order.plan.stable_version
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
        by = str(self._order.promotion.order.by)
        try:
            self._store.write(failed_document(document, "refused", reason, by), expected=document.generation)
        except RolloutConflictError as error:  # the champion has moved, so the split has ended by itself
            self._log.info("%s: the split needs no end: %s", self._name, error)
        return journal, end

    def _close_split(self, journal: Journal, now: datetime) -> None:
        """End the document on the version that was champion: it must not count if that version is champion again."""
        old = RolloutState.of(self._mlflow.get_model_version(self._name, journal.stable)).document
        if old is None or old.identity != journal.identity or not old.is_active:
            return
        reason = f"version {journal.canary} was promoted"
        ended = ended_document(old, "SUCCEEDED", reason, generation=old.generation + 1, step_since=now)
        text = dump_document(ended, indent=None)
        self._mlflow.set_model_version_tag(self._name, journal.stable, TAG_ROLLOUT, text)
        self._store.record_taken(ended)

    def _rolled_back(self, action: RollBack) -> Finish:
        """Make the version before champion again; it served until just now, so no recent load check is needed."""
        order = self._order.promotion.order
        wanted = Rollback(
            order=MoveOrder(action="rollback", identity=f"{order.identity}-back", by=order.by, reason=action.reason),
            model_name=self._name,
            rule=LoadCheckRule(False),
            to_version=self._order.promotion.expected_champion,
            is_automatic=True,
        )
        roll_back(self._mlflow, wanted, log=self._log, governance=self._governance)
        return Finish(succeeded=False, cause="breaker", reason=f"{action.reason}; the alias was moved back")

    # --- evidence ----------------------------------------------------------------------------------------------------

    def _record(self, phase: str, journal: Journal, end: Finish | None) -> None:
        record = RolloutRecord.model_validate(
            {
                "phase": phase,
                "stable": journal.stable,
                "since": _now(),
                "cause": end.cause if end else "",
                "reason": (end.reason if end else "")[:1000],
                "run_id": self.run_id,
                "by": str(self._order.promotion.order.by),
            }
        )
        self._tag(TAG_ROLLOUT_RECORD + journal.identity, dump_document(record, indent=None))

    def _tag(self, name: str, value: str) -> None:
        self._mlflow.set_model_version_tag(self._name, self._canary, name, value)

    def _keep(self, journal: Journal) -> None:
        self._upload(ARTIFACT_JOURNAL, dump_document(journal, indent=None).encode(), "application/json")

    def _upload(self, path: str, data: bytes, content_type: str) -> None:
        self._mlflow.upload_artifact(self.run_id, path, data, content_type=content_type)

    def _end_run(self, now: datetime, error: str | None) -> None:
        """End the MLflow run; with an error it has failed."""
        if error is not None:
            self._mlflow.set_tag(self.run_id, contract.TAG_ERROR, error[:4000])
        self._mlflow.update_run(self.run_id, "FINISHED" if error is None else "FAILED", int(now.timestamp() * 1000))

    def _last_analysis(self, journal: Journal) -> AnalysisOutcome:
        """Judge the rules on the last split that was counted, as the decision did."""
        tally = journal.tally
        events = [event for event in journal.events if tally and event.generation == tally.generation]
        if not events:
            return _NOT_ANALYSED
        document = first_document(journal, run_id=self.run_id, by="", now=journal.started)
        update = {"generation": events[-1].generation, "weight": events[-1].weight, "step": events[-1].step}
        return analysis_of(journal, document.model_copy(update=update))


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
