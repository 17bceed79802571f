"""Which pods of a group go and which stay, by what Kubernetes reports of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import V1ObjectMeta, V1Pod

from airflow_mcp.workloads.kubernetes_group import delete_followers

RUNNING = {"running": {"startedAt": "2026-11-21T12:00:00Z"}}
FAILED = {"terminated": {"exitCode": 1, "finishedAt": "2026-11-21T12:00:09Z"}}
LEADER = V1Pod(metadata=V1ObjectMeta(name="train", namespace="ml", labels={"airflow-mcp.io/group": "train"}))


class Pods:
    """A client that lists the pods of one group, and remembers which were deleted."""

    def __init__(self, *statuses: tuple[str, dict[str, Any]]) -> None:
        self.deleted: list[str] = []
        self.items = [
            {
                "metadata": {"name": f"train-r{rank}", "namespace": "ml", "labels": {"airflow-mcp.io/rank": str(rank)}},
                "status": {"phase": phase, "containerStatuses": [{"name": "base", "state": state}]},
            }
            for rank, (phase, state) in enumerate(statuses, 1)
        ]

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        assert (namespace, label_selector) == ("ml", "airflow-mcp.io/group=train")
        return SimpleNamespace(items=self.items)

    def delete_namespaced_pod(self, name: str, namespace: str) -> None:
        self.deleted.append(name)


@pytest.mark.parametrize("phase", ["Running", "Failed"], ids=["1.32, at once", "1.32, later, and 1.20"])
def test_a_rank_that_has_ended_stays_when_only_those_at_work_go(phase: str) -> None:
    pods = Pods((phase, FAILED), ("Running", RUNNING))
    delete_followers(pods, LEADER, only_at_work=True)  # type: ignore[arg-type]
    assert pods.deleted == ["train-r2"]


def test_otherwise_all_go() -> None:
    pods = Pods(("Failed", FAILED), ("Running", RUNNING))
    delete_followers(pods, LEADER)  # type: ignore[arg-type]
    assert pods.deleted == ["train-r1", "train-r2"]
