"""``airflow-mcp policy`` on real stores: one person proposes a policy, and another one activates it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.core.access.in_force import (
    ACTIVATED,
    Proposal,
    activation_event,
    proposal_events,
    read_in_force,
    read_proposal,
)
from airflow_mcp.core.access.policy import GovernancePolicy
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.exceptions import EvidenceError
from tests.support.audit_log import Logs
from tests.support.governed import policy_of

pytestmark = pytest.mark.integration
Call = Callable[..., tuple[int, str]]

PEOPLE = {"ada": {"accounts": ["ada", "ada-second"]}, "olga": {}, "omar": {}, "dora": {}}
OWNERS = {
    "roles": {"owner": {"permissions": ["policy/activate"]}},
    "bindings": [{"role": "owner", "people": ["ada", "olga", "omar"]}],
}


@pytest.fixture
def logs(audit_logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Logs:
    monkeypatch.setenv("AIRFLOW_MCP_ENVIRONMENT", "test")
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", audit_logs.url("mcp_policy"))
    return audit_logs


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command as a user; return its exit code and everything that it printed."""

    def run(account: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("LOGNAME", account)
        capsys.readouterr()
        code = main(["policy", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def written(folder: Path, **changes: Any) -> tuple[str, GovernancePolicy]:
    """Write a policy to a file; return its path, and the policy."""
    policy = policy_of("test", **{"people": PEOPLE, **OWNERS, **changes})
    place = folder / "policy.json"
    place.write_text(policy.text)
    return str(place), policy


def in_force(logs: Logs) -> str | None:
    """Return the digest of the policy in force."""
    with closing(open_log(logs.as_login("mcp_policy"))) as log:
        found = read_in_force(log)
    return found.digest if found else None


def test_a_policy_needs_two_people_and_an_account_more_is_nobody_more(logs: Logs, call: Call, tmp_path: Path) -> None:
    file, policy = written(tmp_path)
    assert call("ada", "show") == (1, "no policy is in force\n")
    assert call("ada", "propose", file, "--reason", "first")[0] == 0
    for account in ("ada", "ada-second"):
        code, said = call(account, "activate", policy.digest, "--reason", "quickly")
        assert (code, "must be activated by somebody else than who proposed it" in said) == (1, True), said
    code, said = call("dora", "activate", policy.digest, "--reason", "me")
    assert (code, "'dora' has no role that grants policy/activate. Nothing was activated" in said) == (1, True), said
    assert in_force(logs) is None
    assert call("olga", "activate", policy.digest, "--reason", "reviewed")[0] == 0
    assert in_force(logs) == policy.digest
    code, said = call("dora", "show")
    assert (code, policy.digest in said) == (0, True)


def test_the_policy_in_force_says_who_may_replace_it_and_who_is_one_person(
    logs: Logs, call: Call, tmp_path: Path
) -> None:
    file, first = written(tmp_path)
    assert call("ada", "propose", file, "--reason", "first")[0] == 0
    assert call("olga", "activate", first.digest, "--reason", "reviewed")[0] == 0

    # A text that makes two people of ada, and an owner of dora, is judged by the text before it.
    weaker = {"bindings": [{"role": "owner", "people": ["ada", "dora"]}]}
    file, second = written(
        tmp_path,
        people={**PEOPLE, "ada": {}, "zoe": {"accounts": ["ada-second"]}},
        **{
            **OWNERS,
            **weaker,
        },
    )
    assert call("ada", "propose", file, "--reason", "weaker")[0] == 0
    for account, reason in (("ada-second", "somebody else than who proposed it"), ("dora", "grants policy/activate")):
        code, said = call(account, "activate", second.digest, "--reason", "me")
        assert (code, reason in said) == (1, True), said
    assert in_force(logs) == first.digest
    assert call("omar", "activate", second.digest, "--reason", "seen")[0] == 0
    with closing(open_log(logs.as_login("mcp_policy"))) as log:
        *_, last = log.facts("policy", ACTIVATED)
    assert last.event["old"]["digest"] == first.digest
    assert (last.event["new"]["digest"], last.event["new"]["proposed_by"]) == (second.digest, ["ada"])


def test_an_activation_that_one_person_forged_stops_every_decision(logs: Logs, call: Call, tmp_path: Path) -> None:
    """Somebody appends the events with a program of their own, and the login for policies."""
    ada, second = AuditActor("user", "ada", authenticated=True), AuditActor("user", "ada-second", authenticated=True)
    _, policy = written(tmp_path)
    with closing(open_log(logs.as_login("mcp_policy"))) as log:
        for event in proposal_events(policy, ada, "test", "forged"):
            log.append(event)
        log.append(activation_event(read_proposal(log, policy.digest), None, second, "test", "forged"))
        with pytest.raises(EvidenceError, match="'ada-second' alone proposed and activated"):
            read_in_force(log)
    code, said = call("olga", "show")
    assert (code != 0, "A policy needs two people; nothing was decided by it" in said) == (True, True), said


def test_an_activation_of_a_text_that_the_log_does_not_hold_decides_nothing(logs: Logs, tmp_path: Path) -> None:
    olga = AuditActor("user", "olga", authenticated=True)
    _, policy = written(tmp_path, approvals=[{"chain": []}], riskFloor=[{"models": ["x*"], "risk": "high"}])
    with closing(open_log(logs.as_login("mcp_policy"))) as log:
        log.append(activation_event(Proposal(policy, (1,), ("ada",)), None, olga, "test", "forged"))
        with pytest.raises(EvidenceError, match="does not hold the text of policy"):
            read_in_force(log)


def test_a_long_policy_is_kept_in_parts_and_counts_whole(logs: Logs, call: Call, tmp_path: Path) -> None:
    file, policy = written(tmp_path, people=PEOPLE | {f"person-{number:04}": {} for number in range(3000)})
    assert call("ada", "propose", file, "--reason", "everybody")[0] == 0
    assert call("olga", "activate", policy.digest, "--reason", "reviewed")[0] == 0
    with closing(open_log(logs.as_login("mcp_policy"))) as log:
        proposal = read_proposal(log, policy.digest)
    assert (len(proposal.seqs) > 1, proposal.policy.text) == (True, policy.text)
    assert in_force(logs) == policy.digest


def test_prod_takes_no_name_that_nobody_checked(
    logs: Logs, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, policy = written(tmp_path)
    assert call("ada", "propose", file, "--reason", "first")[0] == 0
    monkeypatch.setenv("AIRFLOW_MCP_ENVIRONMENT", "prod")
    refused = (
        "Airflow must check who changes a policy" if logs.is_postgresql else "must not be used in environment prod"
    )
    for arguments in (("propose", file), ("activate", policy.digest)):
        code, said = call("olga", *arguments, "--reason", "reviewed")
        assert (code != 0, refused in said) == (True, True), said
    monkeypatch.setenv("AIRFLOW_MCP_ENVIRONMENT", "test")
    assert in_force(logs) is None


def test_the_template_has_no_mistake_and_a_mistake_is_named_with_its_line(call: Call, tmp_path: Path) -> None:
    code, text = call("ada", "template")
    place = tmp_path / "policy.yaml"
    place.write_text(text)
    assert (code, call("ada", "check", str(place))[0]) == (0, 0)
    place.write_text(text.replace("viewer", "wiever", 1))
    code, said = call("ada", "check", str(place))
    assert (code, f"{place}:" in said, "viewer" in said) == (1, True, True), said
