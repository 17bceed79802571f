"""The model server for Argo Rollouts, KServe and the Gateway API: consistent with what the routers change later."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from airflow_mcp.core.manifests.gateway_route import Route
from airflow_mcp.core.manifests.model_server import Target, model_server_manifests
from airflow_mcp.core.manifests.spec import read_model_server
from airflow_mcp.exceptions import InvalidArgumentError
from tests.support.crds import SPECS, mistakes, require_valid

ROUTE = Route(gateway="public", hostnames=("fraud.example.com",))


def objects(target: Target, route: Route | None = None, **fields: Any) -> dict[str, dict[str, Any]]:
    given = {"model_name": "fraud", "image": "registry/fraud:3", "tracking_uri": "http://mlflow:5000", "version": "8"}
    found = model_server_manifests(read_model_server({**given, **fields}), target, route)
    return {f"{each['kind']} {each['metadata']['name']}": each for each in found}


def require_valid_pods(template: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
    for release in ("1.25", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(pod, release, strict=True)


@pytest.mark.parametrize("target", ["deployment", "argo", "kserve"])
@pytest.mark.parametrize("fields", [{}, {"autoscaling": {"max_replicas": 4}, "service_monitor": True}])
def test_every_object_has_the_fields_of_its_definition(target: Target, fields: dict[str, Any]) -> None:
    route = None if target == "kserve" else ROUTE.model_copy(update={"canary": "fraud-next"})
    found = objects(target, route, namespace="ml", **fields).values()
    for each in found:
        if each["kind"] in SPECS:
            require_valid(each)
        else:
            for release in ("1.25", kubernetes_validate.latest_version()):
                kubernetes_validate.validate(each, release, strict=True)
    own = {"deployment": {"HTTPRoute"}, "argo": {"HTTPRoute", "Rollout", "AnalysisTemplate"}}
    monitor = {"ServiceMonitor"} if fields and target != "kserve" else set()
    assert {each["kind"] for each in found} & SPECS.keys() == own.get(target, {"InferenceService"}) | monitor


def test_both_sides_of_a_route_are_different_services() -> None:
    with pytest.raises(InvalidArgumentError, match="canary Service must be another one than the server's own"):
        objects("deployment", ROUTE.model_copy(update={"canary": "fraud"}))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("HTTPRoute", {"rules": [{"backendRefs": [{"name": "a", "weight": 1_000_001}]}]}),
        ("HTTPRoute", {"hostnames": ["Not A Host"]}),
        ("Rollout", {"strategy": {"canary": {"steps": [{"setWeight": 5, "pause": {}}]}}}),
        ("Rollout", {"strategy": {"canary": {"canaryServices": "a"}}}),
        ("AnalysisTemplate", {"metrics": [{"name": "a", "provider": {"prometheus": {"address": "a"}}}]}),
        ("InferenceService", {"predictor": {"minReplicas": "two"}}),
        ("InferenceService", {"canary": [{"predictor": {}, "trafficPercent": 2.5}]}),
        ("ServiceMonitor", {"selector": {}, "endpoints": [{"port": 80}]}),
    ],
)
def test_the_definitions_notice_mistakes(kind: str, change: dict[str, Any]) -> None:
    assert mistakes(kind, change) != []


def test_argo_gets_the_pods_of_the_deployment_and_pauses_after_every_weight() -> None:
    found = objects("argo", autoscaling={"max_replicas": 4})
    plain = objects("deployment")["Deployment fraud"]
    rollout = found["Rollout fraud"]
    assert "Deployment fraud" not in found
    assert rollout["spec"]["template"] == plain["spec"]["template"]
    require_valid_pods(rollout["spec"]["template"])
    canary = rollout["spec"]["strategy"]["canary"]
    assert canary["steps"][::2] == [{"setWeight": 5}, {"setWeight": 25}, {"setWeight": 50}]
    assert canary["steps"][1::2] == [{"pause": {}}] * 3
    assert {f"Service {canary['stableService']}", f"Service {canary['canaryService']}"} <= found.keys()
    assert f"AnalysisTemplate {canary['analysis']['templates'][0]['templateName']}" in found
    target = found["HorizontalPodAutoscaler fraud"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["apiVersion"]) == ("Rollout", rollout["apiVersion"])


def test_argo_judges_the_new_version_by_the_metrics_of_the_server_and_no_requests_are_inconclusive() -> None:
    (metric,) = objects("argo")["AnalysisTemplate fraud"]["spec"]["metrics"]
    query = metric["provider"]["prometheus"]["query"]
    counted = 'airflow_mcp_serving_requests_total{model="fraud",version="8"'
    assert query == f'sum(rate({counted},code=~"5.."}}[5m])) / sum(rate({counted}}}[5m]))'
    for condition in (metric["successCondition"], metric["failureCondition"]):
        assert condition.startswith("len(result) > 0 && !isNaN(result[0]) && result[0] ")


def test_argo_writes_the_weights_of_the_route_that_is_there() -> None:
    found = objects("argo", ROUTE, namespace="ml")
    (plugin,) = found["Rollout fraud"]["spec"]["strategy"]["canary"]["trafficRouting"]["plugins"].values()
    assert plugin == {"httpRoute": "fraud", "namespace": "ml"}
    assert "HTTPRoute fraud" in found
    assert "trafficRouting" not in objects("argo")["Rollout fraud"]["spec"]["strategy"]["canary"]


def test_kserve_makes_the_other_objects_itself() -> None:
    found = objects("kserve", autoscaling={"min_replicas": 2, "max_replicas": 4}, rollback_policy=None)
    assert list(found) == ["InferenceService fraud"]
    predictor = found["InferenceService fraud"]["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["scaleTarget"]) == (2, 4, 70)
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"
    of_kserve = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "labels", "annotations"}
    require_valid_pods({"spec": {name: value for name, value in predictor.items() if name not in of_kserve}})


def test_a_route_sends_everything_to_the_present_side_at_first() -> None:
    route = ROUTE.model_copy(update={"canary": "fraud-next"})
    spec = objects("deployment", route)["HTTPRoute fraud"]["spec"]
    assert spec["parentRefs"] == [{"name": "public"}]
    assert spec["hostnames"] == ["fraud.example.com"]
    assert [(each["name"], each["weight"]) for each in spec["rules"][0]["backendRefs"]] == [
        ("fraud", 1000),
        ("fraud-next", 0),
    ]


@pytest.mark.parametrize(
    ("target", "fields"), [("argo", {"version": ""}), ("argo", {"track": "blue"}), ("kserve", {"track": "green"})]
)
def test_what_a_target_cannot_do_is_refused(target: Target, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=f"for the target {target}; got"):
        objects(target, **fields)
