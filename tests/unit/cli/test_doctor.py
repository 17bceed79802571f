"""``airflow-mcp doctor``: what it asks, what it says, and how it ends."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from airflow_mcp import __version__
from airflow_mcp.cli import main
from airflow_mcp.core.registry.moves import MoveRecord
from tests.support.fakes.faulty_server import FaultyServer, answer
from tests.support.fakes.kube_api import KubeApi

REPORT: Mapping[str, Any] = {
    "python": platform.python_version(),
    "packages": dict.fromkeys(("evidently", "pandas", "scikit-learn"), "1")
    | {"airflow-mcp": __version__, "mlflow": "3.17.2"},
    "user_id": 50000,
    "root_is_writable": False,
    "scratch_is_writable": True,
    "has_token": False,
}
NOT_STARTED: Mapping[str, Any] = {"image": "", "imageID": "", "ready": False, "restartCount": 0}


@pytest.fixture
def mlflow(mlflow: FaultyServer) -> FaultyServer:
    """An MLflow server with a database, a registry and artifacts that go through it."""
    return prepared(mlflow)


def prepared(mlflow: FaultyServer, models: str = "{}") -> FaultyServer:
    mlflow.heal()
    default = {"experiment_id": "0", "name": "Default", "artifact_location": "mlflow-artifacts:/0"}
    mlflow.fail("model-versions/search", answer(200, "{}"))
    mlflow.fail("health", answer(200, "OK", content_type="text/plain"))
    mlflow.fail("version", answer(200, "3.17.2", content_type="text/plain"))
    mlflow.fail("experiments/search", answer(200, "{}"))
    mlflow.fail("server-info", answer(200, '{"store_type": "SqlStore"}'))
    mlflow.fail("registered-models/get", answer(404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}'))
    mlflow.fail(
        "experiments/get-by-name", answer(200, json.dumps({"experiment": {**default, "lifecycle_stage": "active"}}))
    )
    mlflow.fail("mlflow-artifacts/artifacts", answer(200, "{}"))
    mlflow.fail("registered-models/search", answer(200, models))
    return mlflow


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    document = json.loads(capsys.readouterr().out)
    assert document["worst"] in ("ok", "warning", "problem")
    return {finding["subject"]: finding for finding in document["findings"]}


def test_all_well_is_told_as_text_and_ends_with_0(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=2)[:2] == ["ok", "MLflow"]
    assert lines[0].endswith(f"answers at {mlflow.url}")
    assert f"{kube.url} answers, Kubernetes v1.33.1" in "\n".join(lines)
    *found, empty, last = lines
    assert {line.split(maxsplit=1)[0] for line in found} == {"ok"}
    assert (empty, last) == ("", f"{len(found)} ok, 0 warnings, 0 problems")
    assert kube.created == []


def test_without_a_cluster_only_mlflow_is_asked(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--no-cluster", "--format", "json"]) == 0
    assert all(subject.startswith("MLflow") or subject == "audit log" for subject in findings(capsys))
    assert kube.seen == []


@pytest.mark.parametrize(("arguments", "level"), [([], "warning"), (["--context", "prod"], "problem")])
def test_without_the_kubernetes_client_mlflow_is_checked_all_the_same(
    mlflow: FaultyServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    level: str,
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert main(["doctor", "--format", "json", *arguments]) == (1 if level == "problem" else 0)
    found = findings(capsys)
    assert found["MLflow artifacts: write"]["level"] == "ok"
    assert found["cluster"]["level"] == level
    assert found["cluster"]["says"].startswith("was not checked: the Kubernetes client is not installed here")
    assert "--no-cluster" in found["cluster"]["advice"]


def test_without_a_kubeconfig_mlflow_is_checked_all_the_same(
    mlflow: FaultyServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    assert main(["doctor", "--format", "json"]) == 0
    found = findings(capsys)
    assert found["MLflow"]["level"] == "ok"
    assert found["cluster"]["says"].startswith("was not checked: no usable Kubernetes configuration")


def test_of_many_models_the_worst_are_shown_and_the_others_counted(
    mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def model(number: int) -> dict[str, Any]:
        move = MoveRecord("promote", "m", None, "1", "2026-11-21T08:00:00+00:00", "churn.promote run-1")
        return {
            "name": f"model-{number:04}",
            "aliases": [{"alias": "champion", "version": "2"}],
            "tags": [{"key": move.done_tag, "value": move.to_tag()}],
        }

    answered = {"registered_models": [model(number) for number in range(1000)]}
    prepared(mlflow, json.dumps(answered))
    assert main(["doctor", "--no-cluster"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60
    assert sum("WARNING  MLflow alias of model-" in line for line in lines) == 20
    assert any("WARNING  MLflow aliases" in line and "980 more findings of this kind" in line for line in lines)
    assert any("to list all models, the worst first: airflow-mcp status" in line for line in lines)


def test_json_gives_every_finding_with_level_and_advice(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kube.denied = {("patch", "pods"), ("watch", "events")}
    assert main(["doctor", "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    found = {finding["subject"]: finding for finding in document["findings"]}
    assert document["worst"] == "problem"
    assert {tuple(finding) for finding in document["findings"]} == {("subject", "level", "says", "advice")}
    assert found["right: pods"]["says"] == "may not patch in namespace 'default'"
    assert '["patch"] on pods' in found["right: pods"]["advice"]
    assert [found[f"right: {resource}"]["level"] for resource in ("pods", "events", "secrets")] == [
        "problem",
        "warning",
        "ok",
    ]


def test_a_warning_alone_ends_with_0(kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]) -> None:
    kube.denied = {("watch", "events")}
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith(" ok, 1 warnings, 0 problems\n")


def test_a_namespace_that_does_not_exist_is_a_problem_and_no_pod_is_started(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--namespace", "typo", "--image", "i", "--format", "json"]) == 1
    finding = findings(capsys)["namespace"]
    assert (finding["level"], finding["advice"]) == ("problem", "kubectl create namespace typo")
    assert kube.created == []


def test_an_mlflow_that_does_not_answer_does_not_keep_the_cluster_from_being_checked(
    kube: KubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--tracking-uri", "http://127.0.0.1:1", "--format", "json"]) == 1
    found = findings(capsys)
    assert found["MLflow"]["level"] == "problem"
    assert "check --tracking-uri" in found["MLflow"]["advice"]
    assert found["cluster"]["level"] == "ok"


def test_a_cluster_that_refuses_everything_is_a_problem(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kube.fail("", answer(401, "{}"))
    assert main(["doctor", "--format", "json"]) == 1
    finding = findings(capsys)["cluster"]
    assert finding["level"] == "problem"
    assert "401 Unauthorized" in finding["says"]


def test_the_probe_pod_is_read_and_removed(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kube.fate_log = "a line of somebody else\n" + json.dumps(REPORT)
    options = ["--image-pull-secret", "regcred", "--service-account", "trainer"]
    assert main(["doctor", "--image", "team/train:1", *options, "--format", "json"]) == 0
    found = findings(capsys)
    assert found["image"]["says"] == "team/train:1 was pulled and started"
    assert found["image: mlflow"]["says"] == "client 3.17.2, server 3.17.2"
    assert "MLflow from a pod" not in found
    (pod,) = kube.created
    assert pod["spec"]["imagePullSecrets"] == [{"name": "regcred"}]
    assert pod["spec"]["serviceAccountName"] == "trainer"
    assert (kube.deleted, kube.pods) == ([pod["metadata"]["name"]], {})


def test_mlflow_is_asked_from_the_pod_at_the_address_for_pods(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kube.fate_log = json.dumps({**REPORT, "mlflow_error": "[Errno 111] Connection refused"})
    where = ["--from-pod", "--pod-tracking-uri", "http://mlflow.ml.svc:5000/"]
    assert main(["doctor", "--image", "i", *where, "--format", "json"]) == 1
    assert "start MLflow with --host 0.0.0.0" in findings(capsys)["MLflow from a pod"]["advice"]
    (container,) = kube.created[0]["spec"]["containers"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow.ml.svc:5000"} in container["env"]


def test_an_image_that_cannot_be_pulled_is_named_and_its_pod_removed(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = {"waiting": {"reason": "ErrImageNeverPull", "message": "not there"}}
    kube.fate = {"phase": "Pending", "containerStatuses": [{"name": "base", "state": waiting, **NOT_STARTED}]}
    assert main(["doctor", "--image", "typo:1", "--format", "json"]) == 1
    assert "image 'typo:1' cannot be pulled" in findings(capsys)["image"]["says"]
    assert kube.pods == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from-pod"], "--from-pod needs --image, the image to start the pod with"),
        (["--timeout", "soon"], "--timeout must be a number and one of s, m, h, d"),
        (
            ["--tracking-uri", "mlflow.db"],
            "--tracking-uri must be the http:// or https:// address of an MLflow server; got 'mlflow.db'",
        ),
        (["--format", "yaml"], "invalid choice: 'yaml'"),
        (["--context", "missing"], "no usable Kubernetes configuration: "),
    ],
)
def test_a_wrong_argument_ends_with_2_and_starts_no_pod(
    kube: KubeApi, mlflow: FaultyServer, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    try:
        code: Any = main(["doctor", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert (code, capsys.readouterr().err.count(says)) == (2, 1)
    assert kube.created == []
