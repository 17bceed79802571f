"""``airflow-mcp audit`` on real stores: what each action writes, shows, finds and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.core.audit.event import AuditEvent, event_id
from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.operators.registry import PromoteModelOperator
from tests.support.audit_log import ACTOR, Logs, moved, new_key, postgresql_logs, sqlite_logs
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration
Call = Callable[..., tuple[int, str, str]]


def url(logs: Logs, login: str = "mcp_keeper") -> str:
    settings = logs.as_login(login)
    if not logs.is_postgresql:
        return f"sqlite://{settings.sqlite_path}"
    return f"postgresql://{login}@{settings.host}:{settings.port}/{settings.database}"


@pytest.fixture(scope="module")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server of this module's own: its commands look at every model of a server."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow"), http="gunicorn") as server:
        yield server


@pytest.fixture
def logs(audit_logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Logs:
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", url(audit_logs))
    return audit_logs


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def append(logs: Logs, *events: AuditEvent) -> None:
    log = open_log(logs.as_login("mcp_release"))
    for event in events:
        log.append(event)
    log.close()


def test_a_list_shows_who_moved_what_and_is_recorded_itself(logs: Logs, call: Call) -> None:
    append(logs, moved(1), moved(2, subject="model:churn"))
    code, said, _ = call("audit", "list", "--subject", "model:churn")
    assert code == 0
    assert "registry.moved  model:churn  none -> champion 2" in said
    assert "by lena (user, login" in said
    assert "model:fraud" not in said
    code, said, _ = call("audit", "list", "--event", "audit.", "--format", "json")
    assert [json.loads(line)["event"]["new"]["subject"] for line in said.splitlines()] == ["model:churn"]


def test_an_export_is_verified_offline_and_a_changed_one_is_not(
    logs: Logs, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(logs, *map(moved, range(4)))
    file = tmp_path / "log.jsonl"
    code, said, _ = call("audit", "export", str(file), "--reason", "yearly audit")
    assert (code, "6 records" in said) == (0, True)
    assert oct(file.stat().st_mode)[-3:] == "600"
    monkeypatch.delenv("AIRFLOW_MCP_AUDIT_LOG")
    code, said, _ = call("audit", "verify", str(file), "--deep")
    assert (code, said.startswith("whole: 6 records")) == (0, True)
    assert "without a checkpoint" in said
    file.write_text(file.read_text().replace("model:fraud", "model:freud", 1))
    code, said, _ = call("audit", "verify", str(file))
    assert (code, "TAMPERED: seq 2 was changed" in said) == (1, True)
    code, said, _ = call("audit", "verify", str(file), "--format", "json")
    assert (json.loads(said)["first_bad"], json.loads(said)["is_whole"]) == (2, False)
    file.write_text("")
    assert call("audit", "verify", str(file))[0] == 2
    assert call("audit", "verify", str(tmp_path / "nothing"))[0] == 2


def test_an_export_never_replaces_a_file(logs: Logs, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text("mine")
    code, _, error = call("audit", "export", str(file), "--reason", "x")
    assert (code, file.read_text()) == (2, "mine")
    assert "file must be a new file" in error


def test_a_login_without_the_right_exports_nothing(
    postgresql: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgresql_logs(postgresql) as logs:
        monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", url(logs, "mcp_reader"))
        code, _, error = call("audit", "export", str(tmp_path / "log.jsonl"), "--reason", "curious")
    assert code == 2
    assert "may not append audit.exported" in error
    assert not (tmp_path / "log.jsonl").exists()


def test_a_checkpoint_shows_a_cut_end(logs: Logs, call: Call, tmp_path: Path) -> None:
    append(logs, *map(moved, range(4)))
    private, public = new_key()
    (tmp_path / "log.key").write_bytes(private)
    (tmp_path / "log.pub").write_bytes(public)
    anchors = [tmp_path / "a", tmp_path / "b"]
    for anchor in anchors:
        anchor.mkdir()
    places = [part for anchor in anchors for part in ("--to", str(anchor))]
    code, said, _ = call("audit", "checkpoint", "--key", str(tmp_path / "log.key"), *places)
    assert (code, said.count("checkpoint of 6 records")) == (0, 2)
    (note,) = anchors[1].iterdir()
    key = ("--checkpoint", str(note), "--key", str(tmp_path / "log.pub"))
    code, said, _ = call("audit", "verify", *key)
    assert (code, "1 checkpoints agree" in said) == (0, True)
    file = tmp_path / "log.jsonl"
    call("audit", "export", str(file), "--reason", "x")
    lines = file.read_text().splitlines(keepends=True)
    assert json.loads(lines[6])["event"]["action"] == "audit.checkpointed"
    assert [json.loads(line)["event"]["action"] for line in lines[7:]] == [
        *("audit.exported", "audit.verified", "audit.exported")
    ]
    file.write_text("".join(lines[:5]))
    code, said, _ = call("audit", "verify", str(file), *key)
    assert (code, "the log was cut: it has 5 records, and a checkpoint covers 6" in said) == (1, True)
    note.write_text(note.read_text().replace("\n6\n", "\n5\n"))
    assert call("audit", "verify", str(file), *key)[0] == 2


def test_a_folder_that_cannot_be_written_is_an_event(logs: Logs, call: Call, tmp_path: Path) -> None:
    (tmp_path / "log.key").write_bytes(new_key()[0])
    code, said, _ = call("audit", "checkpoint", "--key", str(tmp_path / "log.key"), "--to", str(tmp_path / "nowhere"))
    assert (code, said.startswith("FAILED")) == (1, True)
    _, said, _ = call("audit", "list", "--event", "audit.a")
    assert "audit.anchor_failed" in said


def test_init_creates_a_log_once(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql: str) -> None:
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", f"sqlite://{tmp_path}/new/log.db")
    assert "was created" in call("audit", "init")[1]
    assert "exists" in call("audit", "init")[1]
    assert oct((tmp_path / "new" / "log.db").stat().st_mode)[-3:] == "600"
    monkeypatch.setenv("AIRFLOW_MCP_ENVIRONMENT", "prod")
    code, _, error = call("audit", "init")
    assert (code, "must not be used in environment prod" in error) == (2, True)
    monkeypatch.setenv("AIRFLOW_MCP_ENVIRONMENT", "test")
    with postgresql_logs(postgresql) as logs:
        monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", url(logs, logs.owner.login))
        code, said, _ = call("audit", "init", "--grant", "mcp_train=gate.,drift.")
        assert (code, "mcp_train may append gate., drift." in said) == (0, True)
        assert call("audit", "init", "--grant", "mcp_train")[0] == 2
    monkeypatch.delenv("AIRFLOW_MCP_AUDIT_LOG")
    assert call("audit", "list")[0] == 2


def sealed(call: Call, tmp_path: Path) -> tuple[Path, Path]:
    """Take a checkpoint of the log, and return the folder that keeps it and the public key."""
    private, public = new_key()
    (tmp_path / "log.key").write_bytes(private)
    (tmp_path / "log.pub").write_bytes(public)
    (tmp_path / "kept").mkdir()
    code, _, error = call("audit", "checkpoint", "--key", str(tmp_path / "log.key"), "--to", str(tmp_path / "kept"))
    assert code == 0, error
    return tmp_path / "kept", tmp_path / "log.pub"


def test_one_record_is_proved_without_the_others(logs: Logs, call: Call, tmp_path: Path) -> None:
    append(logs, *map(moved, range(6)))
    kept, key = sealed(call, tmp_path)
    (note,) = kept.iterdir()
    file, proof = tmp_path / "log.jsonl", tmp_path / "proof.json"
    call("audit", "export", str(file), "--reason", "x")
    code, said, _ = call("audit", "proof", str(file), "--seq", "4", "--checkpoint", str(note), "--key", str(key))
    proof.write_text(said)
    assert (code, len(json.loads(said)["proof"])) == (0, 3)
    file.unlink()
    code, said, _ = call("audit", "proof", str(proof), "--key", str(key))
    assert (code, said) == (0, f"proved: seq 4 of log {note.name[:32]}, by a checkpoint of 8 records\n")
    proof.write_text(proof.read_text().replace("model:fraud", "model:freud"))
    code, said, _ = call("audit", "proof", str(proof), "--key", str(key))
    assert (code, said.startswith("NOT PROVED")) == (1, True)
    proof.write_text("{}")
    assert call("audit", "proof", str(proof), "--key", str(key))[0] == 2


def test_an_anchor_is_read_for_the_verification(logs: Logs, call: Call, tmp_path: Path) -> None:
    append(logs, *map(moved, range(3)))
    kept, key = sealed(call, tmp_path)
    where = ("--anchor", str(kept), "--key", str(key))
    code, said, _ = call("audit", "verify", *where)
    assert (code, "1 checkpoints agree" in said) == (0, True)
    file = tmp_path / "log.jsonl"
    call("audit", "export", str(file), "--reason", "x")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]))
    code, said, _ = call("audit", "verify", str(file), *where)
    assert (code, "the log was cut" in said) == (1, True)
    next(kept.iterdir()).unlink()
    code, _, error = call("audit", "verify", str(file), *where)
    assert (code, "has no checkpoint of log" in error) == (2, True)


def test_what_a_record_says_about_people_is_erased(logs: Logs, call: Call) -> None:
    append(logs, moved(1), moved(2))
    assert call("audit", "erase", "2", "--reason", " ")[0] == 2
    code, said, _ = call("audit", "erase", "2", "--reason", "request 17")
    assert (code, said.startswith("the content of seq 2 is erased; seq 4 says so")) == (0, True)
    assert "was erased before" in call("audit", "erase", "2", "--reason", "request 17")[1]
    said = call("audit", "list", "--subject", "model:fraud")[1]
    assert "registry.moved  model:fraud  (erased)" in said
    code, said, _ = call("audit", "verify", "--deep")
    assert (code, "erased, with a record that says so: 2" in said) == (0, True)


def test_a_move_without_its_intent_is_found_when_decisions_are_verified(logs: Logs, call: Call) -> None:
    append(logs, moved(1))
    assert call("audit", "verify")[0] == 0
    code, said, _ = call("audit", "verify", "--decisions")
    assert (code, "1 findings about 1 moves" in said) == (1, True)
    assert "NOT ALLOWED: seq 2:" in said
    code, said, _ = call("audit", "verify", "--decisions", "--format", "json")
    assert json.loads(said)["decisions"]["findings"][0]["seq"] == 2


def promote(world: World, version: str, expected: str) -> None:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    assert world.run(PromoteModelOperator, **arguments, dag_run_id=f"run-{version}").state == "success"


class TestReconcile:
    @pytest.fixture
    def log(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> Logs:
        found = sqlite_logs(tmp_path)
        monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", url(found))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", world.url)
        return found

    def own(self, log: Logs, world: World) -> list[dict[str, object]]:
        facts = open_log(log.owner).facts(f"model:{world.model_name}")
        return [record.event for record in facts]

    def test_moves_that_the_log_missed_are_added_once_and_late(self, log: Logs, world: World, call: Call) -> None:
        world.versions(2)
        promote(world, "1", "none")
        promote(world, "2", "1")
        code, said, _ = call("audit", "reconcile")
        assert code == 0
        assert f"registry.moved  model:{world.model_name}  champion 1 -> champion 2" in said
        events = self.own(log, world)
        assert [(each["action"], each["late"]) for each in events] == [("registry.moved", True)] * 2
        assert call("audit", "reconcile")[1].startswith("0 events were missing")
        assert len(self.own(log, world)) == 2

    def test_a_move_outside_airflow_mcp_is_found(self, log: Logs, world: World, call: Call) -> None:
        world.versions(2)
        promote(world, "1", "none")
        world.hook.set_alias(world.model_name, ALIAS_CHAMPION, "2")
        call("audit", "reconcile")
        last = self.own(log, world)[-1]
        assert last["action"] == "registry.foreign_move_found"
        assert (last["old"], last["actor"]["name"]) == ({"alias": "champion", "version": "1"}, "unknown")  # type: ignore[index]

    def test_an_old_intent_without_a_move_is_abandoned(
        self, log: Logs, world: World, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.versions(1)
        promote(world, "1", "none")
        subject = f"model:{world.model_name}"
        name = event_id("registry.move_intended", subject, "dead")
        new = {"move": "dead", "action": "promote", "champion": "9"}
        intent = AuditEvent(name, "registry.move_intended", subject, "dev", ACTOR, old={"champion": "1"}, new=new)
        append(log, intent)

        def abandoned() -> list[Any]:
            call("audit", "reconcile")
            return [each for each in self.own(log, world) if each["action"] == "registry.move_abandoned"]

        assert abandoned() == []  # its task may still be at it
        monkeypatch.setattr("airflow_mcp.registry.reconcile.PATIENCE", timedelta(0))
        (found,) = abandoned()
        assert (found["new"]["move"], found["refs"]) == ("dead", [2])
        assert len(abandoned()) == 1

    def test_doctor_and_status_say_what_the_log_lacks(
        self, log: Logs, world: World, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.versions(1)
        promote(world, "1", "none")
        said = call("doctor", "--no-cluster")[1]
        assert "lacks" in said
        assert "airflow-mcp audit reconcile" in said
        call("audit", "reconcile")
        assert "has every move in MLflow" in call("doctor", "--no-cluster")[1]
        assert f"audit log: {log.owner.name}" in call("status", world.model_name)[1]
        monkeypatch.delenv("AIRFLOW_MCP_AUDIT_LOG")
        assert "not governed" in call("status", world.model_name)[1]
        assert "not governed" in call("doctor", "--no-cluster")[1]
        monkeypatch.setenv("AIRFLOW_MCP_ENVIRONMENT", "prod")
        code, said, _ = call("doctor", "--no-cluster")
        assert (code, "prod promotes nothing" in said) == (1, True)

    def test_a_rollback_by_command_is_recorded_under_its_caller(self, log: Logs, world: World, call: Call) -> None:
        world.versions(2)
        promote(world, "1", "none")
        promote(world, "2", "1")
        code, _, error = call("rollback", world.model_name, "--reason", "worse", "--yes", "--no-load-check")
        assert code == 0, error
        events = self.own(log, world)
        assert [each["action"] for each in events] == ["registry.move_intended", "registry.moved"]
        assert (events[1]["actor"]["kind"], events[1]["reason"]) == ("cli", "worse")  # type: ignore[index]

    def test_everything_about_a_model_is_one_timeline(self, log: Logs, world: World, call: Call) -> None:
        world.versions(2)
        promote(world, "1", "none")  # MLflow only: Airflow has no log here
        name = world.model_name
        subject = f"model:{name}"
        drift = AuditEvent(
            *(event_id("drift.decided", subject, "d"), "drift.decided", subject, "dev", ACTOR),
            new={"verdict": "drifted"},
        )
        swap = AuditEvent(
            *(event_id("serving.swapped", "replica:a", 1), "serving.swapped", "replica:a", "dev", ACTOR),
            new={"model": name, "version": "1"},
        )
        append(log, drift, swap, moved(9))
        code, said, _ = call("audit", "list", "--model", name)
        assert code == 0
        shown = [line for line in said.splitlines() if "  by " not in line]
        assert ["NO LOG" in line for line in shown] == [True, False, False]
        assert "registry.moved" in shown[0]
        assert "champion none -> champion 1" in shown[0]
        assert ("drift.decided" in shown[1], "serving.swapped" in shown[2]) == (True, True)
        lines = call("audit", "list", "--model", name, "--format", "json")[1].splitlines()
        assert [json.loads(line)["seq"] for line in lines] == [None, 2, 3]

    def test_doctor_tells_of_a_forged_move_and_of_checkpoints_that_do_not_arrive(
        self, log: Logs, world: World, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        append(log, moved(1, subject=f"model:{world.model_name}"))
        world.versions(1)
        code, said, _ = call("doctor", "--no-cluster")
        assert (code, "differ in 1 moves" in said, "checkpoints" in said) == (1, True, False)
        sealed(call, tmp_path)
        assert "reached an anchor within 24 h" in call("doctor", "--no-cluster")[1]
        monkeypatch.setattr("airflow_mcp.audit.checkpoints.LONGEST_WITHOUT", timedelta(0))
        assert "could be cut unseen" in call("doctor", "--no-cluster")[1]
