"""``airflow-mcp serve`` next to other model servers, with the same model and the same rows, in one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.benchmarks.fresh import median, print_table, run_fresh
from tests.benchmarks.serving.contenders import HOW_TO_GET_PEERS, PEERS, Contender, contenders
from tests.benchmarks.serving.load import HOW_TO_GET_WRK, WRK, Load, closed_loop, memory_mebibytes, open_loop

pytestmark = pytest.mark.benchmark

CONNECTIONS = (1, 16, 64)
SECONDS = 2
ROUNDS = 3
RATE = 200
"""Requests per second of the open loop."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> list[Contender]:
    folder = tmp_path_factory.mktemp("serving")
    model = run_fresh(folder / "cache", "-m", "tests.benchmarks.serving.train", str(folder))
    return contenders(Path(model), folder)


@pytest.mark.skipif(WRK is None, reason=HOW_TO_GET_WRK)
def test_one_row_per_request_at_1_16_and_64_connections(servers: list[Contender], tmp_path: Path) -> None:
    found: dict[str, dict[int, list[Load]]] = {}
    memory: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for server in servers:
            with server.running() as (pid, url):
                closed_loop(url, server.body, 16, 1, pid, tmp_path)  # warms up
                levels = found.setdefault(server.name, {level: [] for level in CONNECTIONS})
                for level in CONNECTIONS:
                    levels[level].append(closed_loop(url, server.body, level, SECONDS, pid, tmp_path))
                memory.setdefault(server.name, []).append(memory_mebibytes(pid))
    rows = [_row(name, levels, memory[name]) for name, levels in found.items()]
    head = ("server", "CPU µs per request", "requests/s", "p50 ms", "p99 ms", "errors", "memory MiB (PSS)")
    print_table(f"One row per request; {' / '.join(map(str, CONNECTIONS))} connections", head, rows)
    ours = found[servers[0].name]
    head = ("ours : peer", "CPU per request", "requests/s", "p50", "p99", "memory")
    peers = [(name, levels) for name, levels in found.items() if name != servers[0].name]
    ratios = [
        _ratios(name, ours, levels, median(memory[servers[0].name]) / median(memory[name])) for name, levels in peers
    ]
    print_table("Ratios at the same numbers of connections", head, ratios)
    if not PEERS.is_dir():
        print(f"MLServer and BentoML are not installed here: {HOW_TO_GET_PEERS}")
    assert all(len(loads) == ROUNDS for levels in found.values() for loads in levels.values())


def test_200_requests_a_second_whether_or_not_they_are_answered(servers: list[Contender]) -> None:
    rows = []
    for server in servers[:3]:
        with server.running() as (pid, url):
            open_loop(url, server.body, RATE, 2, 20, pid)
            load = open_loop(url, server.body, RATE, 10, 20, pid)
            figures = (load.rate, load.p50, load.p95, load.p99)
            rows.append(
                (server.name, f"{load.cpu / load.seconds:.2f}", *(f"{x:.0f}" for x in figures), str(load.errors))
            )
    head = ("server", "CPU, cores", "requests/s", "p50 ms", "p95 ms", "p99 ms", "errors")
    print_table(f"{RATE} requests per second offered for 10 s over 20 connections", head, rows)
    assert len(rows) == 3


def _middle(levels: Mapping[int, list[Load]], name: str) -> list[float]:
    return [median([getattr(load, name) for load in levels[level]]) for level in CONNECTIONS]


def _row(name: str, levels: Mapping[int, list[Load]], memory: list[float]) -> tuple[str, ...]:
    shown = [
        " / ".join(f"{value:,.{digits}f}" for value in _middle(levels, what))
        for what, digits in (("cpu_microseconds", 0), ("rate", 0), ("p50", 1), ("p99", 1))
    ]
    errors = sum(load.errors for loads in levels.values() for load in loads)
    return (name, *shown, str(errors), f"{median(memory):.0f}")


def _ratios(
    name: str, ours: Mapping[int, list[Load]], peer: Mapping[int, list[Load]], memory: float
) -> tuple[str, ...]:
    shown = []
    for what in ("cpu_microseconds", "rate", "p50", "p99"):
        pairs = zip(_middle(ours, what), _middle(peer, what), strict=True)
        shown.append(" / ".join(f"{own / other:.3g}" for own, other in pairs))
    return (name, *shown, f"{memory:.2f}")
