"""The trigger of a pod while the Kubernetes API does not answer."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import pytest
import tenacity
import yaml
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

from airflow_mcp.triggers import pod
from airflow_mcp.triggers.pod import WorkloadPodTrigger
from tests.support.fakes.faulty_server import refused_midway
from tests.support.fakes.kube_api import KubeApi


async def test_a_pod_that_starts_is_waited_for_through_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "_OUTAGE_POLL_SECONDS", 0.05)
    monkeypatch.setattr(AsyncKubernetesHook.get_pod.retry, "wait", tenacity.wait_none())  # 15 s otherwise
    with KubeApi() as kube:
        kube.add_pod("train", phase="Pending")
        trigger = WorkloadPodTrigger(
            mlflow_conn_id="mlflow_default",
            mlflow_run_id="",
            pod_name="train",
            pod_namespace="default",
            base_container_name="base",
            config_dict=yaml.safe_load(kube.write_kubeconfig(tmp_path).read_text()),
            trigger_start_time=dt.datetime.now(dt.UTC),
            startup_check_interval=0.05,
            poll_interval=0.05,
            startup_timeout=60,
            log_events_on_startup=False,
        )
        events = trigger.run()
        waiting = asyncio.ensure_future(anext(events))
        async with asyncio.timeout(60):
            while kube.count("pods/train") < 2:  # noqa: ASYNC110  (the pod is pending)
                await asyncio.sleep(0.01)
            kube.fail("pods/train", refused_midway(), times=25)  # more often than the hook itself asks again
            kube.add_pod("train", phase="Succeeded")
            event = await waiting
        await events.aclose()
    assert event.payload["status"] == "success"
