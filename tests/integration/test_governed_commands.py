"""The command line in a governed environment: who may read the log, what is signed, and how governance is switched off.

Environment test with a log in SQLite: there the name of the operating system's user counts. In prod Airflow checks who
calls; ``test_access_airflow.py`` tries that with real accounts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.serving.passports import why_no_passport
from airflow_mcp.operators.registry import RegisterModelOperator
from tests.support.audit_log import sqlite_logs
from tests.support.governed import Governed
from tests.support.mlflow_world import World
from tests.support.passports import FILES

pytestmark = pytest.mark.integration
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def governed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Governed:
    found = Governed(world, sqlite_logs(tmp_path), "test")
    (tmp_path / "signing.key").write_bytes(found.private_pem)
    found.activate()
    for name, value in (
        ("AUDIT_LOG", found.logs.url("mcp_release")),
        ("ENVIRONMENT", "test"),
        ("SIGNING_KEY_FILE", str(tmp_path / "signing.key")),
    ):
        monkeypatch.setenv(f"AIRFLOW_MCP_{name}", value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.url)
    return found


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command as a user; return its exit code and everything that it printed."""

    def run(account: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("LOGNAME", account)
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def promotion(governed: Governed, version: str) -> tuple[str, ...]:
    champion = governed.world.aliases.get("champion", "none")
    name = governed.world.model_name
    return ("registry", "set-stage", name, version, "Production", "--expected-champion", champion, "--archive-existing")


def test_a_command_promotes_as_an_operator_does(governed: Governed, call: Call) -> None:
    version = governed.version().version
    code, said = call("dora", *promotion(governed, version))
    assert (code != 0, "'dora' has no role that grants" in said) == (True, True)
    assert len(governed.records("promotion.refused")) == 1
    assert "champion" not in governed.world.aliases
    code, said = call("ada", *promotion(governed, version))
    assert code == 0, said
    tags = governed.registry()["versions"][version]
    assert why_no_passport(governed.world.model_name, tags, FILES, [governed.key], "test") == ""


def test_a_command_that_was_told_of_no_environment_acts_in_that_of_the_model(
    governed: Governed, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own variables say where the server is, and nothing about what it is for: the model's tag does."""
    assert call("ada", *promotion(governed, governed.version().version))[0] == 0
    assert governed.world.registered.tags[contract.TAG_ENVIRONMENT] == "test"
    monkeypatch.delenv("AIRFLOW_MCP_ENVIRONMENT")
    version = governed.version().version
    code, said = call("dora", *promotion(governed, version))
    assert (code != 0, "in environment test is refused: 'dora' has no role" in said) == (True, True), said
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    code, said = call("dora", *promotion(governed, version), "--tracking-uri", governed.world.url)
    assert (code != 0, "in environment test is refused: 'dora' has no role" in said) == (True, True), said
    assert governed.world.aliases["champion"] == "1"


def test_a_model_that_was_registered_in_prod_is_not_promoted_by_a_command_without_a_log(
    world: World, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model_id = world.judged_model()
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__ENVIRONMENT", "prod")
    arguments = {"model_name": world.model_name, "model_uri": f"models:/{model_id}"}
    assert world.run(RegisterModelOperator, **arguments).state == "success"
    assert world.registered.tags[contract.TAG_ENVIRONMENT] == "prod"
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__ENVIRONMENT", "test")
    other = {**arguments, "model_uri": f"models:/{world.judged_model()[1]}"}
    assert world.run(RegisterModelOperator, **other).state == "success"
    assert world.registered.tags[contract.TAG_ENVIRONMENT] == "prod"  # nothing less strict replaces it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.url)
    promote = (
        "registry",
        "set-stage",
        world.model_name,
        "1",
        "Production",
        "--no-load-check",
        "--expected-champion",
        "none",
    )
    code, said = call("ada", *promote)
    assert (code, "prod" in said, "audit" in said) == (2, True, True), said
    assert world.aliases == {}
    # What MLflow's own clients read cannot loosen it.
    for name, value in (("AIRFLOW_MCP_ENVIRONMENT", "dev"), ("MLFLOW_WORKSPACE", ""), ("AIRFLOW_MCP_AUDIT_LOG", "")):
        monkeypatch.setenv(name, value)
        assert call("ada", *promote)[0] == 2
    assert world.aliases == {}


def test_approvals_that_cannot_be_checked_stop_a_command(governed: Governed, call: Call) -> None:
    chain = [{"chain": [{"name": "lead", "approvers": ["role:security"]}]}]
    bindings = [{"role": "operator", "people": ["ada"]}, {"role": "security", "people": ["olga", "omar"]}]
    governed.activate(approvals=chain, bindings=bindings)
    code, said = call("ada", *promotion(governed, governed.version().version))
    assert (code != 0, "approvals, which cannot be checked here" in said) == (True, True)


def test_governance_is_switched_off_with_a_reason_only(
    governed: Governed, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = governed.version(has_passport=False).version
    for wrong in ("off", "off: ", "no"):
        monkeypatch.setenv("AIRFLOW_MCP_GOVERNANCE", wrong)
        code, said = call("dora", *promotion(governed, version))
        assert (code, "AIRFLOW_MCP_GOVERNANCE must be enforce or off: <reason>" in said) == (2, True)
    monkeypatch.setenv("AIRFLOW_MCP_GOVERNANCE", "off: restore after the flood")
    assert call("dora", *promotion(governed, version))[0] == 0
    (intent,) = governed.records("registry.move_intended")
    assert "no policy enforced: restore after the flood" in intent.event["reason"]


def test_a_key_that_cannot_be_read_stops_the_move_before_it_is_made(
    governed: Governed, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_MCP_SIGNING_KEY_FILE", "/nowhere/signing.key")
    code, said = call("ada", *promotion(governed, governed.version().version))
    assert (code, "AIRFLOW_MCP_SIGNING_KEY_FILE must be a readable file" in said) == (2, True)
    assert "champion" not in governed.world.aliases


def test_the_log_is_read_and_exported_by_whom_the_policy_permits(
    governed: Governed, call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "log.jsonl"
    for number, (action, arguments) in enumerate(
        (
            ("read", ("list",)),
            ("read", ("list", "--model", governed.world.model_name)),
            ("export", ("export", str(file), "--reason", "curious")),
            ("export", ("verify",)),
            ("export", ("replay", "--seq", "1")),
            ("read", ("reconcile",)),
            ("read", ("checkpoint", "--key", str(tmp_path / "signing.key"), "--to", str(tmp_path))),
        ),
        1,
    ):
        code, said = call("ada", "audit", *arguments)
        assert (code != 0, f"'ada' has no role that grants audit/{action}" in said) == (True, True), arguments
        refusals = governed.records("access.refused")
        assert len(refusals) == number
        assert (refusals[-1].event["subject"], refusals[-1].event["actor"]["name"]) == ("audit", "ada")
    assert not file.exists()
    assert call("olga", "audit", "list")[0] == 0
    code, said = call("olga", "audit", "export", str(file), "--reason", "yearly audit")
    assert code == 0, said
    assert call("nobody", "audit", "verify", str(file))[0] == 0  # a file needs no right


def test_status_and_doctor_say_which_policy_is_in_force_since_when(
    governed: Governed, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    governed.version()
    (activated,) = governed.records("policy.activated")
    digest = activated.event["new"]["digest"]
    said = call("ada", "status", governed.world.model_name)[1]
    assert f"governed by policy {digest}, in force since {activated.recorded_at}" in said
    said = call("ada", "doctor", "--no-cluster")[1]
    assert f"{digest} is in force since {activated.recorded_at}" in said
    monkeypatch.setenv("AIRFLOW_MCP_GOVERNANCE", "off: restore")
    assert "no policy is enforced: restore" in call("ada", "status", governed.world.model_name)[1]
    monkeypatch.delenv("AIRFLOW_MCP_GOVERNANCE")
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", "sqlite:///nowhere/log.db")
    assert "which policy is in force is not known" in call("ada", "status", governed.world.model_name)[1]
    monkeypatch.delenv("AIRFLOW_MCP_AUDIT_LOG")
    assert "not governed" in call("ada", "status", governed.world.model_name)[1]
    assert contract.TAG_CLEARANCE not in governed.registry()["versions"]["1"]
