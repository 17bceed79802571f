"""What 200 deferred pods cost the triggerer, next to 200 of Airflow's own ``KubernetesPodTrigger``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.pod import PodOptions, pod_manifest
from airflow_mcp.core.workload import Workload
from tests.benchmarks.fresh import print_table, run_fresh
from tests.fakes.certificate import server_context, write_certificate
from tests.fakes.kube_api import KubeApi

pytestmark = pytest.mark.benchmark

PODS, SECONDS = 200, 30
ROWS = (("ours", 5), ("peer", 5), ("peer", 2))
"""Side and seconds between two looks; 5 is our default, 2 the peer's."""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[tuple[KubeApi, Path]]:
    """A cluster that speaks TLS, as clusters do, where every pod runs and none ends."""
    certificate = write_certificate(tmp_path)
    with KubeApi(tls=server_context(certificate)) as kube:
        workload = Workload("train", ("sleep", "600"), image="i", labels={"identity": "a" * 40, "dag_id": "d"})
        for number in range(PODS + 1):
            name = f"pod-{number}"
            kube.add_pod(name)
            written = pod_manifest(workload, PodOptions(), name=name, run_id="r", companion=name)
            kube.pods[name]["spec"] = written["spec"]
            kube.pods[name]["metadata"] |= {key: written["metadata"][key] for key in ("labels", "annotations")}
        yield kube, kube.write_kubeconfig(tmp_path, certificate)


def test_memory_and_cpu_of_the_triggerer_while_200_pods_run(kubeconfig: tuple[KubeApi, Path], tmp_path: Path) -> None:
    kube, path = kubeconfig
    rows, found = [], []
    for side, interval in ROWS:
        module = ("-m", "tests.benchmarks.waiting", side, str(path))
        run_fresh(tmp_path / "cache", *module, "1", "1", "1")
        before = len(kube.seen)
        figures: dict[str, Any] = run_fresh(tmp_path / "cache", *module, str(PODS), str(interval), str(SECONDS))
        found.append(figures)
        asked = len(kube.seen) - before
        cells = (f"{figures['kib']:.0f}", f"{figures['cpu']:.1f}", f"{figures['late']:.0f}", f"{asked}")
        rows.append([f"{side}, every {interval} s", *cells])
    head = ["200 waiting triggers", "KiB each", "CPU s per minute", "latest turn, ms", "requests"]
    print_table(f"Triggers that wait for {PODS} pods, one process, {SECONDS} s", head, rows)
    assert len(found) == len(ROWS)
