"""The client of the tests and the demo asks again when Airflow's database was locked, and only then."""

from __future__ import annotations

import functools

import httpx
import pytest

from tests.support import airflow_api
from tests.support.airflow_api import AirflowClient, AirflowClientError

LOCKED = {"detail": {"reason": "Database error", "statement": "hidden", "orig_error": "hidden"}}


def client(monkeypatch: pytest.MonkeyPatch, answers: list[httpx.Response]) -> AirflowClient:
    """Return a client of a server that gives these answers, one after the other, to everything but a login."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"access_token": "t"}) if request.url.path == "/auth/token" else answers.pop(0)

    make = functools.partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr(airflow_api.httpx, "Client", make)
    monkeypatch.setattr(airflow_api.time, "sleep", lambda _: None)
    return AirflowClient("http://airflow", "a", "b")


def test_a_locked_database_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [httpx.Response(500, json=LOCKED), httpx.Response(200, json={"dag_run_id": "r1"})]
    with client(monkeypatch, answers) as api:
        assert api.trigger("train") == "r1"
    assert answers == []


def test_a_database_that_stays_locked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [httpx.Response(500, json=LOCKED) for _ in range(5)]
    with client(monkeypatch, answers) as api, pytest.raises(AirflowClientError, match="Database error"):
        api.trigger("train")
    assert len(answers) == 1


@pytest.mark.parametrize("status", [500, 409])
def test_another_error_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    answers = [httpx.Response(status, json={"detail": "no"}), httpx.Response(200, json={"dag_run_id": "r1"})]
    with client(monkeypatch, answers) as api, pytest.raises(AirflowClientError, match=f"HTTP {status}"):
        api.trigger("train")
    assert len(answers) == 1
