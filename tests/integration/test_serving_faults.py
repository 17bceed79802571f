"""A model server that follows a real registry, while a client asks all the time and everything around it goes wrong.

The tests share one server and its MLflow, behind a gate that goes wrong on demand. Each leaves version 1 answering.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_mcp.core import contract
from airflow_mcp.core.drift.profile import ColumnProfile, DataProfile, Distribution, write_profile
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.serving.cache import digest_of
from airflow_mcp.serving.upstream_pool import TAG_UPSTREAM
from airflow_mcp.work.reading.request_log import RequestLog
from tests.support.fakes.certificate import server_context, write_certificate
from tests.support.fakes.faulty_server import Fault, FaultyServer, answer, html, refused_midway, slow
from tests.support.followed_server import FollowingServer, NumberedVersions, SteadyClient
from tests.support.model_server import children
from tests.support.services import LOOPBACK, MlflowServer, free_port

SECRET = "a-secret-of-the-webhook"
ALIAS = "registered-models/alias"


class World:
    """A server, its registry, and what stands between them."""

    def __init__(self, versions: NumberedVersions, gate: FaultyServer, server: FollowingServer, folder: Path) -> None:
        self.versions, self.gate, self.server, self.folder = versions, gate, server, folder
        self.hook = versions.hook
        self.name = versions.name
        self._generation = 0
        self.roles = {"champion"}
        """Roles in which versions have answered, so that the prediction log must have them."""

    def failed(self, number: str) -> str:
        """Wait until a version has failed, and return why."""

        def found() -> Any:
            state = self.server.state(number)
            return state if state.get("state") == "FAILED" else None

        return str(self.server.wait_for(found)["reason"])

    def split(self, canary: str = "2", **fields: Any) -> None:
        """Write the next generation of a split into the tag of version 1, and wait until it is in force."""
        self._generation += 1
        values = {"identity": "r1", "generation": self._generation, "phase": "PROGRESSING", "stable": "1", **fields}
        text = json.dumps({"schema": "airflow_mcp/rollout/1", "canary": canary, **values})
        self.hook.set_model_version_tag(self.name, "1", TAG_ROLLOUT, text)
        self.server.wait_for(lambda: self.plan["generation"] == self._generation)
        self.server.wait_for(lambda: self.server.state(canary).get("state") == "READY")

    @property
    def plan(self) -> Any:
        """The plan in force."""
        return self.server.status()["models"][self.name]

    def looked_again(self) -> None:
        """Wait until the server has looked at the registry once more."""

        def looks() -> int:
            return sum(self.server.status()["registry"]["looks"].values())

        before = looks()
        self.server.wait_for(lambda: looks() > before + 1)


@pytest.fixture(scope="module")
def module_world(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("serving")
    os.environ["AIRFLOW_CONN_MLFLOW_SERVING"] = json.dumps({"conn_type": "mlflow", "host": mlflow_server.url})
    hook = MlflowHook("mlflow_serving")
    versions = NumberedVersions(mlflow_server, hook, f"served-{uuid.uuid4().hex[:8]}", folder)
    versions.add(profile=_profile())
    versions.add()
    versions.promote("1")
    with FaultyServer(mlflow_server.url) as gate:
        server = FollowingServer(
            folder,
            f"models:/{versions.name}@champion",
            gate.url,
            WEBHOOK_SECRET=SECRET,
            LOG_URI=folder / "predictions",
            OUTLIERS="true",
            KEEP_WARM=2,  # version 2 stays loaded for the tests of splits
        )
        gate.fail("", refused_midway())
        with server:
            # There is neither an MLflow server nor a cache: live, not ready, and it says why.
            assert server.ask("/healthz", None).status == 200
            refused = server.ask("/readyz", None)
            assert refused.status == 503
            assert "no model yet" in refused.json["reason"]
            assert server.ask().status == 503
            gate.heal()
            server.wait_for_version("1")
            yield World(versions, gate, server, folder)
    hook.close()
    del os.environ["AIRFLOW_CONN_MLFLOW_SERVING"]


def _profile() -> str:
    """Return the profile of training data in which x1 was never as small as the tests ask."""
    columns = tuple(
        ColumnProfile(
            name=name,
            kind="numerical",
            type="double",
            distribution=Distribution(values=(low, 9.0), at=(1, 1), mean=5.0, variance=1.0),
        )
        for name, low in (("x1", 0.9), ("x2", 0.0))
    )
    return write_profile(DataProfile(rows=2, columns=columns))


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    yield module_world
    module_world.gate.heal()
    module_world.hook.set_model_version_tag(module_world.name, "1", TAG_ROLLOUT, "")
    module_world.hook.set_model_version_tag(module_world.name, "1", TAG_ROLLBACK, "")
    module_world.versions.promote("1")
    if module_world.server.is_running:
        module_world.server.wait_for(
            lambda: (module_world.plan["champion"], module_world.plan["canary"]) == ("1", None)
        )
        module_world.server.wait_for_version("1")


@pytest.fixture
def client(world: World) -> Iterator[SteadyClient]:
    """Asks during the whole test, in which no request may fail."""
    with SteadyClient(world.server, pause=0.06) as client:
        yield client
        world.server.wait_for(lambda: len(client.answers) > 10)
    client.require_no_failure()


class TestASwap:
    def test_changes_the_version_without_a_failed_request(self, world: World, client: SteadyClient) -> None:
        world.versions.promote("2")
        world.server.wait_for_version("2")
        time.sleep(0.3)
        assert client.versions == {"1", "2"}
        order = [found.version for found in client.answers]
        assert order.index("2") > 0

    def test_goes_back_to_a_warm_version_at_once(self, world: World, client: SteadyClient) -> None:
        world.versions.promote("2")
        world.server.wait_for_version("2")
        assert world.server.state("1")["state"] == "READY"
        world.versions.promote("1")
        world.server.wait_for_version("1")
        assert world.server.state("2")["state"] == "READY"

    def test_follows_the_newest_wish_while_another_version_loads(self, world: World, client: SteadyClient) -> None:
        third = world.versions.add()
        world.versions.promote(third)
        world.server.wait_for(lambda: world.server.state(third).get("state") in ("FETCHING", "CHECKING", "STARTING"))
        world.versions.promote("1")
        world.server.wait_for(lambda: world.server.state(third) == {})
        assert third not in client.versions


class TestAVersionThatCannotBeServed:
    """The old version stays, whatever is wrong with the new one."""

    def refusal(self, world: World, number: str) -> str:
        """Promote a version, and return why it is refused; the one before it goes on answering."""
        world.versions.promote(number)
        reason = world.failed(number)
        assert world.server.ask().version == "1"
        assert world.server.ask("/readyz", None).status == 200
        return reason

    def test_because_its_files_are_missing(self, world: World, client: SteadyClient) -> None:
        number = world.versions.add()
        for path in world.versions.files(number).iterdir():
            if path.is_file():
                path.unlink()
        assert "files:" in self.refusal(world, number)

    def test_because_a_file_has_another_digest(self, world: World, client: SteadyClient) -> None:
        number = world.versions.add()
        (world.versions.files(number) / "model.pkl").write_bytes(b"something else")
        assert "its files have digest" in self.refusal(world, number)
        assert not (world.folder / "cache" / world.name / number).exists()

    def test_because_no_gate_has_passed_it(self, world: World, client: SteadyClient) -> None:
        number = world.versions.add(tags={contract.TAG_GATE_VERDICT: None}, run_tags={contract.TAG_GATE_VERDICT: ""})
        assert "its gate verdict is none" in self.refusal(world, number)

    def test_because_its_tags_were_edited(self, world: World, client: SteadyClient) -> None:
        number = world.versions.add(tags={contract.TAG_DATA_HASH: "sha256:" + "b" * 64})
        assert "its data hash is" in self.refusal(world, number)

    def test_because_its_load_check_failed(self, world: World, client: SteadyClient) -> None:
        number = world.versions.add(tags=LoadCheck("failed", "it does not answer").to_tags())
        assert "it does not answer" in self.refusal(world, number)

    def test_because_it_does_not_load(self, world: World, client: SteadyClient) -> None:
        number = world.versions.add(change=lambda folder: (folder / "model.pkl").write_bytes(b"torn") and None)
        assert "load:" in self.refusal(world, number)

    def test_until_the_registry_says_something_else(self, world: World, client: SteadyClient) -> None:
        missing = {contract.TAG_GATE_VERDICT: None}
        number = world.versions.add(tags=missing)
        assert "gate verdict" in self.refusal(world, number)
        world.hook.set_model_version_tag(world.name, number, contract.TAG_GATE_VERDICT, "passed")
        world.server.wait_for(lambda: world.server.state(number).get("state") in ("FETCHING", "STARTING", "READY"))
        world.versions.promote("1")
        world.looked_again()  # otherwise it could still answer, once it has loaded


class TestMlflow:
    @pytest.mark.parametrize(
        "fault",
        [refused_midway(), html(), html(502), answer(500, "{}"), answer(200, "{}"), slow(5), answer(401, "{}")],
        ids=["away", "html", "bad gateway", "error", "other json", "hangs", "no rights"],
    )
    def test_may_go_wrong_in_any_way(self, world: World, client: SteadyClient, fault: Fault) -> None:
        world.gate.fail("", fault)
        world.looked_again()
        assert world.server.status()["registry"]["problems"]
        assert world.server.ask().version == "1"
        assert world.server.ask("/readyz", None).status == 200
        assert b"airflow_mcp_serving_registry_up 0.0" in world.server.ask("/metrics", None).body
        world.gate.heal()
        world.server.wait_for(lambda: not world.server.status()["registry"]["problems"])

    def test_may_lose_the_alias(self, world: World, client: SteadyClient) -> None:
        world.hook.delete_alias(world.name, contract.ALIAS_CHAMPION)
        world.looked_again()
        assert world.server.ask().version == "1"
        assert "no alias 'champion'" in json.dumps(world.server.status()["registry"]["problems"])

    def test_may_have_an_alias_that_points_at_nothing(self, world: World, client: SteadyClient) -> None:
        gone = answer(404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}))
        world.gate.fail(ALIAS, gone)
        world.looked_again()
        assert world.server.ask().version == "1"


def signed(body: bytes, *, secret: str = SECRET, at: float | None = None, delivery: str = "") -> dict[str, str]:
    """Sign a call as MLflow does."""
    stamp, name = str(int(time.time() if at is None else at)), delivery or uuid.uuid4().hex
    digest = hmac.new(secret.encode(), f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}",
        "X-MLflow-Delivery-Id": name,
        "X-MLflow-Timestamp": stamp,
    }


class TestTheWebhook:
    body = b'{"entity":"model_version_alias","action":"created","data":{}}'

    def call(self, world: World, headers: dict[str, str], body: bytes | None = None) -> int:
        return world.server.ask("/hooks/mlflow", self.body if body is None else body, headers).status

    def test_takes_genuine_calls_only(self, world: World, client: SteadyClient) -> None:
        assert self.call(world, signed(self.body)) == 200
        assert self.call(world, signed(self.body, secret="guess")) == 401
        assert self.call(world, signed(self.body), b"{}") == 401
        assert self.call(world, signed(self.body, at=time.time() - 301)) == 401
        assert self.call(world, {}) == 401
        assert self.call(world, signed(self.body), b"x" * 100_000) == 413

    def test_takes_a_repeated_call_and_does_nothing(self, world: World, client: SteadyClient) -> None:
        headers = signed(self.body, delivery="once")
        assert [self.call(world, headers) for _ in range(3)] == [200, 200, 200]


class TestASplit:
    def test_sends_its_share_to_the_canary_and_keeps_everybody_on_one_side(
        self, world: World, client: SteadyClient
    ) -> None:
        world.split(weight=50, sticky="X-User-Id")
        sides: dict[int, set[str]] = {}
        for _ in range(3):
            for user in range(60):
                found = world.server.ask(headers={"X-User-Id": f"user-{user}"})
                assert found.is_consistent
                assert found.role == {"1": "champion", "2": "canary"}[found.version]
                sides.setdefault(user, set()).add(found.version)
        world.roles.add("canary")
        assert all(len(seen) == 1 for seen in sides.values())
        assert 15 <= sum(seen == {"2"} for seen in sides.values()) <= 45

    def test_ends_with_the_alias(self, world: World, client: SteadyClient) -> None:
        world.split(weight=100)
        assert world.server.ask().role == "canary"
        world.versions.promote("2")
        world.server.wait_for(lambda: world.plan["champion"] == "2")
        assert (world.plan["canary"], world.plan["weight"]) == (None, 0)
        assert world.server.ask().role == "champion"

    @pytest.mark.parametrize("text", ["{", '{"schema": "airflow_mcp/rollout/9"}'])
    def test_that_cannot_be_read_is_none(self, world: World, client: SteadyClient, text: str) -> None:
        world.hook.set_model_version_tag(world.name, "1", TAG_ROLLOUT, text)
        world.server.wait_for(lambda: "airflow_mcp.rollout" in world.plan["error"])
        assert {world.server.ask().version for _ in range(20)} == {"1"}

    def test_lets_a_caller_choose(self, world: World, client: SteadyClient) -> None:
        world.split(weight=0)
        assert world.server.ask(headers={"X-Model-Version": "2"}).role == "forced"
        assert world.server.ask(headers={"X-Model-Alias": "challenger"}).version == "2"
        for wrong in ({"X-Model-Version": "99"}, {"X-Model-Alias": "nobody"}):
            assert world.server.ask(headers=wrong).status == 404

    def test_asks_the_canary_in_the_shadow_of_the_champion(self, world: World, client: SteadyClient) -> None:
        world.split(weight=0, shadow=100)

        def answered() -> bool:
            return b'result="answered"' in world.server.ask("/metrics", None).body

        world.server.wait_for(answered)
        world.roles.add("shadow")
        assert client.versions == {"1"}


class TestABreaker:
    def test_of_a_canary_that_fails_opens_and_stays_open(self, world: World) -> None:
        number = world.versions.add(change=_fails_when_asked)
        world.split(canary=number, weight=50)
        with SteadyClient(world.server) as client:
            world.server.wait_for(lambda: world.server.state(number)["breaker"])
        assert 500 in {found.status for found in client.answers}
        assert {world.server.ask().version for _ in range(40)} == {"1"}
        world.split(canary=number, weight=50)
        world.server.wait_for(lambda: not world.server.state(number)["breaker"])

    def test_of_a_champion_sends_everybody_to_the_stable_version(self, world: World) -> None:
        number = world.versions.add(change=_fails_when_asked)
        rule = {"metric": "http_5xx_rate", "threshold": 0.05, "duration": 1, "min_requests": 5, "stable": "1"}
        document = json.dumps({"schema": "airflow_mcp/rollback/1", **rule})
        world.hook.set_model_version_tag(world.name, number, TAG_ROLLBACK, document)
        world.versions.promote(number)
        world.server.wait_for_version(number)
        world.gate.fail("", refused_midway())  # it needs neither MLflow nor Airflow
        with SteadyClient(world.server):
            world.server.wait_for(lambda: world.server.ask().role == "standby")
            world.roles.add("standby")
        assert {(found.status, found.version) for found in (world.server.ask() for _ in range(20))} == {(200, "1")}


def _fails_when_asked(folder: Path) -> None:
    """Make a model that answers its example and fails on every other row."""
    import cloudpickle
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Fails(BaseEstimator, ClassifierMixin):  # type: ignore[misc]
        def predict(self, rows: Any) -> Any:
            if float(rows.iloc[0, 0]) == 0.5:
                raise RuntimeError("it cannot answer this")
            return [0] * len(rows)

    (folder / "model.pkl").write_bytes(cloudpickle.dumps(Fails()))


class TestAModelProcess:
    def test_that_is_killed_is_replaced_without_a_failed_request(self, world: World, client: SteadyClient) -> None:
        killed = _model_processes(world.server.pid)
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        asked = len(client.answers)
        world.server.wait_for(lambda: len(client.answers) > asked + 20)
        assert _model_processes(world.server.pid)


def _model_processes(front: int) -> list[int]:
    """Return the processes of all versions that answer: children of the children of the front."""
    loaders = [child for child in children(front) if b"serve-model" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return [pid for loader in loaders for pid in children(loader)]


class TestTheLog:
    def test_counts_rows_that_the_training_data_does_not_cover(self, world: World, client: SteadyClient) -> None:
        def counted(name: str) -> float:
            lines = world.server.ask("/metrics", None).body.decode().splitlines()
            found = [line for line in lines if line.startswith(f"airflow_mcp_serving_{name}_rows_total{{")]
            return sum(float(line.rpartition(" ")[2]) for line in found)

        world.server.wait_for(lambda: counted("judged") > 0)
        assert 0 < counted("outlier") <= counted("judged")


class TestPolicies:
    """On a server whose model is elsewhere, so that nothing is loaded."""

    def test_limit_and_check_callers_of_a_model_on_another_server(self, world: World, tmp_path: Path) -> None:
        certificate = write_certificate(tmp_path)
        answered = json.dumps({"model_name": "elsewhere", "outputs": []})
        with FaultyServer() as upstream, FaultyServer(tls=server_context(certificate)) as issuer:
            upstream.fail("/ready", answer(200, "{}"))
            upstream.fail("/infer", answer(200, answered))
            token = _token(issuer)
            (tmp_path / "policy.yaml").write_text(POLICY.format(issuer=issuer.url))
            number = world.versions.add(tags={TAG_UPSTREAM: f"{upstream.url}/v2/models/fraud"})
            server = FollowingServer(
                tmp_path,
                f"models:/{world.name}/{number}",
                world.gate.url,
                {"SSL_CERT_FILE": str(certificate)},
                POLICIES=tmp_path / "policy.yaml",
                ALLOWED_UPSTREAMS=upstream.url,
            )
            with server:
                server.wait_for(lambda: server.ask("/readyz", None).status == 200)
                path = f"/v2/models/{world.name}/infer"
                assert server.ask(path, b"{}").status == 401
                signed_in = {"Authorization": f"Bearer {token}"}
                found = server.ask(path, b"{}", signed_in)
                assert (found.status, found.body.decode(), found.version) == (200, answered, number)
                assert server.ask(headers=signed_in).status == 400
                time.sleep(1.1)
                asked = [server.ask(path, b"{}", signed_in) for _ in range(12)]
                assert 429 in {one.status for one in asked}
                refused = next(one for one in asked if one.status == 429)
                assert refused.headers["retry-after"] == "1"
                assert {server.ask("/healthz", None).status for _ in range(10)} == {200}
                assert token not in server.log


POLICY = """\
apiVersion: mcp.example.com/v1
kind: TrafficPolicy
metadata: {{name: fraud-traffic}}
spec:
  rateLimit: {{requestsPerSecond: 4}}
  auth: {{method: JWT, issuer: "{issuer}"}}
"""


def _token(issuer: FaultyServer) -> str:
    """Make the issuer publish a key, and return a token that it has signed."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private.public_key())), "kid": "k1"}
    described = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
    issuer.fail("openid-configuration", answer(200, json.dumps(described)))
    issuer.fail("/keys", answer(200, json.dumps({"keys": [public]})))
    claims = {"iss": issuer.url, "sub": "ann", "exp": time.time() + 600}
    return jwt.encode(claims, private, "ES256", headers={"kid": "k1"})


class TestAFirstVersion:
    def test_that_is_refused_leaves_the_server_unready_with_the_reason(self, world: World, tmp_path: Path) -> None:
        number = world.versions.add(tags={contract.TAG_GATE_VERDICT: None})
        with FollowingServer(tmp_path, f"models:/{world.name}/{number}", world.gate.url) as server:
            server.wait_for(lambda: server.state(number).get("state") == "FAILED")
            found = server.ask("/readyz", None)
            assert found.status == 503
            assert "its gate verdict is none" in found.json["reason"]
            assert server.ask().status == 503
            assert server.log.count("its gate verdict is none") == 1


class TestTheEnd:
    """These end the server, so they come last."""

    def test_drains_and_starts_again_from_its_cache(self, world: World) -> None:
        server = world.server
        with SteadyClient(server, leaves=True) as client:
            time.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
        client.require_no_failure()
        left = [found for found in client.answers if found.headers.get("connection") == "close"]
        assert len(left) == client.connections  # each was asked to leave, and none was cut off
        self.check_events(world)
        self.check_log(world)
        self.check_offline_start(world)

    def check_events(self, world: World) -> None:
        """The first request of all came before any version could answer."""
        events = RequestLog(str(world.folder / "predictions" / "_events" / f"model={world.name}"), "requested_at")
        rows = [row for chunk in events.read(events.select(100_000)) for row in chunk.frame.to_dict("records")]
        assert (503, "not_ready", "") in {(row["status"], row["error"], row["model_version"]) for row in rows}

    def check_log(self, world: World) -> None:
        log = RequestLog(str(world.folder / "predictions"), "requested_at")
        selection = log.select(100_000)
        assert selection.taken > 100
        rows = [row for chunk in log.read(selection) for row in chunk.frame.to_dict("records")]
        assert world.roles <= {row["role"] for row in rows}
        mixed = [row for row in rows if str(row["prediction"]) != row["model_version"]]
        assert mixed == []
        assert {row["x1"] for row in rows} == {0.5}

    def check_offline_start(self, world: World) -> None:
        again = FollowingServer(world.folder, f"models:/{world.name}", f"http://{LOOPBACK}:{free_port()}", LOG_URI="")
        with again:
            again.wait_for_version("1")
            assert again.ask("/readyz", None).status == 200
            assert again.ask().is_consistent
            processes = _model_processes(again.pid)
            assert processes
            again.send_signal(signal.SIGKILL)
            again.wait(10)
            deadline = time.monotonic() + 30
            while any(Path(f"/proc/{pid}").exists() for pid in processes):
                assert time.monotonic() < deadline, "model processes outlive the front"
                time.sleep(0.1)


def test_the_digest_of_a_cache_is_that_of_the_load_check(tmp_path: Path) -> None:
    from airflow_mcp.core.registry.copies import manifest_digest
    from airflow_mcp.work.steps.copy_model import manifest

    (tmp_path / "data").mkdir()
    (tmp_path / "MLmodel").write_text("flavors: {}")
    (tmp_path / "data" / "model.bin").write_bytes(b"x" * 100)
    (tmp_path / "registered_model_meta").write_text("added by MLflow's client")
    assert digest_of(tmp_path) == manifest_digest(manifest(tmp_path))
