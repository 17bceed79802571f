"""``airflow-mcp manifests``: what it writes, from what, and what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mcp.cli import main

GIVEN = ("--model-name", "fraud", "--image", "registry/fraud", "--tracking-uri", "http://mlflow:5000")
PIPELINE = """
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {name: fraud}
spec:
  sourceCode: {repoUrl: https://git.example.com/fraud.git, revision: main}
  trainingScript: train.py
  stages:
    - name: gate
      thresholds: ["auc >= 0.8"]
    - name: deploy
      server: {namespace: ml, image: "registry/fraud:3", replicas: 3}
  trafficPolicy:
    rateLimit: {requestsPerSecond: 100}
"""
ROLLBACK = """
apiVersion: mcp.example.com/v1
kind: RollbackPolicy
metadata: {name: fraud-rollback}
spec:
  trigger: {metric: http_5xx_rate, threshold: "0.05", duration: "2m"}
  strategy: {type: blue-green, stableVersion: v1.7.3}
"""


def written(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["manifests", *arguments]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def test_objects_are_written_without_a_cluster_as_yaml_and_as_one_list_of_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects = written(capsys, *GIVEN, "--version", "8")
    kinds = ["NetworkPolicy", "Service", "Deployment", "PodDisruptionBudget", "Service"]
    assert [each["kind"] for each in objects] == kinds
    assert main(["manifests", *GIVEN, "--version", "8", "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["kind"], listed["items"]) == ("List", objects)


def test_the_server_and_its_policies_come_from_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, text in (("fraud.yaml", PIPELINE), ("rollback.yaml", ROLLBACK), ("server.yaml", "{cache_gib: 5}")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = [str(tmp_path / name) for name in ("fraud.yaml", "rollback.yaml")]
    more = ("--server", str(tmp_path / "server.yaml"), "--version", "8", "--tracking-uri", "http://mlflow:5000")
    found = {each["kind"]: each for each in written(capsys, *files, *more)}
    assert set(found["ConfigMap"]["data"]) == {"RollbackPolicy.yaml", "TrafficPolicy.yaml"}
    assert "v1.7.3" in found["ConfigMap"]["data"]["RollbackPolicy.yaml"]
    pods = found["Deployment"]["spec"]["template"]["spec"]
    assert found["Deployment"]["spec"]["replicas"] == 3
    assert found["Deployment"]["metadata"]["namespace"] == "ml"
    assert pods["containers"][0]["image"] == "registry/fraud:3"
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}} in pods["volumes"]


def test_two_policies_of_one_kind_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.yaml", "other.yaml")]
    for file in files:
        file.write_text(ROLLBACK, encoding="utf-8")
    assert main(["manifests", *map(str, files), *GIVEN, "--version", "8"]) == 2
    answer = capsys.readouterr()
    assert f"{files[1]} and {files[0]} both give rollback_policy. Nothing was written" in answer.err
    assert answer.out == ""


def test_the_difference_names_every_value_that_changes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = tmp_path / "before.yaml"
    before.write_text(yaml.safe_dump_all(written(capsys, *GIVEN, "--version", "8")), encoding="utf-8")
    assert main(["manifests", *GIVEN, "--version", "8", "--against", str(before)]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert main(["manifests", *GIVEN, "--version", "9", "--replicas", "3", "--against", str(before)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "~ Deployment fraud spec.replicas: 2 -> 3" in lines
    place = "~ Deployment fraud spec.template.spec.containers[model-server]"
    assert f'{place}.image: "registry/fraud:8" -> "registry/fraud:9"' in lines
    assert f'{place}.env[MODEL_URI].value: "models:/fraud/8" -> "models:/fraud/9"' in lines


def test_what_only_the_cluster_has_is_no_difference(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    live = written(capsys, *GIVEN, "--version", "8")
    for each in live:
        each["metadata"]["uid"] = "0"
        each["status"] = {}
    live[2]["spec"]["template"]["spec"]["containers"].insert(0, {"name": "proxy", "image": "mesh"})
    live[2]["spec"]["replicas"] = 5
    file = tmp_path / "live.json"
    file.write_text(json.dumps({"kind": "List", "items": live}), encoding="utf-8")
    assert main(["manifests", *GIVEN, "--version", "8", "--against", str(file)]) == 0
    assert capsys.readouterr().out == "~ Deployment fraud spec.replicas: 5 -> 2\n"


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("kind: Pod", GIVEN, "kind must be one of ModelPipeline, TrafficPolicy, RollbackPolicy; got 'Pod'"),
        (
            ROLLBACK,
            (*GIVEN, "--version", "8", "--gateway", "Bad Name"),
            "route.gateway: must have at most 253 lower-case letters",
        ),
        (
            ROLLBACK,
            (*GIVEN, "--version", "8", "--gateway", "a", "--hostname", "b_c"),
            "route.hostnames[0] must be text of the form",
        ),
        ("[1]", GIVEN, "must hold one mapping"),
        ("kind: A\nkind: B", GIVEN, "the key is here twice, first in line 1"),
        ("a: [", GIVEN, "is not YAML"),
        (ROLLBACK.replace("0.05", "-1"), GIVEN, "spec.trigger.threshold: must be at least 0"),
        (ROLLBACK, GIVEN[:-2], "server.tracking_uri"),
        (ROLLBACK, GIVEN, "image: must name a tag or a digest when no version is given"),
    ],
)
def test_what_is_wrong_is_named(
    text: str,
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file = tmp_path / "file.yaml"
    file.write_text(text, encoding="utf-8")
    assert main(["manifests", str(file), *arguments]) in (1, 2)
    assert message in capsys.readouterr().err
