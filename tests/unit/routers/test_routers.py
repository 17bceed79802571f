"""Routers against an API server over HTTP, with the objects that the controllers keep there.

None of the controllers of Gateway API, Argo Rollouts and KServe runs here: what they would report is put there by hand,
in the form of their own documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.core.rollout.router import TrafficRouter, routed_samples
from airflow_mcp.core.rollout.samples import Pair, ReplicaSample
from airflow_mcp.exceptions import FailedError, InvalidArgumentError, ManifestRefusedError
from airflow_mcp.routers.choose import check_router, router_of
from tests.support.crds import mistakes
from tests.support.fakes.kube_objects import KubeObjects

ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/ml/httproutes/fraud"
SERVICE = "/api/v1/namespaces/ml/services/fraud"
ROLLOUT = "/apis/argoproj.io/v1alpha1/namespaces/ml/rollouts/fraud"
INFERENCE = "/apis/serving.kserve.io/v1beta1/namespaces/ml/inferenceservices/fraud"
GATEWAY: dict[str, Any] = {"kind": "gateway_api", "route": "fraud", "stable": "fraud-blue", "canary": "fraud-green"}
BLUE_GREEN: dict[str, Any] = {"kind": "service", "service": "fraud", "stable": "blue", "canary": "green"}
ARGO: dict[str, Any] = {"kind": "argo", "rollout": "fraud"}
KSERVE: dict[str, Any] = {"kind": "kserve", "inference_service": "fraud", "canary": "v8"}


def route(**status: Any) -> dict[str, Any]:
    mirror = {"name": "audit", "weight": 3}
    sides = [{"name": "fraud-blue", "port": 80, "weight": 100}, {"name": "fraud-green", "port": 80, "weight": 0}]
    rules = [
        {"matches": [{"path": {"type": "PathPrefix", "value": "/v2"}}], "backendRefs": [*sides, mirror]},
        {"backendRefs": [{"name": "docs", "port": 80}]},
        {"backendRefs": sides},
    ]
    return {"metadata": {"name": "fraud", "generation": 4}, "spec": {"hostnames": ["f"], "rules": rules}, **status}


def rollout(phase: str = "Paused", weight: int | None = 0, steps: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    usual = [{"setWeight": 5}, {"pause": {}}, {"setWeight": 25}, {"pause": {}}]
    weights = {} if weight is None else {"weights": {"canary": {"weight": weight}, "stable": {"weight": 100 - weight}}}
    status = {"phase": phase, "message": "CanaryPauseStep", "currentStepIndex": 1, "canary": weights}
    canary = {"steps": usual if steps is None else steps}
    return {"metadata": {"name": "fraud"}, "spec": {"strategy": {"canary": canary}}, "status": status}


def inference_service(ready: str = "True") -> dict[str, Any]:
    canary = [
        {"trafficPercent": 0, "predictor": {"name": "v9"}},
        {"trafficPercent": 0, "predictor": {"name": "v8", "model": {"modelFormat": {"name": "mlflow"}}}},
    ]
    conditions = [{"type": "Ready", "status": "True"}, {"type": "CanaryReady", "status": ready, "message": "loading"}]
    return {"metadata": {"name": "fraud"}, "spec": {"canary": canary}, "status": {"conditions": conditions}}


@pytest.fixture
def kube() -> Iterator[KubeObjects]:
    with KubeObjects() as server:
        server.put(ROUTE, route())
        server.put(SERVICE, {"metadata": {"name": "fraud"}, "spec": {"selector": {"app": "fraud", "t": "blue"}}})
        server.put(ROLLOUT, rollout())
        server.put(INFERENCE, inference_service())
        yield server
        for path, kind in ((ROUTE, "HTTPRoute"), (ROLLOUT, "Rollout"), (INFERENCE, "InferenceService")):
            assert mistakes(kind, server.objects[path]["spec"]) == [], "a router wrote what the definition refuses"


def router(kube: KubeObjects, **fields: Any) -> TrafficRouter:
    def cluster() -> ClusterObjects:
        from kubernetes import client

        settings = client.Configuration()
        settings.host, settings.retries = kube.url, False
        return ClusterObjects(client.ApiClient(settings), "ml")

    found = router_of(fields, cluster)
    assert found is not None
    return found


class TestGatewayApi:
    def test_both_weights_are_written_in_every_rule_with_both_sides(self, kube: KubeObjects) -> None:
        gateway = router(kube, **GATEWAY)
        gateway.prepare()
        gateway.set_weight(2.5)
        first, docs, last = kube.objects[ROUTE]["spec"]["rules"]
        assert [each["weight"] for each in first["backendRefs"]] == [975, 25, 3]
        assert [each["weight"] for each in last["backendRefs"]] == [975, 25]
        assert docs == route()["spec"]["rules"][1]
        assert kube.objects[ROUTE]["spec"]["hostnames"] == ["f"]
        assert gateway.get_weight() == 2.5

    def test_the_same_weight_is_written_once(self, kube: KubeObjects) -> None:
        gateway = router(kube, **GATEWAY)
        for _ in range(2):
            gateway.set_weight(25)
        assert len(kube.patches) == 1

    def test_a_change_of_somebody_else_is_not_overwritten(self, kube: KubeObjects) -> None:
        gateway: Any = router(kube, **GATEWAY)
        found = gateway._object.read()
        kube.put(ROUTE, route())
        with pytest.raises(ManifestRefusedError, match="was not changed: Conflict"):
            gateway._object.change(found, {"spec": {"rules": []}})
        assert kube.patches == []

    def test_rules_that_differ_are_no_weight(self, kube: KubeObjects) -> None:
        changed = route()
        changed["spec"]["rules"][2] = {"backendRefs": [{"name": "fraud-blue"}, {"name": "fraud-green"}]}
        kube.put(ROUTE, changed)
        assert router(kube, **GATEWAY).get_weight() is None  # 0 in one rule; without weights both are asked equally

    @pytest.mark.parametrize(
        ("parents", "why"),
        [
            ([], "no gateway has accepted it"),
            ([{"conditions": [{"type": "Accepted", "status": "True", "observedGeneration": 3}]}], "generation 4 yet"),
            (
                [
                    {
                        "conditions": [
                            {"type": "Accepted", "status": "True", "observedGeneration": 4},
                            {"type": "ResolvedRefs", "status": "False", "observedGeneration": 4, "message": "no port"},
                        ]
                    }
                ],
                "ResolvedRefs is not true: no port",
            ),
        ],
    )
    def test_it_is_in_force_when_every_gateway_says_so(self, kube: KubeObjects, parents: list[Any], why: str) -> None:
        kube.put(ROUTE, route(status={"parents": parents}))
        assert why in router(kube, **GATEWAY).ready()
        accepted = {"conditions": [{"type": "Accepted", "status": "True", "observedGeneration": 4}]}
        kube.put(ROUTE, route(status={"parents": [accepted]}))
        assert router(kube, **GATEWAY).ready() == ""

    def test_a_route_without_both_sides_is_refused(self, kube: KubeObjects) -> None:
        with pytest.raises(InvalidArgumentError, match="both backends fraud-blue and fraud-red"):
            router(kube, **{**GATEWAY, "canary": "fraud-red"}).prepare()
        with pytest.raises(InvalidArgumentError, match="there is no HTTPRoute other"):
            router(kube, **{**GATEWAY, "route": "other"}).prepare()


class TestService:
    FIELDS: dict[str, Any] = {**BLUE_GREEN, "label": "t"}

    def test_the_selector_changes_sides_and_keeps_its_other_labels(self, kube: KubeObjects) -> None:
        service = router(kube, **self.FIELDS)
        service.prepare()
        assert service.get_weight() == 0
        service.set_weight(100)
        assert kube.objects[SERVICE]["spec"]["selector"] == {"app": "fraud", "t": "green"}
        assert service.get_weight() == 100
        service.finish(succeeded=False)
        assert service.get_weight() == 0
        assert service.ready() == ""

    def test_it_cannot_split(self, kube: KubeObjects) -> None:
        with pytest.raises(InvalidArgumentError, match="weights must be 0 or 100; got 25"):
            router(kube, **self.FIELDS).set_weight(25)
        assert kube.patches == []

    def test_a_selector_without_the_label_is_refused(self, kube: KubeObjects) -> None:
        with pytest.raises(InvalidArgumentError, match=r"must have the label airflow-mcp.io/track with one of blue"):
            router(kube, **BLUE_GREEN).prepare()


class TestArgo:
    def test_it_is_moved_on_to_the_step_with_the_weight(self, kube: KubeObjects) -> None:
        argo = router(kube, **ARGO)
        argo.prepare()
        argo.set_weight(0)
        assert kube.patches == []
        argo.set_weight(25)
        ((path, patch),) = kube.patches
        assert path == f"{ROLLOUT}/status"
        assert patch["status"] == {"pauseConditions": None, "controllerPause": False, "currentStepIndex": 2}
        assert argo.get_weight() == 0  # until the controller reports it
        kube.put(ROLLOUT, rollout(weight=25))
        assert argo.get_weight() == 25

    @pytest.mark.parametrize(
        ("phase", "why"), [("Paused", ""), ("Healthy", ""), ("Progressing", "is Progressing"), ("", "is not seen yet")]
    )
    def test_its_phase_says_whether_it_has_moved(self, kube: KubeObjects, phase: str, why: str) -> None:
        kube.put(ROLLOUT, rollout(phase))
        found = router(kube, **ARGO).ready()
        assert why in found
        assert bool(found) == bool(why)

    def test_a_degraded_one_fails(self, kube: KubeObjects) -> None:
        kube.put(ROLLOUT, rollout("Degraded"))
        with pytest.raises(FailedError, match="is degraded: CanaryPauseStep"):
            router(kube, **ARGO).ready()

    @pytest.mark.parametrize(("succeeded", "field"), [(True, "promoteFull"), (False, "abort")])
    def test_it_is_ended_once(self, kube: KubeObjects, succeeded: bool, field: str) -> None:
        for _ in range(2):
            router(kube, **ARGO).finish(succeeded=succeeded)
        assert [patch["status"] for _, patch in kube.patches] == [{field: True}]

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            ([], "must have strategy.canary.steps"),
            ([{"setWeight": 5}, {"pause": {"duration": "1h"}}], "must have pause: {} after it"),
            ([{"setWeight": 5}], "must have pause: {} after it"),
        ],
    )
    def test_steps_that_go_on_by_themselves_are_refused(
        self, kube: KubeObjects, steps: list[dict[str, Any]], message: str
    ) -> None:
        kube.put(ROLLOUT, rollout(steps=steps))
        with pytest.raises(InvalidArgumentError, match=message):
            router(kube, **ARGO).prepare()

    def test_a_weight_that_it_does_not_have_is_refused(self, kube: KubeObjects) -> None:
        with pytest.raises(InvalidArgumentError, match="are 5, 25; got 50"):
            router(kube, **ARGO).set_weight(50)


class TestKServe:
    def test_the_named_canary_gets_its_percentage(self, kube: KubeObjects) -> None:
        kserve = router(kube, **KSERVE)
        kserve.prepare()
        for _ in range(2):
            kserve.set_weight(25)
        other, ours = kube.objects[INFERENCE]["spec"]["canary"]
        assert (other["trafficPercent"], ours["trafficPercent"]) == (0, 25)
        assert ours["predictor"]["model"] == {"modelFormat": {"name": "mlflow"}}
        assert len(kube.patches) == 1
        assert kserve.get_weight() == 25
        kserve.finish(succeeded=False)
        assert kserve.get_weight() == 0

    def test_it_is_in_force_when_the_canary_is_ready(self, kube: KubeObjects) -> None:
        assert router(kube, **KSERVE).ready() == ""
        kube.put(INFERENCE, inference_service("False"))
        assert "CanaryReady is not true: loading" in router(kube, **KSERVE).ready()

    def test_what_it_cannot_do_is_refused(self, kube: KubeObjects) -> None:
        with pytest.raises(InvalidArgumentError, match=r"must be whole numbers; got 2\.5"):
            router(kube, **KSERVE).set_weight(2.5)
        with pytest.raises(InvalidArgumentError, match="whose predictor is 'v7'"):
            router(kube, **{**KSERVE, "canary": "v7"}).prepare()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "istio"}, "kind of router must be one of registry, gateway_api, service, argo, kserve, nop"),
        ({"kind": "argo"}, "router of kind argo must have rollout; got none"),
        ({**ARGO, "name": "x"}, "router of kind argo must have rollout; got name, rollout"),
        ({"kind": "registry", "route": "x"}, "router of kind registry must have no field; got route"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        check_router(fields)


def test_nop_moves_nothing(kube: KubeObjects) -> None:
    nop = router(kube, kind="nop")
    nop.prepare()
    nop.set_weight(50)
    nop.finish(succeeded=True)
    assert (nop.get_weight(), nop.ready(), kube.patches) == (None, "", [])


def test_with_a_router_replicas_follow_no_document_and_one_with_the_canary_is_enough() -> None:
    def sample(replica: str, *ready: str) -> ReplicaSample:
        return ReplicaSample(replica, 1.0, 0, Pair(), frozenset(ready), frozenset(), {})

    found = routed_samples([sample("a", "7"), sample("b", "8")], "8", 3)
    assert [(each.generation, "8" in each.ready) for each in found] == [(3, True), (3, True)]
    missing = routed_samples([sample("a", "7")], "8", 3)
    assert ["8" in each.ready for each in missing] == [False]
