"""Who may ask: rates, and tokens of a real issuer over HTTPS."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_mcp.core.pipeline.file.policies import TrafficPolicy
from airflow_mcp.serving import access as module
from airflow_mcp.serving.access import Access
from airflow_mcp.serving.exchange import Exchange
from tests.support.fakes.certificate import server_context, write_certificate
from tests.support.fakes.faulty_server import FaultyServer, answer

PRIVATE = ec.generate_private_key(ec.SECP256R1())
PUBLIC = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(PRIVATE.public_key())), "kid": "k1", "use": "sig"}


def exchange(token: str = "", **headers: str) -> Exchange:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if token:
        pairs.append((b"authorization", f"Bearer {token}".encode()))
    return Exchange({"headers": pairs}, 0.0)


def limited(rate: float, **fields: Any) -> Access:
    return Access([TrafficPolicy.model_validate({"rateLimit": {"requestsPerSecond": rate, **fields}})])


def codes(access: Access, *asked: Exchange) -> list[str]:
    problems = [access.admit(one) for one in asked]
    return [problem.code if problem else "" for problem in problems]


class TestRates:
    def test_refuse_the_101st_request_of_a_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module.time, "monotonic", lambda: 50.0)
        access = limited(100)
        assert codes(access, *(exchange() for _ in range(101))) == [""] * 100 + ["rate_limited"]
        problem = access.admit(exchange())
        assert problem is not None
        assert problem.status == 429
        assert (b"retry-after", b"1") in problem.headers

    def test_may_be_those_of_a_header(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module.time, "monotonic", lambda: 50.0)
        access = limited(1, key="X-Team")
        assert codes(access, exchange(x_team="a"), exchange(x_team="b"), exchange(x_team="a")) == [
            "",
            "",
            "rate_limited",
        ]

    def test_of_several_policies_all_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module.time, "monotonic", lambda: 50.0)
        policies = [TrafficPolicy.model_validate({"rateLimit": {"requestsPerSecond": rate}}) for rate in (5, 2)]
        assert codes(Access(policies), *(exchange() for _ in range(3))) == ["", "", "rate_limited"]

    def test_of_a_service_are_divided_among_its_replicas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def three(_: str) -> frozenset[str]:
            return frozenset({"10.0.0.1", "10.0.0.2", "10.0.0.3"})

        monkeypatch.setattr(module, "addresses_of", three)
        policy = TrafficPolicy.model_validate({"rateLimit": {"requestsPerSecond": 9, "scope": "service"}})

        async def run() -> list[str]:
            access = Access([policy], "fraud-replicas")
            async with running(access):
                await asyncio.sleep(0.05)
                monkeypatch.setattr(module.time, "monotonic", lambda: 50.0 + 1e6)
                return codes(access, *(exchange() for _ in range(4)))

        assert asyncio.run(run()) == ["", "", "", "rate_limited"]


@asynccontextmanager
async def running(access: Access) -> AsyncIterator[None]:
    task = asyncio.create_task(access.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Issuer:
    """An issuer of tokens on loopback."""

    def __init__(self, server: FaultyServer, certificate: Path) -> None:
        self.server, self._certificate = server, certificate
        self.url = server.url

    def serves(self, *keys: Any, **changes: Any) -> None:
        self.server.heal()
        described = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **changes}
        self.server.fail("openid-configuration", answer(200, json.dumps(described)))
        self.server.fail("/keys", answer(200, json.dumps({"keys": list(keys)})))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=module_context(self._certificate), timeout=5)

    def access(self, **fields: Any) -> Access:
        policy = {
            "auth": {"method": "JWT", "issuer": self.url, "audience": "fraud", **fields.pop("auth", {})},
            **fields,
        }
        return Access([TrafficPolicy.model_validate(policy)], make_client=self.client)

    def token(self, kid: str = "k1", **changes: Any) -> str:
        claims = {"iss": self.url, "aud": "fraud", "sub": "ann", "exp": time.time() + 60, **changes}
        return jwt.encode(claims, PRIVATE, "ES256", headers={"kid": kid})


def module_context(certificate: Path) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(certificate))


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    certificate = write_certificate(tmp_path_factory.mktemp("issuer"))
    with FaultyServer(tls=server_context(certificate)) as server:
        yield Issuer(server, certificate)


def with_keys(access: Access, then: Callable[[], Awaitable[Any]]) -> Any:
    """Run something once the keys have been read."""

    async def run() -> Any:
        async with running(access), asyncio.timeout(10):
            while access.why_incomplete():  # noqa: ASYNC110  (a test may poll)
                await asyncio.sleep(0.01)
            return await then()

    return asyncio.run(run())


class TestTokens:
    def test_name_the_caller(self, issuer: Issuer) -> None:
        issuer.serves(PUBLIC)
        access = issuer.access()

        async def ask() -> None:
            first, again = exchange(issuer.token()), exchange(issuer.token())
            assert codes(access, first, again, first) == ["", "", ""]
            assert (first.subject, again.subject) == ("ann", "ann")

        with_keys(access, ask)

    def test_that_are_wrong_are_answered_401_and_counted(self, issuer: Issuer) -> None:
        issuer.serves(PUBLIC)
        access = issuer.access()

        async def ask() -> None:
            wrong = [
                exchange(),
                exchange("x"),
                exchange(issuer.token(exp=time.time() - 60)),
                exchange(issuer.token(aud="churn")),
                exchange(issuer.token(iss="https://evil.example.com")),
                exchange(issuer.token(kid="unknown")),
                exchange(jwt.encode({"sub": "root"}, None, "none", headers={"kid": "k1"})),
            ]
            assert codes(access, *wrong) == ["unauthorized"] * len(wrong)
            counted = {
                sample.labels["reason"] for metric in access.collect() for sample in metric.samples if sample.labels
            }
            assert counted == {"missing", "malformed", "expired", "audience", "issuer", "key", "algorithm"}

        with_keys(access, ask)

    def test_come_before_a_limit_of_each_subject(self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
        issuer.serves(PUBLIC)
        access = issuer.access(rateLimit={"requestsPerSecond": 1, "key": "sub"})

        async def ask() -> None:
            monkeypatch.setattr(module.time, "monotonic", lambda: 50.0)
            ann, bob = issuer.token(), issuer.token(sub="bob")
            asked = (exchange(ann), exchange(ann), exchange(bob), exchange())
            assert codes(access, *asked) == ["", "rate_limited", "", "unauthorized"]

        with_keys(access, ask)

    def test_that_are_missing_or_wrong_do_not_use_up_the_shared_rate(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        issuer.serves(PUBLIC)
        access = issuer.access(rateLimit={"requestsPerSecond": 1})

        async def ask() -> None:
            monkeypatch.setattr(module.time, "monotonic", lambda: 50.0)
            strangers = [exchange(), exchange("x"), exchange(issuer.token(exp=time.time() - 60))]
            assert codes(access, *strangers) == ["unauthorized"] * 3
            assert codes(access, exchange(issuer.token()), exchange(issuer.token())) == ["", "rate_limited"]

        with_keys(access, ask)

    def test_are_not_accepted_before_a_key_is_known(self, issuer: Issuer) -> None:
        access = issuer.access()
        assert "have not been read yet" in access.why_incomplete()
        assert codes(access, exchange(issuer.token())) == ["not_ready"]

    def test_of_a_new_key_are_accepted_once_the_keys_were_read_again(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_UNKNOWN_KEY_SECONDS", 0.0)
        issuer.serves({**PUBLIC, "kid": "old"})
        access = issuer.access()

        async def ask() -> None:
            issuer.serves(PUBLIC)
            assert codes(access, exchange(issuer.token())) == ["unauthorized"]
            async with asyncio.timeout(10):
                while codes(access, exchange(issuer.token())) != [""]:  # noqa: ASYNC110  (a test may poll)
                    await asyncio.sleep(0.01)

        with_keys(access, ask)

    def test_are_accepted_while_the_issuer_is_away(self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_UNKNOWN_KEY_SECONDS", 0.0)
        issuer.serves(PUBLIC)
        access = issuer.access()

        async def ask() -> None:
            issuer.server.heal()
            issuer.server.fail("", answer(500))
            before = issuer.server.count("openid")
            assert codes(access, exchange(issuer.token(kid="unknown"))) == ["unauthorized"]
            async with asyncio.timeout(10):
                while issuer.server.count("openid") == before:  # noqa: ASYNC110  (a test may poll)
                    await asyncio.sleep(0.01)
            assert codes(access, exchange(issuer.token())) == [""]

        with_keys(access, ask)

    def test_are_accepted_although_an_earlier_read_of_the_keys_never_ended(
        self, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_READ_SECONDS", 0.3)
        monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
        begun = asyncio.Event()

        class Trickle(httpx.AsyncByteStream):
            """A body of which a byte arrives before every timeout of the client, for ever."""

            async def __aiter__(self) -> AsyncIterator[bytes]:
                begun.set()
                while True:
                    await asyncio.sleep(0.01)
                    yield b" "

        class FirstTrickles(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                if not begun.is_set():
                    return httpx.Response(200, stream=Trickle())
                found = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys", "keys": [PUBLIC]}
                return httpx.Response(200, stream=httpx.ByteStream(json.dumps(found).encode()))

        auth = {"method": "JWT", "issuer": issuer.url, "audience": "fraud"}
        policy = TrafficPolicy.model_validate({"auth": auth})
        access = Access([policy], make_client=lambda: httpx.AsyncClient(transport=FirstTrickles()))

        async def ask() -> None:
            assert begun.is_set()
            assert codes(access, exchange(issuer.token())) == [""]

        with_keys(access, ask)

    def test_of_an_issuer_that_compresses_its_keys_are_never_accepted(self, issuer: Issuer) -> None:
        issuer.server.heal()
        issuer.server.fail("", answer(200, "x", content_encoding="gzip"))
        with pytest.raises(ValueError, match="is compressed"):
            asyncio.run(issuer.access()._keys.read())  # type: ignore[union-attr]
        assert issuer.server.seen[-1].headers["accept-encoding"] == "identity"

    @pytest.mark.parametrize(
        ("changes", "keys"),
        [
            ({"issuer": "https://evil.example.com"}, [PUBLIC]),
            ({"jwks_uri": "http://127.0.0.1/keys"}, [PUBLIC]),
            ({"jwks_uri": "https://evil.example.com/keys"}, [PUBLIC]),
            ({"jwks_uri": 7}, [PUBLIC]),
            ({}, []),
            ({}, [7, {"kty": "EC"}]),
        ],
    )
    def test_of_an_issuer_with_wrong_documents_are_never_accepted(
        self, issuer: Issuer, changes: dict[str, Any], keys: list[Any]
    ) -> None:
        issuer.serves(*keys, **changes)
        access = issuer.access()

        async def run() -> str:
            with pytest.raises(ValueError, match="its "):
                await access._keys.read()  # type: ignore[union-attr]
            return access.why_incomplete()

        assert "have not been read yet" in asyncio.run(run())
