"""What a deployment needs is checked together, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.servers import server_manifests
from tests.support.paths import PIPELINES
from tests.support.pipeline_files import FRAUD, Write, changed, problems

PAYMENTS = (PIPELINES / "payments.yaml").read_text(encoding="utf-8")
MISTAKES = [
    ("{setWeight: 5}", "{setWeight: 500}", "18:27: spec.stages[1].steps[0].setWeight: must be at most 100; got 500"),
    (
        "{setWeight: 5}",
        "{setWeight: 5, pause: 1m}",
        "18:15: spec.stages[1].steps[0]: a step must have exactly one of setWeight, analysis, pause; got 2 of them",
    ),
    ("{analysis: 10m}", "{analysis: 10}", "18:42: spec.stages[1].steps[1].analysis: must have a unit"),
    ("{pause: {}}", "{pause: {x: 1}}", "18:103: spec.stages[1].steps[5].pause: must be a duration such as 1h, or {}"),
    ("{setWeight: 25}", "{setWeight: 5}", "18:14: spec.stages[1].steps: weights of the steps must rise; got 5, 5"),
    ("{setWeight: 25}, ", "", None),
    ("{setWeight: 5}, {analysis: 10m}, ", "{setWeight: 0}, {analysis: 10m}, ", "18:14: spec.stages[1].steps: analysis"),
    ("strategy: canary", "strategy: blueGreen", "18:14: spec.stages[1].steps: must have setWeight: 100 alone with"),
    ("strategy: canary", "strategy: mirror", "17:17: spec.stages[1].strategy: must be one of canary, blueGreen"),
    (
        "http_5xx_rate <= 0.01",
        "http_500_rate <= 0.01",
        "20:17: spec.stages[1].analysis.rules[0]: metric must be one of http_5xx_rate, http_4xx_rate",
    ),
    ("declined <= 0.3", "declined = 0.3", "20:104: spec.stages[1].analysis.rules[3]: threshold must be a rule"),
    ("declined <= 0.3", "declined <= champion", "20:104: spec.stages[1].analysis.rules[3]: rule on a query must have"),
    (', "declined <= 0.3"', "", "18:14: spec.stages[1].steps: query 'declined' needs a rule"),
    ("      prometheusConnId: prometheus\n", "", "21:18: spec.stages[1].analysis.queries: need prometheusConnId"),
    (
        "      prometheusConnId: prometheus\n",
        "      prometheusConnId: prometheus\n      prometheusSelector: ml\n",
        "30:27: spec.stages[1].prometheusSelector: needs metricsSource: prometheus",
    ),
    (
        "      prometheusConnId: prometheus\n",
        "      prometheusConnId: prometheus\n      metricsSource: prometheus\n      prometheusSelector: ml\n",
        "31:27: spec.stages[1].prometheusSelector: must be matchers such as",
    ),
    ("onInconclusive: pause", "onInconclusive: go", "22:25: spec.stages[1].analysis.onInconclusive: must be one of"),
    ("percent: 20", "percent: 0", "24:25: spec.stages[1].shadow.percent: must be more than 0; got 0"),
    (
        "latency_p99_ms <= 100",
        "latency_p99_ms <= 50",
        "20:79: spec.stages[1].analysis.rules[2]: 'latency_p99_ms <= 50' is stricter than the gate, which accepts "
        "latency_ms_p99 up to 80 ms",
    ),
    (
        "http_5xx_rate <= 0.01",
        "http_5xx_rate <= 0.1",
        "20:17: spec.stages[1].analysis.rules[0]: 'http_5xx_rate <= 0.1' allows more than spec.rollback, which goes "
        "back above 0.05",
    ),
    (
        "stableVersion: v1.7.3",
        "stableVersion: champion",
        "33:49: spec.rollback.strategy.stableVersion: must be another",
    ),
    ("metric: http_5xx_rate", "metric: accuracy", "32:23: spec.rollback.trigger.metric: must be one of http_5xx_rate"),
    ('threshold: "0.05"', "threshold: low", "32:49: spec.rollback.trigger.threshold: must be a number; got 'low'"),
    ('duration: "2m"', 'duration: "2"', "32:67: spec.rollback.trigger.duration: must be a duration"),
    ("https://auth.example", "http://auth.example", "36:33: spec.trafficPolicy.auth.issuer: must be an https address"),
    ("requestsPerSecond: 100", "requestsPerSecond: 0", "35:36: spec.trafficPolicy.rateLimit.requestsPerSecond: must"),
    (
        '      server: {namespace: "${NAMESPACE:-ml}", image: "registry.example.com/server:${TAG:-1}", replicas: 3}\n',
        "",
        "34:5: spec.trafficPolicy: is a setting of the model server, which this pipeline does not deploy",
    ),
    ("replicas: 3", "replicas: 0", "30:105: spec.stages[1].server.replicas: must be at least 1; got 0"),
    (
        "  rollback:\n",
        "  stopAfter: register\n  rollback:\n",
        "33:5: spec.rollback: is carried out by the stage deploy",
    ),
    (
        "  rollback:\n",
        "    - name: promote\n  rollback:\n",
        "31:13: spec.stages[2].name: the promotion is the last step of the stage deploy. Remove the stage promote",
    ),
]


@pytest.mark.parametrize(("old", "new", "problem"), MISTAKES, ids=[each[1].strip()[:40] for each in MISTAKES])
def test_mistakes_are_named_with_line_column_and_field(write: Write, old: str, new: str, problem: str | None) -> None:
    path = write("payments.yaml", changed(PAYMENTS, old, new))
    if problem is None:
        assert load_pipeline_file(path, variables={})
        return
    found = problems(path)
    assert any(each.startswith(f"payments.yaml:{problem}") for each in found), found


def test_bake_needs_a_policy(write: Write) -> None:
    text = changed(FRAUD, "    - name: evaluate", "    - {name: deploy, bake: 10m}\n    - name: evaluate")
    (found,) = problems(write("f.yaml", text))
    assert found.startswith("f.yaml:14:28: spec.stages[1].bake: bake needs rollback")


def test_rules_that_only_warn_decide_nothing(write: Write) -> None:
    stage = '    - {name: deploy, analysis: {rules: ["warn: http_5xx_rate <= 0.01"]}}\n    - name: evaluate'
    (found,) = problems(write("f.yaml", changed(FRAUD, "    - name: evaluate", stage)))
    assert "spec.stages[1].analysis.rules: must have at least one without warn: in front" in found


@pytest.mark.parametrize("field", ["rollback: {trigger: {metric: http_5xx_rate, threshold: 0.05, duration: 2m}}"])
def test_a_policy_without_a_deployment_is_refused(write: Write, field: str) -> None:
    (found,) = problems(write("f.yaml", changed(FRAUD, "  stages:", f"  {field}\n  stages:")))
    assert "spec.rollback: is carried out by the stage deploy. Add that stage, or remove this field" in found


class TestThePlan:
    def test_the_rollout_takes_the_place_of_the_promotion(self) -> None:
        plan = plan_pipeline(load_pipeline_file(PIPELINES / "payments.yaml", variables={}))
        assert plan.stages[-2:] == ("register", "deploy")
        assert [task.task_id for task in plan.tasks[-4:]] == ["load_check", "deploy_server", "rollout", "outcome"]
        assert plan.task("outcome").needs == ("rollout",)
        assert "load_check" in plan.task("rollout").needs

    def test_stop_after_deploy_fills_the_usual_steps_in(self, write: Write) -> None:
        path = write("f.yaml", changed(FRAUD, "  stages:", "  stopAfter: deploy\n  stages:"))
        rollout = plan_pipeline(load_pipeline_file(path, variables={})).task("rollout")
        assert rollout.is_filled_in
        assert [next(iter(step)) for step in rollout.arguments["steps"]] == ["setWeight", "analysis"] * 3
        assert rollout.arguments["rules"] == ["http_5xx_rate <= 0.01"]
        assert not rollout.arguments.keys() & {"rollback", "bake", "queries"}

    def test_blue_green_moves_every_request_at_once(self, write: Write) -> None:
        stage = "    - {name: deploy, strategy: blueGreen, shadow: {percent: 50, for: 5m}}\n    - name: evaluate"
        path = write("f.yaml", changed(FRAUD, "    - name: evaluate", stage))
        steps = plan_pipeline(load_pipeline_file(path, variables={})).task("rollout").arguments["steps"]
        assert steps == [{"shadow": {"percent": 50.0, "for": "5m"}}, {"setWeight": 100}, {"analysis": "10m"}]

    def test_a_new_rule_changes_the_hash_of_the_file(self, write: Write) -> None:
        def hash_of(text: str) -> str:
            return plan_pipeline(load_pipeline_file(write("p.yaml", text), variables={})).spec_hash

        assert hash_of(PAYMENTS) != hash_of(changed(PAYMENTS, "http_5xx_rate <= 0.01", "http_5xx_rate <= 0.02"))
        assert hash_of(PAYMENTS) == hash_of(changed(PAYMENTS, "# A pipeline", "# The pipeline"))


class TestTheRouter:
    STAGE = "    - {name: deploy, router: {kind: argo, rollout: fraud}}\n    - name: evaluate"

    def test_it_is_given_to_the_rollout(self, write: Write) -> None:
        path = write("f.yaml", changed(FRAUD, "    - name: evaluate", self.STAGE))
        rollout = plan_pipeline(load_pipeline_file(path, variables={})).task("rollout")
        assert rollout.arguments["router"] == {"kind": "argo", "rollout": "fraud"}

    @pytest.mark.parametrize(
        ("router", "problem"),
        [("{kind: istio}", "kind of router must be one of"), ("{kind: argo}", "router of kind argo must have rollout")],
    )
    def test_a_wrong_one_is_named_with_its_place(self, write: Write, router: str, problem: str) -> None:
        stage = self.STAGE.replace("{kind: argo, rollout: fraud}", router)
        (found,) = problems(write("f.yaml", changed(FRAUD, "    - name: evaluate", stage)))
        assert found.startswith(f"f.yaml:14:30: spec.stages[1].router: {problem}")

    def test_shadow_needs_servers_that_split(self, write: Write) -> None:
        def file(kind: str) -> Path:
            router = f"router: {{kind: {kind}}}, shadow: {{percent: 20, for: 5m}}"
            stage = f"    - {{name: deploy, {router}}}\n    - name: evaluate"
            return write("f.yaml", changed(FRAUD, "    - name: evaluate", stage))

        (found,) = problems(file("nop"))
        assert found.startswith(
            "f.yaml:14:30: spec.stages[1].router: shadow needs the router of kind registry; got nop"
        )
        steps = plan_pipeline(load_pipeline_file(file("registry"), variables={})).task("rollout").arguments["steps"]
        assert steps[0] == {"shadow": {"percent": 20.0, "for": "5m"}}


class TestTheModelServer:
    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ("{replica: 3}", "server.replica is not a known name"),
            ("{resources: {memory: lots}}", "server.resources.memory: must be"),
            ("{settings: {PROCESSES: many}}", "AIRFLOW_MCP_SERVING_PROCESSES"),
            ("{env: {DB_PASSWORD: x}}", "DB_PASSWORD looks like a credential in plain text"),
        ],
    )
    def test_its_options_are_those_of_the_manifests(self, write: Write, options: str, problem: str) -> None:
        (found,) = problems(write("p.yaml", changed(PAYMENTS, "replicas: 3}", f"replicas: 3, options: {options}}}")))
        assert found.startswith("p.yaml:30:")
        assert "spec.stages[1].server.options: " in found
        assert problem in found

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("model_name", "other"), ("namespace", "zzz"), ("image", '"x/y:2"'), ("replicas", "7")),
            *(("version", '"8"'), ("load_seconds", "3"), ("rollback_policy", "{}"), ("traffic_policy", "{}")),
        ],
    )
    def test_an_option_that_the_pipeline_sets_itself_is_refused(self, write: Write, name: str, value: str) -> None:
        text = changed(PAYMENTS, "replicas: 3}", f"replicas: 3, options: {{{name}: {value}}}}}")
        (found,) = problems(write("p.yaml", text))
        assert f"spec.stages[1].server.options.{name}: " in found
        assert found.endswith("Remove it from options")

    def test_a_field_of_the_stage_has_its_own_place(self, write: Write) -> None:
        (found,) = problems(write("p.yaml", changed(PAYMENTS, "${NAMESPACE:-ml}", "ML_prod")))
        assert "spec.stages[1].server.namespace: server.namespace: must have at most 63" in found

    def test_an_image_without_a_tag_is_refused(self, write: Write) -> None:
        (found,) = problems(write("p.yaml", changed(PAYMENTS, ":${TAG:-1}", "")))
        assert "spec.stages[1].server.image: " in found
        assert "image: must name a tag or a digest when no version is given" in found

    def test_it_is_up_before_the_rollout_and_knows_both_policies(self) -> None:
        plan = plan_pipeline(load_pipeline_file(PIPELINES / "payments.yaml", variables={}))
        assert "deploy_server" in plan.task("rollout").needs
        kinds = [manifest["kind"] for manifest in server_manifests(plan)]
        assert {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= set(kinds)
        (policies,) = [each["data"] for each in server_manifests(plan) if each["kind"] == "ConfigMap"]
        assert '"stableVersion": "v1.7.3"' in policies["RollbackPolicy.yaml"]
        assert '"issuer": "https://auth.example.com"' in policies["TrafficPolicy.yaml"]

    def test_a_pipeline_without_a_server_has_no_manifests(self, write: Write) -> None:
        assert server_manifests(plan_pipeline(load_pipeline_file(write("f.yaml", FRAUD), variables={}))) == ()
