"""A real Prometheus with our alerts, where Debian's package is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import yaml

from tests.support.processes import wait_until
from tests.support.promql import MONITORING
from tests.support.services import LOOPBACK, free_port

PROMETHEUS = shutil.which("prometheus")


@contextmanager
def prometheus(folder: Path, airflow: str, token: str) -> Iterator[str]:
    """Yield the address of a Prometheus that scrapes Airflow as in the stack, every two seconds; alerts fire at once.

    :param folder: an empty folder.
    :param airflow: address of Airflow.
    :param token: token of ``GET /mcp/metrics``.
    """
    assert PROMETHEUS is not None
    folder.mkdir()
    (folder / "token").write_text(token)
    rules = re.sub(r"\bfor: \w+", "for: 0s", (MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    (folder / "alerts.yml").write_text(rules)
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    job = next(each for each in config["scrape_configs"] if each["job_name"] == "airflow-mcp")
    job |= {
        "scrape_interval": "2s",
        "scrape_timeout": "2s",
        "authorization": {"credentials_file": str(folder / "token")},
        "static_configs": [{"targets": [urlsplit(airflow).netloc]}],
    }
    config |= {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(folder / "alerts.yml")],
        "scrape_configs": [job],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        PROMETHEUS,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield f"http://{LOOPBACK}:{port}"
        finally:
            process.terminate()
            process.wait(30)


def wait_for_alert(url: str, name: str, seconds: float = 120) -> dict[str, str]:
    """Return the labels of an alert when it fires.

    :param url: address of Prometheus.
    :param name: name of the alert.
    :param seconds: how long to wait for it.
    """

    def firing() -> list[dict[str, str]]:
        try:
            answer = httpx.get(f"{url}/api/v1/alerts", trust_env=False).raise_for_status()
        except (httpx.TransportError, httpx.HTTPStatusError):  # it is still starting
            return []
        alerts = answer.json()["data"]["alerts"]
        return [each["labels"] for each in alerts if each["state"] == "firing" and each["labels"]["alertname"] == name]

    assert wait_until(lambda: bool(firing()), seconds=seconds), f"{name} does not fire"
    return firing()[0]
