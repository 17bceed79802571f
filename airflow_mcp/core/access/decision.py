"""Decides whether somebody may do something: deny by default, the union of what their roles grant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from airflow_mcp.core.access.policy import GovernancePolicy, Permission, PolicySpec

RESERVED = frozenset({"approve", "export", "activate"})
"""Actions that a pattern never covers: a permission grants them only when it names them."""
MODEL_ACTIONS = ("read", "train", "register", "retrain", "stage", "promote", "rollback", "rollout", "copy", "migrate")
"""What is done to ``model:<name>``."""
ACTIONS = frozenset({*MODEL_ACTIONS, "deploy", "read", "propose", *RESERVED})
"""Every action that is asked for."""
PrincipalKind = Literal["person", "pipeline", "unknown"]


class Principal(NamedTuple):
    """Who asks, as the policy knows them."""

    kind: PrincipalKind
    name: str
    """Name of the person in the policy, ID of the Dag, or the account that the policy does not know."""
    airflow_roles: frozenset[str] = frozenset()
    """Roles in Airflow's auth manager, where they are known: in the API server."""

    def __str__(self) -> str:
        """Return the words for a message."""
        return f"account {self.name!r}, which the policy does not know," if self.kind == "unknown" else repr(self.name)


def principal_of_account(policy: GovernancePolicy, account: str, airflow_roles: Iterable[str] = ()) -> Principal:
    """Return who an account is; several accounts can be one person.

    :param policy: the policy in force.
    :param account: name of the account, as the auth manager's ``get_name()`` gives it; IDs differ between managers.
    :param airflow_roles: roles of the account in Airflow, which only the API server knows.
    """
    person = policy.spec.person_of(account)
    roles = frozenset(airflow_roles)
    return Principal("person", person, roles) if person is not None else Principal("unknown", account, roles)


@dataclass(frozen=True)
class Decision:
    """Whether something is granted."""

    granted: bool
    by: str
    """The role and permission that grant it; otherwise what is missing."""


class _Grant(NamedTuple):
    resource: re.Pattern[str]
    role: str
    permission: Permission


@dataclass(frozen=True)
class _Grants:
    """Everything that some roles permit."""

    named: dict[str, tuple[_Grant, ...]]
    """By the action that the permission names."""
    patterns: tuple[tuple[re.Pattern[str], _Grant], ...]
    """Those whose action is a pattern."""


class AccessRules:
    """The roles of a policy, ready to be asked; make one for many questions.

    :param policy: a policy without mistakes, as :func:`~airflow_mcp.core.access.policy.read_policy` returns it.
    """

    def __init__(self, policy: GovernancePolicy) -> None:
        self._spec: PolicySpec = policy.spec
        self._grants: dict[frozenset[str], _Grants] = {}
        self._roles: dict[Principal, frozenset[str]] = {}

    def allowed(self, principal: Principal, resource: str, action: str) -> Decision:
        """Decide; what no role grants is denied.

        :param principal: who asks.
        :param resource: such as ``model:churn``, ``environment:prod``, ``audit`` or ``policy``.
        :param action: such as ``promote``.
        """
        roles = self._roles.get(principal)
        if roles is None:
            roles = self._roles[principal] = self._roles_of(principal)
        grants = self._grants.get(roles)
        if grants is None:
            grants = self._grants[roles] = self._granted_by(roles)
        for grant in grants.named.get(action, ()):
            if grant.resource.fullmatch(resource):
                return Decision(True, _words(grant))
        if action not in RESERVED:
            for pattern, grant in grants.patterns:
                if pattern.fullmatch(action) and grant.resource.fullmatch(resource):
                    return Decision(True, _words(grant))
        return Decision(False, f"{principal} has no role that grants {resource}/{action}")

    def _roles_of(self, principal: Principal) -> frozenset[str]:
        return frozenset(self._inherited(self._held(principal)))

    def _held(self, principal: Principal) -> Iterator[str]:
        for binding in self._spec.bindings:
            names = {"person": binding.people, "pipeline": binding.pipelines, "unknown": ()}[principal.kind]
            if principal.name in names or principal.airflow_roles.intersection(binding.airflow_roles):
                yield binding.role

    def _inherited(self, held: Iterable[str]) -> Iterator[str]:
        found, todo = set(), list(held)
        while todo:
            role = todo.pop()
            if role not in found:
                found.add(role)
                yield role
                todo += self._spec.roles[role].inherits

    def _granted_by(self, roles: frozenset[str]) -> _Grants:
        named: dict[str, tuple[_Grant, ...]] = {}
        patterns: list[tuple[re.Pattern[str], _Grant]] = []
        for role in sorted(roles):
            for permission in self._spec.roles[role].permissions:
                grant = _Grant(pattern_of(permission.resource), role, permission)
                if "*" in permission.action:
                    patterns.append((pattern_of(permission.action), grant))
                else:
                    named[permission.action] = (*named.get(permission.action, ()), grant)
        return _Grants(named, tuple(patterns))


def pattern_of(text: str) -> re.Pattern[str]:
    """Return the pattern that a text with ``*`` is; everything else in it stands for itself."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


def _words(grant: _Grant) -> str:
    return f"role {grant.role}: {grant.permission.resource}/{grant.permission.action}"
