"""A training as a Job, a TrainJob or a RayJob: the object of each, by the schemas of the projects' types."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from airflow_mcp.core.code.source import CodeSource
from airflow_mcp.core.workload.definition import Workload, WorkloadFile, WorkloadSource
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.core.workload.targets import (
    TARGETS,
    dropped_fields,
    object_name,
    rendezvous_service,
    target_manifest,
    with_entrypoint,
)
from airflow_mcp.exceptions import InvalidArgumentError
from tests.support.crds import RAY_JOB, TRAIN_JOB

NAME = "train-abc-1"
WORK = Workload(
    "train",
    ("python", "-c", "print('it is \"$HOME\"')", "a b"),
    env={"MLFLOW_RUN_ID": "r1", "AIRFLOW_MCP_RUN_ID": "r1", "DEPTH": "3"},
    secret_env={"MLFLOW_TRACKING_TOKEN": "secret-token"},
    files=(WorkloadFile("AIRFLOW_MCP_CONFIG_PATH", "config.yaml", "depth: 3"),),
    image="image:1",
    timeout=90.4,
    is_replicable=True,
    labels={"identity": "abc", "dag_id": "d", "task_id": "train", "run_id": "run", "model_name": "churn"},
)
EVERY = pytest.mark.parametrize("target", list(TARGETS))


def composed(target: str, workload: Workload = WORK, **options: Any) -> dict[str, Any]:
    given = PodOptions(**{"target": target, "replicas": 3, "queue": "team-a", **options})
    return target_manifest(with_entrypoint(workload, given), given, name=NAME, run_id="r1")


def pods_of(target: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod templates of an object, or what a TrainJob says about its pods."""
    spec = found["spec"]
    if target == "job":
        return [spec["template"]]
    if target == "train_job":
        jobs = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        return [job["template"]["spec"]["template"] for job in jobs]
    cluster = spec["rayClusterSpec"]
    workers = [group["template"] for group in cluster.get("workerGroupSpecs", ())]
    return [spec["submitterPodTemplate"], cluster["headGroupSpec"]["template"], *workers]


def environment(variables: list[dict[str, Any]]) -> dict[str, Any]:
    names = [variable["name"] for variable in variables]
    assert len(set(names)) == len(names)
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in variables}


@EVERY
def test_every_object_carries_the_identity_the_run_and_the_queue_but_no_secret(target: str) -> None:
    found = composed(target)
    kind = TARGETS[target]
    assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == (kind.api_version, kind.kind, NAME)
    labels, notes = found["metadata"]["labels"], found["metadata"]["annotations"]
    assert labels["airflow-mcp.io/identity"] == "abc"
    assert labels["kueue.x-k8s.io/queue-name"] == "team-a"
    assert notes["airflow-mcp.io/mlflow-run-id"] == "r1"
    assert notes["airflow-mcp.io/replicas"] == "3"
    assert found["spec"]["activeDeadlineSeconds"] == 90
    assert "secret-token" not in json.dumps(found)


@EVERY
def test_kueue_queues_the_object_and_not_its_pods(target: str) -> None:
    for pod in pods_of(target, composed(target)):
        labels = pod["metadata"]["labels"]
        assert "kueue.x-k8s.io/queue-name" not in labels
        assert labels["airflow-mcp.io/group"] == NAME
        assert labels["airflow-mcp.io/identity"] == "abc"
        assert (labels["dag_id"], labels["task_id"]) == ("d", "train")
        assert labels["app.kubernetes.io/managed-by"] == "airflow-mcp"


@EVERY
def test_no_pod_has_a_deadline_of_its_own_or_runs_as_root(target: str) -> None:
    for pod in pods_of(target, composed(target)):
        assert "activeDeadlineSeconds" not in pod["spec"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(("target", "fields"), [("train_job", TRAIN_JOB), ("ray_job", RAY_JOB)])
def test_objects_of_other_projects_have_only_the_fields_of_their_types(target: str, fields: Any) -> None:
    validator = Draft202012Validator(fields)
    assert list(validator.iter_errors(composed(target)["spec"])) == []
    assert list(validator.iter_errors({**composed(target)["spec"], "replicas": 3})) != []


def test_an_indexed_job_numbers_its_pods_and_is_never_repeated_by_kubernetes() -> None:
    spec = composed("job")["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (
        *("Indexed", 3, 3),
        0,
    )
    (container,) = spec["template"]["spec"]["containers"]
    env = environment(container["env"])
    assert (env["WORLD_SIZE"], env["LOCAL_RANK"], env["MASTER_PORT"]) == ("3", "0", "29500")
    assert env["MASTER_ADDR"] == f"{NAME}-0.{NAME}"
    assert "RANK" not in env
    assert container["command"][:2] == ["sh", "-c"]
    assert container["command"][-4:] == list(WORK.command)
    assert spec["template"]["spec"]["subdomain"] == NAME


def test_a_job_of_one_pod_is_a_plain_job_that_every_kubernetes_knows() -> None:
    spec = composed("job", replicas=1)["spec"]
    assert "completionMode" not in spec
    (container,) = spec["template"]["spec"]["containers"]
    assert environment(container["env"])["RANK"] == "0"
    assert container["command"] == list(WORK.command)


def test_the_pods_of_a_job_find_rank_0_by_a_headless_service_that_goes_with_it() -> None:
    options = PodOptions(target="job", replicas=3, rendezvous_port=29600)
    service = rendezvous_service(composed("job"), options, uid="u-1")
    assert service is not None
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["metadata"]["name"] == NAME
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": "u-1"}
    assert service["metadata"]["ownerReferences"] == [owner]
    assert rendezvous_service(composed("job"), PodOptions(target="job"), uid="u-1") is None
    assert rendezvous_service(composed("train_job"), PodOptions(target="train_job", replicas=3), uid="u-1") is None


def test_a_train_job_names_its_runtime_and_runs_the_command_in_every_node() -> None:
    spec = composed("train_job", training_runtime="team-torch")["spec"]
    group = "trainer.kubeflow.org"
    assert spec["runtimeRef"] == {"apiGroup": group, "kind": "ClusterTrainingRuntime", "name": "team-torch"}
    trainer = spec["trainer"]
    assert (trainer["image"], trainer["numNodes"]) == ("image:1", 3)
    assert trainer["command"][-4:] == list(WORK.command)
    env = environment(trainer["env"])
    assert env["MASTER_ADDR"] == f"{NAME}-node-0-0.{NAME}"
    assert env["MLFLOW_TRACKING_TOKEN"] == {"secretKeyRef": {"name": NAME, "key": "MLFLOW_TRACKING_TOKEN"}}
    (pod,) = pods_of("train_job", composed("train_job"))
    assert [item["name"] for item in pod["spec"]["containers"]] == ["node"]
    assert "env" not in pod["spec"]["containers"][0]  # a TrainJob takes it from its trainer alone


def test_a_ray_job_has_a_head_and_workers_and_only_the_driver_may_end_the_run() -> None:
    spec = composed("ray_job", ray_version="2.50.0")["spec"]
    cluster = spec["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert [group[name] for name in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 2]
    assert cluster["rayVersion"] == "2.50.0"
    head, worker = (
        environment(part["template"]["spec"]["containers"][0]["env"]) for part in (cluster["headGroupSpec"], group)
    )
    assert (head["MLFLOW_RUN_ID"], head["WORLD_SIZE"]) == ("r1", "3")
    assert "MLFLOW_RUN_ID" not in worker
    assert worker["AIRFLOW_MCP_RUN_ID"] == "r1"
    assert (spec["backoffLimit"], spec["shutdownAfterJobFinishes"]) == (0, True)
    assert "workerGroupSpecs" not in composed("ray_job", replicas=1)["spec"]["rayClusterSpec"]


def test_the_command_of_a_ray_job_is_quoted_once_in_a_file() -> None:
    options = PodOptions(target="ray_job")
    files = {file.name: file.content for file in with_entrypoint(WORK, options).files}
    quoted = "python -c 'print('\"'\"'it is \"$HOME\"'\"'\"')' 'a b'"
    assert files["entrypoint.sh"] == f"cd /scratch && exec {quoted}\n"
    assert composed("ray_job")["spec"]["entrypoint"] == "sh /airflow-mcp/files/entrypoint.sh"


def test_the_pod_that_submits_a_ray_job_has_no_credentials_and_needs_little() -> None:
    submitter = composed("ray_job", secrets=[{"env": "KEY", "secret": "s", "key": "k"}])["spec"]["submitterPodTemplate"]
    (container,) = submitter["spec"]["containers"]
    assert container["env"] == []
    assert container["resources"]["limits"] == {"cpu": "200m", "memory": "512Mi"}
    assert submitter["metadata"]["labels"]["airflow-mcp.io/rank"] == "0"


@EVERY
def test_only_trainings_have_a_target(target: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"kubernetes.target must be 'pods' for 'train'; got '{target}'"):
        composed(target, replace(WORK, is_replicable=False))


@EVERY
def test_variables_of_the_ranks_are_not_the_users_to_set(target: str) -> None:
    with pytest.raises(InvalidArgumentError, match="env sets MASTER_ADDR, RANK"):
        composed(target, replace(WORK, env={"RANK": "0", "MASTER_ADDR": "x"}))


@pytest.mark.parametrize(
    ("target", "options", "names"),
    [
        ("job", {"pod_template_file": "/x.yaml"}, "pod_template_file"),
        ("ray_job", {"pod_kwargs": {"hostnetwork": True}}, "pod_kwargs"),
        (
            "train_job",
            {"env_from_secrets": ("a",), "priority_class": "high"},
            "env_from_secrets, priority_class",
        ),
    ],
)
def test_an_option_without_a_place_in_the_object_is_refused(target: str, options: Any, names: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"has no place for {names}"):
        composed(target, **options)


def test_a_train_job_cannot_fetch_code() -> None:
    source = WorkloadSource(CodeSource(url="https://example.com/x.git", ref="main", commit="a" * 40), "train.py")
    with pytest.raises(InvalidArgumentError, match="cannot fetch code or DVC data for 'train'"):
        composed("train_job", replace(WORK, source=source), source_image="image:1")
    assert "checkout" in json.dumps(composed("job", replace(WORK, source=source), source_image="image:1"))


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("train", "train-0123456789ab-2"),
        ("1st.train", "t-1st-train-0123456789ab-2"),
        ("a_very_long_name_of_a_task_that_trains", "a-very-long-name-of-0123456789ab-2"),
    ],
)
def test_names_leave_room_for_what_controllers_append(task: str, name: str) -> None:
    assert object_name(task, "0123456789abcdef", 2) == name
    assert len(name) <= 47


def test_fields_that_the_cluster_dropped_are_found() -> None:
    found = composed("job")
    assert dropped_fields(found, found) == []
    kept = {**found, "spec": {name: value for name, value in found["spec"].items() if name != "completionMode"}}
    assert dropped_fields(found, kept) == ["completionMode"]
