"""Who will be asked before a release: what plan shows, and which chains validate refuses."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.core.access.policy import read_policy
from tests.support.approvals import POLICY, bank, put_in_force
from tests.support.audit_log import sqlite_logs
from tests.support.paths import PIPELINES
from tests.support.pipeline_files import changed

CREDIT = (PIPELINES / "credit.yaml").read_text()
HIGH = """\
approval by rule 1 of {digest}…, which is for environment prod, risk high
    risk                 high
    may not approve      trigger, clear, commit_author; each person counts once
    1. algorithm-lead    2 of lena, luis, rita (role:algorithm-lead)
                         after 72h alert vera
    2. compliance        1 of cora, carl (role:compliance)
                         after 72h alert cora, carl
    3. risk-committee    1 of rosa, ruth (role:risk-committee)
                         after 72h alert rosa, ruth
                         after 14d rejected

rollback: nobody is asked; whoever may roll back does it at once
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def file_of(folder: Path, text: str) -> str:
    path = folder / "credit.yaml"
    path.write_text(text)
    return str(path)


def test_plan_shows_who_is_asked_in_which_order_why_and_when_somebody_is_told(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(PIPELINES / "credit.yaml"), "--env", "prod", "--policy", str(policy)]) == 0
    assert capsys.readouterr().out.endswith(HIGH.format(digest=bank().digest[:19]))


def test_plan_shows_who_is_asked_before_a_rollback(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = "- {when: {act: rollback, risk: high}, chain: [{name: on-call, approvers: [olga, omar]}]}"
    policy.write_text(POLICY.replace("  approvals:\n", f"  approvals:\n    {rule}\n"))
    arguments = ["plan", str(PIPELINES / "credit.yaml"), "--env", "prod", "--policy", str(policy)]
    assert main(arguments) == 0
    approval, _, rollback = capsys.readouterr().out.rpartition("\n\n")
    assert "approval by rule 2 of" in approval
    assert rollback.partition("of sha256")[0] == "rollback by rule 1 "
    assert rollback.endswith("1. on-call           1 of olga, omar (olga, omar)\n")
    assert main([*arguments, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["approval"]["rollback"]
    assert [(node["name"], node["people"]) for node in found["chain"]] == [("on-call", ["olga", "omar"])]


def test_the_floor_of_the_policy_raises_the_risk_and_a_superior_may_answer_later(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low = changed(CREDIT, "risk: high", "risk: low")
    assert main(["plan", file_of(tmp_path, low), "--env", "prod", "--policy", str(policy)]) == 0
    out = capsys.readouterr().out
    assert "rule 2 of" in out
    assert "after 48h escalate olga\n" in out
    policy.write_text(POLICY.replace('["fraud*"]', '["cred*"]'))
    assert main(["plan", file_of(tmp_path, low), "--env", "prod", "--policy", str(policy)]) == 0
    assert "risk                 high, raised by riskFloor from low\n" in capsys.readouterr().out


def test_json_has_the_chain_with_its_people(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", str(PIPELINES / "credit.yaml"), "--env", "prod", "--policy", str(policy), "--format", "json"]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(node["name"], node["quorum"], node["people"]) for node in document["approval"]["chain"]] == [
        ("algorithm-lead", 2, ["lena", "luis", "rita"]),
        ("compliance", 1, ["cora", "carl"]),
        ("risk-committee", 1, ["rosa", "ruth"]),
    ]
    assert "seat_4" in {task["task_id"] for task in document["tasks"]}


def test_the_policy_in_force_is_read_from_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["plan", str(PIPELINES / "credit.yaml"), "--env", "prod"]) == 0
    assert "the policy says who is asked before a release; name one with --policy" in capsys.readouterr().out
    logs = sqlite_logs(tmp_path)
    with closing(open_log(logs.owner)) as log:
        put_in_force(log, bank(), "prod")
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", f"sqlite:///{logs.owner.sqlite_path}")
    assert main(["plan", str(PIPELINES / "credit.yaml"), "--env", "prod"]) == 0
    assert capsys.readouterr().out.endswith(HIGH.format(digest=bank().digest[:19]))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("seats: 4", "seats: 3", ":19:14: spec.stages[2].seats: must be at least 4, as many approvals as the policy"),
        (
            "    - name: approval\n      seats: 4\n",
            "",
            ":14:5: spec.stages: the policy asks algorithm-lead,",
        ),
        (
            "seats: 4",
            "environments: [test]",
            ":14:5: spec.stages: the policy asks algorithm-lead,",
        ),
    ],
)
def test_validate_refuses_a_file_that_does_not_fit_the_policy(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, problem: str
) -> None:
    file = file_of(tmp_path, changed(CREDIT, old, new))
    assert main(["validate", file, "--policy", str(policy)]) == 1
    assert problem in capsys.readouterr().out
    assert main(["validate", file]) == 0


def test_validate_refuses_a_chain_that_nobody_can_finish(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = POLICY.replace("{role: risk-committee, people: [rosa, ruth]}", "{role: risk-committee, people: []}")
    policy.write_text(short)
    assert main(["validate", str(PIPELINES / "credit.yaml"), "--policy", str(policy)]) == 1
    assert "spec.approvals[0].chain: cannot be satisfied whoever asks: risk-committee" in capsys.readouterr().err
    logs = sqlite_logs(tmp_path)
    with closing(open_log(logs.owner)) as log:  # a log may hold a policy that was not checked
        put_in_force(log, read_policy(short.encode(), "policy.yaml"), "prod")
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", f"sqlite:///{logs.owner.sqlite_path}")
    assert main(["validate", str(PIPELINES / "credit.yaml")]) == 1
    said = "credit.yaml:18:7: spec.stages[2]: nobody could finish the chain of the policy: risk-committee has fewer"
    assert said in capsys.readouterr().out


def test_a_pipeline_that_promotes_nothing_needs_no_approval(tmp_path: Path, policy: Path) -> None:
    text = changed(CREDIT, "    - name: approval\n      seats: 4\n    - name: promote\n      needs: [audit_data]\n", "")
    file = file_of(tmp_path, changed(text, "  risk: high\n", "  stopAfter: register\n"))
    assert main(["validate", file, "--policy", str(policy)]) == 0
