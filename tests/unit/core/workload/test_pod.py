"""The pod of a workload: options, manifest, and how a pod ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core.workload.definition import Resources, Workload, WorkloadFile
from airflow_mcp.core.workload.pod import SCRATCH, label_value, pod_manifest, pod_name
from airflow_mcp.core.workload.pod_ending import PodEnding, read_ending
from airflow_mcp.core.workload.pod_options import PodOptions, VolumeOption, pod_options
from airflow_mcp.exceptions import InvalidArgumentError

LABELS = {
    "dag_id": "nightly",
    "task_id": "train",
    "run_id": "r",
    "try_number": "1",
    "identity": "abc",
    "model_name": "m/1",
}


def manifest(workload: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"name": "train", "command": ("python",), "image": "image:1", "labels": LABELS}
    work = Workload(**{**given, **(workload or {})})
    return pod_manifest(work, PodOptions(**options), name="train-abc-1", run_id="r1", companion="train-abc-1")


def container(**arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = manifest(**arguments)["spec"]["containers"][0]
    return found


def test_the_defaults_are_safe() -> None:
    spec = manifest()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    security = spec["containers"][0]["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts == {SCRATCH: False, "/tmp": False}


def test_nothing_secret_is_in_the_manifest() -> None:
    written = manifest({"secret_env": {"MLFLOW_TRACKING_PASSWORD": "hunter2"}})
    assert "hunter2" not in json.dumps(written)
    (variable,) = written["spec"]["containers"][0]["env"]
    reference = {"name": "train-abc-1", "key": "MLFLOW_TRACKING_PASSWORD"}
    assert variable == {"name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": {"secretKeyRef": reference}}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Resources(), {"cpu": "1", "memory": "2Gi"}),
        (Resources(cpu="4"), {"cpu": "4", "memory": "2Gi"}),
        (Resources(memory="8Gi", gpu=2), {"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "2"}),
    ],
)
def test_requests_and_limits_are_always_set_and_equal(asked: Resources, expected: dict[str, str]) -> None:
    assert container(workload={"resources": asked})["resources"] == {"requests": expected, "limits": expected}


def test_a_gpu_brings_its_toleration_and_its_node_selector_and_without_one_they_stay_away() -> None:
    options = {"gpu_node_selector": {"gpu": "a100"}, "node_selector": {"zone": "a"}}
    with_gpu = manifest({"resources": Resources(gpu=1)}, **options)["spec"]
    assert with_gpu["nodeSelector"] == {"zone": "a", "gpu": "a100"}
    assert with_gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    without = manifest(**options)["spec"]
    assert without["nodeSelector"] == {"zone": "a"}
    assert "tolerations" not in without


def test_files_travel_in_a_config_map_and_are_found_by_their_variable() -> None:
    written = manifest({"files": (WorkloadFile("AIRFLOW_MCP_CONFIG_PATH", "config.yaml", "a: 1"),)})
    assert {"name": "AIRFLOW_MCP_CONFIG_PATH", "value": "/airflow-mcp/files/config.yaml"} in written["spec"][
        "containers"
    ][0]["env"]
    assert {"name": "files", "configMap": {"name": "train-abc-1"}} in written["spec"]["volumes"]


def test_the_timeout_becomes_the_deadline_of_the_pod() -> None:
    assert manifest({"timeout": 90.4})["spec"]["activeDeadlineSeconds"] == 90
    assert manifest({"timeout": 0.1})["spec"]["activeDeadlineSeconds"] == 1
    assert "activeDeadlineSeconds" not in manifest()["spec"]


def test_a_queue_is_a_label_and_a_model_name_is_made_one() -> None:
    labels = manifest(queue="research")["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "research"
    assert labels["airflow-mcp.io/model"] == "m-1"


def test_without_an_image_the_pod_is_refused_and_the_operators_image_goes_first() -> None:
    with pytest.raises(InvalidArgumentError, match="no image for the pod"):
        manifest({"image": None})
    assert container(workload={"image": None}, image="default:1")["image"] == "default:1"
    assert container(image="default:1")["image"] == "image:1"


@pytest.mark.parametrize(
    "sources", [{}, {"claim": "a", "secret": "b"}, {"empty_dir": True, "config_map": "x", "host_path": "/x"}]
)
def test_a_volume_has_exactly_one_source(sources: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"'data' must have exactly one of .*; got {len(sources)}"):
        VolumeOption(name="data", mount_path="/data", **sources).source()


def test_later_options_go_before_and_every_problem_is_named() -> None:
    assert pod_options({"cpu": "2", "memory": "1Gi"}, None, {"cpu": "4"}).cpu == "4"
    with pytest.raises(InvalidArgumentError) as refused:
        pod_options({"imag": "x", "startup_timeout": 0, "on_finish": "burn"})
    for part in ("kubernetes.imag", "kubernetes.startup_timeout", "kubernetes.on_finish", "Did you mean 'image'?"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("train", "train-0123456789ab-2"),
        ("group.Train_Model", "group-train-model-0123456789ab-2"),
        ("___", "workload-0123456789ab-2"),
        ("x" * 80, f"{'x' * 40}-0123456789ab-2"),
    ],
)
def test_the_name_of_a_pod_is_one_that_kubernetes_allows(task: str, name: str) -> None:
    assert pod_name(task, "0123456789abcdef", 2) == name
    assert len(name) <= 63


def test_a_label_value_is_one_that_kubernetes_allows() -> None:
    assert label_value("a b/c") == "a-b-c"
    assert label_value("-" + "x" * 80) == "x" * 62
    assert label_value("///") == ""


def ended(**status: Any) -> PodEnding:
    spec = {"nodeName": "n1", "containers": [{"name": "base", "image": "image:1"}]}
    return read_ending({"metadata": {"name": "p"}, "spec": spec, "status": status})


def states(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "sidecar", "state": {"terminated": {"exitCode": 9}}}, {"name": "base", "state": state}]


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (
            {"phase": "Failed", "containerStatuses": states(terminated={"exitCode": 3, "reason": "Error"})},
            3,
            "exit code 3",
        ),
        (
            {"phase": "Failed", "containerStatuses": states(terminated={"exitCode": 137, "reason": "OOMKilled"})},
            137,
            "OOMKilled (its memory limit is too small",
        ),
        (
            {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "low on memory",
                "containerStatuses": states(terminated={"exitCode": 137, "reason": "Error"}),
            },
            137,
            "Evicted: low on memory (the node ran short",
        ),
        (
            {"phase": "Pending", "containerStatuses": states(waiting={"reason": "ImagePullBackOff", "message": "no"})},
            None,
            "image 'image:1' cannot be pulled",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}
                ],
            },
            None,
            "Unschedulable: 0/1 (no node has room",
        ),
        ({}, None, "phase unknown"),
    ],
)
def test_how_a_pod_ended_is_said_with_what_it_means(status: dict[str, Any], code: int | None, says: str) -> None:
    ending = ended(**status)
    assert ending.exit_code == code
    assert says in ending.describe()
    assert "pod p on node n1" in ending.describe()


def test_a_pod_whose_time_was_up_is_known_by_its_reason() -> None:
    assert ended(phase="Failed", reason="DeadlineExceeded").is_timeout
    assert not ended(phase="Failed", reason="Evicted").is_timeout


@pytest.mark.parametrize("name", ["docker-pullable://registry/image@", "docker://", "registry/image@", ""])
def test_the_digest_is_what_the_runtime_says_that_it_ran(name: str) -> None:
    digest = f"sha256:{'0a' * 32}"
    used = {"name": "base", "state": {}, "imageID": f"{name}{digest}"}
    assert ended(containerStatuses=[{"name": "sidecar", "imageID": "sha256:no"}, used]).image_digest == digest


def test_a_pod_that_started_no_container_has_no_digest() -> None:
    assert ended(containerStatuses=states(waiting={"reason": "ImagePullBackOff"})).image_digest == ""
