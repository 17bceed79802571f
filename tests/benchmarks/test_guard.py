"""What the guard costs: a promotion without governance, with an audit log, and with a policy in force, side by side."""

from __future__ import annotations

import logging
import time
from uuid import uuid4

import pytest

from airflow_mcp.core.access.decision import AccessRules, Principal
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.registry.governance import Governance
from airflow_mcp.registry.promotion import Promotion, promote
from tests.integration.conftest import registry_server, world  # noqa: F401  (fixtures)
from tests.support.audit_log import postgresql_logs
from tests.support.governed import Governed, policy_of
from tests.support.mlflow_world import World

pytestmark = pytest.mark.benchmark
LOG = logging.getLogger("benchmark")
ROUNDS, CHECKS = 12, 20_000
MOST_MILLISECONDS, MOST_MICROSECONDS = 60.0, 5.0


def promotion_milliseconds(governed: Governed, governance: Governance) -> float:
    """Return the CPU time of one promotion in this process: the median, because other work disturbs."""
    found, registry = [], governed.world
    for _ in range(ROUNDS):
        champion = registry.aliases.get("champion")
        order = MoveOrder("promote", uuid4().hex, Actor.of_user("ada", "tests", account="ada"), "benchmark")
        wanted = Promotion(
            order=order,
            model_name=registry.model_name,
            version="2" if champion == "1" else "1",
            expected_champion=champion,
        )
        started = time.process_time()
        promote(registry.hook, wanted, log=LOG, governance=governance)
        found.append(time.process_time() - started)
    return sorted(found)[ROUNDS // 2] * 1000


def test_the_guard_costs_less_than_60_milliseconds_of_a_promotion(
    world: World,  # noqa: F811
    postgresql: str,
) -> None:
    with postgresql_logs(postgresql) as logs:
        governed = Governed(world, logs, "prod")
        for _ in range(2):
            governed.version()
        measured = {
            "without governance": promotion_milliseconds(governed, Governance()),
            "audit log, no policy": promotion_milliseconds(governed, governed.governance(environment="test")),
        }
        governed.activate()
        measured["policy in force"] = promotion_milliseconds(governed, governed.governance())
    base = measured["without governance"]
    for name, value in measured.items():
        print(f"{name:<22} {value:7.1f} ms CPU, {value / base:5.2f} times, {value - base:+6.1f} ms")
    assert measured["policy in force"] - base < MOST_MILLISECONDS


def test_an_access_check_costs_less_than_5_microseconds() -> None:
    rules, ada = AccessRules(policy_of("prod")), Principal("person", "ada")
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(CHECKS):
            rules.allowed(ada, "model:fraud", "promote")
        best = min(best, (time.process_time() - started) / CHECKS)
    print(f"access check {best * 1e6:.2f} us CPU")
    assert best * 1e6 < MOST_MICROSECONDS
