"""Swaps under load: 100,000 requests while one champion follows the other."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import uuid
from pathlib import Path

import pytest

from airflow_mcp.hooks.mlflow import MlflowHook
from tests.benchmarks.fresh import print_table
from tests.benchmarks.serving.load import HOW_TO_GET_WRK, WRK, Load, closed_loop
from tests.support.followed_server import BODY, FollowingServer, NumberedVersions, SteadyClient
from tests.support.services import MlflowServer

pytestmark = [pytest.mark.benchmark, pytest.mark.skipif(WRK is None, reason=HOW_TO_GET_WRK)]

CONNECTIONS = 32
REQUESTS = 100_000
PAUSE_SECONDS = 2
"""Between one version's first answer and the next change of the alias."""


def test_requests_that_failed_while_the_champion_changed(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_SWAP", json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}))
    with contextlib.closing(MlflowHook("mlflow_swap")) as hook:
        versions = NumberedVersions(mlflow_server, hook, f"swapped-{uuid.uuid4().hex[:8]}", tmp_path)
        client, quiet, loads, swaps = _swap_under_load(versions, mlflow_server.url, tmp_path)
    client.require_no_failure()
    rows = [_row("quiet", [quiet]), _row(f"{len(swaps)} swaps", loads)]
    head = ("", "requests", "failed", "CPU µs per request", "requests/s", "worst p99 ms of 10 s")
    print_table(f"{CONNECTIONS} connections while one champion follows the other", head, rows)
    answered = sorted(client.versions)
    print(f"{len(client.answers)} further answers were looked into: versions {answered}, none mixed, none failed")
    assert len(answered) > 1


def _swap_under_load(
    versions: NumberedVersions, tracking_uri: str, folder: Path
) -> tuple[SteadyClient, Load, list[Load], list[str]]:
    """Return a client that asked all the time, the load before any swap, those beside the swaps, and the swaps."""
    numbers = [versions.add(), versions.add(), versions.add()]
    versions.promote(numbers[0])
    settings = {"KEEP_WARM": 0, "ACCESS_LOG": "false"}  # without a warm version every swap loads a model
    with FollowingServer(folder, f"models:/{versions.name}", tracking_uri, **settings) as server:
        server.wait_for_version(numbers[0])
        url = f"http://127.0.0.1:{server.port}/invocations"
        quiet = closed_loop(url, BODY, CONNECTIONS, 5, server.pid, folder)
        swaps: list[str] = []
        stop = threading.Event()

        def swap() -> None:
            for number in itertools.cycle([*numbers[1:], numbers[0]]):
                if stop.wait(PAUSE_SECONDS):
                    return
                versions.promote(number)
                server.wait_for_version(number)
                swaps.append(number)

        swapper = threading.Thread(target=swap)
        with SteadyClient(server) as client:
            swapper.start()
            loads = [closed_loop(url, BODY, CONNECTIONS, 10, server.pid, folder)]
            while sum(load.requests for load in loads) < REQUESTS:
                loads.append(closed_loop(url, BODY, CONNECTIONS, 10, server.pid, folder))
            stop.set()
            swapper.join()
    return client, quiet, loads, swaps


def _row(name: str, loads: list[Load]) -> tuple[str, ...]:
    requests, seconds = sum(load.requests for load in loads), sum(load.seconds for load in loads)
    cpu = 1e6 * sum(load.cpu for load in loads) / requests
    failed = str(sum(load.errors for load in loads))
    return (
        name,
        f"{requests:,}",
        failed,
        f"{cpu:.0f}",
        f"{requests / seconds:,.0f}",
        f"{max(x.p99 for x in loads):.0f}",
    )
