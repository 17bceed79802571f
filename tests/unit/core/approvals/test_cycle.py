"""How long each step of a version took, from records of the log in the order in which they were appended."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_mcp.core.approvals.cycle import STEPS, read_cycles
from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.audit.decisions import Decided, decision
from airflow_mcp.core.audit.event import AuditActor
from tests.support.approvals import KEY, Book

HOUR = 3600.0


class Log(Book):
    """A book whose requests are followed by moves and answers of servers."""

    def say(self, action: str, subject: str, /, **new: object) -> None:
        """Append an event of another subject."""
        actor = AuditActor("system", "tests")
        decided = Decided(key=(len(self.records),), new=new)
        self.append(decision(action, subject, self.key.environment, actor, decided))


def released(log: Log, *, champion: str = "7", action: str = "promote") -> None:
    """Register version 7, ask an hour later, grant after 40 more, promote after one, serve after a quarter."""
    log.say("version.registered", "version:fraud/7", version="7", run_id="r")
    log.wait(hours=1)
    seq = log.request().seq
    log.wait(hours=40)
    log.note("granted", request=seq, votes=[2])
    log.wait(hours=1)
    log.say("registry.moved", "model:fraud", action=action, champion=champion)
    log.wait(minutes=15)
    served = log.now
    log.wait(hours=5)  # the keeper asks the servers later
    log.say("serving.swapped", "replica:a", model="fraud", version="7", at=served.isoformat(), before="6")


def test_every_step_counts_from_the_one_before_it() -> None:
    log = Log()
    begin = log.now
    log.wait(hours=3)
    released(log)
    cycle = read_cycles(log.records, "prod")["7"].trained(begin, begin + timedelta(hours=2))
    assert cycle.stages == {
        "trained": 2 * HOUR,
        "registered": HOUR,
        "requested": HOUR,
        "approved": 40 * HOUR,
        "promoted": HOUR,
        "serving": HOUR / 4,
    }
    assert cycle.seconds == sum(cycle.stages.values())
    assert list(cycle.to_json()["times"]) == list(STEPS)


def test_what_is_not_known_is_left_out_and_not_zero() -> None:
    log = Log()
    log.say("version.registered", "version:fraud/7", version="7", run_id="r")
    (cycle,) = read_cycles(log.records, "prod").values()
    assert (cycle.stages, cycle.seconds) == ({}, None)
    log.wait(hours=2)
    log.say("registry.moved", "model:fraud", action="promote", champion="7")
    (cycle,) = read_cycles(log.records, "prod").values()
    assert cycle.stages == {"promoted": 2 * HOUR}


def test_the_first_time_counts_and_a_rollback_is_no_promotion() -> None:
    log = Log()
    released(log)
    before = read_cycles(log.records, "prod")["7"]
    log.wait(days=30)
    log.say("registry.moved", "model:fraud", action="rollback", champion="7")
    log.say("registry.moved", "model:fraud", action="promote", champion="7")
    log.say("serving.started", "replica:b", model="fraud", version="7", at=log.now.isoformat())
    assert read_cycles(log.records, "prod")["7"] == before
    log = Log()
    released(log, action="rollback")
    assert "promoted" not in read_cycles(log.records, "prod")["7"].times


def test_another_environment_does_not_count_and_the_newest_version_is_first() -> None:
    log = Log()
    released(log)
    log.say("version.registered", "version:fraud/10", version="10", run_id="r")
    log.request(key=ReleaseKey("fraud", "test", KEY.passport))
    assert read_cycles(log.records, "dev") == {}
    assert list(read_cycles(log.records, "prod")) == ["10", "7"]
    assert read_cycles(log.records, "test")["7"].stages == {}


@pytest.mark.parametrize("hours", [-2, 0])
def test_a_clock_that_runs_late_makes_no_negative_time(hours: int) -> None:
    log = Log()
    log.say("registry.moved", "model:fraud", action="promote", champion="7")
    at = log.now + timedelta(hours=hours)
    log.say("serving.started", "replica:a", model="fraud", version="7", at=at.isoformat())
    assert read_cycles(log.records, "prod")["7"].stages == {"serving": 0.0}


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("version.registered", {"version": "²"}),
        ("version.registered", {}),
        ("approval.granted", {"model": "fraud"}),
        ("registry.moved", {"action": "promote", "champion": None}),
        ("serving.started", {"version": "7", "at": "yesterday"}),
        ("serving.started", {"version": "7", "at": "2026-11-30T09:00:00"}),
        ("serving.started", {"version": "7"}),
    ],
)
def test_a_record_that_says_nonsense_breaks_no_page(action: str, said: dict[str, object]) -> None:
    log = Log()
    log.say(action, "model:fraud", **said)
    assert read_cycles(log.records, "prod") == {}
