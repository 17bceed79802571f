"""The cost of 200 deferred pods in the triggerer, next to 200 of Airflow's own ``KubernetesPodTrigger``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.workload.definition import Workload
from airflow_mcp.core.workload.pod import pod_manifest
from airflow_mcp.core.workload.pod_options import PodOptions
from tests.benchmarks.fresh import print_table, run_fresh
from tests.support.fakes.certificate import server_context, write_certificate
from tests.support.fakes.kube_api import KubeApi

pytestmark = pytest.mark.benchmark

PODS, SECONDS = 200, 30
GROWTH = tuple(int(count) for count in os.environ.get("AIRFLOW_MCP_TEST_WAITING", "50,250").split(","))
"""Numbers of waiting trainings in one triggerer; the variable takes others where the machine is shared."""
THOUSAND = 1000
"""Waiting trainings in one triggerer that looks every 30 s and copies no log."""
ROWS = (("ours", 5, 30), ("ours", 5, 0), ("peer", 5, 0), ("peer", 2, 0))
"""Side, poll interval of the pod and of its log in seconds (0: none); our defaults are 5 and 30, the peer's 2 and 0."""
LOG = "".join(f"2026-11-21T10:00:0{number}.000000000Z epoch {number}\n" for number in range(10))


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[tuple[KubeApi, Path]]:
    """A cluster with TLS in which every pod runs and none ends."""
    certificate = write_certificate(tmp_path)
    with KubeApi(tls=server_context(certificate)) as kube:
        workload = Workload("train", ("sleep", "600"), image="i", labels={"identity": "a" * 40, "dag_id": "d"})
        for number in range(max(PODS, THOUSAND, *GROWTH) + 1):
            name = f"pod-{number}"
            kube.add_pod(name)
            kube.logs[name] = LOG
            written = pod_manifest(workload, PodOptions(), name=name, run_id="r", companion=name)
            kube.pods[name]["spec"] = written["spec"]
            kube.pods[name]["metadata"] |= {key: written["metadata"][key] for key in ("labels", "annotations")}
        yield kube, kube.write_kubeconfig(tmp_path, certificate)


def test_memory_and_cpu_of_the_triggerer_while_200_pods_run(kubeconfig: tuple[KubeApi, Path], tmp_path: Path) -> None:
    kube, path = kubeconfig
    rows: list[list[str]] = []
    for side, interval, log_interval in ROWS:
        module = ("-m", "tests.benchmarks.waiting", side, str(path))
        run_fresh(tmp_path / "cache", *module, "1", "1", "1", "1")
        before = len(kube.seen)
        numbers = (str(number) for number in (PODS, interval, log_interval, SECONDS))
        figures: dict[str, Any] = run_fresh(tmp_path / "cache", *module, *numbers)
        name = f"{side}, every {interval} s" + (f", log every {log_interval} s" if log_interval else "")
        cells = [f"{figures[key]:.{digits}f}" for key, digits in (("kib", 0), ("cpu", 1), ("late", 0))]
        rows.append([name, *cells, str(len(kube.seen) - before)])
    head = ["200 waiting triggers", "KiB each", "CPU s per minute", "latest turn, ms", "requests"]
    print_table(f"Triggers that wait for {PODS} pods, one process, {SECONDS} s", head, rows)
    assert len(rows) == len(ROWS)


def test_growth_to_a_thousand_waiting_trainings(kubeconfig: tuple[KubeApi, Path], tmp_path: Path) -> None:
    _, path = kubeconfig
    module = ("-m", "tests.benchmarks.waiting", "ours", str(path))
    run_fresh(tmp_path / "cache", *module, "1", "1", "1", "1")
    rows = []
    for count, interval, log_interval in (*((count, 5, 30) for count in GROWTH), (THOUSAND, 30, 0)):
        numbers = (str(number) for number in (count, interval, log_interval, SECONDS))
        figures: dict[str, Any] = run_fresh(tmp_path / "cache", *module, *numbers)
        each = figures["cpu"] / count * 1000
        name = f"{count}, every {interval} s, " + (f"log every {log_interval} s" if log_interval else "no log")
        cells = (f"{figures[key]:.{digits}f}" for key, digits in (("kib", 0), ("resident", 0), ("cpu", 1)))
        rows.append([name, *cells, f"{each:.0f}"])
    head = ["waiting trainings", "KiB each", "MiB of the process", "CPU s per minute", "CPU ms per minute each"]
    print_table(f"One triggerer, {SECONDS} s", head, rows)
    assert len(rows) == len(GROWTH) + 1
