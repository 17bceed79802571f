"""Both drivers against a real HTTP server that goes wrong on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.exceptions import (
    InvalidArgumentError,
    MlflowAuthError,
    MlflowError,
    MlflowNotFoundError,
    MlflowProtocolError,
    MlflowUnreachableError,
)
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import AsyncDriver, SyncDriver
from airflow_mcp.mlflow_client.wire import Operation, T
from tests.support.fakes.certificate import server_context, write_certificate
from tests.support.fakes.faulty_server import FaultyServer, answer, html, lost_answer, refused_midway, slow
from tests.support.services import LOOPBACK, free_port

RUN = '{"run": {"info": {"run_id": "r1", "experiment_id": "1", "status": "RUNNING"}}}'


def settings(url: str, **changes: Any) -> MlflowSettings:
    return MlflowSettings("mlflow_default", url, url, **{"backoff": 0.01, "retries": 2, **changes})


class Face:
    """One of the two drivers, used in the same way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waits: list[float] = []

    def perform(self, operation: Operation[T], how: MlflowSettings) -> T:
        if self.name == "async":
            return asyncio.run(AsyncDriver(how, sleep=self._asleep).perform(operation))
        driver = SyncDriver(how, sleep=self.waits.append)
        try:
            return driver.perform(operation)
        finally:
            driver.close()

    async def _asleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


class TestRepeating:
    @pytest.mark.parametrize("fault", [answer(500), answer(503), answer(429), html(502), refused_midway()])
    def test_a_read_survives_passing_failures(self, face: Face, server: FaultyServer, fault: Any) -> None:
        server.fail("runs/get", fault, times=2)
        server.fail("runs/get", answer(200, RUN))
        assert face.perform(mlflow_api.get_run("r1"), settings(server.url)).run_id == "r1"
        assert server.count("runs/get") == 3
        assert len(face.waits) == 2

    @pytest.mark.parametrize("fault", [answer(500), answer(429), lost_answer(), html(502)])
    def test_a_creation_is_never_sent_twice(self, face: Face, server: FaultyServer, fault: Any) -> None:
        server.fail("runs/create", fault)
        with pytest.raises(MlflowError, match="create run 'a' in experiment 1"):
            face.perform(mlflow_api.create_run("1", "a", {}, 1), settings(server.url))
        assert server.count("runs/create") == 1
        assert face.waits == []

    def test_a_failure_that_stays_is_reported_after_the_last_try(self, face: Face, server: FaultyServer) -> None:
        server.fail("runs/get", answer(503, '{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "busy"}'))
        with pytest.raises(MlflowError, match=r"HTTP 503 TEMPORARILY_UNAVAILABLE: busy \(tried 3 times\)") as caught:
            face.perform(mlflow_api.get_run("r1"), settings(server.url))
        assert (caught.value.status, server.count("runs/get")) == (503, 3)

    def test_the_server_says_when_to_come_back(self, face: Face, server: FaultyServer) -> None:
        server.fail("runs/get", answer(429, retry_after="7"), times=1)
        server.fail("runs/get", answer(200, RUN))
        face.perform(mlflow_api.get_run("r1"), settings(server.url))
        assert face.waits == [7.0]

    def test_refused_credentials_are_not_tried_again(self, face: Face, server: FaultyServer) -> None:
        server.fail("", answer(401, "You are not authenticated"))
        how = settings(server.url, username="ann", password="pw-secret")
        with pytest.raises(MlflowAuthError, match="check its login and password") as caught:
            face.perform(mlflow_api.get_run("r1"), how)
        assert server.count("") == 1
        assert "pw-secret" not in str(caught.value)


class TestNoAnswer:
    def test_nobody_listening(self, face: Face) -> None:
        url = f"http://{LOOPBACK}:{free_port()}"
        with pytest.raises(MlflowUnreachableError, match=r"no answer: .* \(tried 3 times\)"):
            face.perform(mlflow_api.create_run("1", "a", {}, 1), settings(url))
        assert len(face.waits) == 2, "a request that was never sent may be repeated, whatever it is"

    def test_a_proxy_that_is_used_is_named_without_its_password(
        self, face: Face, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = f"http://ann:pw-secret@{LOOPBACK}:{free_port()}"
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.delenv("REQUEST_METHOD", raising=False)
        with pytest.raises(MlflowUnreachableError, match="goes through the proxy http://127") as caught:
            face.perform(mlflow_api.get_run("r1"), settings("http://mlflow.example.com", retries=0))
        assert "of HTTP_PROXY" in str(caught.value)
        assert "pw-secret" not in str(caught.value)
        monkeypatch.setenv("NO_PROXY", LOOPBACK)
        with pytest.raises(MlflowUnreachableError) as caught:
            face.perform(mlflow_api.get_run("r1"), settings(f"http://{LOOPBACK}:{free_port()}", retries=0))
        assert "proxy" not in str(caught.value)

    def test_a_silent_server(self, face: Face, server: FaultyServer) -> None:
        server.fail("runs/get", slow(30))
        with pytest.raises(MlflowUnreachableError, match=r"silent for 0\.2 s"):
            face.perform(mlflow_api.get_run("r1"), settings(server.url, timeout=0.2, retries=0))

    def test_a_silent_server_is_not_asked_twice_to_create(self, face: Face, server: FaultyServer) -> None:
        server.fail("runs/create", slow(30))
        with pytest.raises(MlflowUnreachableError, match="not repeated, because the server may have done it"):
            face.perform(mlflow_api.create_run("1", "a", {}, 1), settings(server.url, timeout=0.2))
        assert server.count("runs/create") == 1


class TestWrongServer:
    @pytest.mark.parametrize(
        "fault", [html(), html(404), answer(200, '{"run": '), answer(200, "{}"), answer(302, location="/login")]
    )
    def test_what_is_not_mlflow_is_said_to_be_so(self, face: Face, server: FaultyServer, fault: Any) -> None:
        server.fail("", fault)
        with pytest.raises(MlflowProtocolError, match="this is not MLflow's API"):
            face.perform(mlflow_api.get_run("r1"), settings(server.url))
        assert server.count("runs/get") == 1

    def test_a_missing_endpoint_of_an_old_server_is_explained(self, face: Face, server: FaultyServer) -> None:
        server.fail("logged-models", html(404))
        server.fail("version", answer(200, "2.22.1"), times=1)
        with pytest.raises(
            MlflowProtocolError, match=r"MLflow 2\.22\.1 is too old: upgrade the server to 3\.10"
        ) as caught:
            face.perform(mlflow_api.get_logged_model("m-1"), settings(server.url))
        assert caught.value.status == 404
        server.fail("version", answer(200, "3.17.2"))
        with pytest.raises(MlflowProtocolError, match=r"this is not MLflow's API: [^.]*$"):
            face.perform(mlflow_api.get_logged_model("m-1"), settings(server.url))

    def test_a_page_is_not_taken_for_an_artifact(self, face: Face, server: FaultyServer) -> None:
        server.fail("get-artifact", html())
        with pytest.raises(MlflowProtocolError, match="not a file"):
            face.perform(mlflow_api.download_artifact("r1", "gate/report.html"), settings(server.url))


class TestRequests:
    def test_errors_reach_the_operation_so_it_can_answer_them(self, face: Face, server: FaultyServer) -> None:
        server.fail("get-by-name", answer(404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}'))
        assert face.perform(mlflow_api.get_experiment_by_name("x"), settings(server.url)) is None
        server.fail("runs/get", answer(404, '{"error_code": "RESOURCE_DOES_NOT_EXIST"}'))
        with pytest.raises(MlflowNotFoundError):
            face.perform(mlflow_api.get_run("r1"), settings(server.url))

    def test_credentials_go_into_the_header_only(self, face: Face, server: FaultyServer) -> None:
        server.fail("", answer(200, RUN))
        face.perform(mlflow_api.get_run("r1"), settings(server.url, token="s3cret"))
        face.perform(mlflow_api.get_run("r1"), settings(server.url, username="ann", password="pw"))
        assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer s3cret", "Basic YW5uOnB3"]
        assert not any("s3cret" in seen.path for seen in server.seen)

    def test_the_workspace_goes_into_its_header(self, face: Face, server: FaultyServer) -> None:
        server.fail("runs/get", answer(200, RUN))
        face.perform(mlflow_api.get_run("r1"), settings(server.url, workspace="team-a"))
        face.perform(mlflow_api.get_run("r1"), settings(server.url))
        assert [request.headers.get("x-mlflow-workspace") for request in server.seen] == ["team-a", None]

    def test_a_base_path_is_kept(self, face: Face, server: FaultyServer) -> None:
        server.fail("", answer(200, RUN))
        face.perform(mlflow_api.get_run("a/b&c"), settings(f"{server.url}/base"))
        assert server.seen[0].path == "/base/api/2.0/mlflow/runs/get?run_id=a%2Fb%26c"

    def test_a_download_beyond_its_limit_is_refused(self, face: Face, server: FaultyServer) -> None:
        server.fail("get-artifact", answer(200, "x" * 101, content_disposition="attachment; filename=a"))
        with pytest.raises(InvalidArgumentError, match="larger than max_bytes=100"):
            face.perform(mlflow_api.download_artifact("r1", "a", max_bytes=100), settings(server.url))
        assert face.perform(mlflow_api.download_artifact("r1", "a", max_bytes=101), settings(server.url)) == b"x" * 101

    def test_a_closed_driver_opens_again(self, server: FaultyServer) -> None:
        server.fail("", answer(200, RUN))
        driver = SyncDriver(settings(server.url))
        for _ in range(2):
            assert driver.perform(mlflow_api.get_run("r1")).run_id == "r1"
            driver.close()

    def test_a_cancelled_wait_does_not_send_again(self, server: FaultyServer) -> None:
        server.fail("", answer(503, retry_after="60"))

        async def cancel_soon() -> None:
            driver = AsyncDriver(settings(server.url))
            await asyncio.wait_for(driver.perform(mlflow_api.get_run("r1")), 0.3)

        with pytest.raises(TimeoutError):
            asyncio.run(cancel_soon())
        assert server.count("") == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls"))


class TestTls:
    @pytest.fixture
    def server(self, certificate: Path) -> Iterator[FaultyServer]:
        with FaultyServer(tls=server_context(certificate)) as server:
            server.fail("", answer(200, RUN))
            yield server

    def test_an_unknown_certificate_is_refused_at_once_with_what_to_set(self, face: Face, server: FaultyServer) -> None:
        with pytest.raises(MlflowUnreachableError, match="set extra 'ca_bundle'"):
            face.perform(mlflow_api.get_run("r1"), settings(server.url))
        assert (face.waits, server.count("")) == ([], 0)

    def test_the_ca_bundle_is_trusted(self, face: Face, server: FaultyServer, certificate: Path) -> None:
        how = settings(server.url, verify=str(certificate))
        assert face.perform(mlflow_api.get_run("r1"), how).run_id == "r1"

    def test_a_ca_bundle_that_is_not_pem_is_named(self, face: Face, server: FaultyServer, tmp_path: Path) -> None:
        path = tmp_path / "company.pem"
        path.write_text("this is not a certificate")
        with pytest.raises(InvalidArgumentError, match=r"extra 'ca_bundle' must be the path of .*company\.pem"):
            face.perform(mlflow_api.get_run("r1"), settings(server.url, verify=str(path)))
        assert server.count("") == 0

    def test_verification_can_be_switched_off(self, face: Face, server: FaultyServer) -> None:
        assert face.perform(mlflow_api.get_run("r1"), settings(server.url, verify=False)).run_id == "r1"


def test_a_broken_encoding_is_no_answer(face: Face, server: FaultyServer) -> None:
    server.fail("", answer(200, RUN, content_encoding="gzip"))
    with pytest.raises(MlflowUnreachableError, match="DecodingError"):
        face.perform(mlflow_api.get_run("r1"), settings(server.url))
