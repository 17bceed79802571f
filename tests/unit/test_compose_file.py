"""The rules of docker-compose.yaml, checked without Docker: closed ports, no rights, no secrets, health, pinned images.

``tests/stack`` starts it. Each rule is first shown to fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

Service = dict[str, Any]
Rule = Callable[[str, Service, Mapping[str, Service]], Iterator[str]]

COMPOSE = ROOT / "docker-compose.yaml"
OVERRIDES = sorted((ROOT / "stack").glob("*.yaml"))
AS_ROOT = {"secrets": "it gives each file to the one service that reads it"}
"""Services that run as root, each with the reason."""
CAPABILITIES = {"secrets": {"CHOWN", "DAC_OVERRIDE"}}
"""Services that keep a capability."""
OURS = "airflow-mcp/airflow:dev"
"""The image that is built from this repository; every other one is pinned."""
_SECRET_NAME = re.compile(r"(?i)pass(word|wd)?$|secret|token|fernet|credential|_key$|^key$|api_?key")
_POINTS_TO_A_SECRET = re.compile(r"_{1,2}(FILE|CMD)$")
_IN_AN_ADDRESS = re.compile(r"://[^/@\s]*:[^/@\s]+@")


def resolved(text: str) -> str:
    """Return a text as Compose reads it where no setting is given."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}", lambda found: found.group(1) or "", text)


def ports_are_on_loopback(name: str, service: Service, _: Mapping[str, Service]) -> Iterator[str]:
    for port in service.get("ports", []):
        if not (isinstance(port, str) and re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)):
            yield f"{name}: port {port!r} is not on 127.0.0.1"


def rights_are_given_up(name: str, service: Service, _: Mapping[str, Service]) -> Iterator[str]:
    user = str(service.get("user", "root")).partition(":")[0]
    if user in ("0", "root") and name not in AS_ROOT:
        yield f"{name}: runs as root"
    if service.get("read_only") is not True:
        yield f"{name}: its root file system is not read-only"
    if service.get("cap_drop") != ["ALL"]:
        yield f"{name}: keeps capabilities"
    if set(service.get("cap_add", [])) != CAPABILITIES.get(name, set()):
        yield f"{name}: adds capabilities {service.get('cap_add')}"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield f"{name}: may gain privileges"


def nothing_of_the_host_is_within_reach(name: str, service: Service, _: Mapping[str, Service]) -> Iterator[str]:
    for key in ("privileged", "pid", "ipc", "devices"):
        if key in service:
            yield f"{name}: has {key}"
    if service.get("network_mode") not in (None, "none"):
        yield f"{name}: network_mode is {service['network_mode']}"
    for volume in service.get("volumes", []):
        if "docker.sock" in volume:
            yield f"{name}: mounts Docker's socket"
        if volume.startswith(".") and not volume.endswith(":ro"):
            yield f"{name}: may write into the repository: {volume}"


def health_is_checked(name: str, service: Service, services: Mapping[str, Service]) -> Iterator[str]:
    conditions = [
        other["depends_on"][name]["condition"] for other in services.values() if name in other.get("depends_on", {})
    ]
    if service.get("restart") == "no":
        # `up --wait` takes the end of a service for a failure unless another one waits for it.
        if conditions.count("service_completed_successfully") != len(conditions) or not conditions:
            yield f"{name}: runs once, and no other service waits for its end"
        return
    if service.get("restart") != "unless-stopped":
        yield f"{name}: is not started again after a crash"
    check = service.get("healthcheck", {})
    if not check.get("test") or check["test"][0] != "CMD":
        yield f"{name}: has no health check without a shell"
    if not {"interval", "timeout", "retries", "start_period"} <= check.keys():
        yield f"{name}: its health check has no limits"
    if any(condition != "service_healthy" for condition in conditions):
        yield f"{name}: others do not wait until it is healthy"


def images_are_pinned(name: str, service: Service, _: Mapping[str, Service]) -> Iterator[str]:
    image = service["image"]
    if image == OURS:
        if service.get("build") != {"context": ".", "target": "airflow"}:
            yield f"{name}: its image is not built from here"
    elif not re.fullmatch(r"[\w./-]+(:v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})", image):
        yield f"{name}: image {image!r} names no exact version"


def secrets_are_not_written_down(name: str, service: Service, _: Mapping[str, Service]) -> Iterator[str]:
    for key, value in service.get("environment", {}).items():
        if _SECRET_NAME.search(_POINTS_TO_A_SECRET.sub("", key)) and not _points_to_a_file(key, str(value)):
            yield f"{name}: {key} has a value"
    for text in _texts(service):
        if _IN_AN_ADDRESS.search(text):
            yield f"{name}: an address has a password"
        if re.search(r"(?i)--?[\w-]*(password|secret|token)[= ]", text):
            yield f"{name}: a secret is on a command line"


def _points_to_a_file(key: str, value: str) -> bool:
    path = value.removeprefix("cat ") if key.endswith("_CMD") else value
    return path.startswith(("/secrets/", "/opt/airflow/login/"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)


RULES: tuple[Rule, ...] = (
    ports_are_on_loopback,
    rights_are_given_up,
    nothing_of_the_host_is_within_reach,
    health_is_checked,
    images_are_pinned,
    secrets_are_not_written_down,
)


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    """The services where no setting is given."""
    return dict(yaml.safe_load(resolved(COMPOSE.read_text()))["services"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_service_keeps_the_rule(rule: Rule, services: dict[str, Service]) -> None:
    assert [problem for name, service in services.items() for problem in rule(name, service, services)] == []


@pytest.mark.parametrize(
    ("service", "change", "problem"),
    [
        ("mlflow", {"ports": ["5000:5000"]}, "not on 127.0.0.1"),
        ("mlflow", {"ports": ["0.0.0.0:5000:5000"]}, "not on 127.0.0.1"),
        ("mlflow", {"user": None}, "runs as root"),
        ("mlflow", {"user": "0:10001"}, "runs as root"),
        ("mlflow", {"read_only": False}, "not read-only"),
        ("postgres", {"cap_drop": None}, "keeps capabilities"),
        ("postgres", {"cap_add": ["CHOWN"]}, "adds capabilities"),
        ("secrets", {"cap_add": ["CHOWN", "SYS_ADMIN"]}, "adds capabilities"),
        ("postgres", {"security_opt": None}, "may gain privileges"),
        ("mlflow", {"privileged": True}, "has privileged"),
        ("mlflow", {"network_mode": "host"}, "network_mode is host"),
        ("mlflow", {"volumes": ["/var/run/docker.sock:/var/run/docker.sock:ro"]}, "Docker's socket"),
        ("airflow-scheduler", {"volumes": ["./dags:/opt/airflow/dags"]}, "write into the repository"),
        ("airflow-scheduler", {"restart": "no"}, "no other service waits"),
        ("airflow-scheduler", {"restart": None}, "not started again"),
        ("airflow-scheduler", {"healthcheck": None}, "no health check"),
        ("airflow-scheduler", {"healthcheck": {"test": ["CMD-SHELL", "true"]}}, "no health check without a shell"),
        ("airflow-scheduler", {"depends_on": {"postgres": {"condition": "service_started"}}}, "until it is healthy"),
        ("postgres", {"image": "postgres"}, "no exact version"),
        ("postgres", {"image": "postgres:latest"}, "no exact version"),
        ("postgres", {"image": "postgres:17"}, "no exact version"),
        ("mlflow", {"build": None}, "not built from here"),
        ("postgres", {"environment": {"POSTGRES_PASSWORD": "postgres"}}, "POSTGRES_PASSWORD has a value"),
        ("postgres", {"environment": {"POSTGRES_PASSWORD_FILE": "./password"}}, "POSTGRES_PASSWORD_FILE has a value"),
        ("mlflow", {"environment": {"AIRFLOW__CORE__FERNET_KEY": "c2VjcmV0"}}, "FERNET_KEY has a value"),
        ("mlflow", {"environment": {"AIRFLOW__CORE__FERNET_KEY_CMD": "echo c2VjcmV0"}}, "FERNET_KEY_CMD has a value"),
        ("grafana", {"environment": {"GF_SECURITY_ADMIN_PASSWORD": "changeme123"}}, "ADMIN_PASSWORD has a value"),
        ("grafana", {"environment": {"GF_SECURITY_ADMIN_PASSWORD__FILE": "./password"}}, "PASSWORD__FILE has a value"),
        ("grafana", {"ports": ["3000:3000"]}, "not on 127.0.0.1"),
        ("prometheus", {"user": "root"}, "runs as root"),
        ("statsd", {"healthcheck": None}, "no health check"),
        ("mlflow", {"environment": {"URI": "postgresql://mlflow:xxx@postgres/mlflow"}}, "an address has a password"),
        ("mlflow", {"command": ["server", "--password=x"]}, "on a command line"),
    ],
)
def test_a_rule_finds_what_it_is_for(services: dict[str, Service], service: str, change: Service, problem: str) -> None:
    broken = deepcopy(services)
    broken[service] = {key: value for key, value in {**broken[service], **change}.items() if value is not None}
    found = [text for rule in RULES for name, one in broken.items() for text in rule(name, one, broken)]
    assert any(problem in text for text in found), found


def test_every_secret_that_is_read_is_made(services: dict[str, Service]) -> None:
    from stack.make_secrets import READERS

    groups = {str(group): folder for folder, group in READERS.items()}
    for name, service in services.items():
        named = {found for text in _texts(service) for found in re.findall(r"/secrets/(\w+)/", text)}
        assert named <= {groups[group] for group in service.get("group_add", [])}, name


def test_prometheus_scrapes_services_that_exist_with_a_token_that_is_made(
    services: dict[str, Service], tmp_path: Path
) -> None:
    from stack.make_secrets import READERS, Secrets

    read = yaml.safe_load((ROOT / "stack" / "monitoring" / "prometheus.yml").read_text())
    hosts = {host for job in read["scrape_configs"] for one in job["static_configs"] for host in one["targets"]}
    assert {host.partition(":")[0] for host in hosts} <= {*services, "localhost"}
    job = next(each for each in read["scrape_configs"] if each["job_name"] == "airflow-mcp")
    token = job["authorization"]["credentials_file"]
    assert str(READERS["monitoring"]) in services["prometheus"]["group_add"]
    Secrets(tmp_path, lambda *_: None).make()
    made = tmp_path / token.removeprefix("/secrets/")
    assert made.read_text() == (tmp_path / "airflow" / "metrics_token").read_text()
    assert ("./stack/monitoring:/etc/prometheus/monitoring:ro") in services["prometheus"]["volumes"]
    assert [Path(file).name for file in read["rule_files"]] == ["alerts.yml"]


def test_airflow_sends_its_events_to_the_exporter_with_tags(services: dict[str, Service]) -> None:
    sent = services["airflow-scheduler"]["environment"]
    assert sent["AIRFLOW__METRICS__STATSD_HOST"] in services
    assert f"--statsd.listen-udp=:{sent['AIRFLOW__METRICS__STATSD_PORT']}" in services["statsd"]["command"]
    assert sent["AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED"] == "True"
    assert "ports" not in services["statsd"], "anybody may send to it"


def test_grafana_finds_prometheus_and_the_dashboards(services: dict[str, Service]) -> None:
    folder = ROOT / "stack" / "monitoring" / "grafana"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards" / "airflow-mcp.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounted["./stack/monitoring/dashboards"] == provider["options"]["path"]
    assert mounted["./stack/monitoring/grafana"] == "/etc/grafana/provisioning"


def test_names_of_volumes_and_files_lead_somewhere(services: dict[str, Service]) -> None:
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {name for name in used if not name.startswith(".")} == set(volumes)
    assert [path for path in used if path.startswith(".") and not (ROOT / path).exists()] == []
    texts = [text for service in services.values() for text in _texts(service)]
    called = {found for text in texts for found in re.findall(r"/opt/airflow/(stack/\w+\.py)", text)}
    assert called
    assert [path for path in called if not (ROOT / path).is_file()] == []


def test_the_file_for_pods_changes_services_that_exist_and_writes_no_secret_down(services: dict[str, Service]) -> None:
    changes = yaml.safe_load(resolved((ROOT / "stack" / "kubernetes.yaml").read_text()))["services"]
    assert set(changes) <= set(services)
    assert [found for name, change in changes.items() for found in secrets_are_not_written_down(name, change, {})] == []
    assert all(set(change) <= {"environment", "ports", "volumes"} for change in changes.values())


def test_the_page_lists_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "stack.md").read_text()
    files = [COMPOSE, *OVERRIDES]
    settings = {match for file in files for match in re.findall(r"\$\{(\w+)(?::-([^}]*))?", file.read_text())}
    assert settings
    rows = {f"`{name}` | `{default}`" if default else f"`{name}` | " for name, default in settings}
    assert sorted(row for row in rows if row not in page) == []
