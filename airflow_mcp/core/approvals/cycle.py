"""How long a version took from its training to its first request: a pure function of records of the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from airflow_mcp.core.approvals.events import act_of, time_of
from airflow_mcp.core.approvals.policy import RELEASE
from airflow_mcp.core.audit.record import Record

STEPS = ("training", "trained", "registered", "requested", "approved", "promoted", "serving")
"""What happens to a version, in this order. ``training`` is the begin of its run: the log knows no time of a commit."""


@dataclass(frozen=True)
class Cycle:
    """The times of one version."""

    version: str
    times: Mapping[str, datetime] = field(default_factory=dict)
    """Step to when it was first done, as far as that is known."""

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each step since the known step before it; the first known step has none.

        A step that was done before the one before it, such as a promotion without a request, took 0 seconds.
        """
        known = [step for step in STEPS if step in self.times]
        return {
            after: max(0.0, (self.times[after] - self.times[before]).total_seconds())
            for before, after in pairwise(known)
        }

    @property
    def seconds(self) -> float | None:
        """Seconds from the first known step to the last; None when fewer than two are known."""
        return (max(self.times.values()) - min(self.times.values())).total_seconds() if len(self.times) > 1 else None

    def trained(self, begin: datetime | None, end: datetime | None) -> Cycle:
        """Return it with begin and end of the training run, as far as they are known; the audit log has neither."""
        known = zip(STEPS, (begin, end), strict=False)
        return Cycle(self.version, {**self.times, **{step: time for step, time in known if time is not None}})

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        times = {step: self.times[step].isoformat(timespec="seconds") for step in STEPS if step in self.times}
        return {"version": self.version, "times": times, "stages": self.stages, "seconds": self.seconds}


def read_cycles(records: Iterable[Record], environment: str) -> dict[str, Cycle]:
    """Return the times of every version of one model, by version, the newest first.

    :param records: records about the model, its versions, passports and servers, oldest first.
    :param environment: dev, test or prod: where it was released.
    """
    times: dict[str, dict[str, datetime]] = {}
    asked: dict[int, str] = {}
    for record in records:
        event = record.event
        if event["environment"] != environment or not event["new"] or event.get("erased"):
            continue
        step, version = _step(record, asked)
        if step == "requested":
            asked[record.seq] = version
        if step and version.isdecimal() and (time := _time(record)) is not None:
            times.setdefault(version, {}).setdefault(step, time)
    newest = sorted(times, key=int, reverse=True)
    return {version: Cycle(version, times[version]) for version in newest}


def _step(record: Record, asked: Mapping[int, str]) -> tuple[str, str]:
    """Return which step of which version a record says; empty when it says none."""
    new = record.event["new"]
    match record.event["action"]:
        case "version.registered" | "version.copied":
            return "registered", str(new.get("version"))
        case "approval.requested" if act_of(record) == RELEASE:
            return "requested", str(new.get("version"))
        case "approval.granted":
            return "approved", asked.get(new.get("request", 0), "")
        case "registry.moved":
            return "promoted", str(new.get("champion")) if new.get("action") == "promote" else ""
        case "serving.started" | "serving.swapped":
            return "serving", str(new.get("version"))
    return "", ""


def _time(record: Record) -> datetime | None:
    """Return when it happened: what a replica tells is recorded when somebody asks it; None when it told no time."""
    if not record.event["action"].startswith("serving."):
        return time_of(record)
    try:
        told = datetime.fromisoformat(record.event["new"]["at"])
    except (KeyError, TypeError, ValueError):
        return None
    return told if told.tzinfo else None
