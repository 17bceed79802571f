"""Values of Airflow connections in the environment of a pod: by a Secret that goes with it, and nowhere else."""

from __future__ import annotations

import base64
import json

from tests.kubernetes.cluster import PodWorld, training, wait_for
from tests.support.task_harness import FakeSupervisor

KEY = "lake-secret-key"
PROGRAM = (
    "import os\n"
    f"assert os.environ['LAKE_KEY'] == {KEY[::-1]!r}[::-1], 'the key is not there'\n"
    "print('the key is', os.environ['LAKE_KEY'])\n"
)


def test_a_value_of_a_connection_reaches_the_pod_by_its_secret_alone(world: PodWorld) -> None:
    api, namespace = world.cluster.api, world.cluster.namespace
    connections = {
        "mlflow_default": {"host": world.url, "extra": {"retries": 0}},
        "lake": {"conn_type": "aws", "extra": {"secret_key": KEY}},
    }
    outcome = world.train(
        training(before=PROGRAM),
        supervisor=FakeSupervisor(connections=connections),
        connection_env={"LAKE_KEY": "lake.extra.secret_key"},
        kubernetes={"on_finish": "keep"},
    )
    assert outcome.state == "success", outcome.error
    (pod,) = world.cluster.pods(world.dag_id)
    name = pod.metadata.name
    manifest = json.dumps(api.read_namespaced_pod(name, namespace).to_dict(), default=str)
    told = [message for message in outcome.supervisor.sent if type(message).__name__ != "MaskSecret"]
    for text in (manifest, repr(told)):
        assert name in text
        assert KEY not in text
    assert KEY in [message.value for message in outcome.supervisor.messages("MaskSecret")]
    secret = api.read_namespaced_secret(name, namespace)
    assert base64.b64decode(secret.data["LAKE_KEY"]).decode() == KEY
    assert [owner.uid for owner in secret.metadata.owner_references] == [pod.metadata.uid]
    world.cluster.delete(name)
    wait_for(lambda: name not in _secrets(world), "the end of the Secret")


def test_a_connection_that_is_missing_starts_no_pod(world: PodWorld) -> None:
    outcome = world.train(connection_env={"LAKE_KEY": "lake.password"})
    assert outcome.state == "failed"
    assert "LAKE_KEY needs lake.password, but there is no connection 'lake'" in str(outcome.error)
    assert world.cluster.pods(world.dag_id) == []
    assert world.runs("RUNNING") == []


def _secrets(world: PodWorld) -> set[str]:
    return {item.metadata.name for item in world.cluster.api.list_namespaced_secret(world.cluster.namespace).items}
