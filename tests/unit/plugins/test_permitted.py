"""The access policy on the page: who sees and who acts, and what counts while the audit log does not answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mcp.core.access.in_force import PolicyInForce
from airflow_mcp.core.access.policy import read_policy
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.exceptions import AuditUnavailableError
from airflow_mcp.plugins.permitted import PolicyOnPage, airflow_roles
from airflow_mcp.plugins.problems import Problem

POLICY = b"""
apiVersion: mcp.example.com/v1
kind: GovernancePolicy
metadata: {name: shop}
spec:
  people: {olga: {}, ulf: {}}
  roles:
    viewer: {permissions: ["model:churn*/read"]}
    operator: {inherits: [viewer], permissions: ["model:*/rollback", "environment:test/deploy"]}
  bindings:
    - {role: operator, people: [olga]}
    - {role: viewer, people: [ulf], airflowRoles: [Viewer]}
"""


def in_force() -> PolicyInForce:
    policy = read_policy(POLICY, "policy.yaml")
    return PolicyInForce(policy, policy.digest, 1)


def model(name: str = "churn", **tags: str) -> Any:
    return RegisteredModel(name=name, aliases={}, tags={f"airflow_mcp.{tag}": value for tag, value in tags.items()})


NOBODY = SimpleNamespace()
VIEWER = SimpleNamespace(roles=[SimpleNamespace(name="Viewer")])


@pytest.mark.parametrize(
    ("user", "account", "name", "sees", "refused"),
    [
        (NOBODY, "olga", "churn", True, None),
        (NOBODY, "olga", "fraud", False, None),
        (NOBODY, "ulf", "churn", True, "model:churn/rollback"),
        (VIEWER, "nobody-knows", "churn", True, "model:churn/rollback"),
        (NOBODY, "nobody-knows", "churn", False, "model:churn/rollback"),
    ],
)
async def test_what_no_role_grants_is_refused_with_what_is_missing(
    user: Any, account: str, name: str, sees: bool, refused: str | None
) -> None:
    policy = PolicyOnPage(in_force, "test")
    await policy.refresh()
    assert policy.shows(user, account, name) is sees
    found = policy.why_not(user, account, model(name), "rollback")
    assert (found and found.values["permission"]) == refused


async def test_the_stricter_environment_of_the_model_counts() -> None:
    policy = PolicyOnPage(in_force, "test")
    await policy.refresh()
    found = policy.why_not(NOBODY, "olga", model(environment="prod"), "rollback")
    assert found is not None
    assert found.values["permission"] == "environment:prod/deploy"


async def test_without_a_policy_airflows_rights_alone_count() -> None:
    policy = PolicyOnPage()
    await policy.refresh()
    assert policy.shows(NOBODY, "anybody", "churn")
    assert policy.why_not(NOBODY, "anybody", model(), "rollback") is None


async def test_while_the_log_is_down_the_last_policy_counts_and_without_one_nothing_is_shown() -> None:
    answers: list[Any] = [AuditUnavailableError("down"), in_force(), AuditUnavailableError("down")]
    times = iter(range(0, 1000, 60))

    def read() -> PolicyInForce:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    policy = PolicyOnPage(read, "test", clock=lambda: float(next(times)))
    with pytest.raises(Problem) as raised:
        await policy.refresh()
    assert raised.value.kind == "policy-unknown"
    await policy.refresh()
    await policy.refresh()
    assert answers == []
    assert not policy.shows(NOBODY, "nobody-knows", "churn")


async def test_no_request_goes_on_before_the_first_reading_has_ended() -> None:
    readings = []

    def read() -> PolicyInForce:
        readings.append(1)
        return in_force()

    policy = PolicyOnPage(read, "test")

    async def ask() -> bool:
        await policy.refresh()
        return policy.shows(NOBODY, "nobody-knows", "churn")

    assert await asyncio.gather(*(ask() for _ in range(5))) == [False] * 5
    assert len(readings) == 1


def test_roles_are_found_with_both_auth_managers() -> None:
    assert airflow_roles(SimpleNamespace(role="op")) == {"op"}
    assert airflow_roles(VIEWER) == {"Viewer"}
    assert airflow_roles(SimpleNamespace(role=None)) == frozenset()
