"""Who may do what, by the roles of the template, and who is behind a Dag run."""

from __future__ import annotations

from pathlib import Path

import pytest

import airflow_mcp.cli
from airflow_mcp.core.access.decision import AccessRules, Principal, principal_of_account
from airflow_mcp.core.access.policy import GovernancePolicy, policy_from_text, read_policy
from airflow_mcp.core.access.requester import RunOrigin, requester_of
from airflow_mcp.exceptions import PipelineSpecError

TEMPLATE = (Path(airflow_mcp.cli.__file__).parent / "scaffold" / "policy.yaml").read_bytes()
MATRIX = {
    "viewer": {"read"},
    "data-scientist": {"read", "train", "register", "promote", "stage"},
    "data-engineer": {"read", "retrain", "copy"},
    "domain-expert": {"read"},
    "operator": {"read", "promote", "rollback", "rollout", "stage", "copy"},
    "algorithm-lead": {"read"},
    "compliance": {"read"},
    "risk-committee": {"read"},
    "security": {"read"},
    "admin": {"read", "train", "register", "retrain", "stage", "promote", "rollback", "rollout", "copy", "migrate"},
}
ACTIONS = sorted({*MATRIX["admin"], "approve"})


def held_by_one(role: str) -> GovernancePolicy:
    """Return the template with one more person, who holds one role."""
    text = TEMPLATE.replace(b"  roles:", b"    holder: {accounts: [holder, second]}\n  roles:", 1)
    binding = f"  bindings:\n    - {{role: {role}, people: [holder]}}".encode()
    return read_policy(text.replace(b"  bindings:", binding, 1), "policy.yaml")


@pytest.mark.parametrize("role", MATRIX)
def test_each_role_of_the_template_may_do_what_the_page_says(role: str) -> None:
    rules, holder = AccessRules(held_by_one(role)), Principal("person", "holder")
    granted = {action for action in ACTIONS if rules.allowed(holder, "model:churn", action).granted}
    assert granted == MATRIX[role]
    in_prod = rules.allowed(holder, "environment:prod", "deploy").granted
    assert in_prod == (role in ("operator", "admin"))


def test_a_reserved_action_is_granted_by_name_only() -> None:
    rules, admin = AccessRules(held_by_one("admin")), Principal("person", "holder")
    assert not rules.allowed(admin, "audit", "export").granted
    assert rules.allowed(admin, "policy", "activate").granted


def test_an_account_that_the_policy_does_not_know_may_do_nothing() -> None:
    policy = held_by_one("admin")
    rules = AccessRules(policy)
    assert not rules.allowed(principal_of_account(policy, "mallory"), "model:churn", "read").granted
    assert principal_of_account(policy, "second") == principal_of_account(policy, "holder")


def test_roles_in_a_circle_are_a_mistake_with_its_place() -> None:
    text = TEMPLATE.replace(b"domain-expert: {inherits: [viewer]}", b"domain-expert: {inherits: [domain-expert]}")
    with pytest.raises(PipelineSpecError, match=r"policy.yaml:\d+:\d+: .*circle: domain-expert -> domain-expert"):
        read_policy(text, "policy.yaml")


def test_the_text_of_the_log_is_the_same_policy() -> None:
    policy = held_by_one("viewer")
    assert policy_from_text(policy.text, "log") == policy


@pytest.mark.parametrize(
    ("origins", "account", "pipeline", "is_known_in_prod"),
    [
        ([RunOrigin("d", "r", "ui", "ada")], "ada", "", True),
        ([RunOrigin("d", "r", "rest_api", "ada")], "ada", "", True),
        ([RunOrigin("d", "r", "timetable")], "", "d", True),
        ([RunOrigin("d", "r", "asset")], "", "d", True),
        ([RunOrigin("d", "r", "cli", "mallory")], "mallory", "", False),
        ([RunOrigin("d", "r", "operator", "ada"), RunOrigin("p", "q", "ui", "ada")], "ada", "", True),
        ([RunOrigin("d", "r", "operator", "m"), RunOrigin("p", "q", "cli", "m")], "m", "", False),
        ([RunOrigin("d", "r", "operator", "m"), RunOrigin("p", "q", "ui", "ada")], "", "", False),
        ([RunOrigin("d", "r", "operator", "ada")], "", "", False),
        ([], "", "", False),
    ],
)
def test_who_is_behind_a_run_is_whom_the_api_server_saw(
    origins: list[RunOrigin], account: str, pipeline: str, is_known_in_prod: bool
) -> None:
    found = requester_of(origins)
    assert (found.account, found.pipeline) == (account, pipeline)
    assert (found.why_unknown("prod") == "") == is_known_in_prod


def test_whoever_cleared_a_task_needs_the_permission_too() -> None:
    policy = held_by_one("viewer")
    found = requester_of([RunOrigin("d", "r", "timetable", cleared_by=("holder", "second", "mallory"))])
    assert [each.name for each in found.principals(policy)] == ["d", "holder", "mallory"]
