"""What the person on call has without Airflow: ``airflow-mcp status`` of all models and ``airflow-mcp rollback``."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Generator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.registry.moves import MoveRecord, read_history
from airflow_mcp.core.registry.standing import champion_record
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from airflow_mcp.registry.standing import RUNS_PER_SEARCH, read_standings
from tests.support.mlflow_world import NOW, World, load_check_tags

pytestmark = pytest.mark.integration
NOT_OF_THE_MOVE = ("identity", "at", "by", "number", "load_check")


class Terminal(io.StringIO):
    """A terminal on which somebody answers."""

    def __init__(self, answer: str, before: Callable[[], Any] = lambda: None) -> None:
        super().__init__(answer)
        self.before = before

    def isatty(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        self.before()
        return super().readline()


def promote(world: World, version: str, expected: str) -> None:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    outcome = world.run(PromoteModelOperator, **arguments, dag_run_id=f"run-{len(world.registered.tags)}")
    assert outcome.state == "success", outcome.error


@pytest.fixture
def two(world: World) -> World:
    """Three versions; the second is champion, the first was champion before."""
    world.versions(3)
    promote(world, "1", "none")
    promote(world, "2", "1")
    return world


@pytest.fixture
def call(world: World, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls ``airflow-mcp`` for the server of the test; returns exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*arguments, "--tracking-uri", world.url])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def tag_version(world: World, version: str, tags: dict[str, str]) -> None:
    for name, value in tags.items():
        world.hook.set_model_version_tag(world.model_name, version, name, value)


# --- rollback --------------------------------------------------------------------------------------------------------


def test_a_rollback_by_command_leaves_what_the_operator_leaves(two: World, call: Any) -> None:
    why = "bad scores since midnight"
    code, said, _ = call("rollback", two.model_name, "--reason", why, "--yes")
    assert (code, two.aliases) == (0, {"champion": "1"})
    assert said == f"{two.model_name}: version 1 is the champion now; version 2 was rolled back\n"
    assert two.hook.get_model_version(two.model_name, "2").tags[contract.TAG_ROLLED_BACK] == why
    by_command = read_history(two.registered.tags)[-1]
    assert (by_command.action, by_command.reason, by_command.by.endswith(" airflow-mcp")) == ("rollback", why, True)
    assert two.claims == []
    promote(two, "2", "1")
    assert two.run(RollbackModelOperator, model_name=two.model_name, reason=why).state == "success"
    assert _compared(by_command) == _compared(read_history(two.registered.tags)[-1])


def _compared(move: MoveRecord) -> dict[str, Any]:
    return {name: value for name, value in asdict(move).items() if name not in NOT_OF_THE_MOVE}


def test_a_second_rollback_does_not_roll_forward_and_names_the_versions_to_choose_from(two: World, call: Any) -> None:
    promote(two, "3", "2")
    assert call("rollback", two.model_name, "--reason", "bad", "--yes")[0] == 0
    code, said, error = call("rollback", two.model_name, "--reason", "still bad", "--yes")
    assert (code, said, two.aliases) == (1, "", {"champion": "2"})
    assert "so there is no champion to go back to" in error
    assert "Usable earlier champions, the latest first: 3, 1" in error
    code, said, _ = call(
        "rollback", two.model_name, "--to-version", "1", "--reason", "bad", "--yes", "--format", "json"
    )
    assert (code, json.loads(said)) == (
        0,
        {
            "model_name": two.model_name,
            "version": "1",
            "previous_version": "2",
            "champion_version": "1",
            "moved": True,
            "dry_run": False,
            "forced": False,
        },
    )


@pytest.mark.parametrize("to_version", [(), ("--to-version", "1")])
def test_a_rollback_that_was_interrupted_is_completed_by_calling_again(
    two: World, call: Any, to_version: tuple[str, ...]
) -> None:
    begun = MoveRecord(
        *("rollback", "0" * 32, "2", "1", datetime.now(UTC).isoformat(), "ann@laptop airflow-mcp", "first reason", 3),
        previous_before="1",
    )
    two.hook.set_registered_model_tag(two.model_name, contract.TAG_LAST_MOVE, begun.to_tag())
    two.hook.set_alias(two.model_name, "champion", "1")  # and then the terminal was closed
    back = ("rollback", two.model_name, *to_version, "--reason", "bad")
    assert (call(*back, "--dry-run")[0], two.aliases["previous_champion"]) == (0, "1")
    code, said, _ = call(*back, "--yes")
    assert (code, two.aliases) == (0, {"champion": "1"})
    assert said == f"{two.model_name}: version 1 is the champion now; version 2 was rolled back\n"
    assert read_history(two.registered.tags)[-1] == begun
    assert two.hook.get_model_version(two.model_name, "2").tags[contract.TAG_ROLLED_BACK] == "bad"
    code, _, error = call("rollback", two.model_name, "--reason", "bad", "--yes")
    assert (code, "no champion to go back to" in error) == (1, True)


@pytest.mark.parametrize(
    ("answer", "code", "champion"), [("y\n", 0, "1"), ("n\n", 1, "2"), ("\n", 1, "2"), ("", 1, "2")]
)
def test_on_a_terminal_it_asks_first(
    two: World, call: Any, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, champion: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    ended, said, asked = call("rollback", two.model_name, "--reason", "bad")
    assert (ended, two.aliases["champion"]) == (code, champion)
    assert f"Roll back {two.model_name} on {two.url} from version 2 to version 1? [y/N] " in asked
    assert ("nothing was moved" in said) is (code == 1)


def test_what_was_confirmed_is_done_or_nothing(two: World, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n", lambda: promote(two, "3", "2")))
    code, _, error = call("rollback", two.model_name, "--reason", "bad")
    assert (code, two.aliases) == (1, {"champion": "3", "previous_champion": "2"})
    assert "the aliases have moved since you confirmed" in error


def test_it_warns_before_it_goes_to_a_version_that_was_rolled_back_itself(
    two: World, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("rollback", two.model_name, "--reason", "two is bad", "--yes")
    set_stage = ("registry", "set-stage", two.model_name, "3", "Production", "--archive-existing")
    assert call(*set_stage, "--expected-champion", "1")[0] == 0
    two.hook.set_alias(two.model_name, "previous_champion", "2")
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert (
        "WARNING: version 2 was rolled back itself: two is bad" in call("rollback", two.model_name, "--reason", "x")[2]
    )
    assert "it was rolled back itself: two is bad" in call("status", two.model_name)[1]
    again = ("registry", "set-stage", two.model_name, "2", "Production", "--archive-existing")
    code, _, logged = call(*again, "--expected-champion", "3")
    assert (code, f"version 2 of {two.model_name} was rolled back before: two is bad" in logged) == (0, True)


def test_without_a_terminal_it_needs_yes(two: World, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, said, error = call("rollback", two.model_name, "--reason", "bad")
    assert (code, said, two.aliases["champion"]) == (2, "", "2")
    assert "there is no terminal to ask on" in error
    code, said, _ = call("rollback", two.model_name, "--reason", "bad", "--dry-run")
    assert (code, two.aliases["champion"], len(read_history(two.registered.tags))) == (0, "2", 2)
    assert said == f"{two.model_name}: nothing was moved; version 1 would become the champion in place of version 2\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--reason", " "), "--reason must be text that is not empty"),
        (("--reason", "x", "--to-version", "two"), "must be a version number; got 'two'"),
        (("--reason", "x", "--yes", "--dry-run"), "not allowed with argument"),
        ((), "the following arguments are required: --reason"),
    ],
)
def test_a_wrong_call_ends_with_2(arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main(["rollback", "churn", "--tracking-uri", "http://127.0.0.1:9", *arguments])
    except SystemExit as left:
        code = left.code
    assert (code, problem in capsys.readouterr().err) == (2, True)


def test_what_the_operator_refuses_is_refused_with_the_option_that_waives_it(two: World, call: Any) -> None:
    back = ("rollback", two.model_name, "--reason", "bad", "--yes")
    long_ago = datetime.now(UTC) - timedelta(days=2)
    tag_version(two, "1", load_check_tags("passed", long_ago))
    code, _, error = call(*back)
    assert (code, two.aliases["champion"], "--no-load-check" in error) == (1, "2", True)
    status = call("status", two.model_name)[1]
    assert f"airflow-mcp rollback {two.model_name} --reason TEXT --no-load-check" in status
    tag_version(two, "1", load_check_tags("failed", reason="the file is torn"))
    code, _, error = call(*back, "--no-load-check")
    assert (code, two.aliases["champion"], "the file is torn" in error) == (1, "2", True)
    tag_version(two, "1", load_check_tags("passed", long_ago))
    assert (call(*back, "--no-load-check")[0], two.aliases["champion"]) == (0, "1")
    assert read_history(two.registered.tags)[-1].load_check.startswith("not required; passed at")


def test_a_version_that_no_gate_accepted_needs_force(world: World, call: Any) -> None:
    world.versions(2, verdict="failed")
    world.hook.set_alias(world.model_name, "champion", "2")
    back = ("rollback", world.model_name, "--to-version", "1", "--reason", "bad", "--yes")
    code, _, error = call(*back)
    assert (code, world.aliases["champion"], "--force" in error) == (1, "2", True)
    code, _, logged = call(*back, "--force")
    assert (code, world.aliases["champion"], "FORCED" in logged) == (0, "1", True)
    assert read_history(world.registered.tags)[-1].forced


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("registry", "history"),
        ("registry", "stages"),
        ("registry", "migrate-stages"),
        ("rollback", "--reason", "bad", "--yes"),
    ],
    ids=" ".join,
)
def test_a_mistyped_model_is_answered_with_the_nearest_name(two: World, call: Any, command: tuple[str, ...]) -> None:
    typo = two.model_name.replace("model", "modle")
    code, said, error = call(*command, typo)
    assert (code, said) == (1, "")
    assert error.startswith(f"error: there is no registered model {typo!r} on {two.url}")
    assert f"Did you mean '{two.model_name}'? To list the models, run airflow-mcp status" in error


# --- status of all models --------------------------------------------------------------------------------------------


class Models:
    """Models of one test, each with a champion that was promoted by airflow-mcp."""

    def __init__(self, world: World) -> None:
        self.world, self.prefix = world, world.model_name
        self.run_ids: dict[str, str] = {}

    def add(self, kind: str, promoted: int = 1) -> str:
        name = self.world.model_name = f"{self.prefix}.{kind}"
        made = self.world.versions(2)
        for number in range(promoted):
            promote(self.world, str(number + 1), str(number or "none"))
        self.run_ids[kind] = made[promoted - 1].run_id
        return name

    def drift(self, kind: str, verdict: str, ended: int) -> str:
        tags = {
            contract.TAG_KIND: contract.KIND_DRIFT_CHECK,
            contract.TAG_MODEL_NAME: f"{self.prefix}.{kind}",
            contract.TAG_DRIFT_VERDICT: verdict,
        }
        run = self.world.hook.create_run(self.world.experiment_id, "drift", tags, ended)
        self.world.hook.update_run(run.run_id, "FINISHED", ended)
        return run.run_id


def test_all_models_are_listed_and_those_that_need_attention_come_first(world: World, call: Any) -> None:
    models, soon = Models(world), int((datetime.now(UTC) + timedelta(minutes=5)).timestamp() * 1000)
    models.add("ok")
    models.drift("ok", "drifted", NOW)  # before the champion was promoted
    models.add("drifted")
    models.drift("drifted", "not_drifted", soon - 1000)
    check = models.drift("drifted", "drifted", soon)
    models.add("never", promoted=0)
    name = models.add("outside")
    world.hook.set_alias(name, "champion", "2")
    models.add("taken_back")
    world.hook.set_tag(models.run_ids["taken_back"], contract.TAG_GATE_VERDICT, "failed")
    name = models.add("missing")
    world.hook.delete_alias(name, "champion")
    models.add("unusable")
    tag_version(world, "1", load_check_tags("failed", reason="the file is torn"))
    models.add("no_way_back", promoted=2)
    tag_version(world, "1", load_check_tags("failed", reason="the file is torn"))
    models.add("unjudged")
    world.hook.delete_run(models.run_ids["unjudged"])

    code, said, _ = call("status", "--format", "json", "--limit", "100000")
    document = json.loads(said)
    ours = [each for each in document["models"] if each["model_name"].startswith(models.prefix)]
    assert (code, document["number_of_models"], document["not_read"]) == (0, len(document["models"]), [])
    assert [each["model_name"].removeprefix(f"{models.prefix}.") for each in ours] == [
        *("unusable", "missing", "taken_back", "outside", "drifted", "unjudged", "no_way_back", "never", "ok"),
    ]
    assert [[(one["level"], one["kind"]) for one in each["concerns"]] for each in ours] == [
        [("problem", "champion_unusable")],
        [("problem", "champion_missing")],
        [("problem", "verdict_taken_back")],
        [("warning", "moved_outside")],
        [("warning", "drifted")],
        [("warning", "verdict_unknown")],
        [("warning", "no_way_back")],
        [("note", "never_promoted")],
        [],
    ]
    assert check in ours[4]["concerns"][0]["says"]
    assert document["with_problems"] >= 3
    text = call("status", "--limit", "100000")[1]
    shown = dict(re.findall(rf"^{models.prefix}\.(\w+) +(?:version \d|none) +(.*)$", text, re.M))
    assert shown["taken_back"] == "Gate verdict taken back: read the gate's report, then roll back"
    assert (shown["never"], shown["ok"]) == ("Never in production: promote a first version", "Healthy")
    assert "  PROBLEM: the gate's verdict is failed now; it was passed at the promotion\n" in text
    assert [each["state"]["word"] for each in ours[3:5]] == ["Moved outside", "Drifted"]
    assert len(call("status", "--limit", "1", "--format", "json")[1]) < len(said)
    assert "more models are not shown, none of them worse: see --limit" in call("status", "--limit", "1")[1]
    one = call("status", f"{models.prefix}.taken_back")[1]
    assert "PROBLEM: the gate's verdict is failed now; it was passed at the promotion\n" in one
    assert one.splitlines()[1] == shown["taken_back"]
    assert json.loads(call("status", f"{models.prefix}.ok", "--json")[1])["state"]["kind"] == "healthy"


class Counting(DirectMlflow):
    """Counts the requests."""

    requests = 0

    def perform(self, operation: Any) -> Any:
        def counted() -> Generator[Any, Any, Any]:
            answer = None
            try:
                asked = next(operation)
                while True:
                    self.requests += 1
                    try:
                        answer = yield asked
                    except Exception as error:
                        asked = operation.throw(error)
                    else:
                        asked = operation.send(answer)
            except StopIteration as end:
                return end.value

        return super().perform(counted())


def test_the_status_of_all_models_needs_few_requests(two: World) -> None:
    mlflow = Counting(two.hook.settings)
    models = mlflow.search_registered_models()
    champions = sum(champion_record(model) is not None for model in models)
    mlflow.requests = 0
    standings, _ = read_standings(mlflow, models)
    mlflow.close()
    assert len(standings) == len(models)
    assert mlflow.requests <= 6 + champions // RUNS_PER_SEARCH  # one of them for rehearsals of the way back


def test_the_status_of_one_model_is_json_too(two: World, call: Any) -> None:
    document = json.loads(call("status", two.model_name, "--format", "json")[1])
    assert (document["champion"]["version"], document["previous_champion"]["version"]) == ("2", "1")
    assert (document["concerns"], document["last_move_is_done"]) == ([], True)
    assert document["champion"]["provenance"]["gate verdict"] == "passed"
    assert document["last_move"]["action"] == "promote"
    assert document["way_back"] == {
        "version": "1",
        "command": f"airflow-mcp rollback {two.model_name} --reason TEXT",
        "note": "",
    }
