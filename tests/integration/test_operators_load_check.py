"""LoadCheckOperator against a real MLflow server, with real models in real processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.load_check import LoadCheck, LoadCheckReport, read_load_check
from airflow_mcp.exceptions import MlflowUnreachableError
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.workloads.local import LocalBackend
from tests.support.logged_models import Logged, log_tree
from tests.support.mlflow_world import World, kill_points, load_check_tags
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def tree(mlflow_server: MlflowServer) -> Logged:
    return log_tree(mlflow_server)


@pytest.fixture(scope="module")
def torn(mlflow_server: MlflowServer) -> Logged:
    logged = log_tree(mlflow_server)
    logged.tear()
    return logged


def check(world: World, **options: Any) -> TaskOutcome:
    asked = {} if "alias" in options else {"version": "1"}
    env = {"MARKER": world.marker}
    return world.run(LoadCheckOperator, **{"model_name": world.model_name, "env": env, **asked, **options})


def version(world: World, number: str = "1") -> ModelVersion:
    return world.hook.get_model_version(world.model_name, number)


def known(world: World, number: str = "1") -> LoadCheck | None:
    return read_load_check(version(world, number).tags)


def checks(world: World, *statuses: str) -> list[Any]:
    found = world.hook.search_runs([world.hook.get_or_create_experiment(f"{world.model_name}-load-checks")])
    return [run for run in found if not statuses or run.status in statuses]


# --- in a process of its own, as it runs for users ---------------------------------------------------------------
@pytest.mark.cold
def test_a_version_that_loads_and_answers_is_tagged_with_who_found_that_where(world: World, tree: Logged) -> None:
    tree.register(world)
    outcome = check(world, image="registry.example.com/model:1")
    assert outcome.state == "success", outcome.error
    assert {name: outcome.result[name] for name in ("model_name", "version", "verdict", "rows", "dry_run")} == {
        "model_name": world.model_name,
        "version": "1",
        "verdict": "passed",
        "rows": 3,
        "dry_run": False,
    }
    assert outcome.result["load_seconds"] > 0
    assert outcome.result["memory_peak_bytes"] > 50_000_000
    found = known(world)
    assert found is not None
    assert (found.verdict, found.run_id, found.image) == (
        "passed",
        outcome.result["run_id"],
        "registry.example.com/model:1",
    )
    assert found.libraries["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.libraries["scikit-learn"]
    assert version(world).tags[contract.TAG_LOAD_CHECK] == "passed"
    run = world.hook.get_run(outcome.result["run_id"])
    assert (run.status, run.tags[contract.TAG_MODEL_VERSION]) == ("FINISHED", f"{world.model_name}/1")
    assert run.metrics["memory_peak_bytes"] == outcome.result["memory_peak_bytes"]
    report = parse_document(LoadCheckReport, world.artifact(run, contract.ARTIFACT_LOAD_CHECK), "report")
    assert [(finding.name, finding.holds) for finding in report.findings] == [
        (name, True) for name in ("files", "loads", "answers", "rows", "finite", "signature")
    ]
    assert world.processes() == []


def test_a_version_that_does_not_load_is_tagged_unusable_and_is_not_tried_again(world: World, torn: Logged) -> None:
    torn.register(world)
    outcome = check(world)
    assert outcome.state == "failed"
    assert f"version 1 of {world.model_name!r} is unusable: it does not load: UnpicklingError" in str(outcome.error)
    assert outcome.result["verdict"] == "failed"
    assert known(world).is_unusable  # type: ignore[union-attr]
    (run,) = checks(world)
    assert run.status == "FINISHED"


def test_a_check_that_is_killed_says_nothing_about_the_version(world: World, tree: Logged) -> None:
    tree.register(world)
    killed = check(world, workload_timeout=timedelta(seconds=0.3))
    assert killed.state == "up_for_retry"
    assert known(world) is None
    assert [run.status for run in checks(world)] == ["KILLED"]
    again = check(world, try_number=2)
    assert again.state == "success", again.error
    assert known(world).verdict == "passed"  # type: ignore[union-attr]


# --- the rest with a work plane that answers at once -------------------------------------------------------------
QUICK = '''
"""A work plane in the standard library: reports the verdict it is told to, by MLflow's REST API."""
import json, os, sys, time, urllib.request

def call(method, path, body):
    url = os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/" + path
    headers, data = {"content-type": "application/json"}, None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read() or "null")

asked = json.load(open(os.environ["AIRFLOW_MCP_REQUEST_PATH"]))
verdict, at = sys.argv[1:3]
keep = ("identity", "run_id", "model_name", "version")
report = {name: asked[name] for name in keep} | {
    "schema": "airflow_mcp/load_check/1", "verdict": verdict, "reason": "told to", "findings": [], "created_at": at,
}
root = call("GET", "mlflow/runs/get?run_id=" + asked["run_id"], None)["run"]["info"]["artifact_uri"]
call("PUT", "mlflow-artifacts/artifacts/" + root.partition(":/")[2] + "/loading/report.json", report)
call("POST", "mlflow/runs/update", {"run_id": asked["run_id"], "status": "FINISHED"})
'''
NOON = "2026-11-25T12:00:00+00:00"


def quick_check(world: World, verdict: str = "passed", at: str = NOON, **options: Any) -> TaskOutcome:
    def shortcut(operator: Any) -> None:
        operator.runtime_command = lambda step: tuple(world.command(verdict, at, script=QUICK))
        (options.get("and_then") or (lambda _: None))(operator)

    given = {name: value for name, value in options.items() if name != "and_then"}
    return check(world, before=shortcut, **given)


def state(world: World) -> Mapping[str, Any]:
    """What must be the same whatever happened on the way."""
    found = known(world)
    return {"tags": found and (found.verdict, found.at, found.reason), "open": len(checks(world, "RUNNING"))}


def test_a_check_killed_between_any_two_requests_ends_the_same_when_it_is_retried(world: World) -> None:
    kills, name = 0, world.model_name
    for switch in kill_points(writes_only=False):
        world.model_name = f"{name}.{kills}"
        world.versions(1, check=None)
        first = quick_check(world, "failed", and_then=switch.arm)
        assert first.state == "failed" or switch.has_fired
        if not switch.has_fired:
            break
        kills += 1
        second = quick_check(world, "failed", try_number=2)
        assert second.state == "failed", second.error
        assert second.result["verdict"] == "failed"
        assert state(world) == {"tags": ("failed", NOON, "told to"), "open": 0}
    assert kills >= 8


def lose_the_tags(operator: Any) -> None:
    """Let MLflow go away when the verdict is there and the version is to be tagged."""

    def set_tag(*_: str) -> None:
        raise MlflowUnreachableError("no answer")

    operator.hook.set_model_version_tag = set_tag


def test_a_retry_finds_the_result_and_starts_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.versions(1, check=None)

    assert quick_check(world, and_then=lose_the_tags).state == "up_for_retry"
    monkeypatch.setattr(LocalBackend, "run", lambda *_, **__: pytest.fail("a second check was started"))
    again = quick_check(world, try_number=2)
    assert again.state == "success", again.error
    assert known(world).verdict == "passed"  # type: ignore[union-attr]


def test_a_task_that_is_cleared_after_its_verdict_checks_again_and_clears_the_tag(world: World) -> None:
    world.versions(1, check=None)
    assert quick_check(world, "failed").state == "failed"
    assert known(world).is_unusable  # type: ignore[union-attr]
    assert quick_check(world, "passed", at="2026-11-25T12:05:00+00:00", try_number=2).state == "success"
    assert known(world).verdict == "passed"  # type: ignore[union-attr]
    assert version(world).tags[contract.TAG_LOAD_CHECK] == "passed"


def test_what_is_not_the_versions_fault_leaves_its_tags_alone(world: World) -> None:
    world.versions(1)
    before = version(world).tags
    outcome = quick_check(world, "error")
    assert outcome.state == "failed"
    assert "could not be verified (error): told to" in str(outcome.error)
    assert outcome.result["verdict"] == "error"
    assert version(world).tags == before


def test_a_model_that_was_asked_nothing_ends_the_task_and_is_not_branded(world: World) -> None:
    world.versions(1, check=None)
    outcome = quick_check(world, "inconclusive")
    assert outcome.state == "failed"
    assert known(world).verdict == "inconclusive"  # type: ignore[union-attr]
    assert not known(world).is_unusable  # type: ignore[union-attr]


def test_a_check_of_long_ago_does_not_undo_a_later_one(world: World) -> None:
    world.versions(1, check=None)
    for name, value in load_check_tags("passed").items():
        world.hook.set_model_version_tag(world.model_name, "1", name, value)
    outcome = quick_check(world, "failed", at="2020-01-01T00:00:00+00:00")
    assert outcome.state == "failed"
    assert known(world).verdict == "passed"  # type: ignore[union-attr]


# --- what is checked ---------------------------------------------------------------------------------------------
def test_the_version_behind_an_alias_is_checked(world: World) -> None:
    world.versions(2, check=None)
    world.hook.set_alias(world.model_name, "champion", "2")
    outcome = quick_check(world, alias="champion")
    assert (outcome.state, outcome.result["version"]) == ("success", "2")
    assert known(world, "1") is None


def test_a_retry_answers_the_question_of_the_first_try_though_the_alias_has_moved(world: World) -> None:
    world.versions(2, check=None)
    world.hook.set_alias(world.model_name, "champion", "1")

    assert quick_check(world, alias="champion", and_then=lose_the_tags).state == "up_for_retry"
    world.hook.set_alias(world.model_name, "champion", "2")
    outcome = quick_check(world, alias="champion", try_number=2)
    assert (outcome.state, outcome.result["version"]) == ("success", "1")


@pytest.mark.parametrize(("on_missing_alias", "ends"), [("fail", "failed"), ("skip", "skipped")])
def test_an_alias_that_is_not_set_is_said_so_or_skipped(world: World, on_missing_alias: str, ends: str) -> None:
    world.versions(1)
    outcome = quick_check(world, alias="previous_champion", on_missing_alias=on_missing_alias)
    assert outcome.state == ends
    if ends == "failed":
        assert "alias 'previous_champion' is not set, so there is nothing to check" in str(outcome.error)
        assert "No earlier champion is recorded" in str(outcome.error)
    assert checks(world) == []


def test_a_version_that_does_not_exist_or_is_not_ready_starts_nothing(world: World) -> None:
    world.versions(1)
    outcome = quick_check(world, version="9")
    assert outcome.state == "failed"
    assert "version 9 does not exist, perhaps it was deleted" in str(outcome.error)
    nobody = quick_check(world, model_name="nobody-knows-it")
    assert nobody.state == "failed"
    assert "There is no such registered model" in str(nobody.error)
    assert checks(world) == []


def test_a_check_that_is_not_enabled_finds_the_version_and_starts_nothing(world: World) -> None:
    world.versions(2)
    world.hook.set_alias(world.model_name, "previous_champion", "1")
    outcome = quick_check(world, alias="previous_champion", dry_run="true")
    assert (outcome.state, outcome.result["version"], outcome.result["dry_run"]) == ("success", "1", True)
    assert outcome.result["verdict"] is None
    assert checks(world) == []


def test_a_report_about_another_version_is_not_believed(world: World) -> None:
    world.versions(2, check=None)
    script = QUICK.replace("root = call(", 'report["version"] = "2"\nroot = call(')

    def shortcut(operator: Any) -> None:
        operator.runtime_command = lambda step: tuple(world.command("passed", NOON, script=script))

    outcome = check(world, before=shortcut)
    assert outcome.state == "up_for_retry"
    assert "belongs to another check" in str(outcome.error)
    assert known(world) is None
    assert known(world, "2") is None
