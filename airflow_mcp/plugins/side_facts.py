"""What metrics say of models besides the registry: retraining, from Airflow, and approvals, from the audit log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.approvals.cycle import Cycle, read_cycles
from airflow_mcp.core.approvals.events import REQUESTED, ReleaseKey, act_of
from airflow_mcp.core.approvals.policy import RELEASE, ApprovalPolicy
from airflow_mcp.core.approvals.state import ApprovalFacts, NodeState, state_of
from airflow_mcp.core.audit.decisions import version_subject
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.retrain.documents import (
    CONTROL_KEY,
    LEDGER_KEY,
    OUTCOMES_KEY,
    Controls,
    Ledger,
    Outcomes,
    read_document,
)
from airflow_mcp.core.retrain.status import retrain_status
from airflow_mcp.exceptions import ModelControlPlaneError
from airflow_mcp.registry.approvals import read_facts

log = logging.getLogger(__name__)
_LATEST_MOVES = 20
"""Moves of a model among which the promotion of its latest request is looked for."""


class StoredState(NamedTuple):
    """One value of the state store of an asset, as Airflow's database has it."""

    asset: int
    key: str
    value: str
    """JSON."""
    updated_at: datetime


@dataclass(frozen=True)
class SideFacts:
    """What was read, by model."""

    retraining: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Results of :func:`~airflow_mcp.core.retrain.status.retrain_status`."""
    approvals: Mapping[str, NodeState] = field(default_factory=dict)
    """The step that people are asked about."""
    cycles: Mapping[str, Cycle] = field(default_factory=dict)
    """How long the version that was asked for last took from step to step."""
    answered: Mapping[str, bool] = field(default_factory=dict)
    """Whether each source could be read completely: ``airflow``, ``audit_log`` when there is one."""


class SideFactsReader:
    """Reads the side facts; blocks. A ledger that has not changed is not parsed again.

    :param stored: returns the values of the given keys of all assets.
    :param open_log: opens the audit log; None when there is none.
    :param environment: dev, test or prod: whose approvals count.
    """

    def __init__(
        self,
        stored: Callable[[tuple[str, ...]], Iterable[StoredState]],
        open_log: Callable[[], AuditLog | None],
        environment: str,
    ) -> None:
        self._stored, self._open_log, self._environment = stored, open_log, environment
        self._parsed: dict[int, tuple[Mapping[str, datetime], dict[str, Any] | None]] = {}

    def read(self, models: Iterable[str], now: datetime) -> SideFacts:
        """Return what can be read; a source that does not answer is marked as such.

        :param models: models whose approvals are looked up.
        :param now: the time.
        """
        answered: dict[str, bool] = {}
        retraining: Mapping[str, Mapping[str, Any]] = {}
        approvals: Mapping[str, NodeState] = {}
        cycles: Mapping[str, Cycle] = {}
        try:
            retraining, answered["airflow"] = self._retraining()
        except SQLAlchemyError as error:
            log.warning("the retrain ledgers cannot be read: %s", type(error).__name__)
            answered["airflow"] = False
        try:
            opened = self._open_log()
            if opened is not None:
                approvals, cycles = self._releases(opened, models, now)
                answered["audit_log"] = True
        except ModelControlPlaneError as error:
            log.warning("the approvals cannot be read: %s", error)
            answered["audit_log"] = False
        return SideFacts(retraining, approvals, cycles, answered)

    def _retraining(self) -> tuple[dict[str, Mapping[str, Any]], bool]:
        """Return the status of each model, and whether every ledger could be read."""
        by_asset: dict[int, dict[str, StoredState]] = {}
        for each in self._stored((LEDGER_KEY, OUTCOMES_KEY, CONTROL_KEY)):
            by_asset.setdefault(each.asset, {})[each.key] = each
        self._parsed = {asset: self._status(asset, values) for asset, values in by_asset.items()}
        found = [status for _, status in self._parsed.values() if status is not None]
        return {status["model_name"]: status for status in found}, len(found) == len(self._parsed)

    def _status(
        self, asset: int, values: Mapping[str, StoredState]
    ) -> tuple[Mapping[str, datetime], dict[str, Any] | None]:
        """Return when the values were written, and the status; None for a ledger that cannot be read."""
        stamps = {key: each.updated_at for key, each in values.items()}
        known = self._parsed.get(asset)
        if known is not None and known[0] == stamps:
            return known
        try:
            given = {key: json.loads(each.value) for key, each in values.items()}
            name = str(next(iter(given.values()))["model_name"])
            status = retrain_status(
                read_document(Ledger, given.get(LEDGER_KEY), name),
                read_document(Outcomes, given.get(OUTCOMES_KEY), name),
                read_document(Controls, given.get(CONTROL_KEY), name),
            )
        except (ModelControlPlaneError, ValueError, KeyError, TypeError) as error:
            log.warning("the retrain ledger of asset %s cannot be read: %s", asset, error)
            return stamps, None
        return stamps, status

    def _releases(
        self, opened: AuditLog, models: Iterable[str], now: datetime
    ) -> tuple[dict[str, NodeState], dict[str, Cycle]]:
        """Return the step that people are asked about, and the times, of the latest request of each model."""
        in_force = read_in_force(opened)
        policy = ApprovalPolicy.of(in_force.policy) if in_force is not None else None
        nodes: dict[str, NodeState] = {}
        cycles: dict[str, Cycle] = {}
        if policy is None or not any(rule.chain for rule in policy.rules):
            return nodes, cycles
        for name in models:
            asked = [
                record
                for record in opened.facts(model_subject(name), REQUESTED)
                if record.event["environment"] == self._environment and act_of(record) == RELEASE
            ]
            if not asked:
                continue
            key = ReleaseKey(name, self._environment, asked[-1].event["new"]["passport"])
            facts = read_facts(opened, key)
            if (node := state_of(facts, key, policy, now).open_node) is not None:
                nodes[name] = node
            if (cycle := self._cycle(opened, facts, asked[-1])) is not None:
                cycles[name] = cycle
        return nodes, cycles

    def _cycle(self, opened: AuditLog, facts: ApprovalFacts, asked: Record) -> Cycle | None:
        name, version = asked.event["new"]["model"], asked.event["new"]["version"]
        registered = opened.facts(version_subject(name, version), "version.")
        moved = opened.facts(model_subject(name), "registry.moved", _LATEST_MOVES)
        records = sorted((*registered, *facts.requests, *facts.passport, *moved), key=lambda record: record.seq)
        return read_cycles(records, self._environment).get(version)
