"""Tasks in processes of their own: forked, as Airflow's executors do, so that they can be killed and can race."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import SyncToAsync

DEADLINE_SECONDS = 60


class ForkedTask:
    """A call in a child process, started at once.

    :param call: what to do there; its result must be picklable.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        importlib.import_module("airflow.sdk.execution_time.task_runner")  # once here, not in each of twenty children
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._reader)
                os.setsid()
                # The parent's threads are not there: with its executor, a call from an event loop would never end.
                SyncToAsync.single_thread_executor = ThreadPoolExecutor(max_workers=1)
                with os.fdopen(writer, "wb") as pipe:
                    pickle.dump(call(), pipe)
                code = 0
            finally:
                os._exit(code)
        os.close(writer)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this process alone, not to what it has started."""
        os.kill(self.pid, number)

    def has_ended(self) -> bool:
        """Say whether the process has ended, without waiting."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def result(self) -> Any:
        """Wait for its end; give what the call returned, or None when it died before."""
        with os.fdopen(self._reader, "rb") as pipe:
            text = pipe.read()
        os.waitpid(self.pid, 0)
        return pickle.loads(text) if text else None


def wait_until(condition: Callable[[], bool]) -> bool:
    """Wait for a condition; give whether it came true within a minute."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
