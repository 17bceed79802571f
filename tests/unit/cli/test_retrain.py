"""``airflow-mcp retrain`` on ledgers in memory; the same against a real Airflow is among the integration tests."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.cli import retrain as command
from airflow_mcp.core.retrain.documents import CONTROL_KEY, LEDGER_KEY, Observation, OpenRun, WindowVerdict
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.registry.retrain_ledger import RetrainLedger
from tests.support.approvals import put_in_force
from tests.support.audit_log import Logs, sqlite_logs
from tests.support.governed import policy_of

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
ENV = {"URL": "http://airflow:8080", "USER": "ann", "PASSWORD": "secret"}


class Store(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


class FakeAirflow:
    """An Airflow with one ledger; also the Dag that trains, of which no run is there yet."""

    def __init__(self) -> None:
        self.store = Store()
        self.given: dict[str, str] = {}
        self.url = ENV["URL"]

    def __call__(self, url: str, **credentials: str) -> Self:
        self.given = {"url": url, **credentials}
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def asset_names(self, part: str) -> dict[str, int]:
        return {name: 1 for name in ("retrain/churn", "retrain/churn-2") if part in name}

    def who_am_i(self) -> tuple[str, str]:
        return ENV["USER"], "1"

    def state_store(self, asset_id: int) -> Store:
        return self.store

    def has_run(self, run_id: str) -> bool:
        return False

    def active_runs(self) -> int:
        return 0

    def open_run(self, run_id: str, data_hash: str) -> OpenRun:
        return OpenRun(run_id=run_id, state="running")

    def decide(self, drift: str = "drifted", **policy: Any) -> str:
        """Decide once, and give the Dag run."""
        window = WindowVerdict.model_validate({"name": drift, "verdict": drift})
        given = {"at": NOW, "by": "watch.retrain run", "dag_id": "train", "data_version": "v1", "data_hash": "v1"}
        seen = Observation.model_validate({**given, "window": window, "has_champion": True, "champion_since": NOW})
        return RetrainLedger(self.store, "churn").decide(seen, RetrainPolicy(**policy), self).run_id

    def report(self, run_id: str, outcome: str) -> None:
        given = {"dag_id": "train", "run_id": run_id, "outcome": outcome, "detail": "the gate's verdict", "at": NOW}
        RetrainLedger(self.store, "churn").report(given)


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> FakeAirflow:
    for name, value in ENV.items():
        monkeypatch.setenv(f"AIRFLOW_MCP_AIRFLOW_{name}", value)
    monkeypatch.delenv("AIRFLOW_MCP_AIRFLOW_TOKEN", raising=False)
    fake = FakeAirflow()
    monkeypatch.setattr(command, "AirflowApi", fake)
    return fake


def call(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["retrain", *arguments]) == code
    shown = capsys.readouterr()
    return shown.err if code else shown.out


def status(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(call(capsys, "status", "churn", "--format", "json")))


def test_trainings_that_ended_before_the_first_decision_are_shown(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.report("manual__1", "rejected")
    airflow.report("manual__2", "promoted")
    assert main(["retrain", "status", "churn"]) == 0
    said = capsys.readouterr().out
    assert "churn: no decision has been made yet" in said
    ended = said.split("no decision has taken into account yet, the latest first:\n")[1]
    assert [line.split()[1] for line in ended.splitlines()[::2]] == ["promoted:", "rejected:"]
    assert "    train manual__1" in ended
    run_id = airflow.decide()
    airflow.report(run_id, "rejected")
    main(["retrain", "status", "churn"])
    assert "no decision has taken into account" not in capsys.readouterr().out  # it is among the trainings


def test_an_empty_ledger_says_that_nothing_was_decided(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "status", "churn").startswith("churn: no decision has been made yet\n")
    assert status(capsys)["last_decision"] is None
    assert call(capsys, "replay", "churn") == "churn: 0 decisions replayed, all with the recorded result\n"


def test_the_status_says_what_was_decided_what_is_needed_and_what_came_of_it(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = airflow.decide()
    text = call(capsys, "status", "churn")
    assert text.startswith(
        "churn: retrain: the data drifted (version v1)\n  decision 1 at 2026-11-21T00:00:00+00:00 by"
    )
    assert "needed     yes, data version v1 drifted since" in text
    assert f"in progress\n    train {run_id}\n" in text
    airflow.report(run_id, "rejected")
    assert "rejected: the gate's verdict" in call(capsys, "status", "churn")
    found = status(capsys)
    assert [each["outcome"] for each in found["reported_since"]] == ["rejected"]
    assert found["needed"]["data_version"] == "v1"  # until the next decision takes the report in


def test_a_pause_is_written_once_with_who_and_why(airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert "churn is paused" in call(capsys, "pause", "churn", "--reason", "new labels")
    assert "is paused already; nothing was changed" in call(capsys, "pause", "churn")
    (entry,) = airflow.store[CONTROL_KEY]["entries"]
    assert (entry["action"], entry["by"], entry["reason"]) == ("pause", "ann", "new labels")
    assert status(capsys)["paused"]["by"] == "ann"
    assert "new labels" in call(capsys, "status", "churn")
    assert "churn is resumed" in call(capsys, "resume", "churn")
    assert status(capsys)["paused"] is None
    assert "neither paused nor stopped" in call(capsys, "resume", "churn")
    assert len(airflow.store[CONTROL_KEY]["entries"]) == 2


def test_the_stop_after_rejections_is_shown_and_ended_by_resume(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = airflow.decide(max_rejections=1)
    airflow.report(run_id, "rejected")
    airflow.decide(max_rejections=1)
    assert status(capsys)["stopped"]
    assert "stopped    yes, challengers rejected: 1 in a row (limit 1); look at" in call(capsys, "status", "churn")
    document = json.loads(call(capsys, "resume", "churn", "--format", "json"))
    assert (document["action"], document["changed"], document["stopped"]) == ("resume", True, False)


def test_a_pause_beside_another_persons_is_found(airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]) -> None:
    write = airflow.store.set

    def set_and_lose(key: str, value: Any) -> None:
        write(key, value)
        write(key, {**value, "entries": []})

    airflow.store.set = set_and_lose  # type: ignore[method-assign]
    message = call(capsys, "pause", "churn", code=1)
    assert "was overwritten by another task right after it was written" in message


def test_a_ledger_that_was_edited_does_not_replay(airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]) -> None:
    airflow.decide()
    airflow.store[LEDGER_KEY]["entries"][0]["observation"]["champion_since"] = "2020-01-01T00:00:00Z"
    assert call(capsys, "replay", "churn").endswith("all with the recorded result\n")
    airflow.store[LEDGER_KEY]["entries"][0]["answer"]["explanation"] = "retrain: because I say so"
    assert main(["retrain", "replay", "churn"]) == 1
    shown = capsys.readouterr().out
    assert "decision 1 differs\n    recorded  retrain: because I say so\n    replayed  retrain: the data" in shown


def test_another_asset_can_hold_the_ledger(airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no decision" in call(capsys, "status", "churn", "--ledger", "retrain/churn-2")
    missing = call(capsys, "status", "fraud", code=1)
    assert "has no asset 'retrain/fraud'" in missing
    assert "Ledgers there are: retrain/churn, retrain/churn-2" in missing
    assert "Did you mean " not in missing
    assert "Did you mean 'churn'? Ledgers there are" in call(capsys, "status", "chrun", code=1)


@pytest.mark.parametrize(
    ("env", "arguments", "message"),
    [
        ({"URL": ""}, [], "--airflow-url must be the http:// or https:// address of Airflow's API server; got ''"),
        ({"URL": "airflow:8080"}, [], "got 'airflow:8080'"),
        ({"USER": ""}, [], "no credentials: set AIRFLOW_MCP_AIRFLOW_TOKEN, or"),
        ({"PASSWORD": ""}, [], "no password for ann: set AIRFLOW_MCP_AIRFLOW_PASSWORD"),
        ({"PASSWORD": ""}, ["--user", "bob"], "no password for bob"),
    ],
)
def test_what_is_missing_is_named(
    airflow: FakeAirflow,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    env: dict[str, str],
    arguments: list[str],
    message: str,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(f"AIRFLOW_MCP_AIRFLOW_{name}", value)
    assert message in call(capsys, "status", "churn", *arguments, code=2)
    assert airflow.given == {}


def test_a_token_goes_before_user_and_password(
    airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_MCP_AIRFLOW_TOKEN", "a-token")
    call(capsys, "status", "churn")
    assert airflow.given == {"url": ENV["URL"], "token": "a-token"}


def test_a_password_is_asked_for_in_a_terminal(
    airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_MCP_AIRFLOW_PASSWORD", "")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"typed at {prompt}")
    call(capsys, "status", "churn")
    assert airflow.given["password"] == "typed at Password of ann on http://airflow:8080: "


def test_no_option_takes_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["retrain", "status", "--help"])
    assert "--password" not in capsys.readouterr().out


class TestInTheAuditLog:
    """A pause and a resume are events, of the account that Airflow names."""

    @pytest.fixture
    def logs(self, airflow: FakeAirflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logs:
        found = sqlite_logs(tmp_path)
        monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", found.url(""))
        return found

    def events(self, logs: Logs) -> list[dict[str, Any]]:
        with closing(open_log(logs.owner)) as log:
            return [record.event for record in log.facts("model:churn")]

    def test_each_is_recorded_once_with_who_and_why(self, logs: Logs, capsys: pytest.CaptureFixture[str]) -> None:
        for _ in range(2):
            call(capsys, "pause", "churn", "--reason", "audit")
        call(capsys, "resume", "churn")
        paused, resumed = self.events(logs)
        assert (paused["action"], paused["new"]["entry"], paused["new"]["reason"]) == (
            "retrain.decided",
            "pause",
            "audit",
        )
        assert (paused["actor"]["name"], paused["actor"]["authenticated"]) == ("ann", True)
        assert resumed["new"]["entry"] == "resume"

    def test_a_pause_that_did_not_reach_the_log_is_recorded_by_the_next_call(
        self, logs: Logs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.delenv("AIRFLOW_MCP_AUDIT_LOG")
            call(capsys, "pause", "churn")
        assert self.events(logs) == []
        call(capsys, "pause", "churn")
        assert [event["new"]["entry"] for event in self.events(logs)] == ["pause"]

    def test_whom_the_policy_does_not_permit_it_changes_nothing(
        self, logs: Logs, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with closing(open_log(logs.owner)) as log:
            put_in_force(log, policy_of("dev"), "dev")
        said = call(capsys, "pause", "churn", code=1)
        assert "account 'ann', which the policy does not know, has no role that grants model:churn/retrain" in said
        assert [event["action"] for event in self.events(logs)] == ["access.refused"]
        assert status(capsys)["paused"] is None
