"""Measures which branches of the package the tests take, and fails below a floor.

It runs where the environment variable :data:`FLOOR` has a percentage, as in ``make test``. SlipCover instruments the
package when it is imported, and takes the probes out again where they have been hit. What forked workloads and other
child processes run does not count: ``make coverage`` measures these too, at more than twice the CPU.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover, branch, merge_coverage

from tests.support.paths import ROOT

FLOOR = "AIRFLOW_MCP_TEST_BRANCH_FLOOR"
PACKAGE = ROOT / "airflow_mcp"
_KEY = "branch_coverage"


def start() -> Slipcover | None:
    """Instrument what is imported of the package from now on.

    :return: what collects the lines and branches that were seen; None when nothing is measured.
    :raises RuntimeError: when some of the package has been imported already, and would count as never run.
    """
    if FLOOR not in os.environ:
        return None
    if early := [name for name in sys.modules if name.partition(".")[0] == PACKAGE.name]:
        raise RuntimeError(f"branch coverage must start before the package is imported; got {', '.join(early)}")
    seen = Slipcover(branch=True)
    ImportManager(seen, FileMatcher(sources=[PACKAGE])).__enter__()  # until the process ends
    return seen


_seen = start()


def judge(config: pytest.Config) -> None:
    """Compare what this process and the workers of pytest-xdist have seen with the floor, at the end of the tests."""
    if _seen is not None:
        config.pluginmanager.register(_Measurement(_seen, float(os.environ[FLOOR])))


class _Measurement:
    """What was seen in this process and, in the controller of pytest-xdist, in its workers.

    :param seen: lines and branches of this process.
    :param floor: least percentage of lines and branches.
    """

    def __init__(self, seen: Slipcover, floor: float) -> None:
        self._seen, self._floor = seen, floor
        self._of_workers: list[dict[str, Any]] = []
        self._line = ""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Keep what a worker sends at its end."""
        if _KEY in getattr(node, "workeroutput", {}):
            self._of_workers.append(json.loads(node.workeroutput[_KEY]))

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Send what was seen to the controller, or judge all of it there."""
        if hasattr(session.config, "workeroutput"):  # sent at the end of what this wraps
            session.config.workeroutput[_KEY] = json.dumps(self._seen.get_coverage())
            return (yield)
        yield
        percent = percent_covered([self._seen.get_coverage(), *self._of_workers])
        self._line = f"branch coverage of the tests' own processes: {percent:.1f} % (floor: {self._floor:g} %)"
        if percent < self._floor and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self._line += "; run 'make coverage' to see which lines are missing"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the percentage."""
        if self._line:
            terminalreporter.write_line(self._line)


def percent_covered(of_processes: Sequence[dict[str, Any]]) -> float:
    """Return the percentage of lines and branches that any process has run; a module that none has imported counts.

    :param of_processes: what SlipCover found in each process.
    """
    found, *others = of_processes
    for other in others:
        found = merge_coverage(found, other)
    imported = {Path(name).resolve() for name in found["files"]}
    never = Slipcover(branch=True)
    for file in sorted(set(PACKAGE.rglob("*.py")) - imported):
        never.instrument(compile(branch.preinstrument(ast.parse(file.read_bytes())), str(file), "exec"))
    return float(merge_coverage(found, never.get_coverage())["summary"]["percent_covered"])
