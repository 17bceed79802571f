"""The objects of a model server: held to the schemas of Kubernetes, and the values of the source documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from airflow_mcp.core.manifests.model_server import model_server_manifests, traffic_service
from airflow_mcp.core.manifests.spec import ModelServerSpec, read_model_server
from airflow_mcp.core.pipeline.file.policies import read_policy_file
from airflow_mcp.core.serving.control_settings import read_control_settings
from airflow_mcp.core.serving.settings import PREFIX, read_settings
from airflow_mcp.exceptions import InvalidArgumentError

OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()
POLICY = {"trigger": {"metric": "http_5xx_rate", "threshold": "0.05", "duration": "2m"}}
FULL: dict[str, Any] = {
    "version": "8",
    "namespace": "ml",
    "autoscaling": {"min_replicas": 2, "max_replicas": 6},
    "load_seconds": 30.5,
    "settings": {"PROCESSES": "2", "LOG_URI": "s3://logs/fraud"},
    "env": {"OMP_NUM_THREADS": "1"},
    "secrets": [{"env": "MLFLOW_TRACKING_PASSWORD", "secret": "mlflow", "key": "password"}],
    "traffic_policy": {"rateLimit": {"requestsPerSecond": 100}},
    "rollback_policy": POLICY,
    "network": {"from_namespaces": ["shop", "monitoring"], "to_ports": [9000]},
    "service_account": "fraud",
    "image_pull_secrets": ["registry"],
    "node_selector": {"pool": "cpu"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "labels": {"team": "risk"},
    "annotations": {"sidecar.istio.io/inject": "false"},
}


def spec(**fields: Any) -> ModelServerSpec:
    return read_model_server(
        {"model_name": "fraud", "image": "registry/fraud:3", "tracking_uri": "http://mlflow.ml.svc:5000", **fields}
    )


def objects(**fields: Any) -> dict[str, dict[str, Any]]:
    """Name the objects by kind; the headless Service is ``Headless``."""
    found = {each["kind"]: each for each in model_server_manifests(spec(**fields)) if each["kind"] != "Service"}
    services = [each for each in model_server_manifests(spec(**fields)) if each["kind"] == "Service"]
    names = {True: "Headless", False: "Service"}
    return found | {names[each["spec"].get("clusterIP") == "None"]: each for each in services}


def container(**fields: Any) -> dict[str, Any]:
    (found,) = objects(**fields)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(**fields: Any) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(**fields)["env"]}


@pytest.mark.parametrize("release", [OLDEST, NEWEST])
@pytest.mark.parametrize(
    "fields", [{}, FULL, {"track": "blue"}, {"profile": "seed"}], ids=["few", "all", "track", "seed"]
)
def test_kubernetes_would_take_every_object(fields: dict[str, Any], release: str) -> None:
    found = model_server_manifests(spec(**fields))
    for each in found:
        kubernetes_validate.validate(each, release, strict=True)
    assert {"Deployment", "Service"} <= {each["kind"] for each in found}


def test_the_validator_notices_a_field_that_does_not_exist() -> None:
    broken = {**objects()["PodDisruptionBudget"], "spec": {"maxAway": 1}}
    with pytest.raises(kubernetes_validate.ValidationError, match="maxAway"):
        kubernetes_validate.validate(broken, NEWEST, strict=True)


def test_the_profile_seed_has_the_values_of_the_source_documents() -> None:
    wanted = yaml.safe_load_all((Path(__file__).parent / "seed.yaml").read_text(encoding="utf-8"))
    assert list(model_server_manifests(spec(profile="seed", image="registry/fraud", version="8"))) == list(wanted)
    assert environment(profile="seed")["MODEL_URI"] == "models:/fraud/Production"


def test_the_objects_that_pods_need_come_first_and_the_service_for_requests_last() -> None:
    found = model_server_manifests(spec(**FULL))
    assert [each["kind"] for each in found] == [
        *("ConfigMap", "NetworkPolicy", "Service", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"),
        "Service",
    ]
    assert found[-1] is traffic_service(spec(**FULL), found)
    assert {each["metadata"]["namespace"] for each in found} == {"ml"}
    assert {each["metadata"]["labels"]["team"] for each in found} == {"risk"}


def test_a_server_follows_the_champion_or_serves_one_version() -> None:
    assert environment()["MODEL_URI"] == "models:/fraud@champion"
    pinned = objects(version="8")["Deployment"]
    assert environment(version="8")["MODEL_URI"] == "models:/fraud/8"
    assert pinned["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] == "8"


@pytest.mark.parametrize(
    ("image", "version", "wanted"),
    [
        ("registry:5000/fraud", "8", "registry:5000/fraud:8"),
        ("registry/fraud:3", "8", "registry/fraud:3"),
        (f"registry/fraud@sha256:{'a' * 64}", "", f"registry/fraud@sha256:{'a' * 64}"),
    ],
)
def test_the_version_is_the_tag_of_an_image_without_one(image: str, version: str, wanted: str) -> None:
    assert container(image=image, version=version)["image"] == wanted


def test_the_server_accepts_every_setting_that_it_is_given() -> None:
    given = {
        name: value
        for name, value in environment(**FULL, image=f"registry/fraud@sha256:{'a' * 64}").items()
        if isinstance(value, str)
    }
    settings, control = read_settings(given), read_control_settings(given, PREFIX)
    assert (settings.processes, settings.drain_seconds, settings.load_timeout) == (2, 10, 153)
    assert (control.service, control.image_digest, control.log_uri) == (
        *("fraud-headless", f"sha256:{'a' * 64}"),
        "s3://logs/fraud",
    )
    assert control.policies == (
        "/etc/airflow-mcp/policies/RollbackPolicy.yaml",
        "/etc/airflow-mcp/policies/TrafficPolicy.yaml",
    )
    assert objects(**FULL)["Headless"]["metadata"]["name"] == control.service


def test_policies_are_files_that_the_server_reads_and_a_change_is_a_new_object() -> None:
    found = objects(traffic_policy=FULL["traffic_policy"], rollback_policy=POLICY)["ConfigMap"]
    read = {name: read_policy_file(text.encode(), name) for name, text in found["data"].items()}
    assert read["TrafficPolicy.yaml"].spec == spec(**FULL).traffic_policy
    assert read["RollbackPolicy.yaml"].spec == spec(**FULL).rollback_policy
    other = objects(traffic_policy={"rateLimit": {"requestsPerSecond": 99}})
    assert other["ConfigMap"]["metadata"]["name"] != found["metadata"]["name"]
    (volume,) = (
        each for each in other["Deployment"]["spec"]["template"]["spec"]["volumes"] if each["name"] == "policies"
    )
    assert volume["configMap"]["name"] == other["ConfigMap"]["metadata"]["name"]


def test_a_pod_has_time_to_drain_and_to_answer_and_to_load() -> None:
    deployment = objects(drain_seconds=20, settings={"REQUEST_TIMEOUT": "60"}, load_seconds=40)["Deployment"]["spec"]
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] == 90
    assert deployment["progressDeadlineSeconds"] == 320
    assert environment(load_seconds=2)["AIRFLOW_MCP_SERVING_LOAD_TIMEOUT"] == "60"
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_autoscaler_decides_the_number_of_replicas_alone() -> None:
    assert objects(replicas=3)["Deployment"]["spec"]["replicas"] == 3
    scaled = objects(**FULL)
    assert "replicas" not in scaled["Deployment"]["spec"]
    target = scaled["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", scaled["Deployment"]["metadata"]["name"])


def test_tracks_are_two_deployments_behind_one_service() -> None:
    blue, green = objects(track="blue"), objects(track="green")
    assert (blue["Deployment"]["metadata"]["name"], green["Deployment"]["metadata"]["name"]) == (
        "fraud-blue",
        "fraud-green",
    )
    assert blue["Service"]["metadata"]["name"] == green["Service"]["metadata"]["name"] == "fraud"
    for side in (blue, green):
        labels = side["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert side["Service"]["spec"]["selector"].items() <= labels.items()
        assert side["Headless"]["spec"]["selector"].items() <= labels.items()
    assert blue["Service"]["spec"]["selector"] != green["Service"]["spec"]["selector"]
    assert blue["Headless"]["spec"] == green["Headless"]["spec"]


def test_selectors_do_not_change_with_version_and_labels() -> None:
    one, other = objects(version="8"), objects(version="9", labels={"team": "risk"})
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert one[kind]["spec"]["selector"] == other[kind]["spec"]["selector"]


def test_the_sweeper_of_workload_pods_does_not_find_a_server() -> None:
    assert "app.kubernetes.io/managed-by" not in objects()["Deployment"]["spec"]["template"]["metadata"]["labels"]


def test_the_network_policy_lets_out_what_the_server_needs() -> None:
    def out(**fields: Any) -> set[int]:
        egress = objects(**fields)["NetworkPolicy"]["spec"]["egress"]
        return {port["port"] for rule in egress for port in rule["ports"]}

    assert out() == {53, 5000}
    assert out(tracking_uri="https://mlflow.example.com") == {53, 443}
    assert out(**FULL) == {53, 443, 5000, 9000}
    issuer = {"auth": {"method": "JWT", "issuer": "https://auth.example.com"}}
    assert out(traffic_policy=issuer) == {53, 443, 5000}
    assert "NetworkPolicy" not in objects(network=None)


def test_prometheus_finds_the_headless_service() -> None:
    found = objects(service_monitor=True)
    wanted = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= found["Headless"]["metadata"]["labels"].items()
    assert not wanted.items() <= found["Service"]["metadata"]["labels"].items()
    names = {port["name"] for port in found["Headless"]["spec"]["ports"]}
    assert {each["port"] for each in found["ServiceMonitor"]["spec"]["endpoints"]} == names


def test_credentials_are_references_to_secrets() -> None:
    assert environment(**FULL)["MLFLOW_TRACKING_PASSWORD"] == {"secretKeyRef": {"name": "mlflow", "key": "password"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"env": {"MLFLOW_TRACKING_PASSWORD": "hunter2-hunter2"}},
        {"env": {"STORE": "https://user:hunter2-hunter2@store"}},
        {"settings": {"WEBHOOK_SECRET": "hunter2-hunter2"}},
        {"settings": {"LOG_HASH_KEY": "hunter2-hunter2"}},
        {"settings": {"LOG_URI": "s3://key:hunter2-hunter2@logs"}},
        {"tracking_uri": "http://user:hunter2-hunter2@mlflow:5000"},
        *({"env": {name: "hunter2-hunter2"}} for name in ("PGPASSWORD", "MYSQL_PWD", "DB_PASS", "SMTP_PASS", "APIKEY")),
        *({"env": {name: "hunter2-hunter2"}} for name in ("pgpass", "PASS", "PASSPHRASE", "AUTHORIZATION", "COOKIE")),
        {"annotations": {"example.com/password": "hunter2-hunter2"}},
        {"annotations": {"store": "https://user:hunter2-hunter2@store"}},
        {"labels": {"dbPassword": "hunter2-hunter2"}},
    ],
)
def test_a_credential_in_plain_text_is_refused_and_not_shown(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        spec(**fields)
    assert "Secret" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_word_that_only_resembles_a_credential_is_accepted() -> None:
    env = {"PWD": "/srv", "PAD_TOKEN": "<pad>", "USE_AUTH_TOKEN": "true", "MONKEY": "x", "COMPASS": "north"}
    assert spec(env=env, annotations={"vault.hashicorp.com/agent-inject-token": "true"}).env == env


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resources": {"cpu": "4"}}, "server.resources: cpu_limit must be at least cpu, '4'; got '2', its default"),
        ({"resources": {"memory": "8Gi", "memory_limit": "4Gi"}}, "memory_limit must be at least memory, '8Gi'; got"),
        *(
            (
                {"resources": {"memory": wrong}},
                f'server.resources.memory: must be memory such as "2Gi" or "512Mi", at least 64Mi; got {wrong!r}',
            )
            for wrong in ("0", "1Ki", "4096m", "2")
        ),
        *(({"resources": {"cpu": wrong}}, "server.resources.cpu: must be CPUs such as") for wrong in ("0", "2Gi")),
        ({"namespace": "ML"}, "server.namespace: must have at most 63 lower-case letters, digits and dashes"),
        ({"namespace": "a.b"}, "server.namespace: must have at most 63"),
        *(({"image": wrong}, "server.image: must be an image such as") for wrong in ("a b:1", "fraud:", "Fraud:1", "")),
        ({"service_account": "Bad Name"}, "server.service_account: must have at most 253 lower-case letters"),
        ({"image_pull_secrets": ["My_Secret"]}, "server.image_pull_secrets[0]: must have at most 253"),
        ({"secrets": [{"env": "A", "secret": "My_Secret", "key": "k"}]}, "server.secrets[0].secret: must have at most"),
        ({"secrets": [{"env": "A", "secret": "s", "key": "a b"}]}, "server.secrets[0].key: must have at most 253"),
        ({"secrets": [{"env": "A", "secret": name, "key": "k"} for name in "st"]}, "server.secrets: A is given twice"),
        (
            {"env": {"A B": "1"}},
            "server.env: name must have letters, digits and _, and not begin with a digit; got 'A B'",
        ),
        ({"labels": {"team": "x y"}}, "server.labels: team must be empty, or have at most 63 letters"),
        ({"labels": {"a b": "x"}}, "server.labels: key must have at most 63 letters"),
        ({"annotations": {"a b": "any text"}}, "server.annotations: key must have at most 63 letters"),
        ({"node_selector": {"a b": "c"}}, "server.node_selector: key must have at most 63 letters"),
        ({"tolerations": [{"bogus": 1}]}, "server.tolerations[0].bogus is not a known name"),
        ({"network": {"from_namespaces": ["Shop"]}}, "server.network.from_namespaces[0]: must have at most 63"),
        ({"tracking_uri": "http://mlflow:99999"}, "server.tracking_uri: must be an http or https address, with a port"),
        ({"replicas": True}, "server.replicas: must be a number; got true"),
        ({"load_seconds": 1e9}, "server.load_seconds must be at most 86400"),
        ({"model_name": "a" * 70}, "which follows from the model 'aaa"),
        ({"version": "champion"}, "server.version: must be the number of a version"),
        ({"image": "registry/fraud"}, "image: must name a tag or a digest when no version is given"),
        ({"model_name": "7"}, "server.name: must begin with a letter and have at most 50"),
        ({"tracking_uri": "mlflow:5000"}, "server.tracking_uri: must be an http or https address"),
        ({"replica": 2}, "server.replica is not a known name. Did you mean 'replicas'?"),
        ({"settings": {"PROCESES": "2"}}, "AIRFLOW_MCP_SERVING_PROCESES: there is no such setting"),
        ({"settings": {"POLL_SECONDS": "soon"}}, "AIRFLOW_MCP_SERVING_POLL_SECONDS must be a number"),
        ({"settings": {"PORT": "80"}}, "PORT follows from other fields"),
        ({"env": {"MODEL_URI": "models:/x"}}, "MODEL_URI follows from other fields"),
        (
            {"autoscaling": {"min_replicas": 3, "max_replicas": 2}},
            "max_replicas must be at least min_replicas, 3; got 2",
        ),
        ({"profile": "seed", "track": "blue"}, "the profile seed has neither tracks nor policies"),
        ({"resources": {"memory": "4 GB"}}, "server.resources.memory: must be a Kubernetes quantity"),
        (
            {"env": {"A_NAME": "a"}, "secrets": [{"env": "A_NAME", "secret": "s", "key": "k"}]},
            "A_NAME is given in env and in secrets",
        ),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        spec(**fields)
    assert message in str(refused.value)


def test_objects_are_plain_data_that_nobody_shares() -> None:
    first, second = model_server_manifests(spec(**FULL)), model_server_manifests(spec(**FULL))
    assert json.loads(json.dumps(first)) == list(first)
    first[3]["spec"]["template"]["spec"]["securityContext"]["runAsUser"] = 0
    assert second[3]["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 10001
