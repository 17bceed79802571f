"""The script that looks around in a pod, run here as a pod would run it."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.core.doctor.workload_image import ProbeReport, read_probe
from airflow_mcp.doctor import pod_probe


def look_around(**environ: str) -> ProbeReport:
    source = Path(pod_probe.__file__).read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", source], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    report = read_probe(done.stdout)
    assert report is not None, done.stdout
    return report


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers like MLflow, or with the status that the path begins with."""

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        status = int(parts[0]) if parts[0].isdigit() else 200
        body = {"health": b"OK", "version": b"3.17.2"}.get(parts[-1], b"") if status == 200 else b"Invalid Host header"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_it_tells_versions_and_what_is_missing() -> None:
    report = look_around()
    assert report.python == ".".join(map(str, sys.version_info[:3]))
    assert report.packages["mlflow"]
    assert pod_probe.version_of("a-package-that-nobody-has") is None
    assert (report.mlflow_status, report.mlflow_error) == (None, "")


def test_it_tells_what_can_be_written(tmp_path: Path) -> None:
    assert pod_probe.is_writable(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert not pod_probe.is_writable(str(tmp_path / "gone"))


def test_it_tells_that_mlflow_answers_and_its_version(server: str) -> None:
    report = look_around(MLFLOW_TRACKING_URI=server)
    assert (report.mlflow_status, report.mlflow_version, report.mlflow_error) == (200, "3.17.2", "")


def test_it_tells_the_status_and_the_text_of_a_refusal(server: str) -> None:
    report = look_around(MLFLOW_TRACKING_URI=f"{server}/403")
    assert (report.mlflow_status, report.mlflow_error) == (403, "Invalid Host header")


def test_it_tells_why_there_is_no_answer(server: str) -> None:
    report = look_around(MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert report.mlflow_status is None
    assert "refused" in report.mlflow_error


def test_the_report_has_the_fields_that_are_read(server: str) -> None:
    report = look_around(MLFLOW_TRACKING_URI=server)
    assert set(vars(report)) == set(ProbeReport.__dataclass_fields__)
