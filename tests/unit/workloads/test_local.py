"""The local backend with real processes: output, exit codes, environment, files, time-outs, nothing left behind."""

from __future__ import annotations

import functools
import os
import signal
import stat
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.exceptions import (
    InvalidArgumentError,
    WorkloadError,
    WorkloadFailedError,
    WorkloadTimeoutError,
)
from airflow_mcp.workloads.local import LocalBackend, child_environment
from tests.support import processes
from tests.support.processes import is_running

DEADLINE_SECONDS = 20
wait_until = functools.partial(processes.wait_until, seconds=DEADLINE_SECONDS)


class Lines:
    """A log that keeps what it is given and can act on a line."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self._on_line = on_line

    def info(self, msg: str, /, *args: object) -> None:
        self.lines.append(msg % args)
        if self._on_line is not None:
            self._on_line(self.lines[-1])

    def warning(self, msg: str, /, *args: object) -> None:
        self.warnings.append(msg % args)


def backend(grace: float = 0.3, limit: int = 10**6) -> LocalBackend:
    return LocalBackend(log_limit_bytes=limit, kill_grace_seconds=grace)


def python(code: str, **options: Any) -> Workload:
    return Workload(name="train", command=(sys.executable, "-c", code), **options)


def shell(code: str, **options: Any) -> Workload:
    return Workload(name="train", command=("/bin/sh", "-c", code), **options)


def run(workload: Workload, **options: Any) -> Lines:
    log = Lines()
    backend(**options).run(workload, log=log)
    return log


def pids_in(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """A folder in which processes leave a file named by their process id; what is left of them is killed."""
    folder = tmp_path / "pids"
    folder.mkdir()
    yield folder
    for pid in filter(is_running, pids_in(folder)):
        os.kill(pid, signal.SIGKILL)


def stubborn_tree(pids: Path) -> str:
    """Return shell code of a command, its child and a daemon in a session of its own; none minds SIGTERM."""
    stay = f"trap '' TERM HUP INT; touch {pids}/$$; echo up; while :; do sleep 0.1; done"
    daemon = f'setsid /bin/sh -c "{stay.replace("$", chr(92) + "$")}" & '
    return f'trap "" TERM HUP INT; {daemon} /bin/sh -c "{stay.replace("$", chr(92) + "$")}" & {stay}'


def test_output_comes_in_order_and_while_the_workload_runs(tmp_path: Path) -> None:
    """The workload goes on only after its first line has been logged."""
    signal_file = tmp_path / "seen"
    log = Lines(lambda line: signal_file.touch() if line == "first" else None)
    code = f"echo first; while [ ! -e {signal_file} ]; do sleep 0.02; done; echo second >&2; echo third"
    backend().run(shell(code, timeout=DEADLINE_SECONDS), log=log)
    assert log.lines == ["first", "second", "third"]


def test_output_of_a_python_script_is_not_held_back_by_its_buffer(tmp_path: Path) -> None:
    signal_file = tmp_path / "seen"
    log = Lines(lambda _line: signal_file.touch())
    code = f"import os, time\nprint('up')\nwhile not os.path.exists({str(signal_file)!r}): time.sleep(0.02)"
    backend().run(python(code, timeout=DEADLINE_SECONDS), log=log)
    assert log.lines == ["up"]


def test_an_exit_code_fails_with_code_name_and_last_lines() -> None:
    with pytest.raises(WorkloadFailedError, match=r"(?s)'train' ended with exit code 3\n.*line 60$") as caught:
        run(shell("for i in $(seq 60); do echo line $i; done; exit 3"))
    assert caught.value.exit_code == 3
    assert caught.value.last_lines == tuple(f"line {number}" for number in range(11, 61))


def test_death_by_a_signal_names_the_signal() -> None:
    with pytest.raises(WorkloadFailedError, match="was ended by SIGSEGV") as caught:
        run(shell("kill -SEGV $$"))
    assert caught.value.exit_code == -signal.SIGSEGV


@pytest.mark.parametrize("code", ["kill -KILL $$", "exit 137"])
def test_a_kill_hints_at_memory(code: str) -> None:
    with pytest.raises(WorkloadFailedError, match="out of memory"):
        run(shell(code))


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "./train.py", "/"])
def test_a_program_that_cannot_be_started_is_refused_by_name(program: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"command '{program}' cannot be started"):
        run(Workload(name="train", command=(program,)))


def test_a_program_without_the_right_to_execute_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(InvalidArgumentError, match="Permission denied"):
        run(Workload(name="train", command=(str(script),)))


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (Workload("w", ()), "command must name a program"),
        (Workload("w", ("true",), timeout=0), "timeout must be .*; got 0"),
        (Workload("w", ("true",), timeout=float("nan")), "timeout must be .*; got nan"),
        (
            Workload("w", ("true",), files=(WorkloadFile("A", "../a", ""),)),
            "files must have names without a folder; got '../a'",
        ),
        (Workload("w", ("true",), files=(WorkloadFile("A", "a", ""), WorkloadFile("B", "a", ""))), "appears twice"),
        (Workload("w", ("tr\0ue",)), "null byte"),
        (Workload("w", ("true",), env={"A=B": "c"}), "environment"),
    ],
)
def test_a_workload_that_is_not_usable_is_refused_before_anything_starts(workload: Workload, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        run(workload)


def test_secrets_reach_the_workload_and_neither_log_nor_error() -> None:
    workload = shell('echo "pass=$PW"; [ "$PW" = hunter22 ] && exit 5', secret_env={"PW": "hunter22"})
    log = Lines()
    with pytest.raises(WorkloadFailedError) as caught:
        backend().run(workload, log=log)
    assert caught.value.exit_code == 5
    assert log.lines == ["pass=***"]
    assert "hunter22" not in f"{caught.value} {caught.value.last_lines}"


def test_the_workload_sees_nothing_of_airflow_or_mlflow_but_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_MLFLOW", "AIRFLOW_VAR_X", "_AIRFLOW_PROCESS_CONTEXT"),
        *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_URI", "__AIRFLOW_SUPERVISOR_FD", "AIRFLOW_MCP_RUN_ID"),
    ):
        monkeypatch.setenv(name, "of the control plane")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    given = {"MLFLOW_TRACKING_URI": "http://mlflow", "SOMETHING_NEW": "1"}
    names = run(shell("env", env=given, secret_env={"MLFLOW_TRACKING_TOKEN": "t-o-k-e-n"})).lines
    flows = [line for line in names if "FLOW" in line]
    assert sorted(flows) == ["MLFLOW_TRACKING_TOKEN=***", "MLFLOW_TRACKING_URI=http://mlflow"]
    assert {"SOMETHING_ELSE=kept", "SOMETHING_NEW=1", "PYTHONUNBUFFERED=1"} <= set(names)


def test_python_in_a_command_is_the_one_that_runs_airflow() -> None:
    command = ("python", "-c", "import sys; print(sys.prefix)")
    assert run(Workload("which", command)).lines == [sys.prefix]


@pytest.fixture
def bare_python(tmp_path: Path) -> str:
    """An interpreter without any installed package, in a folder of its own."""
    path = tmp_path / "bare" / "python"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_python_in_a_command_is_the_interpreter_of_the_work_plane(bare_python: str) -> None:
    log = Lines()
    own = LocalBackend(log_limit_bytes=10**6, kill_grace_seconds=0.3, python=bare_python)
    own.run(Workload("which", ("sh", "-c", "command -v python")), log=log)
    assert (own.python, log.lines) == (bare_python, [bare_python])


def test_an_interpreter_without_the_modules_is_refused_with_what_to_install(bare_python: str) -> None:
    backend().require_modules("mlflow", "airflow_mcp")
    bare = LocalBackend(log_limit_bytes=1, kill_grace_seconds=1, python=bare_python)
    bare.require_modules("json")
    with pytest.raises(InvalidArgumentError) as caught:
        bare.require_modules("mlflow", "json")
    assert f"{bare_python} has no mlflow" in str(caught.value)
    assert "install '.[runtime]' into it, or set [airflow_mcp] python" in str(caught.value)


def test_an_interpreter_that_cannot_be_asked_is_refused() -> None:
    for wrong in ("/no/such/python", "/bin/false"):
        with pytest.raises(InvalidArgumentError, match=f"python must be a Python interpreter .*; got '{wrong}'"):
            LocalBackend(log_limit_bytes=1, kill_grace_seconds=1, python=wrong).require_modules("mlflow")


def test_the_rest_of_the_environment_is_kept_as_it_is() -> None:
    assert child_environment({"PATH": "/bin", "HOME": "/h", "AIRFLOW_HOME": "/a"}) == {
        "PATH": f"{Path(sys.executable).parent}:/bin",
        "HOME": "/h",
        "PYTHONUNBUFFERED": "1",
    }


def test_files_are_private_readable_by_the_workload_and_removed_afterwards() -> None:
    code = """
import os
path = os.environ["AIRFLOW_MCP_CONFIG_PATH"]
print(path, oct(os.stat(path).st_mode), oct(os.stat(os.path.dirname(path)).st_mode), sep="\\n")
print(oct(os.stat(os.getcwd() + "/..").st_mode), os.listdir(), os.getcwd(), sep="\\n")
print(open(path, newline="").read(), end="")
"""
    lines = run(python(code, files=(WorkloadFile("AIRFLOW_MCP_CONFIG_PATH", "c.yaml", "größe: 1\na: 2"),))).lines
    path = Path(lines[0])
    assert path.name == "c.yaml"
    modes = [stat.S_IMODE(int(mode, 8)) for mode in lines[1:4]]
    assert modes == [0o600, 0o700, 0o700]
    assert lines[4] == "[]"
    assert lines[6:] == ["größe: 1", "a: 2"]
    assert not path.exists()
    assert not Path(lines[5]).parent.exists()


def test_the_workload_reads_no_input() -> None:
    assert run(shell("cat; echo done")).lines == ["done"]


def test_file_descriptors_of_the_guard_do_not_reach_the_workload() -> None:
    lines = run(python("import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))")).lines
    assert lines == ["[0, 1, 2, 3]"]  # 3 is the folder being listed


def test_signals_that_python_ignores_have_their_usual_effect_in_the_workload() -> None:
    ignored = run(shell("grep SigIgn /proc/self/status")).lines[0].split()[1]
    assert int(ignored, 16) & 0x7FFFFFFF == 0  # the C library keeps signals 32 and 33 for itself


def test_a_timeout_ends_everything_even_what_ignores_sigterm_or_left_the_group(pids: Path) -> None:
    with pytest.raises(WorkloadTimeoutError, match=r"(?s)longer than its timeout of 1.5 s.*Its last lines:\nup"):
        run(shell(stubborn_tree(pids), timeout=1.5))
    assert len(pids_in(pids)) == 3
    assert not [pid for pid in pids_in(pids) if is_running(pid)]


def test_on_a_timeout_the_workload_may_end_politely() -> None:
    log = Lines()
    with pytest.raises(WorkloadTimeoutError):
        backend(grace=DEADLINE_SECONDS).run(
            shell("trap 'echo saved; exit 0' TERM; while :; do sleep 0.05; done", timeout=0.5), log=log
        )
    assert "saved" in log.lines


def test_an_exception_in_run_ends_everything_before_it_goes_on(pids: Path) -> None:
    class StopNow(BaseException):
        pass

    def interrupt(_line: str) -> None:
        if len(pids_in(pids)) == 3:
            raise StopNow

    log = Lines(interrupt)
    code = stubborn_tree(pids).replace("sleep 0.1", "sleep 0.1; echo on")
    with pytest.raises(StopNow):
        backend().run(shell(code, timeout=DEADLINE_SECONDS), log=log)
    assert not [pid for pid in pids_in(pids) if is_running(pid)]


def test_an_exception_from_a_signal_handler_ends_everything(pids: Path) -> None:
    """As Airflow's own time-out does it."""

    def on_alarm(_number: int, _frame: object) -> None:
        raise TimeoutError("task timed out")

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        with pytest.raises(TimeoutError, match="task timed out"):
            run(shell(stubborn_tree(pids), timeout=DEADLINE_SECONDS))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(pids_in(pids)) == 3
    assert not [pid for pid in pids_in(pids) if is_running(pid)]


def test_cancel_from_another_thread_ends_everything_and_run_says_so(pids: Path) -> None:
    running = backend()

    def cancel_when_up() -> None:
        wait_until(lambda: len(pids_in(pids)) == 3)
        running.cancel()
        running.cancel()

    thread = threading.Thread(target=cancel_when_up)
    thread.start()
    with pytest.raises(WorkloadFailedError, match="was cancelled") as caught:
        running.run(shell(stubborn_tree(pids), timeout=DEADLINE_SECONDS), log=Lines())
    thread.join()
    assert caught.value.exit_code == -signal.SIGKILL
    assert len(pids_in(pids)) == 3
    assert not [pid for pid in pids_in(pids) if is_running(pid)]


def test_cancel_inside_a_signal_handler_works() -> None:
    running = backend()
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: running.cancel())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(WorkloadFailedError, match="was cancelled"):
            running.run(shell("sleep 60", timeout=DEADLINE_SECONDS), log=Lines())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_backend_cancelled_before_it_runs_does_not_let_the_workload_end_well(tmp_path: Path) -> None:
    cancelled = backend()
    cancelled.cancel()
    with pytest.raises(WorkloadFailedError, match="was cancelled"):
        cancelled.run(shell(f"sleep 5; touch {tmp_path}/done"), log=Lines())
    assert not (tmp_path / "done").exists()


def test_processes_left_behind_are_ended_with_a_warning(pids: Path) -> None:
    left = f"setsid /bin/sh -c 'touch {pids}/$$; exec sleep 60' & sh -c 'touch {pids}/$$; exec sleep 60' &"
    code = f"{left} while [ $(ls {pids} | wc -l) -lt 2 ]; do sleep 0.02; done"
    log = run(shell(code, timeout=DEADLINE_SECONDS))
    assert log.warnings == [
        "workload 'train' ended, but 2 process(es) that it had started were still running; they were stopped"
    ]
    assert len(pids_in(pids)) == 2
    assert not [pid for pid in pids_in(pids) if is_running(pid)]


def test_a_helper_that_ends_a_moment_later_is_no_reason_for_a_warning() -> None:
    log = run(shell("(sleep 0.1; echo bye) & exit 0"))
    assert (log.lines, log.warnings) == (["bye"], [])


def test_a_guard_that_was_killed_fails_the_workload_and_kills_its_group(pids: Path) -> None:
    code = f"touch {pids}/$$; kill -KILL $PPID; while :; do sleep 0.1; done"
    with pytest.raises(WorkloadError, match="its supervisor exited without reporting a result"):
        run(shell(code, timeout=DEADLINE_SECONDS))
    (pid,) = pids_in(pids)
    assert wait_until(lambda: not is_running(pid))


def test_a_hundred_megabytes_of_output_fill_neither_log_nor_memory() -> None:
    code = "import os\nfor n in range(1600): os.write(1, b'x' * 99 + b'\\n' + b'y' * 65436)\nos.write(1, b'\\nlast\\n')"
    log = Lines()
    tracemalloc.start()
    try:
        with pytest.raises(WorkloadFailedError) as caught:
            backend(limit=10_000).run(python(code + "\nraise SystemExit(1)", timeout=120), log=log)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    assert sum(map(len, log.lines)) <= 10_000
    assert len(log.warnings) == 1
    assert caught.value.last_lines[-1] == "last"


def test_resume_is_refused_because_the_local_backend_never_defers() -> None:
    with pytest.raises(InvalidArgumentError, match="was deferred with another runtime"):
        backend().resume(shell("true"), {"status": "success"}, log=Lines())
