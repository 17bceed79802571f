"""Calls of MLflow's webhook: what a genuine one causes, and that it reaches the other replicas."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from airflow_mcp.serving import webhooks as module
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.webhooks import WebhookReceiver
from tests.support.fakes.faulty_server import LOOPBACK, FaultyServer, answer

SECRET = "s3cret"
BODY = b'{"entity":"model_version_tag"}'


def call(delivery: str = "d1", **headers: str) -> Exchange:
    stamp = str(int(time.time()))
    digest = hmac.new(SECRET.encode(), f"{delivery}.{stamp}.".encode() + BODY, hashlib.sha256).digest()
    named = {
        "x-mlflow-signature": f"v1,{base64.b64encode(digest).decode()}",
        "x-mlflow-delivery-id": delivery,
        "x-mlflow-timestamp": stamp,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Exchange({"headers": [(name.encode(), value.encode()) for name, value in named.items()]}, 0.0)


def body_of(*parts: bytes) -> Callable[[], Any]:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return messages.pop(0)

    return receive


class TestACall:
    def test_causes_a_look_once(self) -> None:
        looks: list[int] = []
        receiver = WebhookReceiver(SECRET, lambda: looks.append(1))

        async def run() -> list[int]:
            return [(await receiver.answer(call(), body_of(BODY))).status for _ in range(3)]

        assert asyncio.run(run()) == [200, 200, 200]
        assert looks == [1]

    @pytest.mark.parametrize(
        ("parts", "code"),
        [((b"other",), "unauthorized"), ((BODY, b" "), "unauthorized"), ((b"x" * 40_000, b"x" * 40_000), "too_large")],
    )
    def test_that_is_not_genuine_causes_nothing(self, parts: tuple[bytes, ...], code: str) -> None:
        receiver = WebhookReceiver(SECRET, lambda: pytest.fail("it looked"))
        with pytest.raises(Problem) as caught:
            asyncio.run(receiver.answer(call(), body_of(*parts)))
        assert caught.value.code == code

    def test_whose_connection_is_closed_causes_nothing(self) -> None:
        async def gone() -> Any:
            return {"type": "http.disconnect"}

        with pytest.raises(Problem):
            asyncio.run(WebhookReceiver(SECRET, lambda: pytest.fail("it looked")).answer(call(), gone))


@asynccontextmanager
async def replica(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyServer]:
    """Another replica of the service on loopback, while this one has another address."""

    async def addresses(name: str) -> frozenset[str]:
        return frozenset({LOOPBACK, "192.0.2.1"}) if name == "fraud-replicas" else frozenset({"192.0.2.1"})

    monkeypatch.setattr(module, "addresses_of", addresses)
    with FaultyServer() as server:
        server.fail("/hooks/mlflow", answer(200, "{}"))
        yield server


def port_of(server: FaultyServer) -> int:
    return int(server.url.rpartition(":")[2])


class TestOtherReplicas:
    def test_get_the_same_signed_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def run() -> None:
            async with replica(monkeypatch) as server:
                receiver = WebhookReceiver(SECRET, lambda: None, "fraud-replicas", port_of(server))
                await receiver.answer(call(), body_of(BODY))
                await asyncio.gather(*receiver._tasks)
                (seen,) = server.seen
                assert seen.body == BODY
                assert seen.headers["x-airflow-mcp-hop"] == "1"
                again = Exchange({"headers": [(n.encode(), v.encode()) for n, v in seen.headers.items()]}, 0.0)
                looks: list[int] = []
                other = WebhookReceiver(SECRET, lambda: looks.append(1), "fraud-replicas", port_of(server))
                await other.answer(again, body_of(seen.body))
                assert looks == [1]
                assert not other._tasks  # it is not handed on twice
                assert len(server.seen) == 1

        asyncio.run(run())

    def test_that_are_away_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def run() -> int:
            async with replica(monkeypatch) as server:
                port = port_of(server)
            receiver = WebhookReceiver(SECRET, lambda: None, "fraud-replicas", port)
            page = await receiver.answer(call(), body_of(BODY))
            await asyncio.gather(*receiver._tasks)
            return page.status

        assert asyncio.run(run()) == 200
