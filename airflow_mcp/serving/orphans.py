"""Adopts processes that others have started and left, and waits for them, as process 1 of a container must."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from airflow_mcp.core.serving.own_memory import prctl

_SECONDS = 5.0
"""How often ended orphans are waited for: each takes no more than a process number until then."""

_PR_SET_CHILD_SUBREAPER = 36
"""From ``linux/prctl.h``."""


async def keep_reaping() -> None:
    """Wait for ended orphans, until cancelled.

    Model processes are children of the loader that forked them. When it is killed they go on, and become children of
    this process; when they end later, nobody else waits for them.
    """
    adopt_orphans()
    while True:
        await asyncio.sleep(_SECONDS)
        reap_orphans()


def adopt_orphans() -> None:
    """Become the parent of the orphans among the descendants of this process, also when it is not process 1."""
    if sys.platform == "linux":
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap_orphans() -> list[int]:
    """Wait for the ended children of this process that it has not started, and return their numbers.

    What this process starts leads a session of its own, and whoever has started it waits for it.
    """
    reaped = []
    for pid in _children():
        state, session = _state_and_session(pid)
        if state == "Z" and session != pid:
            with contextlib.suppress(ChildProcessError):
                reaped.append(os.waitpid(pid, os.WNOHANG)[0])
    return reaped


def _children() -> list[int]:
    own = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()]
    except OSError:  # a kernel without this list, or not Linux
        return []


def _state_and_session(pid: int) -> tuple[str, int]:
    """Return the state of a process as one letter, and the number of its session; nothing when it is gone."""
    try:
        # The name of the program is in parentheses, and may have spaces and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[3])
