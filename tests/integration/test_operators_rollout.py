"""Rollouts with a real model server, a real MLflow and Airflow's task runner, while clients ask all the time.

The tests share one server. Each begins with version 1 as champion: version 2 is sound, and version 3 fails for the rows
that the clients send, but not for its input example.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.contract import TAG_KIND
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.rollout.report import RolloutReport
from airflow_mcp.core.rollout.state import ARTIFACT_REPORT_HTML, ARTIFACT_REPORT_JSON, TAG_ROLLOUT_RECORD
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, TAG_ROLLOUT_LEASE, RolloutDocument
from airflow_mcp.exceptions import ModelControlPlaneError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.sensors.serving import ModelServedSensor
from tests.support.followed_server import FollowingServer, NumberedVersions, SteadyClient
from tests.support.mlflow_world import Killed, KillSwitch, World
from tests.support.services import LOOPBACK, MlflowServer, Service, free_port
from tests.support.task_harness import TaskOutcome, event_of_trigger, event_within, run_task, trigger_of

STEPS = [{"setWeight": 30}, {"analysis": "1s"}, {"setWeight": 60}, {"analysis": "1s"}]
RULES = ["http_5xx_rate <= 0.2"]


def _fail(folder: Path) -> None:
    """Replace the model by one that fails for the rows of the clients."""
    import cloudpickle

    class Broken:
        classes_ = (0, 3)

        def predict(self, rows: Any) -> Any:
            import numpy as np

            if (np.asarray(rows)[:, 0] == 0.5).any():
                raise ValueError("no such customer")
            return np.full(len(rows), 3)

    (folder / "model.pkl").write_bytes(cloudpickle.dumps(Broken()))


class Rollouts:
    """The server, its registry, and the tasks of one test."""

    def __init__(self, world: World, versions: NumberedVersions, server: FollowingServer) -> None:
        self.world, self.versions, self.server = world, versions, server
        self.hook, self.name = versions.hook, versions.name
        world.model_name = self.name

    def run(self, version: str = "2", *, deferrable: bool = True, follow: bool = True, **arguments: Any) -> TaskOutcome:
        """Run a task, with its triggers until it ends."""
        given: dict[str, Any] = {
            "model_name": self.name,
            "version": version,
            "expected_champion": "1",
            "experiment_name": self.world.experiment,
            "steps": STEPS,
            "rules": RULES,
            "poll_interval": 1,
            "deferrable": deferrable,
            **arguments,
        }
        address = {"conn_type": "model_server", "host": LOOPBACK, "port": self.server.port}
        connections = {"model_server_default": address, **given.pop("connections", {})}
        outcome = self.world.run(RolloutModelOperator, connections=connections, **given)
        while follow and outcome.state == "deferred":
            outcome = self.resume(outcome, self.event(outcome))
        return outcome

    event = staticmethod(event_within)
    trigger = staticmethod(trigger_of)

    @staticmethod
    def resume(deferred: TaskOutcome, event: dict[str, Any]) -> TaskOutcome:
        return run_task(deferred.operator, supervisor=deferred.supervisor, resume_with=event)

    @property
    def document(self) -> RolloutDocument:
        text = self.hook.get_model_version(self.name, "1").tags[TAG_ROLLOUT]
        return RolloutDocument.model_validate_json(text)

    @property
    def champion(self) -> str:
        return self.world.aliases["champion"]

    def runs(self) -> list[Run]:
        return [run for run in self.world.runs() if run.tags.get(TAG_KIND) == "rollout"]

    def report(self, run: Run) -> RolloutReport:
        return RolloutReport.model_validate_json(self.world.artifact(run, ARTIFACT_REPORT_JSON))

    def record(self, version: str) -> dict[str, Any]:
        tags = self.hook.get_model_version(self.name, version).tags
        (found,) = [value for name, value in tags.items() if name.startswith(TAG_ROLLOUT_RECORD) and value]
        return dict(json.loads(found))


@pytest.fixture(scope="module")
def served(
    mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[NumberedVersions, FollowingServer]]:
    """A registered model with three versions, and a server that follows it."""
    folder = tmp_path_factory.mktemp("rollouts")
    with pytest.MonkeyPatch.context() as patch:
        address = json.dumps({"conn_type": "mlflow", "host": mlflow_server.url})
        patch.setenv("AIRFLOW_CONN_MLFLOW_SERVING", address)
        patch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", address)
        versions = NumberedVersions(
            mlflow_server, MlflowHook("mlflow_serving"), f"rolled-{uuid.uuid4().hex[:8]}", folder
        )
        for change in (None, None, _fail):
            versions.add(change=change)
        versions.promote("1")
        server = FollowingServer(folder, f"models:/{versions.name}@champion", mlflow_server.url, PROCESSES=1)
        with server:
            server.wait_for_version("1")
            place = {"conn_type": "model_server", "host": LOOPBACK, "port": server.port}
            patch.setenv("AIRFLOW_CONN_MODEL_SERVER_DEFAULT", json.dumps(place))
            yield versions, server
        versions.hook.close()


@pytest.fixture
def rollouts(world: World, served: tuple[NumberedVersions, FollowingServer]) -> Iterator[Rollouts]:
    made = Rollouts(world, *served)
    yield made
    hook, name = made.hook, made.name
    hook.set_model_version_tag(name, "1", TAG_ROLLOUT, "")
    made.world.let_claims_run_out()
    made.versions.promote("1")
    for number in ("2", "3"):
        tags = [tag for tag in hook.get_model_version(name, number).tags if tag.startswith(TAG_ROLLOUT_RECORD)]
        for tag in (*tags, TAG_ROLLBACK):
            hook.set_model_version_tag(name, number, tag, "")
    # Where a breaker is open, version 1 answers before the server has seen that it is the champion again.
    made.server.wait_for(lambda: made.server.status()["models"][name]["champion"] == "1")
    made.server.wait_for_version("1")


def test_a_sound_version_takes_every_step_and_is_promoted(rollouts: Rollouts) -> None:
    with SteadyClient(rollouts.server, connections=4) as client:
        outcome = rollouts.run()
        assert outcome.state == "success", outcome.error
        rollouts.server.wait_for_version("2")
    assert outcome.result["phase"] == "SUCCEEDED"
    assert rollouts.champion == "2"
    assert client.versions == {"1", "2"}
    client.require_no_failure()
    (run,) = rollouts.runs()
    report = rollouts.report(run)
    assert [event.weight for event in report.events if event.phase == "PROGRESSING"] == [30, 60]
    assert report.succeeded
    assert report.counts.canary.answered > 10
    assert run.status == "FINISHED"
    assert b"<svg" in rollouts.world.artifact(run, ARTIFACT_REPORT_HTML)
    assert rollouts.document.phase == "SUCCEEDED"  # so that a rollback to version 1 brings no split back
    assert rollouts.record("2")["phase"] == "SUCCEEDED"


@pytest.fixture
def prometheus(rollouts: Rollouts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A real Prometheus that scrapes the server, and the fields of the connection to it."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is missing: Debian's package prometheus has it")
    port, target = free_port(), f"{LOOPBACK}:{rollouts.server.port}"
    scrape = {"job_name": "models", "scrape_interval": "500ms", "static_configs": [{"targets": [target]}]}
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": [scrape]}))
    options = {
        "config.file": config,
        "storage.tsdb.path": tmp_path / "data",
        "web.listen-address": f"{LOOPBACK}:{port}",
    }
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    health = f"http://{LOOPBACK}:{port}/-/ready"
    address = {"conn_type": "prometheus", "host": LOOPBACK, "port": port}
    monkeypatch.setenv("AIRFLOW_CONN_PROMETHEUS_DEFAULT", json.dumps(address))
    with Service("prometheus", command, folder=tmp_path, health_url=health):
        yield address


@pytest.mark.parametrize(("version", "state"), [("2", "success"), ("3", "failed")])
def test_the_counters_of_replicas_out_of_reach_come_from_prometheus(
    rollouts: Rollouts, prometheus: dict[str, Any], version: str, state: str
) -> None:
    with SteadyClient(rollouts.server, connections=4):
        outcome = rollouts.run(
            version,
            serving_conn_id="not_there",
            prometheus_conn_id="prometheus_default",
            metrics_source="prometheus",
            prometheus_selector='job="models"',
            connections={"prometheus_default": prometheus},
        )
        assert outcome.state == state, outcome.error
    assert rollouts.champion == ("2" if state == "success" else "1")
    (run,) = rollouts.runs()
    if state == "success":
        assert rollouts.report(run).counts.canary.answered > 10
    else:
        assert outcome.result["cause"] in ("analysis", "breaker")


def test_a_broken_version_is_taken_back_and_leaves_its_report(rollouts: Rollouts) -> None:
    with SteadyClient(rollouts.server, connections=4) as client:
        outcome = rollouts.run("3", rules=["http_5xx_rate <= 0.05"])
        assert outcome.state == "failed"
        rollouts.server.wait_for(lambda: rollouts.server.status()["models"][rollouts.name]["weight"] == 0)
    assert outcome.result["cause"] in ("analysis", "breaker")
    assert "RolloutFailedError" in repr(outcome.error.__cause__) if outcome.error else False
    assert rollouts.champion == "1"
    assert (rollouts.document.phase, rollouts.document.weight) == ("FAILED", 0)
    # A request whose process is lost goes to the champion and counts against the canary: nobody has to see a failure.
    assert {answer.version for answer in client.answers if answer.status != 200} <= {"3"}
    (run,) = rollouts.runs()
    assert run.status == "FAILED"
    assert not rollouts.report(run).succeeded
    assert rollouts.record("3")["phase"] == "FAILED"
    again = rollouts.run("3", rules=["http_5xx_rate <= 0.05"])
    assert again.state == "failed"
    assert again.result == outcome.result
    assert len(rollouts.runs()) == 1


def test_a_task_that_is_killed_after_any_write_is_completed_by_its_retry(rollouts: Rollouts) -> None:
    states = []
    with SteadyClient(rollouts.server, connections=3) as client:
        for after in range(1, 40):
            switch = KillSwitch(after, writes_only=True)
            outcome = rollouts.run(deferrable=False, steps=STEPS[:2], before=switch.arm, try_number=after, retries=60)
            states.append(outcome.state)
            rollouts.world.let_claims_run_out()
            if not switch.has_fired:
                break
            assert isinstance(outcome.error, Killed), outcome.error
    assert outcome.state == "success", outcome.error
    assert len(states) > 5
    assert rollouts.champion == "2"
    assert len(rollouts.runs()) == 1
    client.require_no_failure()
    report = rollouts.report(rollouts.runs()[0])
    assert [event.phase for event in report.events] == ["INITIALIZING", "PROGRESSING", "PROMOTING"]
    assert rollouts.world.claims == []


def test_of_two_rollouts_of_one_model_the_second_is_refused(rollouts: Rollouts) -> None:
    first = rollouts.run(follow=False)
    assert first.state == "deferred"
    second = rollouts.run("3", dag_run_id="run-2", follow=False)
    assert second.state == "failed"
    assert "rollout" in str(second.error)
    assert "of version 2 is INITIALIZING, so none of version 3 can begin" in str(second.error)
    assert rollouts.document.canary == "2"


def test_a_person_who_ends_the_waiting_task_ends_the_rollout(rollouts: Rollouts) -> None:
    deferred = rollouts.run(follow=False)
    asyncio.run(rollouts.trigger(deferred).on_kill())
    assert (rollouts.document.phase, rollouts.document.weight) == ("FAILED", 0)
    assert rollouts.document.reason == "aborted: a person ended the task"
    retried = rollouts.run(try_number=2)
    assert retried.state == "failed"
    assert retried.result["cause"] == "aborted"


def test_two_triggerers_at_once_do_no_harm(rollouts: Rollouts) -> None:
    async def both(deferred: TaskOutcome) -> list[dict[str, Any]]:
        return list(await asyncio.gather(event_of_trigger(deferred), event_of_trigger(deferred)))

    with SteadyClient(rollouts.server, connections=4):
        outcome = rollouts.run(follow=False)
        while outcome.state == "deferred":
            first, second = asyncio.run(both(outcome))
            assert first["status"] == second["status"] == "due"
            outcome = rollouts.resume(outcome, second)
    assert outcome.state == "success", outcome.error
    assert rollouts.champion == "2"


def test_a_new_champion_that_fails_in_its_bake_time_gives_the_alias_back(rollouts: Rollouts) -> None:
    rollback = {"metric": "http_5xx_rate", "threshold": "0.05", "duration": "1s", "min_requests": 20}
    deferred = rollouts.run("3", follow=False, rollback=rollback, bake=60.0, rules=["http_5xx_rate <= 0.05"])
    # Nobody asks yet, so a person goes on without a conclusion, past every step.
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.registry.rollout_control import RolloutControl

    outcome = rollouts.resume(deferred, rollouts.event(deferred))
    control = RolloutControl(rollouts.hook, rollouts.name, actor=Actor.of_user("ada", "desk"), log=outcome.operator.log)
    control.pause("look")
    control.resume("go", skip=True)
    control.pause("look")
    assert control.resume("go", skip=True).phase == "PROMOTING"
    outcome = rollouts.resume(outcome, rollouts.event(outcome))
    assert outcome.state == "deferred"
    assert rollouts.champion == "3"
    rollouts.server.wait_for(lambda: rollouts.server.status()["models"][rollouts.name]["champion"] == "3")
    with SteadyClient(rollouts.server, connections=4):
        outcome = rollouts.resume(outcome, rollouts.event(outcome))
    assert outcome.state == "failed"
    assert outcome.result["cause"] == "breaker"
    assert rollouts.champion == "1"
    assert rollouts.document.phase == "SUCCEEDED"
    assert rollouts.document.weight == 0


def test_the_sensor_waits_until_the_server_answers_with_a_version(rollouts: Rollouts) -> None:
    address = {"conn_type": "model_server", "host": LOOPBACK, "port": rollouts.server.port}
    given: dict[str, Any] = {"model_name": rollouts.name, "poke_interval": 1, "timeout": 60, "deferrable": True}
    there = rollouts.world.run(ModelServedSensor, connections={"model_server_default": address}, version="1", **given)
    assert there.state == "success", there.error
    assert there.result == {"model_name": rollouts.name, "version": "1", "replicas": 1, "answering": 1}
    waiting = rollouts.world.run(ModelServedSensor, connections={"model_server_default": address}, version="2", **given)
    assert waiting.state == "deferred"
    rollouts.versions.promote("2")
    event = rollouts.event(waiting)
    assert (event["status"], event["found"]["answering"]) == ("found", 1)
    assert rollouts.resume(waiting, event).state == "success"


def roll_out(world: World, version: str, expected_champion: str, **arguments: Any) -> TaskOutcome:
    """Roll a version of the world's model out, where it ends before any server is asked."""
    given = {"model_name": world.model_name, "experiment_name": world.experiment}
    return world.run(RolloutModelOperator, version=version, expected_champion=expected_champion, **given, **arguments)


def test_without_a_champion_it_promotes_at_once(world: World) -> None:
    world.versions(1)
    outcome = roll_out(world, "1", "none")
    assert outcome.state == "success", outcome.error
    assert outcome.result["reason"] == "promoted at once: there was no champion"
    assert world.aliases["champion"] == "1"


def test_a_version_that_no_gate_accepted_changes_nothing(world: World) -> None:
    world.versions(2, verdict="failed")
    world.hook.set_alias(world.model_name, "champion", "1")
    outcome = roll_out(world, "2", "1")
    assert outcome.state == "failed"
    assert "gate" in str(outcome.error)
    assert TAG_ROLLOUT not in world.hook.get_model_version(world.model_name, "1").tags
    assert world.runs("RUNNING") == []


def test_a_dry_run_writes_nothing(world: World) -> None:
    world.versions(2)
    world.hook.set_alias(world.model_name, "champion", "1")
    outcome = roll_out(world, "2", "1", dry_run=True)
    assert outcome.state == "skipped"
    assert TAG_ROLLOUT not in world.hook.get_model_version(world.model_name, "1").tags


def test_errors_of_the_package_are_refusals(world: World) -> None:
    world.versions(1)
    outcome = roll_out(world, "1", "7")
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert isinstance(outcome.error.__cause__, ModelControlPlaneError)
    assert "alias 'champion' now points at no version" in str(outcome.error)


def test_copies_come_first_and_a_lease_is_held_while_somebody_looks(rollouts: Rollouts) -> None:
    steps = [{"shadow": {"percent": 100, "for": "1s"}}, {"setWeight": 60}, {"analysis": "1s"}]
    with SteadyClient(rollouts.server, connections=2) as client:
        outcome = rollouts.run(steps=steps, on_lost="stable")
    assert outcome.state == "success", outcome.error
    assert rollouts.champion == "2"
    client.require_no_failure()
    report = rollouts.report(rollouts.runs()[0])
    assert [event.weight for event in report.events if event.phase == "PROGRESSING"] == [0, 60]
    lease = rollouts.hook.get_model_version(rollouts.name, "1").tags[TAG_ROLLOUT_LEASE]
    assert datetime.fromisoformat(lease) > datetime.now(UTC)
