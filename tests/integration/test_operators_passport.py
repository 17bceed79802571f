"""Passports on a real MLflow server: issued once, recorded first, and refused when anything was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.sqlite import SqliteAuditLog
from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.passport.verify import verify_tagged
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import AuditUnavailableError
from airflow_mcp.operators.copy import CopyModelVersionOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.passport import IssuePassportOperator
from airflow_mcp.registry.passports import passport_subject
from airflow_mcp.serving.cache import digest_of
from tests.support.audit_log import Logs, new_key, sqlite_logs
from tests.support.logged_models import Logged, log_tree
from tests.support.mlflow_world import World, kill_points
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]  # MLflow's own, about types
Call = Callable[..., tuple[int, str]]


@dataclass
class Governed:
    """A key and an audit log, configured for Airflow and for the command line."""

    logs: Logs
    key: VerificationKey
    key_file: Path

    def issued(self, digest: str) -> list[Record]:
        """Return what the log knows about a passport."""
        with closing(open_log(self.logs.owner)) as log:
            return log.facts(passport_subject(digest), "passport.issued")


@pytest.fixture
def governed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Governed:
    private, public = new_key()
    logs = sqlite_logs(tmp_path)
    audit = {"conn_type": "audit_log", "extra": {"sqlite_path": logs.owner.sqlite_path}}
    monkeypatch.setenv("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(audit))
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests")
    key = {"conn_type": "signing_key", "password": private.decode()}
    monkeypatch.setenv("AIRFLOW_CONN_KEY_TESTS", json.dumps(key))
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__SIGNING_CONN_ID", "key_tests")
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", f"sqlite://{logs.owner.sqlite_path}")
    (tmp_path / "key.pub").write_bytes(public)
    return Governed(logs, VerificationKey(public.decode()), tmp_path / "key.pub")


@pytest.fixture(scope="module")
def logged(mlflow_server: MlflowServer) -> Logged:
    return log_tree(mlflow_server)


@pytest.fixture
def checked(world: World, logged: Logged) -> World:
    """Version 1 has passed its load check with the files that are there."""
    check = LoadCheck("passed", "it loads", "2026-11-29T00:00:00+00:00", "r", "img", {}, digest_of(logged.files))
    logged.register(world, **check.to_tags())
    return world


@pytest.fixture
def verify(world: World, governed: Governed, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call ``airflow-mcp passport verify``; return its exit code, and what it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        given = arguments or (world.model_name, "1", "--tracking-uri", world.url)
        code = main(["passport", "verify", *given, "--key", str(governed.key_file)])
        return code, capsys.readouterr().out

    return run


def issue(world: World, **options: Any) -> TaskOutcome:
    return world.run(IssuePassportOperator, **{"model_name": world.model_name, "version": "1", **options})


def tags(world: World, number: str = "1") -> dict[str, str]:
    return dict(world.hook.get_model_version(world.model_name, number).tags)


def test_the_load_check_issues_a_passport_that_the_log_knows(world: World, logged: Logged, governed: Governed) -> None:
    logged.register(world)
    outcome = world.run(LoadCheckOperator, model_name=world.model_name, version="1", env={"MARKER": world.marker})
    assert outcome.state == "success", outcome.error
    found = verify_tagged(tags(world), [governed.key], model_name=world.model_name, files=digest_of(logged.files))
    (record,) = governed.issued(found.digest)
    assert record.event["new"] == {
        "passport": found.digest,
        "model": world.model_name,
        "version": "1",
        "files": found.files,
        "key": governed.key.key_id,
    }
    assert record.event["task"]["task_id"] == "task"
    assert (
        world.artifact(logged.run_id, contract.ARTIFACT_PASSPORT).decode()
        == tags(world)[contract.TAG_PASSPORT_ENVELOPE]
    )
    assert issue(world).result["issued"] is False
    assert len(governed.issued(found.digest)) == 1


def test_without_a_key_there_are_no_passports(checked: World) -> None:
    outcome = issue(checked)
    assert (outcome.state, "signing_conn_id must be the ID" in str(outcome.error)) == ("failed", True)
    assert contract.TAG_PASSPORT not in tags(checked)


def test_the_log_is_asked_before_the_tags_are_written(
    checked: World, governed: Governed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> None:
        raise AuditUnavailableError("down")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteAuditLog, "append", down)
        assert issue(checked).state == "up_for_retry"
    assert contract.TAG_PASSPORT_ENVELOPE not in tags(checked)
    again = issue(checked, try_number=2)
    assert (again.state, len(governed.issued(again.result["passport"]))) == ("success", 1)


def test_a_task_killed_anywhere_leaves_one_passport_and_one_event(
    checked: World, governed: Governed, logged: Logged
) -> None:
    kills = 0
    check = {name: value for name, value in tags(checked).items() if name.startswith(contract.TAG_LOAD_CHECK)}
    for switch in kill_points():
        number = logged.register(checked, **check).version
        first = issue(checked, version=number, before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        assert first.state != "success"
        assert issue(checked, version=number, try_number=2).state == "success"
        found = verify_tagged(tags(checked, number), [governed.key], model_name=checked.model_name)
        events = [record.event["new"]["version"] for record in governed.issued(found.digest)]
        assert events.count(number) == 1
    assert kills == 3  # the artifact, and two tags


class TestVerify:
    def test_accepts_what_was_issued(self, checked: World, verify: Call) -> None:
        digest = issue(checked).result["passport"]
        assert verify() == (0, f"fits: passport {digest}\n")

    def test_names_files_with_a_byte_more(self, checked: World, logged: Logged, verify: Call) -> None:
        issue(checked)
        pickle = logged.files / "model.pkl"
        sound = pickle.read_bytes()
        pickle.write_bytes(sound + b"0")
        try:
            code, said = verify()
        finally:
            pickle.write_bytes(sound)
        assert (code, "DOES NOT FIT: subject.digest" in said) == (1, True)

    def test_names_a_statement_that_was_rewritten(self, checked: World, verify: Call) -> None:
        issue(checked)
        envelope = json.loads(tags(checked)[contract.TAG_PASSPORT_ENVELOPE])
        other = {**envelope, "payload": envelope["payload"][:-8] + "AAAA" + envelope["payload"][-4:]}
        checked.hook.set_model_version_tag(checked.model_name, "1", contract.TAG_PASSPORT_ENVELOPE, json.dumps(other))
        code, said = verify("--no-files", checked.model_name, "1", "--tracking-uri", checked.url)
        assert (code, said.startswith("DOES NOT FIT: ")) == (1, True)

    def test_names_a_fact_that_was_changed_on_the_version(self, checked: World, verify: Call) -> None:
        issue(checked)
        checked.hook.set_model_version_tag(checked.model_name, "1", contract.TAG_CODE_COMMIT, "0" * 40)
        code, said = verify()
        assert (code, contract.TAG_CODE_COMMIT in said) == (1, True)

    def test_names_a_passport_that_the_log_does_not_know(
        self, checked: World, governed: Governed, verify: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever steals the key has no right to append to the log."""
        with monkeypatch.context() as patched:
            patched.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "")
            assert issue(checked).state == "success"
        code, said = verify()
        assert (code, said.startswith("DOES NOT FIT: passport.issued: the audit log")) == (1, True)

    def test_names_a_version_without_a_passport(self, checked: World, verify: Call) -> None:
        assert verify() == (1, "DOES NOT FIT: the version has no passport\n")

    def test_cannot_say_anything_without_a_version(self, checked: World, verify: Call) -> None:
        code, _ = verify(checked.model_name, "99", "--tracking-uri", checked.url)
        assert code == 2

    @pytest.mark.parametrize(
        ("change", "code"),
        [(lambda folder: None, 0), (lambda folder: (folder / "model.pkl").write_bytes(b"x"), 1)],
        ids=["as it was", "another pickle"],
    )
    def test_works_offline_on_a_folder(
        self, checked: World, logged: Logged, verify: Call, tmp_path: Path, change: Any, code: int
    ) -> None:
        issue(checked)
        folder = tmp_path / "model"
        shutil.copytree(logged.files, folder)
        (folder / "passport.dsse.json").write_text(tags(checked)[contract.TAG_PASSPORT_ENVELOPE])
        change(folder)
        assert verify(str(folder))[0] == code

    def test_of_a_folder_without_a_passport_cannot_say_anything(self, verify: Call, tmp_path: Path) -> None:
        assert verify(str(tmp_path))[0] == 2


def test_show_prints_every_field(checked: World, governed: Governed, capsys: pytest.CaptureFixture[str]) -> None:
    digest = issue(checked).result["passport"]
    place = [checked.model_name, "1", "--tracking-uri", checked.url]
    assert main(["passport", "show", *place]) == 0
    shown = capsys.readouterr().out
    assert f"passport {digest}" in shown
    assert all(f"\n{field}:" in shown for field in ("model", "run", "code", "data", "gate", "unknown"))
    assert main(["passport", "show", *place, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["predicate"]["model"]["name"] == checked.model_name


class TestANewJudgement:
    @pytest.fixture
    def judged(self, world: World) -> World:
        (version,) = world.versions(1)
        check = LoadCheck("passed", "it loads", "2026-11-29T00:00:00+00:00", "r", "img", {}, "sha256:" + "a" * 64)
        for name, value in check.to_tags().items():
            world.hook.set_model_version_tag(world.model_name, "1", name, value)
        world.store_evidence(world.hook.get_run(version.run_id), {"accuracy": 0.95})
        self.judge(world)
        return world

    def judge(self, world: World) -> None:
        run_id = world.hook.get_model_version(world.model_name, "1").run_id
        rules = ["accuracy >= 0.9"]
        outcome = world.run(EvaluationGateOperator, run_id=run_id, model_name=world.model_name, thresholds=rules)
        assert outcome.state == "success", outcome.error

    def test_makes_another_passport(self, judged: World, governed: Governed) -> None:
        first = issue(judged).result["passport"]
        said = verify_tagged(tags(judged), [governed.key], model_name=judged.model_name).passport
        assert said.gate is not None
        assert (said.gate.verdict, said.gate.decision) == ("passed", "passed")
        self.judge(judged)
        again = issue(judged)
        assert (again.result["issued"], again.result["passport"] != first) == (True, True)

    def test_is_not_a_later_load_check(self, judged: World, governed: Governed) -> None:
        first = issue(judged).result["passport"]
        check = LoadCheck("passed", "again", "2026-11-30T00:00:00+00:00", "r9", "img2", {}, "sha256:" + "a" * 64)
        for name, value in check.to_tags().items():
            judged.hook.set_model_version_tag(judged.model_name, "1", name, value)
        again = issue(judged)
        assert (again.result["issued"], again.result["passport"]) == (False, first)

    def test_a_credential_in_the_config_is_refused(self, judged: World, governed: Governed) -> None:
        run_id = judged.hook.get_model_version(judged.model_name, "1").run_id
        judged.hook.upload_artifact(run_id, "config/train.yaml", b"store: https://me:s3cret@host/x")
        outcome = issue(judged)
        assert (outcome.state, "config/train.yaml" in str(outcome.error)) == ("failed", True)
        assert "s3cret" not in str(outcome.error)
        assert contract.TAG_PASSPORT not in tags(judged)


def test_a_copy_on_one_server_gets_a_passport_of_its_own_name(checked: World, governed: Governed) -> None:
    """Files and provenance are the same, and the name is another: what was approved for one is not for the other."""
    first = issue(checked).result["passport"]
    target = f"{checked.model_name}-prod"
    outcome = checked.run(
        CopyModelVersionOperator,
        model_name=checked.model_name,
        version="1",
        target_model_name=target,
        experiment_name=checked.experiment,
        require_gate=False,
    )
    assert outcome.state == "success", outcome.error
    copy = checked.hook.get_model_version(target, "1")
    assert copy.tags[contract.TAG_PASSPORT] == first
    for name, value in tags(checked).items():
        if name.startswith(contract.TAG_LOAD_CHECK):
            checked.hook.set_model_version_tag(target, "1", name, value)
    again = issue(checked, model_name=target)
    assert (again.state, again.result["issued"]) == ("success", True)
    assert again.result["passport"] != first
