"""``airflow-mcp approvals`` on real stores: what is listed, shown, ended, refused. test_approvals_airflow delegates."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.approvals.events import Answer, Asked, ReleaseKey, answered, noted, requested
from airflow_mcp.core.audit.event import AuditActor, AuditEvent
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.identity import TaskKey
from tests.support.approvals import bank_of_test, put_in_force
from tests.support.audit_log import Logs

pytestmark = pytest.mark.integration
Call = Callable[..., tuple[int, str, str]]

OLD, NEW, OTHER = (
    ReleaseKey(name, "test", f"sha256:{digit * 64}") for name, digit in (("fraud", "a"), ("fraud", "b"), ("churn", "c"))
)
READS = {"list": (), "show": ("fraud",), "times": ("fraud", "--tracking-uri", "http://127.0.0.1:9"), "delegations": ()}
"""Actions that only read, each with the arguments of one call."""
RUN = TaskKey("fraud__release", "r1", "request")


@pytest.fixture
def logs(audit_logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Logs:
    monkeypatch.setenv("AIRFLOW_MCP_ENVIRONMENT", "test")
    monkeypatch.setenv("LOGNAME", "dora")
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", audit_logs.url("mcp_people"))
    return audit_logs


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    def run(*arguments: str, account: str = "") -> tuple[int, str, str]:
        capsys.readouterr()
        # Unless a test says who calls, vera reads, who may read the log.
        before = os.environ["LOGNAME"]
        if account or arguments[0] in READS:
            monkeypatch.setenv("LOGNAME", account or "vera")
        code = main(["approvals", *arguments])
        monkeypatch.setenv("LOGNAME", before)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def asked(logs: Logs) -> Logs:
    """Version 6 of fraud, then version 7, where lena has approved and the requester has tried; version 1 of churn."""
    with closing(open_log(logs.as_login("mcp_policy"))) as log:
        put_in_force(log, bank_of_test())
    append(logs, request(OLD, "6"), request(OTHER, "1"), request(NEW, "7"))
    (seq,) = [record.seq for record in facts(logs, "model:fraud", "approval.") if record.event["new"]["version"] == "7"]
    place = {"dag": "fraud__release", "run": "r1", "task": "seat_1"}
    append(
        logs,
        noted("approval.asked", NEW, {"request": seq, "node": "algorithm-lead", **place}),
        vote("dora", "0"),
        vote("lena", "1"),
    )
    return logs


def append(logs: Logs, *events: AuditEvent) -> None:
    with closing(open_log(logs.as_login("mcp_release"))) as log:
        for event in events:
            log.append(event)


def facts(logs: Logs, subject: str, action: str = "") -> list[Record]:
    with closing(open_log(logs.as_login("mcp_release"))) as log:
        return log.facts(subject, action)


def request(key: ReleaseKey, version: str) -> AuditEvent:
    asked = Asked(version, "low", Requester(account="dora"), bank_of_test().digest)
    return requested(key, asked, AuditActor("user", "dora", authenticated=True), RUN)


def vote(account: str, second: str) -> AuditEvent:
    answer = Answer(
        TaskKey("fraud__release", "r1", "seat_1"),
        NEW.question("algorithm-lead"),
        "Approve",
        account,
        account,
        f"2099-01-01T00:00:0{second}+00:00",
    )
    return answered(NEW, answer, AuditActor("user", account), counts=True, why="")


def test_the_list_has_each_open_request_and_who_is_waited_for(asked: Logs, call: Call) -> None:
    code, said, _ = call("list")
    assert code == 0
    fraud, churn = said.splitlines()
    assert fraud.startswith("fraud version 7 to test: waits since ")
    assert fraud.endswith(" at algorithm-lead for 1 of luis, rita")
    assert churn.startswith("churn version 1 to test: waits since ")
    assert call("withdraw", "churn", "--reason", "not needed")[0] == 0
    code, said, _ = call("list", "--format", "json")
    assert [(each["model_name"], each["version"], each["status"]) for each in json.loads(said)] == [
        ("fraud", "7", "open")
    ]
    assert call("list", "--all")[1].splitlines()[1] == "churn version 1 to test: withdrawn, not needed"


def test_a_request_is_shown_with_its_chain_its_votes_and_what_follows(asked: Logs, call: Call) -> None:
    code, said, _ = call("show", "fraud", "--format", "json")
    assert code == 0
    shown = json.loads(said)
    assert (shown["passport"], shown["version"], shown["requested_by"]) == (NEW.passport, "7", "dora")
    assert (shown["initiators"], shown["risk"]) == (["dora"], "high")
    assert [(node["node"], node["quorum"], node["approved_by"]) for node in shown["chain"]] == [
        ("algorithm-lead", 2, ["lena"]),
        ("compliance", 1, []),
        ("risk-committee", 1, []),
    ]
    assert [(each["account"], each["counts"]) for each in shown["votes"]] == [("dora", False), ("lena", True)]
    waits = shown["waits_for"]
    assert waits["question"] == {
        "dag_id": "fraud__release",
        "dag_run_id": "r1",
        "task_id": "seat_1",
        "map_index": -1,
    }
    assert [(each["do"], each["to"]) for each in waits["next"]] == [("alert", ["vera"])]
    text = call("show", "fraud")[1]
    assert "may not approve: dora" in text
    assert "algorithm-lead: 1 of 2 (role:algorithm-lead): lena" in text
    assert "Approve by dora at algorithm-lead: does not count, account dora belongs to nobody in the policy" in text
    assert "alert: vera" in text
    assert "answer in Airflow: Dag fraud__release, run r1, task seat_1" in text


def test_a_version_that_was_replaced_says_by_what(asked: Logs, call: Call) -> None:
    code, said, _ = call("show", "fraud", "--version", "6")
    assert code == 0
    assert said.startswith("fraud version 6 to test: superseded, a newer request asks for version 7")
    code, _, error = call("show", "fraud", "--version", "9")
    assert code == 1
    assert "nobody has asked for a release of 'fraud' version 9 to test" in error


def test_whoever_asked_ends_the_request_and_the_log_says_who_and_why(asked: Logs, call: Call) -> None:
    code, said, _ = call("withdraw", "fraud", "--reason", "the data was wrong")
    assert (code, said) == (0, "fraud version 7 to test: withdrawn, the data was wrong\n")
    (record,) = facts(asked, NEW.subject, "approval.withdrawn")
    assert (record.event["actor"]["name"], record.event["reason"]) == ("dora", "the data was wrong")
    code, _, error = call("withdraw", "fraud", "--reason", "again")
    assert (code, error) == (1, "error: the request is withdrawn: the data was wrong. Nothing was recorded\n")


@pytest.mark.parametrize(
    ("arguments", "environment", "account", "error"),
    [
        (["withdraw", "fraud", "--reason", "no"], "test", "lena", "'lena' has no role that grants model:fraud/promote"),
        (["withdraw", "fraud", "--reason", " "], "test", "dora", "--reason must be text that is not empty"),
        (["withdraw", "fraud", "--reason", "no"], "prod", "dora", "Airflow must check who withdraws a release"),
        (
            ["delegate", "luis", "--until", "2099-01-01T00:00Z", "--reason", "on leave"],
            "test",
            "lena",
            "Airflow must check who delegates a vote; got 'lena', a name of the operating system",
        ),
        (["undelegate", "1", "--reason", "back"], "test", "lena", "Airflow must check who ends a delegation"),
    ],
)
def test_what_is_refused_is_not_recorded(
    asked: Logs,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: str,
    account: str,
    error: str,
) -> None:
    if environment == "prod" and not asked.is_postgresql:
        error = "sqlite_path must not be used in environment prod"
    monkeypatch.setenv("AIRFLOW_MCP_ENVIRONMENT", environment)
    monkeypatch.setenv("LOGNAME", account)
    code, _, said = call(*arguments)
    assert code in (1, 2)
    assert error in said
    assert facts(asked, NEW.subject, "approval.withdrawn") == facts(asked, "delegations") == []


def test_without_a_policy_in_force_nobody_is_asked(logs: Logs, call: Call) -> None:
    code, _, error = call("list")
    assert code == 2
    assert "no policy is in force, so nobody knows who must approve" in error


@pytest.mark.parametrize("action", READS)
def test_every_read_is_recorded_and_needs_the_permission_to_read_the_log(asked: Logs, call: Call, action: str) -> None:
    code, said, error = call(action, *READS[action], account="dora")
    assert (code, said) == (1, "")
    assert "audit/read is refused: account 'dora', which the policy does not know, has no role" in error
    assert facts(asked, "log", "audit.read") == []
    (refused,) = facts(asked, "audit", "access.refused")
    assert (refused.event["actor"]["name"], refused.event["new"]["act"]) == ("dora", "read")
    assert call(action, *READS[action])[0] == 0
    (read,) = facts(asked, "log", "audit.read")
    assert read.event["actor"]["name"].partition("@")[0] == "vera"


def test_a_list_is_recorded_as_a_read(asked: Logs, call: Call) -> None:
    assert call("list")[0] == 0
    assert [record.event["new"]["action"] for record in facts(asked, "log", "audit.read")] == ["approval.requested"]


def test_the_times_of_a_version_come_from_the_log_and_without_mlflow_the_training_is_left_out(
    asked: Logs, call: Call
) -> None:
    (seq,) = [
        record.seq for record in facts(asked, "model:fraud", "approval.") if record.event["new"]["version"] == "7"
    ]
    append(asked, noted("approval.granted", NEW, {"request": seq, "votes": []}))
    code, said, error = call("times", "fraud", "--tracking-uri", "http://127.0.0.1:9", "--format", "json")
    assert code == 0
    assert error == ""
    newest, older = json.loads(said)
    assert (newest["version"], list(newest["times"]), list(newest["stages"])) == (
        "7",
        ["requested", "approved"],
        ["approved"],
    )
    assert (older["version"], older["stages"], older["seconds"]) == ("6", {}, None)
    assert call("times", "fraud", "--limit", "1")[1].startswith("version 7: requested at ")
    assert call("times", "unknown")[1] == "the log knows no version of 'unknown'\n"
