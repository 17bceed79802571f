"""What is allowed in a policy, and probably not meant: rules that are never reached, roles that nobody holds."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_mcp.core.access.decision import ACTIONS, AccessRules, Principal, pattern_of
from airflow_mcp.core.access.policy import GovernancePolicy, PolicySpec, Problem
from airflow_mcp.core.argument import closest


def doubts(policy: GovernancePolicy) -> Iterator[Problem]:
    """Yield what to look at again; the policy can be used all the same.

    :param policy: a policy without mistakes.
    """
    spec = policy.spec
    yield from _unreachable_rules(spec)
    yield from _unheld_roles(spec)
    yield from _actions(spec)
    rules = AccessRules(policy)
    holders = [name for name in spec.people if rules.allowed(Principal("person", name), "policy", "activate").granted]
    if len(holders) < 2:
        found = f"only {holders[0]!r}" if holders else "nobody"
        yield ("spec", "bindings"), f"{found} may activate a policy (policy/activate); another text needs two people"


def _unreachable_rules(spec: PolicySpec) -> Iterator[Problem]:
    before: list[str] = []
    for number, floor in enumerate(spec.risk_floor):
        if all(any(pattern_of(other).fullmatch(model) for other in before) for model in floor.models):
            yield ("spec", "riskFloor", number), "is never reached: an earlier entry fits all of its models"
        before += floor.models


def _unheld_roles(spec: PolicySpec) -> Iterator[Problem]:
    held = {each.role for each in spec.bindings if each.people or each.pipelines or each.airflow_roles}
    inherited = {other for role in spec.roles.values() for other in role.inherits}
    for name in spec.roles:
        if name not in held | inherited:
            yield ("spec", "roles", name), f"nobody holds role {name!r}"
    bound = {person for binding in spec.bindings for person in binding.people}
    for name in spec.people:
        if name not in bound:
            yield ("spec", "people", name), f"{name!r} holds no role, so they may do nothing"


def _actions(spec: PolicySpec) -> Iterator[Problem]:
    for name, role in spec.roles.items():
        for number, permission in enumerate(role.permissions):
            if "*" in permission.action or permission.action in ACTIONS:
                continue
            near = closest(permission.action, ACTIONS)
            hint = f". Did you mean {near!r}?" if near else ""
            path = ("spec", "roles", name, "permissions", number)
            yield path, f"nothing here asks for action {permission.action!r}{hint}"
