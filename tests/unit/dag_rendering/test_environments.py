"""One pipeline rendered for dev, test and prod: source, config and approval differ, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.dag_rendering import load_model_pipelines
from airflow_mcp.dag_rendering.loader import load_pipeline_file, load_pipeline_folder
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import render_all
from airflow_mcp.dag_rendering.stubs import write_stubs
from tests.support.paths import PIPELINES
from tests.support.pipeline_files import Write, changed, problems

CREDIT = (PIPELINES / "credit.yaml").read_text()
OFTEN = ("begin", "pin_data", "audit_data", "train", "evaluate", "gate", "register", "load_check")
ALLOWED = {"code", "config", "env", "connection_env", "require_release_tag", "stages"}
"""Arguments in which the same task may differ from one environment to another."""


def plan_in(environment: str, name: str = "credit") -> PipelinePlan:
    return plan_pipeline(load_pipeline_file(PIPELINES / f"{name}.yaml", environment, variables={}))


@pytest.mark.parametrize(
    ("environment", "code", "threshold", "secret", "released_by"),
    [
        ("dev", {"revision": "dev"}, 0.5, None, ("promote",)),
        ("test", {"revision": "main"}, 0.6, "test_data.password", ("promote",)),
        ("prod", {"tags": "v*"}, 0.7, "prod_data.password", ("ask_release",)),
    ],
)
def test_each_environment_has_its_source_its_config_and_its_approval(
    environment: str, code: dict[str, str], threshold: float, secret: str | None, released_by: tuple[str, ...]
) -> None:
    plan = plan_in(environment)
    assert plan.task("begin").arguments["code"] == {"repo_url": "https://github.com/team/credit", **code}
    assert plan.task("begin").arguments.get("require_release_tag") == code.get("tags")
    train = plan.task("train").arguments
    assert train["config"] == {"threshold": threshold}
    assert train.get("connection_env", {}).get("DATASOURCE_PASSWORD") == secret
    assert {task.task_id for task in plan.tasks} == {*OFTEN, *released_by, "outcome"}
    assert (plan.release is not None) is (environment == "prod")


def test_two_environments_differ_in_nothing_else() -> None:
    plans = {name: plan_in(name) for name in ("dev", "test", "prod")}
    for name in OFTEN:
        one, *others = (dict(plan.task(name).arguments) for plan in plans.values())
        for other in others:
            differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
            assert differing <= ALLOWED, (name, differing)
        assert len({plan.task(name).needs for plan in plans.values()}) == 1


def test_in_prod_the_promotion_is_in_a_dag_of_its_own_behind_one_task_per_approval() -> None:
    plan = plan_in("prod")
    own, release = render_all(plan)
    assert release.dag_id == "credit__release"
    assert [task.task_id for task in release.tasks] == [
        *("request_release", "seat_1", "seat_2", "seat_3", "seat_4", "promote")
    ]
    assert release.get_task("promote").upstream_task_ids == {"seat_4"}
    promote: Any = release.get_task("promote")
    assert (promote.version, promote.expected_champion) == (
        "{{ params.version or '' }}",
        "{{ params.expected_champion or '' }}",
    )
    request: Any = release.get_task("request_release")
    assert (request.risk, request.environment, request.seats, request.retries) == ("high", "prod", 4, 5)
    assert release.is_paused_upon_creation is False
    assert release.max_active_runs > 1
    asks = own.get_task("ask_release")
    assert isinstance(asks, TriggerDagRunOperator)
    # The step that the promotion needs runs before anybody is asked.
    assert asks.upstream_task_ids == {"load_check", "audit_data", "gate", "begin"}
    assert asks.conf["parent_run"] == {"dag_id": "{{ dag.dag_id }}", "dag_run_id": "{{ run_id }}"}
    assert own.get_task("outcome").upstream_task_ids == {"ask_release"}
    for dag in (own, release):
        dag.fileloc = dag.relative_fileloc = "dag.py"
        DagSerialization.from_dict(DagSerialization.to_dict(dag))


def test_a_form_without_a_version_starts_no_release() -> None:
    release = render_all(plan_in("prod"))[1]
    with pytest.raises(Exception, match="version"):
        release.params.validate()
    release.params["version"] = "7"
    assert release.params.validate()["expected_champion"] == "none"


def test_a_rollout_follows_the_approval_as_the_promotion_does(write: Write) -> None:
    text = (
        (PIPELINES / "payments.yaml")
        .read_text()
        .replace("    - name: deploy\n", "    - name: approval\n    - name: deploy\n")
    )
    plan = plan_pipeline(load_pipeline_file(write("payments.yaml", text), "prod", variables={}))
    release = render_all(plan)[1]
    assert release.get_task("deploy_server").upstream_task_ids == {"seat_5"}
    assert release.get_task("rollout").upstream_task_ids == {"deploy_server"}
    server: Any = release.get_task("deploy_server")
    assert server.server["load_seconds"] == "{{ params.load_seconds or '' }}"
    assert "load_seconds" in release.params
    assert "xcom" not in str([vars(task) for task in release.tasks]).lower().replace("do_xcom_push", "")


def test_airflow_finds_both_dags_of_a_stub_and_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__ENVIRONMENT", "prod")
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    (pipelines / "credit.yaml").write_text(CREDIT)
    write_stubs(load_pipeline_folder(pipelines, "prod"), pipelines, tmp_path)
    bag = BundleDagBag(dag_folder=tmp_path, bundle_path=tmp_path, bundle_name="test")
    assert (bag.import_errors, sorted(bag.dags)) == ({}, ["credit", "credit__release"])
    assert sorted(load_model_pipelines(pipelines)) == ["credit", "credit__release"]


def test_a_worker_finds_the_release_dag_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credit.yaml").write_text(CREDIT)
    (tmp_path / "other.yaml").write_text(changed(CREDIT, "name: credit", "name: other"))
    wanted = type("Context", (), {"dag_id": "credit__release"})()
    monkeypatch.setattr("airflow_mcp.dag_rendering.dags.get_parsing_context", lambda: wanted)
    assert sorted(load_model_pipelines(tmp_path, "prod")) == ["credit", "credit__release"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "name: credit\n",
            "name: credit__release\n",
            "5:9: metadata.name: must not end with __release, as the",
        ),
        ("name: audit_data\n", "name: seat_2\n", "stages[0].name: 'seat_2' is the name of a task of the approval"),
        (
            "command: [",
            "needs: [promote]\n      command: [",
            "needs[0]: 'promote' comes after the approval, in a",
        ),
        (
            "command: [",
            "needs: [approval]\n      command: [",
            "needs[0]: 'approval' comes after the approval, in a",
        ),
        (
            "  risk: high\n",
            "  stopAfter: register\n",
            "stages[2].name: comes after stopAfter: register. Remove",
        ),
        ("seats: 4", "seats: 21", "19:14: spec.stages[2].seats: must be at most 20; got 21"),
        ("risk: high", "risk: extreme", "spec.risk: must be one of low, medium, high; got 'extreme'"),
        ("seats: 4", "environments: [production]", "environments[0]: must be one of dev, test, prod; got 'production'"),
        (
            "      seats: 4",
            "      chain: []",
            "stages[2].chain: is not a known name here. It belongs in the",
        ),
        (
            'tags: "v*"',
            "revision: main",
            "sourceCode.revision: must be a release tag in prod, such as v1.2.0; got",
        ),
        ("threshold: 0.7", "db_password: hunter2", "looks like a credential in plain text, which prod refuses"),
    ],
)
def test_what_an_approval_or_prod_does_not_allow_is_named_with_its_place(
    write: Write, old: str, new: str, problem: str
) -> None:
    found = problems(write("credit.yaml", changed(CREDIT, old, new)), "prod")
    assert any(problem in each for each in found), found
    assert all(re.match(r"credit\.yaml:\d+:\d+: ", each) for each in found)


def test_where_nobody_is_asked_an_approval_changes_nothing(write: Write) -> None:
    path = write(
        "credit.yaml",
        changed(CREDIT, "command: [", "needs: [promote]\n      command: [").replace("      needs: [audit_data]\n", ""),
    )
    plan = plan_pipeline(load_pipeline_file(path, "test", variables={}))
    assert plan.task("audit_data").needs[0] == "promote"
