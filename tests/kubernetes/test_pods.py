"""What a pod looks like from inside and outside: safe defaults, secrets by reference, template, GPU, queue."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.workload.pod import ANNOTATION_PREFIX
from airflow_mcp.operators.registry import RegisterModelOperator
from tests.kubernetes.cluster import PodWorld, shell, training, wait_for

PASSWORD = "correct-horse-battery-staple"

FROM_INSIDE = f"""
import os, pathlib

def can_write(folder):
    try:
        (pathlib.Path(folder) / "probe").write_text("x")
    except OSError as error:
        return type(error).__name__
    return "yes"

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
for name, value in dict(
    user=os.getuid(), root=can_write("/"), home=can_write("/scratch"), tmp=can_write("/tmp"),
    token=os.path.exists(TOKEN), privileges=status["NoNewPrivs"], capabilities=int(status["CapEff"], 16),
    cwd=os.getcwd(), run={contract.ENV_RUN_ID!r} in os.environ,
).items():
    print(f"<{{name}}={{value}}>")
raise SystemExit(1)
"""


def test_the_safe_defaults_hold_inside_the_pod(world: PodWorld) -> None:
    outcome = world.train(["python", "-I", "-S", "-c", FROM_INSIDE])
    seen = str(outcome.error)
    for expected in (
        *("<user=10001>", "<root=OSError>", "<home=yes>", "<tmp=yes>", "<token=False>", "<privileges=1>"),
        *("<capabilities=0>", "<cwd=/scratch>", "<run=True>"),
    ):
        assert expected in seen


def test_credentials_reach_the_pod_by_a_secret_that_goes_with_it(world: PodWorld) -> None:
    api, namespace = world.cluster.api, world.cluster.namespace
    program = (
        "import os, time; time.sleep(6)\n"
        f"assert os.environ['MLFLOW_TRACKING_PASSWORD'] == {PASSWORD[::-1]!r}[::-1], 'the password is not there'\n"
    )
    outcome = world.train(
        training(before=program),
        deferrable=True,
        connection={"login": "scientist", "password": PASSWORD},
        config={"depth": 3},
    )
    assert outcome.state == "deferred", outcome.error
    (name,) = [pod.metadata.name for pod in world.cluster.pods(world.dag_id)]
    manifest = json.dumps(api.read_namespaced_pod(name, namespace).to_dict(), default=str)
    described = subprocess.run(
        ["kubectl", "--namespace", namespace, "describe", "pod", name], capture_output=True, text=True, check=True
    )
    told = [message for message in outcome.supervisor.sent if type(message).__name__ != "MaskSecret"]
    for text in (manifest, described.stdout, repr(told)):
        assert name in text
        assert PASSWORD not in text
    assert set(api.read_namespaced_secret(name, namespace).data) >= {"MLFLOW_TRACKING_PASSWORD"}
    assert "depth" in "".join(api.read_namespaced_config_map(name, namespace).data.values())
    event = wait_for_the_end(world, name)
    resumed = world.resume(outcome, event)
    assert resumed.state == "success", resumed.error

    def companions() -> list[str]:
        kinds = (api.list_namespaced_secret(namespace), api.list_namespaced_config_map(namespace))
        return [item.metadata.name for kind in kinds for item in kind.items if item.metadata.name == name]

    wait_for(lambda: not companions(), "the end of Secret and ConfigMap")


def test_a_pod_that_is_gone_before_its_log_was_read_counts_by_its_mlflow_run(world: PodWorld) -> None:
    outcome = world.train(deferrable=True)
    assert outcome.state == "deferred", outcome.error
    (pod,) = world.cluster.pods(world.dag_id)
    event = wait_for_the_end(world, pod.metadata.name)
    world.cluster.delete(pod.metadata.name)
    wait_for(lambda: world.cluster.phase(pod.metadata.name) == "gone", "the end of the pod")
    resumed = world.resume(outcome, event)
    assert resumed.state == "success", resumed.error
    world.require_one_result(resumed.result["run_id"])


def test_a_failed_pod_that_is_gone_before_its_log_was_read_fails_the_task(world: PodWorld) -> None:
    outcome = world.train(shell("exit 4"), deferrable=True)
    (pod,) = world.cluster.pods(world.dag_id)
    name = pod.metadata.name
    wait_for(lambda: world.cluster.phase(name) == "Failed", "the failure")
    world.cluster.delete(name)
    wait_for(lambda: world.cluster.phase(name) == "gone", "the end of the pod")
    event = {"status": "failed", "name": name, "namespace": world.cluster.namespace, "message": "pod failed"}
    resumed = world.resume(outcome, event)
    assert resumed.state == "up_for_retry"
    assert "is gone" in str(resumed.error)
    assert name in str(resumed.error)
    (run,) = world.runs()
    assert run.status == "FAILED"
    world.require_clean_retry()


def test_a_sidecar_of_the_template_survives_and_does_not_hold_the_task(world: PodWorld) -> None:
    template = world.folder / "pod.yaml"
    sidecar = {"name": "sidecar", "image": "busybox:latest", "imagePullPolicy": "IfNotPresent"}
    sidecar |= {"command": ["sh", "-c", "sleep 600"]}  # type: ignore[dict-item]
    spec = {"containers": [{"name": "base", "image": "replaced"}, sidecar]}
    template.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", "spec": spec}))
    deferred = world.train(deferrable=True, kubernetes={"pod_template_file": str(template)})
    assert deferred.state == "deferred", deferred.error
    (pod,) = world.cluster.pods(world.dag_id)
    assert [container.name for container in pod.spec.containers] == ["base", "sidecar"]
    wait_for(lambda: bool(world.runs("FINISHED")), "the end of the training")
    name = pod.metadata.name
    resumed = world.resume(deferred, {"status": "success", "name": name, "namespace": pod.metadata.namespace})
    assert resumed.state == "success", resumed.error
    world.require_one_result(resumed.result["run_id"])
    failing = world.train(shell("exit 5"), dag_run_id="run-2", kubernetes={"pod_template_file": str(template)})
    assert "ended with exit code 5" in str(failing.error)
    assert world.cluster.pods(world.dag_id) == []


def test_gpu_queue_labels_and_limits_are_in_the_pod_as_asked(world: PodWorld) -> None:
    options: dict[str, Any] = {
        "queue": "team-a",
        "gpu_node_selector": {"accelerator": "a100"},
        "labels": {"team": "forecasting"},
        "schedule_timeout": 30,
    }
    outcome = world.train(deferrable=True, workload_resources={"gpu": 1, "cpu": "200m"}, kubernetes=options)
    assert outcome.state == "deferred", outcome.error
    (pod,) = world.cluster.pods(world.dag_id)
    (container,) = pod.spec.containers
    wanted = {"cpu": "200m", "memory": "128Mi", "nvidia.com/gpu": "1"}
    assert (container.resources.limits, container.resources.requests) == (wanted, wanted)
    assert pod.spec.node_selector == {"accelerator": "a100"}
    assert "nvidia.com/gpu" in [toleration.key for toleration in pod.spec.tolerations]
    assert pod.metadata.labels["kueue.x-k8s.io/queue-name"] == "team-a"
    assert pod.metadata.labels["team"] == "forecasting"
    told = {name.removeprefix(ANNOTATION_PREFIX) for name in pod.metadata.annotations}
    assert told >= {"dag-id", "task-id", "run-id", "try-number", "model-name", "identity", "mlflow-run-id"}


def test_arguments_that_the_pod_operator_does_not_know_are_refused_before_anything_starts(world: PodWorld) -> None:
    outcome = world.train(kubernetes={"pod_kwargs": {"hostnetwrk": True, "image": "x"}})
    assert outcome.state == "failed"
    assert "does not know hostnetwrk" in str(outcome.error)
    assert "image are set by other options" in str(outcome.error)
    assert world.cluster.pods(world.dag_id) == []
    assert world.runs("RUNNING", "FINISHED") == []


def test_a_pod_that_kubernetes_refuses_is_final_and_leaves_nothing(world: PodWorld) -> None:
    outcome = world.train(config={"depth": 3}, kubernetes={"priority_class": "no-such-class"})
    assert outcome.state == "failed", outcome.error
    assert "no-such-class" in str(outcome.error)
    assert world.runs("RUNNING", "FINISHED") == []
    left = world.cluster.api.list_namespaced_config_map(
        world.cluster.namespace, label_selector=f"dag_id={world.dag_id}"
    )
    assert left.items == []


def test_values_of_a_users_secret_and_config_map_are_in_the_environment(world: PodWorld) -> None:
    api, namespace = world.cluster.api, world.cluster.namespace
    api.create_namespaced_secret(namespace, {"metadata": {"name": "store"}, "stringData": {"key": "k-123"}})
    api.create_namespaced_config_map(namespace, {"metadata": {"name": "limits"}, "data": {"DEPTH": "7"}})
    program = "import os; assert (os.environ['STORE_KEY'], os.environ['DEPTH']) == ('k-123', '7'), 'not there'"
    outcome = world.train(
        training(before=program),
        kubernetes={
            "secrets": [{"env": "STORE_KEY", "secret": "store", "key": "key"}],
            "env_from_config_maps": ["limits"],
        },
    )
    assert outcome.state == "success", outcome.error


def test_kubernetes_names_a_missing_secret(world: PodWorld) -> None:
    secrets = [{"env": "STORE_KEY", "secret": "no-such-secret", "key": "key"}]
    outcome = world.train(kubernetes={"secrets": secrets, "startup_timeout": 5})
    run = world.require_failure(outcome, "CreateContainerConfigError", "no-such-secret", "does not exist")
    assert "CreateContainerConfigError" in run.tags[contract.TAG_ERROR]


def test_the_digest_of_the_image_that_ran_goes_from_the_run_to_the_model_version(world: PodWorld) -> None:
    outcome = world.train(deferrable=True)
    (pod,) = world.cluster.pods(world.dag_id)
    event = wait_for_the_end(world, pod.metadata.name)
    ran = world.cluster.api.read_namespaced_pod(pod.metadata.name, world.cluster.namespace)
    resumed = world.resume(outcome, event)
    assert resumed.state == "success", resumed.error
    digest = world.hook.get_run(resumed.result["run_id"]).tags[contract.TAG_IMAGE_DIGEST]
    assert digest.startswith("sha256:")
    assert ran.status.container_statuses[0].image_id.endswith(digest)
    source = resumed.result["model_uri"]
    registered = world.run(RegisterModelOperator, model_name=world.model_name, model_uri=source, require_gate=False)
    assert registered.state == "success", registered.error
    (version,) = world.all_versions()
    assert version.tags[contract.TAG_IMAGE_DIGEST] == digest


def test_every_try_finds_the_checkpoints_of_its_work_at_the_same_place(world: PodWorld) -> None:
    says = shell('echo "place=$AIRFLOW_MCP_CHECKPOINT_URI;"; exit 3')
    tries = [
        world.train(says, checkpoint_root="s3://models/checkpoints/", try_number=number, dag_run_id=dag_run)
        for number, dag_run in ((1, "run-1"), (2, "run-1"), (1, "run-2"))
    ]
    first, retry, other_work = (re.findall(r"^place=(.*);$", str(tried.error), re.M) for tried in tries)
    identities = {run.tags[contract.TAG_IDENTITY] for run in world.runs()}
    assert first == retry != other_work
    assert {*first, *other_work} == {f"s3://models/checkpoints/{identity}" for identity in identities}


def wait_for_the_end(world: PodWorld, name: str) -> dict[str, Any]:
    """Wait for the end of a pod and give the event by which the trigger tells it."""
    wait_for(lambda: world.cluster.phase(name) == "Succeeded", "the end of the pod")
    return {"status": "success", "name": name, "namespace": world.cluster.namespace, "message": "done"}
