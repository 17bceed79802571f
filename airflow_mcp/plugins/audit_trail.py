"""The audit trail on the page of a model: that somebody looked at it is itself a record of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from airflow_mcp.core.approvals.cycle import Cycle, read_cycles
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.audit.log import AuditLog, listing
from airflow_mcp.core.audit.record import read_record
from airflow_mcp.core.panel.facts import AuditLine, audit_line

SHOWN_RECORDS = 50
_READ_RECORDS = 400
"""Latest records about a model that one look reads: the steps of its latest versions are among them."""
KEPT_SECONDS = 60.0
"""How long a person is shown the same lines again: a page that is opened again in this time is the same look."""
_MOST_KEPT = 500


@dataclass(frozen=True)
class Trail:
    """What the audit log says about a model."""

    lines: tuple[AuditLine, ...]
    """The latest records, the latest first."""
    cycles: Mapping[str, Cycle]
    """When each step of a release was done, by version, the newest first."""


class AuditTrail:
    """Reads what the audit log says about models, for one person at a time.

    :param open_log: returns the audit log, or None when there is none.
    :param environment: dev, test or prod; goes into the record of the look.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        open_log: Callable[[], AuditLog | None] = lambda: None,
        environment: str = "dev",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_log, self._environment, self._clock = open_log, environment, clock
        self._kept: dict[tuple[str, str], tuple[float, Trail]] = {}

    def read(
        self,
        model: str,
        account: str,
        trained: Callable[[Mapping[str, Cycle]], Mapping[str, Cycle]] = lambda found: found,
    ) -> Trail | None:
        """Record a look, and return what the log says about a model; None when there is no log.

        It blocks.

        :param model: name of the model.
        :param account: who looks, as Airflow has checked it.
        :param trained: adds what the log does not know: when the trainings ran.
        :raises AuditUnavailableError: when the log does not answer; nobody is shown anything then.
        :raises InvalidArgumentError: when the login of the connection may not append ``audit.read``.
        """
        kept = self._kept.get((model, account))
        if kept is not None and self._clock() - kept[0] < KEPT_SECONDS:
            return kept[1]
        opened = self._open_log()
        if opened is None:
            return None
        actor = AuditActor("user", account, via="page of the model", authenticated=True)
        look = listing(actor, self._environment, limit=_READ_RECORDS, model=model)
        records = sorted((read_record(raw.decode()) for raw in opened.read(look)), key=lambda each: each.seq)
        shown = records[: -SHOWN_RECORDS - 1 : -1]
        trail = Trail(
            tuple(audit_line(each.seq, each.recorded_at, each.event) for each in shown),
            trained(read_cycles(records, self._environment)),
        )
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[model, account] = self._clock(), trail
        return trail
