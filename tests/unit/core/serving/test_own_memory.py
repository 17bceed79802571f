"""A process that reads the environment and memory of another one of the same user, which is not root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SECRET = "hunter2-4929"
READS_ITS_CHILD = """
import ctypes, json, os, sys

from airflow_mcp.core.serving.own_memory import close_to_same_user


def leave_root():
    if os.getuid() == 0:  # root may read everything
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as a program is that this user has started


def read(path):
    try:
        with open(path, "rb") as file:
            return sys.argv[2] in file.read().decode("latin-1") if path.endswith("environ") else True
    except OSError:
        return None


is_there, says = os.pipe()
ends, end = os.pipe()
child = os.fork()
if child == 0:
    os.close(end)
    leave_root()
    if sys.argv[1] == "closed" and not close_to_same_user():
        os._exit(1)
    os.write(says, b".")
    os.read(ends, 1)
    os._exit(0)
leave_root()
assert os.read(is_there, 1)
print(json.dumps({name: read(f"/proc/{child}/{name}") for name in ("environ", "mem", "maps")}))
os.close(end)
os.waitpid(child, 0)
"""
IS_OPEN = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
FRONT = """
import airflow_mcp.serving.__main__ as server
from airflow_mcp.core.serving.settings import read_settings

server.uvloop.run = lambda serve: serve.close()  # where the first model would be started
server.run(read_settings({"MODEL_URI": "./model"}))
"""
SHIPPER = """
import sys
from airflow_mcp.work.__main__ import main

assert main(["ship-log", "--folder", sys.argv[1], "--pod", "a"]) == 0
"""
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux has /proc and PR_SET_DUMPABLE, so nothing is closed here"
)


def read_child(how: str) -> dict[str, bool | None]:
    """Return what a process reads of its child: whether the secret is in its environment; None for what is refused."""
    done = subprocess.run(
        [sys.executable, "-c", READS_ITS_CHILD, how, SECRET],
        env={**os.environ, "PASSWORD": SECRET},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(json.loads(done.stdout))


def test_the_same_user_cannot_read_environment_and_memory_of_a_process_that_has_closed_them() -> None:
    assert read_child("closed") == {"environ": None, "mem": None, "maps": None}


def test_the_same_user_could_read_them_otherwise() -> None:
    assert read_child("open")["environ"] is True


@pytest.mark.parametrize("program", [FRONT, SHIPPER])
def test_the_processes_that_hold_credentials_close_theirs(program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program + IS_OPEN, str(tmp_path)],
        env={**os.environ, "AIRFLOW_MCP_SERVING_LOG_URI": str(tmp_path / "store")},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["0"]), done.stderr
