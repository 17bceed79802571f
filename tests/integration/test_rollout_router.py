"""A rollout whose requests are moved by a router: the document in a real registry is still the lock and the record.

The Service is kept by an API server over HTTP. Nobody measures here: a person goes on past every step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from kubernetes import client

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.rollout.advance import Finish, Wait
from airflow_mcp.core.rollout.plan import BLUE_GREEN_STEPS, read_plan
from airflow_mcp.core.rollout.state import Journal, observe
from airflow_mcp.registry.governance import Governance
from airflow_mcp.registry.promotion import Promotion
from airflow_mcp.registry.rollout_control import RolloutControl
from airflow_mcp.registry.rollout_run import RolloutOrder, RolloutRun
from airflow_mcp.routers.service import ServiceRouter
from tests.support.fakes.kube_objects import KubeObjects
from tests.support.mlflow_world import World

SERVICE = "/api/v1/namespaces/ml/services/fraud"
BLUE = {"metadata": {"name": "fraud"}, "spec": {"selector": {"track": "blue"}}}
log = logging.getLogger("test")
ADA = Actor("user", "ada", "test")


@pytest.fixture
def kube() -> Iterator[KubeObjects]:
    with KubeObjects() as server:
        server.put(SERVICE, BLUE)
        yield server


def track(kube: KubeObjects) -> str:
    return str(kube.objects[SERVICE]["spec"]["selector"]["track"])


def rollout(world: World, kube: KubeObjects) -> RolloutRun:
    settings = client.Configuration()
    settings.host, settings.retries = kube.url, False
    cluster = ClusterObjects(client.ApiClient(settings), "ml")
    router = ServiceRouter(cluster, service="fraud", stable="blue", canary="green", label="track")
    promotion = Promotion(
        order=MoveOrder(action="promote", identity="r1", by=ADA, reason="test"),
        model_name=world.model_name,
        version="2",
        expected_champion="1",
    )
    plan = read_plan({"steps": BLUE_GREEN_STEPS})
    order = RolloutOrder(promotion=promotion, plan=plan, experiment_name=world.experiment, tags={})
    return RolloutRun(world.hook, order, log=log, governance=Governance(), router=router)


def everybody_is_ready(run: RolloutRun, journal: Journal) -> Journal:
    """Return the journal after a look at which every replica has loaded the canary."""
    from datetime import UTC, datetime

    from airflow_mcp.core.rollout.samples import Pair, ReplicaSample

    seen = ReplicaSample("a", 1.0, 1, Pair(), frozenset({"1", "2"}), frozenset(), {})
    return observe(journal, None, [seen], datetime.now(UTC))


def begun(world: World, kube: KubeObjects) -> tuple[RolloutRun, Journal]:
    world.versions(2)
    world.hook.set_alias(world.model_name, "champion", "1")
    run = rollout(world, kube)
    journal = run.begin()
    assert journal is not None
    assert track(kube) == "blue"
    journal, left = run.step(everybody_is_ready(run, journal))
    assert isinstance(left, Wait)
    assert track(kube) == "green"
    return run, journal


def test_an_abort_sends_the_requests_back(world: World, kube: KubeObjects) -> None:
    run, journal = begun(world, kube)
    RolloutControl(world.hook, world.model_name, actor=ADA, log=log).abort("not tonight")
    journal, left = run.step(journal)
    assert isinstance(left, Finish)
    assert left.cause == "aborted"
    run.finish(journal, left)
    assert track(kube) == "blue"
    assert world.aliases["champion"] == "1"


def test_a_retry_puts_the_weight_of_the_document_in_force_and_success_keeps_it(world: World, kube: KubeObjects) -> None:
    _, journal = begun(world, kube)
    kube.put(SERVICE, BLUE)  # as if the task had died between the document and the router
    again = rollout(world, kube)
    found = again.begin()
    assert found is not None
    again.step(journal)
    assert track(kube) == "green"
    control = RolloutControl(world.hook, world.model_name, actor=ADA, log=log)
    control.pause("look")
    control.resume("fine", skip=True)
    journal, left = again.step(journal)
    assert isinstance(left, Finish)
    assert left.succeeded
    again.finish(journal, left)
    assert track(kube) == "green"
    assert world.aliases["champion"] == "2"
