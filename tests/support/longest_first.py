"""Pytest plugin that puts the longest files first: none of them is left alone at the end of a parallel run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

SECONDS = Path(__file__).with_name("file_seconds.json")
"""Seconds that files took when they were last recorded; files that took less than :data:`LEAST_SECONDS` are missing."""
LEAST_SECONDS = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that records anew."""
    parser.addoption("--record-seconds", action="store_true", help=f"write the seconds of each file to {SECONDS.name}")


def pytest_configure(config: pytest.Config) -> None:
    """Record in the process that hears of all tests."""
    if config.getoption("--record-seconds") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files that took longest first; the order within a file stays."""
    seconds: dict[str, int] = json.loads(SECONDS.read_text())
    items.sort(key=lambda item: -seconds.get(item.path.relative_to(config.rootpath).as_posix(), 0))


class _Recorder:
    """Adds up what the tests of each file took, set-up included."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid.partition("::")[0]] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        long = {name: round(taken) for name, taken in self._seconds.most_common() if taken >= LEAST_SECONDS}
        known = json.loads(SECONDS.read_text())
        kept = {name: seconds for name, seconds in known.items() if Path(name).exists() and name not in self._seconds}
        ordered = dict(sorted((kept | long).items(), key=lambda item: -item[1]))
        SECONDS.write_text(json.dumps(ordered, indent=2) + "\n")
