"""The shared client: how many connections there are, when they are closed, and that nobody gets a closed one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.mlflow_client import api, kept_client
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import AsyncDriver
from tests.support.services import LOOPBACK

BODY = b'{"run": {"info": {"run_id": "r1", "experiment_id": "1", "status": "RUNNING"}}}'


class Server:
    """An HTTP server that counts its connections; it answers when it may."""

    def __init__(self) -> None:
        self.opened = self.open = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.settings = MlflowSettings("mlflow_default", "", "")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await self.may_answer.wait()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
                writer.write(head.encode() + BODY)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def ask(self, workspace: str = "") -> Run:
        """Ask with a driver of its own, as each trigger does."""
        settings = MlflowSettings("mlflow_default", self.settings.base_url, "", workspace=workspace)
        return await AsyncDriver(settings).perform(api.get_run("r1"))

    async def nothing_is_open(self) -> None:
        async with asyncio.timeout(10):
            while self.open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def started() -> AsyncIterator[Server]:
    server = Server()
    async with await asyncio.start_server(server.serve, LOOPBACK, 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        server.settings = MlflowSettings("mlflow_default", f"http://{LOOPBACK}:{port}", "")
        yield server


async def test_all_hooks_of_one_server_share_a_connection() -> None:
    async with started() as server:
        for _ in range(5):
            assert (await server.ask()).run_id == "r1"
        assert server.opened == 1
        await server.ask(workspace="another")  # other credentials or headers are another client
        assert server.opened == 2


async def test_requests_at_the_same_time_do_not_wait_for_each_other() -> None:
    async with started() as server:
        server.may_answer.clear()
        asked = [asyncio.create_task(server.ask()) for _ in range(150)]  # more than httpx allows by default
        async with asyncio.timeout(30):
            while server.open < 150:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        server.may_answer.set()
        assert {run.run_id for run in await asyncio.gather(*asked)} == {"r1"}


async def test_it_is_closed_when_nobody_uses_it_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_client, "IDLE_SECONDS", 0.05)
    async with started() as server:
        await server.ask()
        await server.nothing_is_open()
        await server.ask()
        assert server.opened == 2


async def test_an_old_one_gets_no_more_requests_and_finishes_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_client, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(kept_client, "LONGEST_SECONDS", 0.0)
    async with started() as server:
        server.may_answer.clear()
        first = asyncio.create_task(server.ask())
        await asyncio.sleep(0.2)
        second = asyncio.create_task(server.ask())
        await asyncio.sleep(0.05)
        server.may_answer.set()
        assert (await first).run_id == (await second).run_id == "r1"
        assert server.opened == 2
        await server.nothing_is_open()


def test_the_end_of_the_event_loop_closes_it() -> None:
    async def ask() -> int:
        async with started() as server:
            await server.ask()
            return server.open

    assert asyncio.run(ask()) == 1  # warnings are errors: a socket that stays open would fail the test
    assert asyncio.run(ask()) == 1  # another loop has a client of its own
