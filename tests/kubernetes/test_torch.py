"""``torch.distributed`` on two pods: the example script with gloo, in an image with PyTorch (`make test-torch`)."""

from __future__ import annotations

import os

import pytest
from mlflow import MlflowClient

from tests.kubernetes.cluster import PodWorld
from tests.support.paths import ROOT

IMAGE = os.environ.get("AIRFLOW_MCP_TEST_TORCH_IMAGE", "")
SCRIPT = ROOT / "dags" / "torch_training" / "train_torch.py"
ROWS = 569

pytestmark = pytest.mark.skipif(not IMAGE, reason="AIRFLOW_MCP_TEST_TORCH_IMAGE names no image with PyTorch")


def test_two_pods_average_their_gradients(world: PodWorld) -> None:
    outcome = world.train(
        script=str(SCRIPT),
        image=IMAGE,
        kubernetes={"replicas": 2, "cpu": "500m", "memory": "1500Mi"},
    )
    assert outcome.state == "success", outcome.error
    world.require_one_result(outcome.result["run_id"])
    leader = outcome.xcom["pod_name"]
    assert world.cluster.started(outcome.result["identity"]) == {leader, f"{leader}-r1"}
    run = MlflowClient(world.url).get_run(outcome.result["run_id"])
    metrics = run.data.metrics
    assert metrics["pods"] == 2
    assert metrics["rows"] == ROWS
    assert metrics["rows_of_rank_1"] == ROWS // 2  # a rank that is not 0 took part, and wrote to the run
    assert metrics["gap_to_mean_gradient"] < 1e-6  # what DistributedDataParallel computed is the mean over both pods
    assert metrics["gap_to_own_gradient"] > 1e-3  # and no pod's own: their rows differ
    assert metrics["training_accuracy"] > 0.95
    model = MlflowClient(world.url).get_logged_model(outcome.result["model_uri"].removeprefix("models:/"))
    assert model.source_run_id == run.info.run_id
