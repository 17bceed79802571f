"""A real Prometheus scrapes our route with its token, and an alert fires."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from tests.support.metrics_world import TOKEN, every_model, metrics_app
from tests.support.processes import wait_until
from tests.support.prometheus import PROMETHEUS, prometheus, wait_for_alert
from tests.support.services import LOOPBACK, free_port

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is missing: Debian's package prometheus has it")


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[str]:
    """The address of a server with the route of metrics where Airflow has it."""
    app, port = FastAPI(), free_port()
    app.mount("/mcp", metrics_app(every_model(tmp_path)))
    server = uvicorn.Server(uvicorn.Config(app, host=LOOPBACK, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert wait_until(lambda: server.started, seconds=30)
    yield f"http://{LOOPBACK}:{port}"
    server.should_exit = True
    thread.join(30)


def test_what_is_wrong_with_a_model_reaches_prometheus_and_its_alert_fires(airflow: str, tmp_path: Path) -> None:
    with prometheus(tmp_path / "prometheus", airflow, TOKEN) as url:
        assert wait_for_alert(url, "McpChampionMovedOutside")["model"] == "churn"
        assert wait_for_alert(url, "McpNoWayBack")["model"] == "fraud"


def test_a_wrong_token_fires_the_alert_that_nothing_is_scraped(airflow: str, tmp_path: Path) -> None:
    with prometheus(tmp_path / "prometheus", airflow, "another-token") as url:
        assert wait_for_alert(url, "McpNotScraped")["severity"] == "page"
