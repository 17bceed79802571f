"""Tests that mostly wait for pods run side by side, in a few forked processes; pytest reports each in its turn."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

LANES = 4
_POLL_SECONDS = 0.1


class Lanes:
    """A few processes that take the next test as soon as they have done with one.

    :param items: the tests, in the order in which pytest will ask for them.
    :param perform: runs one test in a process of its own; raises when it fails.
    :param folder: folder for the results.
    """

    def __init__(self, items: Sequence[pytest.Function], perform: Callable[[pytest.Function], None], folder: Path):
        self._items, self._perform, self._folder = list(items), perform, folder
        self._queue, writer = os.pipe()
        os.write(writer, bytes(range(len(self._items))))  # each byte is the number of a test that nobody has taken
        os.close(writer)
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()
        self._pids = [self._fork() for _ in range(min(LANES, len(self._items)))]

    def require(self, item: pytest.Function) -> None:
        """Wait for the result of a test.

        :raises Failed: when it failed; has its traceback.
        """
        result = self._result_of(self._items.index(item))
        while not result.exists():
            if not any(_is_alive(pid) for pid in self._pids) and not result.exists():
                pytest.fail("the process of this test died", pytrace=False)
            time.sleep(_POLL_SECONDS)
        seconds, trace = pickle.loads(result.read_bytes())
        item.add_report_section("call", "lane", f"{seconds:.1f} s beside other tests")
        if trace:
            pytest.fail(trace, pytrace=False)

    def close(self) -> None:
        """End what still runs."""
        for pid in self._pids:
            if _is_alive(pid):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        os.close(self._queue)

    def _fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                while number := os.read(self._queue, 1):
                    self._run(number[0])
            finally:
                os._exit(0)
        return pid

    def _run(self, number: int) -> None:
        started, trace = time.monotonic(), ""
        try:
            self._perform(self._items[number])
        except BaseException:
            trace = traceback.format_exc()
        result = self._result_of(number)
        unfinished = result.with_suffix(".new")
        unfinished.write_bytes(pickle.dumps((time.monotonic() - started, trace)))
        unfinished.rename(result)

    def _result_of(self, number: int) -> Path:
        return self._folder / f"{number}.result"


def _is_alive(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False
