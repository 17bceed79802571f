"""A process that orphans are left to waits for them, and for nothing that it has started itself."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.serving.orphans import adopt_orphans, reap_orphans

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are left to process 1 or a subreaper of Linux")
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def adopts_orphans() -> Iterator[None]:
    """Let this process adopt orphans, as the model server does."""
    adopt_orphans()
    yield
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def wait_for_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_orphan_is_waited_for_and_an_own_child_is_not() -> None:
    own = subprocess.Popen(["sh", "-c", "exit 7"], start_new_session=True)
    parent = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for_state(own.pid, "Z")
    assert reap_orphans() == []  # the orphan goes on
    os.kill(orphan, signal.SIGKILL)
    wait_for_state(orphan, "Z")
    assert reap_orphans() == [orphan]
    assert not Path(f"/proc/{orphan}").exists()
    assert own.wait() == 7
