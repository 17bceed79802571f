"""The guard: nothing outlives a task process that was killed, and no file of it stays."""

from __future__ import annotations

import ast
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.workloads import guard
from tests.support import processes
from tests.support.processes import is_running

DEADLINE_SECONDS = 20
wait_until = functools.partial(processes.wait_until, seconds=DEADLINE_SECONDS)

TASK_PROCESS = """
import logging, os, sys, tempfile
from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.workloads.local import LocalBackend
tempfile.tempdir = sys.argv[1]
workload = Workload("train", ("/bin/sh", "-c", sys.argv[2]), files=(WorkloadFile("F", "f", "x"),))
LocalBackend(log_limit_bytes=1000, kill_grace_seconds=0.3).run(workload, log=logging.getLogger())
"""


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "pids"
    folder.mkdir()
    yield folder
    for pid in filter(is_running, (int(path.name) for path in folder.iterdir())):
        os.kill(pid, signal.SIGKILL)


def test_after_sigkill_of_the_task_process_nothing_runs_and_no_file_is_left(tmp_path: Path, pids: Path) -> None:
    folders = tmp_path / "temp"
    folders.mkdir()
    member = tmp_path / "member.sh"
    member.write_text(f"trap '' TERM HUP INT\ntouch {pids}/$$\nwhile :; do sleep 0.1; done\n")
    code = f"sh {member} & setsid sh {member} & touch {pids}/$PPID; exec sh {member}"
    task = subprocess.Popen([sys.executable, "-c", TASK_PROCESS, str(folders), code], start_new_session=True)
    try:
        assert wait_until(lambda: len(list(pids.iterdir())) == 4)  # three members and the guard
        started = [int(path.name) for path in pids.iterdir()]
        assert all(is_running(pid) for pid in started)
        assert len(list(folders.iterdir())) == 1
    finally:
        os.killpg(task.pid, signal.SIGKILL)
        task.wait()
    assert wait_until(lambda: not any(is_running(pid) for pid in started))
    assert wait_until(lambda: not list(folders.iterdir()))


def test_after_sigterm_of_the_task_process_nothing_runs(tmp_path: Path, pids: Path) -> None:
    """A task process without a handler of its own dies by SIGTERM at once, without any clean-up in Python."""
    code = f"touch {pids}/$PPID; touch {pids}/$$; exec sleep 60"
    task = subprocess.Popen([sys.executable, "-c", TASK_PROCESS, str(tmp_path), code])
    assert wait_until(lambda: len(list(pids.iterdir())) == 2)
    started = [int(path.name) for path in pids.iterdir()]
    task.terminate()
    assert task.wait() == -signal.SIGTERM
    assert wait_until(lambda: not any(is_running(pid) for pid in started))


def test_the_guard_imports_the_standard_library_only_and_not_this_package() -> None:
    """It runs with ``-I -S``: nothing else could be found."""
    names = set()
    for node in ast.walk(ast.parse(Path(guard.__file__).read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names <= sys.stdlib_module_names
