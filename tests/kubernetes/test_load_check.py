"""Load checks as pods: a version that answers, one that is torn, and a pod that is killed on the way."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.registry.load_check import read_load_check
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.registry import PromoteModelOperator
from tests.kubernetes.cluster import PodWorld
from tests.support.logged_models import Logged, log_tree
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.filterwarnings("ignore")
RESOURCES = {"memory": "1Gi", "cpu": "1"}


@pytest.fixture(scope="module")
def tree(pod_mlflow: MlflowServer) -> Logged:
    return log_tree(pod_mlflow)


def check(world: PodWorld, **options: Any) -> TaskOutcome:
    given = {
        "model_name": world.model_name,
        "version": "1",
        "runtime": "kubernetes",
        "workload_resources": RESOURCES,
        "kubernetes": world.pod_options(deferrable=False),
        **options,
    }
    return world.run(LoadCheckOperator, **given)


def known(world: PodWorld) -> Any:
    return read_load_check(world.hook.get_model_version(world.model_name, "1").tags)


def test_a_version_that_answers_in_a_pod_may_become_champion(world: PodWorld, tree: Logged) -> None:
    tree.register(world)
    arguments = {"model_name": world.model_name, "version": "1", "expected_champion": "none", "require_gate": False}
    assert world.run(PromoteModelOperator, **arguments).state == "failed"
    outcome = check(world)
    assert outcome.state == "success", outcome.error
    found = known(world)
    assert found.verdict == "passed"
    assert "@sha256:" in found.image or found.image.startswith("sha256:")
    assert world.cluster.pods(world.dag_id) == []
    assert world.run(PromoteModelOperator, **arguments, dag_run_id="run-2").state == "success"


def test_a_version_that_is_torn_is_found_out_in_a_pod(world: PodWorld, pod_mlflow: MlflowServer) -> None:
    torn = log_tree(pod_mlflow)
    torn.tear()
    torn.register(world)
    outcome = check(world)
    assert outcome.state == "failed"
    assert "is unusable: it does not load" in str(outcome.error)
    assert known(world).is_unusable
    assert world.cluster.pods(world.dag_id) == []


def test_a_pod_without_enough_memory_brands_no_version(world: PodWorld, tree: Logged) -> None:
    tree.register(world)
    outcome = check(world, workload_resources={"memory": "64Mi", "cpu": "1"})
    assert outcome.state == "up_for_retry"
    assert known(world) is None
    again = check(world, try_number=2)
    assert again.state == "success", again.error
    assert known(world).verdict == "passed"
