"""Airflow's REST API: what is asked, and what is said when it refuses or does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from airflow_mcp.exceptions import AirflowApiError
from airflow_mcp.hooks.airflow_api import AirflowApi

Handler = Callable[[httpx.Request], httpx.Response]
ANY = {"token": "a-token"}


def api(handler: Handler, **credentials: str) -> AirflowApi:
    return AirflowApi("http://airflow:8080", transport=httpx.MockTransport(handler), **(credentials or ANY))


def test_a_token_is_asked_for_once_and_sent_with_every_request() -> None:
    asked: list[tuple[str, str | None]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, request.headers.get("Authorization")))
        if request.url.path == "/auth/token":
            assert json.loads(request.content) == {"username": "ann", "password": "secret"}
            return httpx.Response(201, json={"access_token": "new"})
        return httpx.Response(200, json={"assets": [], "total_entries": 0})

    with api(handler, user="ann", password="secret") as connected:
        connected.asset_names("a")
        connected.asset_names("b")
    assert asked == [("/auth/token", None), *[("/api/v2/assets", "Bearer new")] * 2]


def test_all_pages_of_assets_are_read() -> None:
    names = [f"retrain/{number}" for number in range(250)]

    def handler(request: httpx.Request) -> httpx.Response:
        first = int(request.url.params["offset"])
        page = [{"name": name, "id": number} for number, name in enumerate(names)][first : first + 100]
        return httpx.Response(200, json={"assets": page, "total_entries": len(names)})

    with api(handler) as connected:
        assert connected.asset_names("retrain/") == {name: number for number, name in enumerate(names)}


def test_a_value_is_read_and_written_at_its_address_and_a_missing_one_is_the_default() -> None:
    stored: dict[str, Any] = {}

    def handler(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        if request.method == "PUT":
            stored[path] = json.loads(request.content)["value"]
            return httpx.Response(204)
        return httpx.Response(200, json={"value": stored[path]}) if path in stored else httpx.Response(404)

    with api(handler) as connected:
        store = connected.state_store(7)
        assert store.get("a/b", "default") == "default"
        store.set("a/b", {"x": 1})
        assert store.get("a/b") == {"x": 1}
    assert list(stored) == ["/api/v2/assets/7/state-store/a%2Fb"]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, "{}", "with 401: the credentials are wrong or have expired"),
        (403, '{"detail": "Forbidden"}', "(role Op may), or the token is not valid. Details: Forbidden"),
        (404, "not found", "with 404: it does not exist. Is this the address of Airflow 3.3 or newer?"),
        (409, "{}", "with 409: somebody else changed it at the same time. Look at it again, then repeat"),
        (422, '{"detail": [{"msg": "too large"}]}', "with 422: see the log of Airflow's API server. Details: [{"),
        (500, "<html>", "with 500: see the log"),
        (200, "<html>", "with something that is not JSON. Is it the address of Airflow?"),
    ],
)
def test_every_refusal_says_what_was_asked_and_what_to_do(status: int, body: str, message: str) -> None:
    with (
        api(lambda request: httpx.Response(status, text=body)) as connected,
        pytest.raises(AirflowApiError) as caught,
    ):
        connected.asset_names("x")
    assert message in str(caught.value)
    assert "GET /api/v2/assets" in str(caught.value)
    assert caught.value.status == status


def test_no_answer_is_an_error_that_names_the_address_and_no_secret() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(AirflowApiError, match="http://airflow:8080 does not answer POST /auth/token") as caught:
        api(handler, user="ann", password="secret").__enter__()
    assert caught.value.status is None
    assert "secret" not in str(caught.value)
