"""Versions on other servers: where requests may go, and what becomes of the answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from airflow_mcp.core.serving.frames import AnswerKind
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving import upstream_pool
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.pool import PoolStartError
from airflow_mcp.serving.upstream_pool import UpstreamPool, why_not_allowed
from tests.support.fakes.faulty_server import Fault, FaultyServer, answer, html, refused_midway, slow

ANSWER = json.dumps({"model_name": "fraud", "outputs": []})
BODY = b'{"inputs": []}'


@pytest.fixture
def upstream() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


def healthy(server: FaultyServer, infer: Fault | None = None) -> None:
    server.heal()
    server.fail("/ready", answer(200, "{}"))
    server.fail("/infer", infer or answer(200, ANSWER))


def with_pool(server: FaultyServer, then: Callable[[UpstreamPool], Awaitable[Any]], **settings: Any) -> Any:
    async def run() -> Any:
        options = ServingSettings.model_validate({"request_timeout": 1.0, **settings})
        pool = UpstreamPool("fraud/8", f"{server.url}/v2/models/fraud", options)
        await pool.start()
        try:
            return await then(pool)
        finally:
            await pool.stop()

    return asyncio.run(run())


def code_of(server: FaultyServer, fault: Fault) -> str:
    healthy(server, fault)

    async def ask(pool: UpstreamPool) -> str:
        with pytest.raises(Problem) as caught:
            await pool.submit(pool.decoder.infer(BODY))
        return caught.value.code

    return str(with_pool(server, ask))


class TestAnAddress:
    allowed = ("http://triton:8000", "https://kserve.example.com/v2/models/team-a")

    @pytest.mark.parametrize(
        "address",
        [
            "http://triton:8000/v2/models/fraud",
            "https://kserve.example.com/v2/models/team-a",
            "https://kserve.example.com/v2/models/team-a/fraud",
        ],
    )
    def test_may_be_one_of_the_allowed(self, address: str) -> None:
        assert why_not_allowed(address, self.allowed) == ""

    @pytest.mark.parametrize(
        "address",
        [
            "http://169.254.169.254/v2/models/x",
            "http://triton:8000.evil.example.com/v2/models/x",
            "http://triton:8000@evil.example.com/v2/models/x",
            "http://triton:9000/v2/models/x",
            "https://triton:8000/v2/models/x",
            "http://triton:8000/v2/models/../../admin",
            *(f"http://triton:8000/v2/models/{part}/admin" for part in ("%2e%2e", ".%2E", "%252e%252e", ".", "a%2f..")),
            *(f"http://triton:8000/v2/models/{part}/admin" for part in ("..%5c", "..;", "a%00")),
            "http://triton:8000/admin",
            "http://triton:8000/v2/models/x?y=1",
            "https://kserve.example.com/v2/models/team-b",
            "https://kserve.example.com/v2/models/team-ab",
            "file:///etc/passwd",
            "",
        ],
    )
    def test_may_not_be_anything_else(self, address: str) -> None:
        assert why_not_allowed(address, self.allowed) != ""

    def test_is_never_allowed_where_none_is(self) -> None:
        assert "not in allowed_upstreams" in why_not_allowed("http://triton:8000/v2/models/x", ())


class TestARequest:
    def test_is_passed_on_as_it_is(self, upstream: FaultyServer) -> None:
        healthy(upstream)

        async def ask(pool: UpstreamPool) -> Any:
            request = pool.decoder.infer(BODY)
            request.request_id = b"r-1"
            return await pool.submit(request)

        found = with_pool(upstream, ask)
        assert (found.kind, found.json) == (AnswerKind.UNWRAPPED, ANSWER.encode())
        sent = upstream.seen[-1]
        assert (sent.path, sent.body, sent.headers["x-request-id"]) == ("/v2/models/fraud/infer", BODY, "r-1")

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (slow(5), "timeout"),
            (refused_midway(), "upstream_failed"),
            (answer(500, "{}"), "upstream_failed"),
            (answer(503, "{}"), "upstream_failed"),
            (html(), "upstream_failed"),
            (answer(302, "{}", location="http://evil.example.com"), "upstream_failed"),
            (answer(400, '{"error": "a value of the caller"}'), "invalid_rows"),
        ],
        ids=["hangs", "away", "error", "busy", "html", "redirect", "refused"],
    )
    def test_that_goes_wrong_has_a_code(self, upstream: FaultyServer, fault: Fault, code: str) -> None:
        assert code_of(upstream, fault) == code

    def test_of_mlflows_protocol_is_refused(self, upstream: FaultyServer) -> None:
        healthy(upstream)

        async def ask(pool: UpstreamPool) -> str:
            with pytest.raises(Problem) as caught:
                pool.decoder.invocations(b"{}", "application/json")
            return caught.value.code

        assert with_pool(upstream, ask) == "invalid_body"


class TestThePool:
    def test_does_not_start_while_the_model_is_not_ready(self, upstream: FaultyServer) -> None:
        upstream.fail("/ready", answer(503, "{}"))
        with pytest.raises(PoolStartError, match="it answered 503 to /ready"):
            with_pool(upstream, lambda _: asyncio.sleep(0))

    def test_asks_no_more_after_five_failures_until_the_server_is_back(
        self, upstream: FaultyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upstream_pool, "_LOOK_SECONDS", 0.05)
        healthy(upstream)

        async def fail_and_recover(pool: UpstreamPool) -> None:
            changes: list[bool] = []
            pool.on_change = lambda: changes.append(pool.ready)
            upstream.heal()
            upstream.fail("", refused_midway())
            for _ in range(5):
                with pytest.raises(Problem):
                    await pool.submit(pool.decoder.infer(BODY))
            assert not pool.ready
            with pytest.raises(Problem) as caught:
                pool.submit(pool.decoder.infer(BODY))
            assert caught.value.code == "not_ready"
            healthy(upstream)
            async with asyncio.timeout(10):
                while not pool.ready:  # noqa: ASYNC110  (a test may poll)
                    await asyncio.sleep(0.01)
            assert changes == [False, True]
            assert (await pool.submit(pool.decoder.infer(BODY))).json == ANSWER.encode()

        with_pool(upstream, fail_and_recover)

    def test_takes_no_more_requests_than_may_wait(self, upstream: FaultyServer) -> None:
        healthy(upstream, slow(0.3))

        async def ask(pool: UpstreamPool) -> str:
            waiting = asyncio.ensure_future(pool.submit(pool.decoder.infer(BODY)))
            with pytest.raises(Problem) as caught:
                pool.submit(pool.decoder.infer(BODY))
            assert pool.in_flight == 1
            await asyncio.gather(waiting, return_exceptions=True)
            assert pool.in_flight == 0
            return caught.value.code

        assert with_pool(upstream, ask, max_queue_rows=1) == "overloaded"
