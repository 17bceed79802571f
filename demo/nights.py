"""Five nights of a model, each with the expected result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_mcp.core.contract import (
    ALIAS_CHAMPION,
    ALIAS_PREVIOUS_CHAMPION,
    ARTIFACT_DRIFT_REPORT_HTML,
    ARTIFACT_GATE_REPORT_HTML,
    KIND_TRAINING,
    TAG_KIND,
)
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.rollout.report import RolloutReport
from airflow_mcp.core.rollout.state import ARTIFACT_REPORT_HTML as ARTIFACT_ROLLOUT_REPORT_HTML
from airflow_mcp.core.rollout.state import ARTIFACT_REPORT_JSON as ARTIFACT_ROLLOUT_REPORT
from airflow_mcp.exceptions import MlflowNotFoundError
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client import registry_api as mlflow_registry_api
from demo.client import Answers, Client
from demo.data import write_version
from demo.stage import MODEL, Stage

RETRAIN, DRIFT, ROLLOUT = "nightly_retrain", "drift_watch", "train_and_roll_out"
_BRIEF_CHECK = {"cooldown_hours": 0, "evidently_rows": 0}
"""Evidently makes its report where the data has drifted: it takes longer than the check."""
_RUN_TIMEOUT = 600
_SWAP_TIMEOUT = 60


@dataclass
class Night:
    """One row of the table at the end."""

    number: int
    title: str
    story: str = ""
    champion: str = "none"
    previous: str = "none"
    trainings: int = 0
    answers: Answers = field(default_factory=Answers)
    also_answers: str = ""
    """A version that answers besides the champion of the morning."""
    may_fail: str = ""
    """A version whose answers may be errors."""
    reports: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def expect(self, what: str, got: Any, wanted: Any) -> None:
        """Record a result that differs from the expected one."""
        if got != wanted:
            self.problems.append(f"{what}: expected {wanted!r}, got {got!r}")


class Nights:
    """Plays the nights on a running stage.

    :param stage: MLflow, Airflow and the model server, running.
    :param client: asks the model server all the time.
    :param say: receives one line of progress at a time.
    """

    def __init__(self, stage: Stage, client: Client, say: Callable[[str], None]) -> None:
        self.stage, self.client, self.say = stage, client, say

    def play(self) -> list[Night]:
        """Play all five nights; a night that goes wrong does not stop the next."""
        return [
            self._night(1, "the first model", self._first_model),
            self._night(2, "a quiet night", self._quiet),
            self._night(3, "the data shifts", self._shift),
            self._night(4, "a bad night", self._bad),
            self._night(5, "a bad release", self._bad_release),
        ]

    def _night(self, number: int, title: str, play: Callable[[Night], None]) -> Night:
        night = Night(number, title)
        self.say(f"\nNight {number}: {title}")
        started = time.monotonic()
        try:
            play(night)
        except Exception as error:  # whatever it was, it belongs into the table
            night.problems.append(f"{type(error).__name__}: {error}")
        night.seconds = time.monotonic() - started
        aliases = self._aliases()
        night.champion = aliases.get(ALIAS_CHAMPION, "none")
        night.previous = aliases.get(ALIAS_PREVIOUS_CHAMPION, "none")
        night.trainings = len(self._trainings())
        self._count_answers(night)
        for problem in night.problems:
            self.say(f"  UNEXPECTED: {problem}")
        return night

    def _count_answers(self, night: Night) -> None:
        """Take what the client was answered; only a version that failed in production may have given errors."""
        if night.champion != "none" and not self.client.wait_for(night.champion, _SWAP_TIMEOUT):
            night.problems.append(f"version {night.champion} does not answer {_SWAP_TIMEOUT} s after it was promoted")
        night.answers = self.client.take()
        failed = {version for version in night.answers.failed if version != night.may_fail}
        night.expect(f"versions that failed ({night.answers.errors[:3]})", failed, set())
        expected = {night.champion, night.also_answers or night.champion}
        night.expect("versions that answered", set(night.answers.versions), expected)

    def _first_model(self, night: Night) -> None:
        self.client.ask_for(write_version(self.stage.data, "night-1") / "recent.csv")
        run_id, tasks = self._run(night, RETRAIN, "success", {"reason": "first model"})
        self._expect_tasks(night, tasks, dict.fromkeys(tasks, "success"))
        self._expect_registry(night, champion="1", previous=None, trainings=1)
        self._keep_gate_report(night, run_id)
        night.story = f"trained, passed the gate ({self._accuracy(run_id)}), registered, promoted"

    def _quiet(self, night: Night) -> None:
        drift_run = self._trigger(night, DRIFT, _BRIEF_CHECK)
        retrain_run = self._trigger(night, RETRAIN, {"reason": "nightly"})
        tasks = self._wait(night, DRIFT, drift_run, "success")
        self._expect_tasks(night, tasks, {"drift_check": "success", "retrain": "skipped"})
        drift = self.stage.api.xcom(DRIFT, drift_run, "drift_check")
        night.expect("drift verdict", drift["verdict"], "not_drifted")
        self._keep_drift_report(night, drift["run_id"])
        tasks = self._wait(night, RETRAIN, retrain_run, "success")
        self._expect_tasks(night, tasks, {"train": "skipped", "promote": "skipped"})
        self._expect_registry(night, champion="1", previous=None, trainings=1)
        night.story = f"no drift ({_columns(drift)}), no new data: nothing retrained"

    def _shift(self, night: Night) -> None:
        night.also_answers = "1"
        write_version(self.stage.data, "night-3")
        drift_run, tasks = self._run(night, DRIFT, "success", {"cooldown_hours": 0})
        self._expect_tasks(night, tasks, {"drift_check": "success", "retrain": "success"})
        drift = self.stage.api.xcom(DRIFT, drift_run, "drift_check")
        night.expect("drift verdict", drift["verdict"], "drifted")
        self._keep_drift_report(night, drift["run_id"])
        run_id = self.stage.api.xcom(DRIFT, drift_run, "retrain", "triggered_run_id")
        self._wait(night, RETRAIN, run_id, "success")
        self._keep_gate_report(night, run_id)
        _, tasks = self._run(night, DRIFT, "success", _BRIEF_CHECK)
        self._expect_tasks(night, tasks, {"retrain": "skipped"})
        triggered = [run for run in self.stage.api.list_runs(RETRAIN) if run["dag_run_id"].startswith("retrain__")]
        night.expect("retrains triggered", len(triggered), 1)
        self._expect_registry(night, champion="2", previous="1", trainings=2)
        night.story = f"drift ({_columns(drift)}): retrained once, challenger wins ({self._accuracy(run_id)})"

    def _bad(self, night: Night) -> None:
        write_version(self.stage.data, "night-4")
        run_id, tasks = self._run(night, RETRAIN, "failed", {"reason": "nightly"})
        self._expect_tasks(
            night, tasks, {"train": "success", "evaluate": "success", "gate": "failed", "register": "upstream_failed"}
        )
        night.expect("gate verdict", self.stage.api.xcom(RETRAIN, run_id, "gate", "verdict"), "failed")
        night.expect("outcome in the ledger", self.stage.api.xcom(RETRAIN, run_id, "outcome", "outcome"), "rejected")
        self._expect_registry(night, champion="2", previous="1", trainings=3)
        night.expect("versions registered", self._versions(), 2)
        self._keep_gate_report(night, run_id)
        night.story = f"broken labels: gate says failed ({self._accuracy(run_id)}), champion untouched"

    def _bad_release(self, night: Night) -> None:
        night.also_answers = night.may_fail = "3"
        self.client.ask_for(write_version(self.stage.data, "night-5") / "requests.csv")
        conf = {"scaling": "box-cox", "regularisation": 10, "reason": "box-cox scaling"}
        run_id, tasks = self._run(night, ROLLOUT, "failed", conf)
        self._expect_tasks(night, tasks, {"gate": "success", "load_check": "success", "rollout": "failed"})
        night.expect("gate verdict", self.stage.api.xcom(ROLLOUT, run_id, "gate", "verdict"), "passed")
        rollout = self.stage.api.xcom(ROLLOUT, run_id, "rollout")
        night.expect("end of the rollout", (rollout["version"], rollout["phase"]), ("3", "FAILED"))
        night.expect("cause", rollout["cause"] in ("analysis", "breaker"), True)
        self._expect_registry(night, champion="2", previous="1", trainings=4)
        self._keep(night, "rollout", rollout["run_id"], ARTIFACT_ROLLOUT_REPORT_HTML)
        report = self.stage.registry.perform(mlflow_api.download_artifact(rollout["run_id"], ARTIFACT_ROLLOUT_REPORT))
        canary = RolloutReport.model_validate_json(report).counts.canary
        night.story = (
            f"passed the gate ({self._accuracy(run_id, ROLLOUT)}), failed {canary.failed:.0f} of {canary.answered:.0f} "
            "requests in production: taken back by itself, champion untouched"
        )

    def _run(self, night: Night, dag_id: str, wanted: str, conf: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        run_id = self._trigger(night, dag_id, conf)
        return run_id, self._wait(night, dag_id, run_id, wanted)

    def _trigger(self, night: Night, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Trigger a Dag as a user would, over the REST API."""
        return self.stage.api.trigger(dag_id, conf, note=f"demo, night {night.number}")

    def _wait(self, night: Night, dag_id: str, run_id: str, wanted: str) -> dict[str, Any]:
        self.say(f"  {dag_id} ({run_id})")
        state = self.stage.api.wait_for_run(dag_id, run_id, _RUN_TIMEOUT, self._progress)
        tasks = self.stage.api.task_states(dag_id, run_id)
        night.expect(f"{dag_id} ends", state, wanted)
        if state != wanted:
            for task_id in [name for name, task_state in tasks.items() if task_state == "failed"]:
                log = self.stage.api.task_log(dag_id, run_id, task_id)
                night.problems.append(f"log of {task_id}:\n" + "\n".join(log.splitlines()[-15:]))
        return tasks

    def _progress(self, task_id: str, state: str) -> None:
        if task_id == "rollout":
            self.client.hurry()
        if state in ("success", "failed", "skipped", "upstream_failed", "up_for_retry"):
            self.say(f"    {task_id:<14}{state}")

    def _expect_tasks(self, night: Night, tasks: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
        for task_id, state in wanted.items():
            night.expect(f"task {task_id}", tasks.get(task_id), state)

    def _expect_registry(self, night: Night, *, champion: str, previous: str | None, trainings: int) -> None:
        aliases = self._aliases()
        night.expect("champion", aliases.get(ALIAS_CHAMPION), champion)
        night.expect("previous_champion", aliases.get(ALIAS_PREVIOUS_CHAMPION), previous)
        runs = self._trainings()
        night.expect("trainings", len(runs), trainings)
        night.expect("runs left open", [run.run_id for run in runs if run.is_live], [])

    def _aliases(self) -> Mapping[str, str]:
        try:
            return self.stage.registry.perform(mlflow_registry_api.get_registered_model(MODEL)).aliases
        except MlflowNotFoundError:
            return {}

    def _versions(self) -> int:
        return len(self.stage.registry.perform(mlflow_registry_api.search_model_versions(f"name = '{MODEL}'")))

    def _trainings(self) -> list[Run]:
        experiment = self.stage.registry.perform(mlflow_api.get_experiment_by_name(MODEL))
        if experiment is None:
            return []
        only_trainings = f"tags.`{TAG_KIND}` = '{KIND_TRAINING}'"
        return self.stage.registry.perform(mlflow_api.search_runs([experiment.experiment_id], only_trainings))

    def _accuracy(self, run_id: str, dag_id: str = RETRAIN) -> str:
        gate = self.stage.api.xcom(dag_id, run_id, "gate")
        rule = next(rule for rule in gate["rules"] if rule["metric"] == "accuracy")
        champion = next((rule["champion_value"] for rule in gate["rules"] if rule["champion_value"] is not None), None)
        against = "" if champion is None else f", champion {champion:.3f}"
        return f"accuracy {rule['value']:.3f}{against}"

    def _keep_gate_report(self, night: Night, run_id: str) -> None:
        mlflow_run = self.stage.api.xcom(RETRAIN, run_id, "gate", "run_id")
        self._keep(night, "gate", mlflow_run, ARTIFACT_GATE_REPORT_HTML)

    def _keep_drift_report(self, night: Night, mlflow_run: str) -> None:
        self._keep(night, "drift", mlflow_run, ARTIFACT_DRIFT_REPORT_HTML)

    def _keep(self, night: Night, kind: str, mlflow_run: str, artifact: str) -> None:
        """Copy a report out of MLflow, so that it can be opened after the demo."""
        path = self.stage.reports / f"night-{night.number}-{kind}.html"
        path.write_bytes(self.stage.registry.perform(mlflow_api.download_artifact(mlflow_run, artifact)))
        night.reports.append(path)


def _columns(drift: Mapping[str, Any]) -> str:
    return f"{len(drift['drifted_columns'])} columns, {drift['drift_share']:.0%}"
