"""A program that makes roles and accounts in FAB's tables; ``airflow users create`` would take seconds for each."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def make(roles: Mapping[str, Sequence[Sequence[str]]], accounts: Sequence[Mapping[str, str]]) -> None:
    """Make roles, then accounts; those that exist stay as they are.

    :param roles: name to permissions, each an action and a resource.
    :param accounts: ``name``, ``role`` and ``password`` of each.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        manager: Any = builder.sm
        manager.sync_roles()  # gives the built-in roles their permissions, as `airflow sync-perm` does
        for name, permissions in roles.items():
            role = manager.add_role(name)
            for action, resource in permissions:
                manager.add_permission_to_role(role, manager.create_permission(action, resource))
        for account in accounts:
            name = account["name"]
            if manager.find_user(name) is None:
                role = manager.find_role(account["role"])
                assert manager.add_user(name, name, "Test", f"{name}@bank.example", role, account["password"]), name


if __name__ == "__main__":
    make(**json.load(sys.stdin))
