"""What the access policy in force permits on the page: the second question, after Airflow's own rights on Dags."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from airflow_mcp.core.access.decision import AccessRules, Principal, principal_of_account
from airflow_mcp.core.access.in_force import PolicyInForce
from airflow_mcp.core.access.policy import GovernancePolicy
from airflow_mcp.core.contract import TAG_ENVIRONMENT
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.panel.actions import ActionName
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.exceptions import ModelControlPlaneError
from airflow_mcp.plugins.problems import UNCHANGED, Problem
from airflow_mcp.registry.guard import PERMISSIONS, strictest

log = logging.getLogger(__name__)
_KEPT_SECONDS = 10.0
"""How long a policy is not read again: an activated one counts on every page after that."""
_ACTIONS: dict[ActionName, tuple[str, ...]] = {
    "rollback": PERMISSIONS["rollback"],
    "promote": PERMISSIONS["promote"],
    "train": ("train",),
    "pause-retraining": ("retrain",),
    "resume-retraining": ("retrain",),
    "pause-rollout": PERMISSIONS["steer"],
    "resume-rollout": PERMISSIONS["steer"],
    "abort-rollout": PERMISSIONS["abort"],
}
"""Actions of the policy, one of which must be granted."""
_OF_TRAINING: frozenset[ActionName] = frozenset({"train", "pause-retraining", "resume-retraining"})
"""Actions that need no ``deploy`` in the environment; the operators of all others ask for it again."""


class _Read(NamedTuple):
    policy: GovernancePolicy
    rules: AccessRules
    digest: str

    def principal(self, user: Any, account: str) -> Principal:
        """Return who an account is."""
        return principal_of_account(self.policy, account, airflow_roles(user))


class PolicyOnPage:
    """The access policy in force, as the page asks it.

    :param read: returns the policy in force, or None when there is none; blocks.
    :param environment: dev, test or prod.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        read: Callable[[], PolicyInForce | None] = lambda: None,
        environment: str = "dev",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._environment, self._clock = read, environment, clock
        self._found: _Read | None = None
        self._due = 0.0
        self._is_known = False
        self._reading: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Read the policy again when it is old. While the log does not answer, the last one that was read counts.

        :raises Problem: when the log does not answer and no policy was read before: what is unknown is refused.
        """
        if self._is_known and self._clock() < self._due:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_again())
        await asyncio.shield(self._reading)  # several requests wait for one reading, and none goes on without it
        if not self._is_known:
            raise Problem("policy-unknown", UNCHANGED)

    async def _read_again(self) -> None:
        try:
            found = await asyncio.to_thread(self._read)
        except ModelControlPlaneError as error:
            log.warning("the access policy cannot be read: %s", error)
            return
        finally:
            self._due = self._clock() + _KEPT_SECONDS
        self._is_known = True
        if found is None:
            self._found = None
        elif self._found is None or self._found.digest != found.digest:
            self._found = _Read(found.policy, AccessRules(found.policy), found.digest)

    @property
    def policy(self) -> GovernancePolicy | None:
        """The policy in force; None when there is none."""
        return self._found.policy if self._found else None

    def shows(self, user: Any, account: str, model: str) -> bool:
        """Return whether an account may read about a model.

        :param user: the user of Airflow's auth manager.
        :param account: its name.
        :param model: name of the model.
        """
        shows = self.viewer(user, account)
        return shows is None or shows(model)

    def viewer(self, user: Any, account: str) -> Callable[[str], bool] | None:
        """Return what decides whether an account may read about a model; None when there is no policy.

        :param user: the user of Airflow's auth manager.
        :param account: its name.
        """
        found = self._found
        if found is None:
            return None
        rules, principal = found.rules, found.principal(user, account)
        return lambda model: rules.allowed(principal, f"model:{model}", "read").granted

    def may_read_log(self, user: Any, account: str) -> bool:
        """Return whether an account may read the audit log.

        :param user: the user of Airflow's auth manager.
        :param account: its name.
        """
        found = self._found
        return found is None or found.rules.allowed(found.principal(user, account), "audit", "read").granted

    def why_not(self, user: Any, account: str, model: RegisteredModel, action: ActionName) -> Refusal | None:
        """Return why the policy does not permit an action; None when it does, or when there is no policy.

        :param user: the user of Airflow's auth manager.
        :param account: its name.
        :param model: the model.
        :param action: the action.
        """
        refused = self.lacks(user, account, model.name, _ACTIONS[action])
        return refused if refused or action in _OF_TRAINING else self.lacks_deploy(user, account, model)

    def lacks(self, user: Any, account: str, model: str, permissions: Sequence[str]) -> Refusal | None:
        """Return the refusal when none of some permissions on a model is granted; None when one is.

        :param user: the user of Airflow's auth manager.
        :param account: its name.
        :param model: name of the model.
        :param permissions: actions of the policy, one of which must be granted.
        """
        found, resource = self._found, f"model:{model}"
        if found is None:
            return None
        principal = found.principal(user, account)
        if any(found.rules.allowed(principal, resource, name).granted for name in permissions):
            return None
        return _refusal(account, f"{resource}/{permissions[0]}")

    def lacks_deploy(self, user: Any, account: str, model: RegisteredModel) -> Refusal | None:
        """Return the refusal when an account may not change what is in production; None when it may.

        :param user: the user of Airflow's auth manager.
        :param account: its name.
        :param model: the model, whose environment may be stricter than the installation's.
        """
        found = self._found
        where = f"environment:{strictest(self._environment, model.tags.get(TAG_ENVIRONMENT, ''))}"
        if found is None or found.rules.allowed(found.principal(user, account), where, "deploy").granted:
            return None
        return _refusal(account, f"{where}/deploy")


def airflow_roles(user: Any) -> frozenset[str]:
    """Return the roles of a user in Airflow: one name with the simple auth manager, several with FAB's.

    :param user: the user of an auth manager.
    """
    found = getattr(user, "roles", None) or [getattr(user, "role", None)]
    return frozenset(str(getattr(each, "name", each)) for each in found if each)


def _refusal(account: str, permission: str) -> Refusal:
    text = "The access policy does not permit it: {account} has no role that grants {permission}."
    return Refusal(text, {"account": account, "permission": permission}, is_right=True)
