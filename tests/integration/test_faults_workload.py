"""Training workloads that fail, hang, flood, are killed, or lose their task: no orphan, no second live run."""

from __future__ import annotations

import contextlib
import signal
from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.operators.training import TrainModelOperator
from airflow_mcp.workloads.local import LocalBackend
from tests.support.fakes.faulty_server import FaultyServer, lost_answer, refused_midway
from tests.support.forked import ForkedTask, wait_until
from tests.support.mlflow_world import REST_TRAINING, KillSwitch, World, kill_points
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

WITH_CHILDREN = """
import os, pathlib, subprocess, sys, time
sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)"]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
print("started", flush=True)
pathlib.Path({started!r}).touch()
time.sleep(300)
"""


def train(world: World, script: str = REST_TRAINING, *arguments: str, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "experiment_name": world.experiment,
        "model_name": world.model_name,
        "command": world.command(*(arguments or ("model",)), script=script),
        "env": {"MARKER": world.marker},
        **options,
    }
    return world.run(TrainModelOperator, **given)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stubborn processes be killed after a second instead of ten."""
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__KILL_GRACE_SECONDS", "1")


def require_one_dead_run(world: World, status: str, message: str) -> None:
    (run,) = world.runs()
    assert run.status == status
    assert message in run.tags[contract.TAG_ERROR]
    assert world.processes() == []


def require_a_good_retry(world: World, **options: Any) -> None:
    """Require that the next try trains well, and that exactly one run is neither dead nor double."""
    outcome = train(world, try_number=2, **options)
    assert outcome.state == "success", outcome.error
    assert [run.run_id for run in world.runs("RUNNING", "SCHEDULED", "FINISHED")] == [outcome.result["run_id"]]


def test_a_script_that_ends_well_without_a_model(world: World) -> None:
    outcome = train(world, "print('nothing learnt')")
    assert outcome.state == "up_for_retry"
    (run,) = world.runs()
    message = f"ended without an error, but its MLflow run {run.run_id} is RUNNING, not FINISHED"
    assert message in str(outcome.error)
    require_one_dead_run(world, "FAILED", message)


def test_a_script_that_finishes_its_run_without_a_model(world: World) -> None:
    outcome = train(world, REST_TRAINING.replace("sys.argv[1:]", "[]"))
    assert outcome.state == "up_for_retry"
    (run,) = world.runs()
    assert f"succeeded, but logged no model to MLflow run {run.run_id}" in str(outcome.error)
    require_one_dead_run(world, "FAILED", "logged no model")


def test_a_script_that_fails_shows_code_and_last_lines(world: World) -> None:
    outcome = train(world, "import sys\nprint('epoch 1')\nsys.exit('out of range: 7')")
    assert outcome.state == "up_for_retry"
    assert "ended with exit code 1" in str(outcome.error)
    assert "epoch 1\nout of range: 7" in str(outcome.error)
    require_one_dead_run(world, "FAILED", "ended with exit code 1")
    require_a_good_retry(world)


def test_a_script_that_fails_after_it_finished_its_run_is_not_a_success(world: World) -> None:
    outcome = train(world, REST_TRAINING + "sys.exit(3)")
    assert outcome.state == "up_for_retry"
    assert "ended with exit code 3" in str(outcome.error)
    require_one_dead_run(world, "FAILED", "ended with exit code 3")


def test_a_script_ended_by_a_signal_says_which(world: World) -> None:
    outcome = train(world, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "was ended by SIGKILL" in str(outcome.error) or "exit code 137" in str(outcome.error)
    assert "the machine ran out of memory" in str(outcome.error)
    require_one_dead_run(world, "FAILED", "memory")


def test_a_command_that_does_not_exist_is_refused_at_once(world: World) -> None:
    outcome = train(world, command=["no-such-trainer", "--fast"])
    assert outcome.state == "failed"
    assert "its command 'no-such-trainer' cannot be started: No such file or directory" in str(outcome.error)
    require_one_dead_run(world, "FAILED", "no-such-trainer")


def test_a_script_that_hangs_is_stopped_with_its_children_after_its_timeout(world: World) -> None:
    script = WITH_CHILDREN.format(started=str(world.folder / "started"))
    outcome = train(world, script, workload_timeout=timedelta(seconds=2))
    assert outcome.state == "up_for_retry"
    assert "ran longer than its timeout of 2 s and was stopped with everything it had started" in str(outcome.error)
    require_one_dead_run(world, "KILLED", "ran longer than its timeout of 2 s")
    require_a_good_retry(world)


def test_a_script_that_ignores_the_polite_signal_is_stopped_all_the_same(world: World) -> None:
    script = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(300)"
    outcome = train(world, script, workload_timeout=timedelta(seconds=1))
    assert "ran longer than its timeout of 1 s" in str(outcome.error)
    require_one_dead_run(world, "KILLED", "timeout")


def test_a_flood_of_output_is_cut_and_the_training_succeeds(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__WORKLOAD_LOG_LIMIT_MIB", "1")
    flood = "import os\nline = b'x' * 999 + b'\\n'\nfor _ in range(100):\n    os.write(1, line * 1000)\n"
    outcome = train(world, flood + REST_TRAINING)
    assert outcome.state == "success", outcome.error
    assert len(capfd.readouterr().out) < 8 * 1024 * 1024
    assert world.processes() == []


def test_the_time_limit_of_airflow_stops_everything_and_kills_the_run(world: World) -> None:
    started = world.folder / "started"
    outcome = train(world, WITH_CHILDREN.format(started=str(started)), execution_timeout=timedelta(seconds=3))
    assert started.exists()
    assert outcome.state == "up_for_retry"
    assert type(outcome.error).__name__ == "AirflowTaskTimeout"
    (run,) = world.runs()
    assert run.status == "KILLED"
    assert world.processes() == []
    require_a_good_retry(world)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"])
def test_an_interrupt_in_the_middle_closes_the_run_as_killed(
    world: World, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: LocalBackend, workload: Any, **_: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(LocalBackend, "run", interrupt)
        with contextlib.suppress(KeyboardInterrupt):
            assert train(world).state != "success"
    require_one_dead_run(world, "KILLED", type(error).__name__)
    require_a_good_retry(world)


def start_hanging_task(world: World) -> ForkedTask:
    """Start a task whose script has children, and wait until all of it runs."""
    started = world.folder / "started"
    world.hook.close()

    def hang() -> Any:
        outcome = train(world, WITH_CHILDREN.format(started=str(started)), before=_kill_on_sigterm)
        return outcome.state, str(outcome.error)

    task = ForkedTask(hang)
    assert wait_until(started.exists)
    assert len(world.processes()) >= 3
    return task


def _kill_on_sigterm(operator: Any) -> None:
    """Do what Airflow's task runner does in the task process when it is asked to end."""
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())


def test_a_task_process_that_is_killed_takes_its_workload_along(world: World) -> None:
    task = start_hanging_task(world)
    task.kill(signal.SIGKILL)
    assert task.result() is None
    assert wait_until(lambda: world.processes() == [])
    (dead,) = world.runs("RUNNING")  # nobody was left to close it
    require_a_good_retry(world)
    closed = world.hook.get_run(dead.run_id)
    assert closed.status == "KILLED"
    assert "superseded by try 2 of the same task" in closed.tags[contract.TAG_ERROR]


def test_a_task_that_is_stopped_in_the_user_interface_kills_run_and_workload(world: World) -> None:
    task = start_hanging_task(world)
    task.kill(signal.SIGTERM)
    state, message = task.result()
    assert state != "success"
    assert "was cancelled and stopped with everything it had started" in message
    require_one_dead_run(world, "KILLED", "was cancelled")
    require_a_good_retry(world)


def test_a_kill_before_the_workload_starts_still_starts_nothing(world: World) -> None:
    def kill_while_preparing(operator: Any) -> None:
        backend = LocalBackend(log_limit_bytes=1000, kill_grace_seconds=1)
        operator.__dict__["backend"] = backend
        operator.on_kill()

    outcome = train(world, before=kill_while_preparing)
    assert outcome.state != "success"
    require_one_dead_run(world, "KILLED", "was cancelled")


def test_a_training_killed_between_any_two_requests_leaves_one_live_or_finished_run(world: World) -> None:
    kills = 0
    for switch in kill_points(writes_only=False):
        world.experiment = f"{world.experiment.split('.')[0]}.{kills}"
        first = train(world, before=switch.arm, config={"depth": 3})
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        assert len(world.runs("RUNNING", "SCHEDULED", "FINISHED")) <= 1
        require_a_good_retry(world, config={"depth": 3})
        assert world.processes() == []
    assert kills >= 6


def test_a_finished_training_whose_task_died_is_not_repeated(world: World) -> None:
    train(world, before=KillSwitch(5).arm)
    finished = world.runs("FINISHED")
    assert len(finished) == 1
    outcome = train(world, try_number=2)
    assert (outcome.result["run_id"], outcome.result["reused"]) == (finished[0].run_id, True)
    assert len(world.runs()) == 1


@pytest.mark.parametrize("fault", [lost_answer(), refused_midway()], ids=["answer-lost", "request-lost"])
def test_a_lost_answer_to_the_creation_of_the_run_leaves_no_second_live_run(world: World, fault: Any) -> None:
    with FaultyServer(world.url) as server:
        server.fail("runs/create", fault, times=1)
        assert train(world, url=server.url).state == "up_for_retry"
        outcome = train(world, url=server.url, try_number=2)
    assert outcome.state == "success"
    assert len(world.runs("FINISHED", "RUNNING")) == 1


def test_a_result_that_cannot_be_read_is_found_by_the_retry(world: World) -> None:
    with FaultyServer(world.url) as server:
        server.fail("logged-models/m-", refused_midway(), times=1, method="GET")
        first = train(world, url=server.url)
        assert first.state == "up_for_retry"
        (run,) = world.runs()
        assert run.status == "FINISHED"
        second = train(world, url=server.url, try_number=2)
    assert (second.state, second.result["run_id"]) == ("success", run.run_id)
    assert len(world.runs()) == 1


def test_a_run_that_is_deleted_while_it_trains_is_said_so(world: World) -> None:
    script = REST_TRAINING + 'call("POST", "runs/delete", run_id=run_id)\n'
    outcome = train(world, script)
    assert outcome.state == "up_for_retry"
    assert "was deleted while the workload ran; its result is lost" in str(outcome.error)
    assert world.processes() == []
    require_a_good_retry(world)
