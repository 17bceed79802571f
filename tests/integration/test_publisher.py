"""The publisher API: a real MLflow server, the application in process, and a stand-in for Airflow's REST API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.routing import Match

from airflow_mcp.core import contract
from airflow_mcp.core.access.in_force import PolicyInForce
from airflow_mcp.core.access.policy import policy_from_text
from airflow_mcp.core.retrain.documents import CONTROL_KEY
from airflow_mcp.mlflow_client.artifact_upload import stream_artifact
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.plugins.access import MAX_BODY_BYTES, WRITES_PER_MINUTE, Access, Caller
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.plugins.permitted import PolicyOnPage
from airflow_mcp.plugins.queries import ModelReader
from airflow_mcp.plugins.registry_index import RegistryIndex
from airflow_mcp.plugins.services import Services
from airflow_mcp.publisher.app import create_api
from airflow_mcp.publisher.requests import ReadLimit
from tests.support.accounts import authenticate
from tests.support.fakes.airflow_rest import FakeAirflow
from tests.support.mlflow_world import World
from tests.support.object_store import xcom_settings
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration
BASE = "/base/mcp/api/v1"
HOSTILE = """<script>alert(1)</script>"; DROP TABLE runs; --"""
MAX_UPLOAD = 100_000
ROLES = ("olga", "bob", "eve", "")
"""Olga may do everything, Bob may read, Eve may not read the Dag of the test, and nobody is not logged in."""


def settings(url: str) -> MlflowSettings:
    return MlflowSettings(conn_id="mlflow_default", base_url=url, ui_url=url, retries=0, timeout=10)


class Rights:
    """The roles of this test; Ina may publish, and read nothing but the Dag that does it."""

    def may(self, caller: Caller, right: str, dag_id: str) -> bool:
        if caller.name == "ina":
            return dag_id == "publish_model"
        return caller.name == "olga" or (caller.name == "bob" and right == "read")


class Api:
    """The application with what it stands on."""

    def __init__(self, mlflow: DirectMlflow, *, policy: PolicyInForce | None = None, reads: int = 600) -> None:
        self.airflow = FakeAirflow()
        self.airflow.dags |= {"publish_model", "set_model_stage"}
        self.stored: list[int] = []
        self.services = Services(
            index=RegistryIndex(lambda: mlflow),
            reader=ModelReader(lambda: mlflow),
            access=Access(Rights(), policy=PolicyOnPage(lambda: policy)),
            airflow=lambda _, caller: AirflowRest(httpx.ASGITransport(self.airflow.app), caller.token),
            server="mlflow_default",
        )

        async def store(run: Any, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
            async def seen() -> AsyncIterator[bytes]:
                async for chunk in chunks:
                    self.stored.append(len(chunk))
                    yield chunk

            await stream_artifact(mlflow.settings, run, path, seen(), size)

        self.app = create_api(self.services, authenticate, store, MAX_UPLOAD, ReadLimit(reads))

    def client(self, name: str = "olga", **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, root_path=BASE, raise_app_exceptions=False)
        token = {"Authorization": f"Bearer {name}"} if name else {}
        return httpx.AsyncClient(
            transport=transport, base_url=f"http://airflow.test{BASE}", headers={**token, **headers}
        )


@pytest.fixture
async def api(mlflow_server: MlflowServer) -> AsyncIterator[Api]:
    mlflow = DirectMlflow(settings(mlflow_server.url))
    api = Api(mlflow)
    yield api
    await api.services.index.finished()
    api.services.reader.close()
    mlflow.close()


@pytest.fixture
async def olga(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as client:
        yield client


@pytest.fixture(scope="module")
def two(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three versions; the second is champion, the first was champion before. No test here moves an alias."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}))
        world = World(mlflow_server.url, tmp_path_factory.mktemp("two"))
        world.versions(3)
        for version, expected in (("1", "none"), ("2", "1")):
            arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
            outcome = world.run(PromoteModelOperator, **arguments, reason="it is better", dag_run_id=f"run-{version}")
            assert outcome.state == "success", outcome.error
        world.hook.set_registered_model_tag(world.model_name, contract.TAG_DAG_ID, "nightly")
        yield world
        world.hook.close()


def key(value: str = "k1") -> dict[str, str]:
    return {"Idempotency-Key": value}


def move(**changes: Any) -> dict[str, Any]:
    return {"version": "1", "expected_champion": "2", "reason": "bad scores", **changes}


def announced(data: bytes, **changes: Any) -> dict[str, Any]:
    return {"format": "onnx", "size": len(data), "sha256": f"sha256:{hashlib.sha256(data).hexdigest()}", **changes}


def path_of(location: str) -> str:
    assert location.startswith(f"{BASE}/")
    return location.removeprefix(BASE)


async def send(client: httpx.AsyncClient, upload: Any, data: bytes, **headers: str) -> httpx.Response:
    given = {"Content-Type": "application/octet-stream", **headers}
    return await client.put(path_of(upload["content"]), content=data, headers=given)


class TestReading:
    async def test_a_model_its_versions_and_its_history(self, two: World, olga: httpx.AsyncClient) -> None:
        name = two.model_name
        model = (await olga.get(f"/models/{name}")).json()
        assert (model["champion"], model["previous_champion"], model["newest_version"]) == ("2", "1", "3")
        assert model["actions"]["rollback"] == {"possible": True, "why_not": ""}
        assert model["state"]["kind"] == "healthy"
        versions = (await olga.get(f"/models/{name}/versions")).json()["versions"]
        assert [(each["version"], each["aliases"]) for each in versions] == [
            ("3", []),
            ("2", ["champion"]),
            ("1", ["previous_champion"]),
        ]
        one = (await olga.get(f"/models/{name}/versions/2")).json()
        assert (one["gate_verdict"], one["load_check"]["verdict"]) == ("passed", "passed")
        assert one["provenance"]["gate verdict"] == "passed"
        history = (await olga.get(f"/models/{name}/history")).json()
        assert [(each["before"], each["after"], each["reason"]) for each in history["changes"]] == [
            ("1", "2", "it is better"),
            (None, "1", "it is better"),
        ]
        assert (await olga.get(f"/models/{name}/champion")).json()["versions"] == ["2"]
        past = await olga.get(f"/models/{name}/champion", params={"at": "2020-01-01T00:00:00Z"})
        assert past.json()["versions"] == [None]
        assert (await olga.get(f"/models/{name}/versions/9")).status_code == 404

    async def test_the_lists_have_pages_and_are_not_sent_twice(
        self, two: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        await olga.get("/models")
        await api.services.index.finished()
        found = await olga.get("/models", params={"q": two.model_name})
        assert [model["name"] for model in found.json()["models"]] == [two.model_name]
        assert found.json()["complete"]
        champions = (await olga.get("/champions")).json()["champions"]
        assert [each["version"] for each in champions if each["model"] == two.model_name] == ["2"]
        again = await olga.get(
            "/models", params={"q": two.model_name}, headers={"If-None-Match": found.headers["ETag"]}
        )
        assert (again.status_code, again.content) == (304, b"")

    async def test_text_of_others_stays_text_and_credentials_and_servers_are_left_out(
        self, two: World, olga: httpx.AsyncClient
    ) -> None:
        two.hook.set_registered_model_tag(two.model_name, "airflow_mcp.owner", HOSTILE)
        version = two.hook.get_model_version(two.model_name, "2")
        for tag, value in (
            (contract.TAG_IMAGE, "registry.internal:5000/model:1"),
            (contract.TAG_REASON, "postgresql://mlflow:hunter2@db.internal/mlflow"),
            (f"{contract.TAG_REPORTED_PREFIX}data_version", HOSTILE),
        ):
            two.hook.set_model_version_tag(two.model_name, version.version, tag, value)
        model, one = await olga.get(f"/models/{two.model_name}"), await olga.get(f"/models/{two.model_name}/versions/2")
        assert model.json()["owner"] == HOSTILE
        assert one.json()["reported"] == {"data_version": HOSTILE}
        said = model.text + one.text
        assert not [word for word in ("registry.internal", "hunter2", "db.internal", "127.0.0.1") if word in said]
        assert one.headers["Content-Type"] == "application/json"
        assert one.headers["X-Content-Type-Options"] == "nosniff"

    async def test_when_mlflow_is_down_every_read_is_a_problem_without_an_address(self) -> None:
        mlflow = DirectMlflow(settings("http://127.0.0.1:9"))
        api = Api(mlflow)
        async with api.client() as client:
            for path in ("/models", "/champions", "/models/churn", "/models/churn/versions/1"):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["type"]) == (
                    503,
                    "urn:airflow-mcp:problem:mlflow-not-answering",
                )
                assert "127.0.0.1" not in answer.text
                assert answer.headers["Retry-After"] == "30"
        api.services.reader.close()
        mlflow.close()


class TestAccess:
    async def test_every_route_states_its_access_and_every_write_where_it_may_come_from(self, api: Api) -> None:
        routes = list(_routes(api.app))
        assert len(routes) >= 19
        assert [route.path for route in routes if not {"caller_of", "limited"} <= guards(route)] == []
        writes = [route for route in routes if route.methods & {"POST", "PUT", "PATCH", "DELETE"}]
        assert len(writes) == 9
        assert [route.path for route in writes if not {"own_json", "own_bytes", "own_request"} & guards(route)] == []

    @pytest.mark.parametrize("name", ROLES)
    async def test_what_each_role_gets_on_each_route(self, two: World, api: Api, name: str) -> None:
        model, upload = two.model_name, "0" * 32
        seen = {"olga": 200, "bob": 200, "eve": 404, "": 401}[name]
        acts = {"olga": 202, "bob": 403, "eve": 404, "": 401}[name]
        publishes = {"olga": 201, "bob": 403, "eve": 403, "": 401}[name]
        body, stage = move(), {"version": "1", "stage": "Archived"}
        version = {"source": f"runs:/{two.hook.get_model_version(model, '3').run_id}/model"}
        register = f"modelName={model}&modelFilePath={version['source']}"
        asked: list[tuple[int, str, str, Any]] = [
            *((seen, "GET", f"/models/{model}{part}", None) for part in ("", "/versions", "/versions/1", "/history")),
            (seen, "GET", f"/models/{model}/champion", None),
            (401 if not name else 200, "GET", "/models", None),
            (401 if not name else 200, "GET", "/operations", None),
            (401 if not name else 404, "GET", f"/operations/rollback_model:rollback:{'0' * 24}", None),
            (401 if not name else 404, "GET", f"/models/{model}/uploads/{upload}", None),
            (401 if not name else 200, "GET", "/openapi.json", None),
            (publishes, "POST", f"/models/{model}/uploads", announced(b"x")),
            (publishes + (publishes == 201), "POST", f"/models/{model}/versions", version),
            (acts, "POST", f"/models/{model}/rollback", body),
            (acts, "POST", f"/models/{model}/promotion", move(version="3")),
            (acts, "PUT", f"/models/{model}/stage", stage),
            (acts, "POST", f"/models/{model}/retraining", {"action": "train", "reason": "please"}),
            (401 if not name else 200, "GET", "/champions", None),
            (publishes + (publishes == 201), "POST", f"/register-model?{register}", None),
            (acts, "PUT", f"/set-model-stage?modelName={model}&version=1&stage=Archived", None),
            (404 if name == "olga" else publishes, "PUT", f"/models/{model}/uploads/{upload}/content", b"x"),
        ]
        api.airflow.dags.add("nightly")
        async with api.client(name) as client:
            for expected, method, path, sent in asked:
                given = {"content": sent} if isinstance(sent, bytes) else {"json": sent}
                kind = {"Content-Type": "application/octet-stream"} if isinstance(sent, bytes) else {}
                answer = await client.request(method, path, **given, headers={**key(path), **kind})
                assert answer.status_code == expected, f"{method} {path}: {answer.text}"
                if expected >= 400:
                    assert answer.headers["Content-Type"] == "application/problem+json"
                    assert set(answer.json()) >= {"type", "title", "status", "detail"}
        assert bool(api.airflow.runs) is (name == "olga")
        matched = {(method, route_of(api.app, method, path.partition("?")[0])) for _, method, path, _ in asked}
        assert matched == {(method, route.path) for route in _routes(api.app) for method in route.methods}

    async def test_a_model_that_is_not_there_and_one_that_may_not_be_seen_look_the_same(
        self, two: World, api: Api
    ) -> None:
        async with api.client("eve") as client:
            hidden, missing = await client.get(f"/models/{two.model_name}"), await client.get("/models/nothing-here")
            await client.get("/models")
            await api.services.index.finished()
            assert two.model_name not in (await client.get("/models")).text
            assert two.model_name not in (await client.get("/champions")).text
        assert (hidden.status_code, hidden.json()) == (missing.status_code, missing.json())

    async def test_a_model_that_may_not_be_seen_cannot_be_copied_into_one_that_may(self, two: World, api: Api) -> None:
        run, model_id = two.judged_model("passed", dag_id="nightly", model_name=two.model_name)
        async with api.client("ina") as client:
            for source in (f"runs:/{run.run_id}/model", f"models:/{model_id}", f"runs:/{'0' * 32}/model"):
                answer = await client.post("/models/of-ina/versions", json={"source": source}, headers=key(source))
                assert (answer.status_code, answer.json()["title"].partition(",")[0]) == (
                    404,
                    "There is no such upload",
                ), answer.text
        assert api.airflow.runs == {}

    async def test_the_policy_in_force_is_asked_after_airflows_rights(self, two: World) -> None:
        mlflow = DirectMlflow(settings(two.url))
        api = Api(mlflow, policy=PolicyInForce(policy_from_text(POLICY, "test"), "sha256:0", 1))
        async with api.client() as client:
            shown = await client.get(f"/models/{two.model_name}")
            staged = await client.put(
                f"/models/{two.model_name}/stage", json={"version": "1", "stage": "Archived"}, headers=key()
            )
            refused = [
                await client.post(f"/models/{two.model_name}/uploads", json=announced(b"x"), headers=key()),
                await client.post(f"/models/{two.model_name}/rollback", json=move(), headers=key()),
                await client.put(
                    f"/models/{two.model_name}/stage", json={"version": "2", "stage": "Production"}, headers=key("p")
                ),
            ]
        async with api.client("bob") as client:
            hidden = await client.get(f"/models/{two.model_name}")
        api.services.reader.close()
        mlflow.close()
        assert (shown.status_code, staged.status_code, hidden.status_code) == (200, 202, 404), staged.text
        for answer, permission in zip(refused, ("register", "rollback", "promote"), strict=True):
            assert (answer.status_code, f"/{permission}" in answer.json()["detail"]) == (403, True), answer.text
        assert [run["conf"]["stage"] for run in api.airflow.runs.values()] == ["Archived"]

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Fetch-Site": "same-origin"}, 202),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Origin": "http://evil.test"}, 403),
            ({}, 403),
        ],
        ids=["page", "cross-site", "other-origin", "form"],
    )
    async def test_a_cookie_alone_changes_nothing(
        self, two: World, api: Api, headers: dict[str, str], status: int
    ) -> None:
        async with api.client("") as client:
            client.cookies["_token"] = "olga"
            query = {"modelName": two.model_name, "version": "1", "stage": "Archived"}
            answer = await client.put("/set-model-stage", params=query, headers=headers)
        assert (answer.status_code, len(api.airflow.runs)) == (status, int(status == 202)), answer.text


class TestWriting:
    async def test_a_rollback_is_begun_once_followed_and_ends_with_its_result(
        self, two: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        path = f"/models/{two.model_name}/rollback"
        first = await olga.post(path, json=move(), headers={**key(), "X-Request-ID": "req-1"})
        again = await olga.post(path, json=move(), headers=key())
        assert (first.status_code, first.json(), again.status_code) == (202, again.json(), 202)
        assert first.headers["X-Request-ID"] == "req-1"
        ((dag_id, run_id), run) = next(iter(api.airflow.runs.items()))
        assert (len(api.airflow.runs), dag_id, api.airflow.asked_with) == (1, "rollback_model", {"Bearer olga"})
        other = await olga.post(path, json=move(reason="another"), headers=key())
        assert (other.status_code, other.json()["type"]) == (422, "urn:airflow-mcp:problem:idempotency-key-reused")
        place = path_of(first.headers["Location"])
        api.airflow.tasks = [{"task_id": "rollback", "state": "running", "start_date": "1"}]
        running = await olga.get(place)
        assert (running.json()["status"], running.headers["Retry-After"]) == ("running", "5")
        api.airflow.tasks[0]["state"] = run["state"] = "success"
        api.airflow.returned["rollback"] = {"version": "1", "previous_version": "2", "moved": True, "secret_url": "x"}
        done = (await olga.get(place)).json()
        assert (done["status"], done["dag_run_id"], done["model"]) == ("succeeded", run_id, two.model_name)
        assert done["result"] == {"version": "1", "previous_version": "2", "moved": True}
        listed = (await olga.get("/operations", params={"model": two.model_name})).json()["operations"]
        assert [each["id"] for each in listed] == [first.json()["id"]]
        async with api.client("eve") as client:
            assert (await client.get(place)).status_code == 404
            assert (await client.get("/operations")).json() == {"operations": []}

    async def test_a_result_in_an_object_store_is_read_from_there(
        self, two: World, api: Api, olga: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in xcom_settings(f"file://{tmp_path}").items():
            monkeypatch.setenv(name, value)
        begun = await olga.post(f"/models/{two.model_name}/rollback", json=move(), headers=key())
        next(iter(api.airflow.runs.values()))["state"] = "success"
        api.airflow.tasks = [{"task_id": "rollback", "state": "success", "start_date": "1"}]
        api.airflow.returned["rollback"] = f"file://{tmp_path / 'value'}"
        (tmp_path / "value").write_text(json.dumps({"version": "1", "moved": True}))
        place = path_of(begun.headers["Location"])
        assert (await olga.get(place)).json()["result"] == {"version": "1", "moved": True}
        (tmp_path / "value").unlink()
        (tmp_path / "value").mkdir()
        refused = await olga.get(place)
        assert refused.status_code == 502, refused.text

    async def test_a_failed_operation_says_why_and_what_to_do(
        self, two: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        begun = await olga.post(f"/models/{two.model_name}/rollback", json=move(), headers=key())
        next(iter(api.airflow.runs.values()))["state"] = "failed"
        api.airflow.tasks = [{"task_id": "load_check", "state": "failed", "start_date": "1"}]
        api.airflow.returned["load_check"] = {"verdict": "failed", "reason": "its files are missing"}
        answer = (await olga.get(path_of(begun.headers["Location"]))).json()
        assert answer["status"] == "failed"
        assert answer["failure"].startswith("The task load_check failed: its files are missing. Its log in Airflow")

    async def test_a_promotion_and_a_stage_have_the_conf_of_their_dags(
        self, two: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        name = two.model_name
        promoted = await olga.post(f"/models/{name}/promotion", json=move(version="3"), headers=key())
        staged = await olga.put(f"/models/{name}/stage", json={"version": "3", "stage": "Production"}, headers=key())
        assert (promoted.status_code, staged.status_code) == (202, 202), staged.text
        confs = {dag_id: run["conf"] for (dag_id, _), run in api.airflow.runs.items()}
        assert confs["promote_model"] == {
            "model_name": name, "version": "3", "expected_champion": "2", "reason": "bad scores"
        }  # fmt: skip
        assert confs["set_model_stage"] == {
            "model_name": name, "version": "3", "stage": "Production", "archive_existing": True,
            "expected_champion": "2", "reason": None,
        }  # fmt: skip
        moved = await olga.put(
            f"/models/{name}/stage",
            json={"version": "3", "stage": "Production", "expected_champion": "1"},
            headers=key("k2"),
        )
        assert (moved.status_code, moved.json()["champion"]) == (409, "2")

    async def test_the_two_calls_of_older_publishers(self, two: World, api: Api, olga: httpx.AsyncClient) -> None:
        run_id = two.hook.get_model_version(two.model_name, "3").run_id
        query = {"modelName": two.model_name, "modelFilePath": f"runs:/{run_id}/model"}
        registered = await olga.post("/register-model", params=query, headers={"X-Request-ID": "req-9"})
        staged = await olga.put(
            "/set-model-stage", params={"modelName": two.model_name, "version": "1", "stage": "Staging"}
        )
        assert (registered.status_code, staged.status_code) == (202, 202), registered.text
        confs = {dag_id: run["conf"] for (dag_id, _), run in api.airflow.runs.items()}
        assert confs["publish_model"] == {
            "model_name": two.model_name, "source": f"runs:/{run_id}/model", "description": "", "input_example": None,
            "provenance": None, "reason": None, "request_id": "req-9",
        }  # fmt: skip
        assert confs["set_model_stage"]["stage"] == "Staging"
        for wrong in (
            {"modelName": "a/b", "modelFilePath": f"runs:/{run_id}/model"},
            {"modelName": two.model_name, "modelFilePath": "/etc/passwd"},
            {"modelName": two.model_name, "modelFilePath": "https://evil.test/model.onnx"},
            {"modelName": two.model_name},
        ):
            answer = await olga.post("/register-model", params=wrong)
            assert (answer.status_code, answer.json()["type"]) == (400, "urn:airflow-mcp:problem:invalid-request")
            assert "Nothing was" in answer.json()["detail"]
        wrong_stage = {"modelName": two.model_name, "version": "1", "stage": "Live"}
        answer = await olga.put("/set-model-stage", params=wrong_stage)
        (error,) = answer.json()["errors"]
        assert (error["where"], error["got"]) == ("query.stage", "Live")
        assert "'Staging'" in error["what"]

    async def test_retraining_is_paused_at_once(self, two: World, api: Api, olga: httpx.AsyncClient) -> None:
        api.airflow.assets[f"retrain/{two.model_name}"] = 7
        body = {"action": "pause", "reason": "holidays"}
        answer = await olga.post(f"/models/{two.model_name}/retraining", json=body, headers=key())
        assert (answer.status_code, answer.json()["status"]) == (200, "done"), answer.text
        (entry,) = api.airflow.states[7, CONTROL_KEY]["entries"]
        assert (entry["action"], entry["by"], entry["reason"]) == ("pause", "olga", "holidays")

    async def test_a_version_that_no_gate_has_judged_is_not_promoted_until_one_has(
        self, world: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        (version,) = world.versions(1, verdict=None)
        path = f"/models/{world.model_name}"
        seen = (await olga.get(f"{path}/versions/1")).json()
        assert (seen["gate_verdict"], seen["can_be_promoted"]) == (None, False)
        wanted = move(version="1", expected_champion="none")
        refused = await olga.post(f"{path}/promotion", json=wanted, headers=key())
        assert (refused.status_code, api.airflow.runs) == (409, {})
        promotion: dict[str, Any] = {"model_name": world.model_name, "version": "1", "expected_champion": "none"}
        operator = world.run(PromoteModelOperator, **promotion, reason="first model", retries=0)
        assert (operator.state, world.aliases) == ("failed", {})
        assert "has gate verdict none; passed, warned or approved is needed" in str(operator.error)
        world.store_evidence(world.hook.get_run(version.run_id), {"accuracy": 0.99})
        judging: dict[str, Any] = {"model_name": world.model_name, "run_id": version.run_id}
        judged = world.run(EvaluationGateOperator, **judging, thresholds=["accuracy >= 0.9"], dag_run_id="gate")
        assert judged.state == "success", judged.error
        api.services.reader.forget(world.model_name)
        seen = (await olga.get(f"{path}/versions/1")).json()
        assert (seen["gate_verdict"], seen["can_be_promoted"]) == ("passed", True)
        begun = await olga.post(f"{path}/promotion", json=wanted, headers=key("k2"))
        assert begun.status_code == 202, begun.text
        done = world.run(PromoteModelOperator, **promotion, reason="first model", dag_run_id="again")
        assert (done.state, world.aliases) == ("success", {"champion": "1"})

    async def test_a_model_that_is_only_published_cannot_be_trained(
        self, world: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        (version,) = world.versions(1)
        world.hook.set_model_version_tag(world.model_name, version.version, contract.TAG_DAG_ID, "publish_model")
        model = (await olga.get(f"/models/{world.model_name}")).json()
        why = model["actions"]["train"]["why_not"]
        assert "published, not trained: the Dag publish_model registers what somebody uploads" in why
        body = {"action": "train", "reason": "please"}
        answer = await olga.post(f"/models/{world.model_name}/retraining", json=body, headers=key())
        assert (answer.status_code, api.airflow.runs) == (409, {})
        assert answer.json()["detail"] == f"{why} Nothing was changed."

    @pytest.mark.parametrize(
        ("body", "where"),
        [
            (move(version="latest"), "body.version"),
            (move(expected_champion=None), "body.expected_champion"),
            (move(reason="  "), "body.reason"),
            (move(reason="x" * 2001), "body.reason"),
            (move(surprise=1), "body.surprise"),
        ],
    )
    async def test_a_wrong_member_is_named_with_its_value_and_what_is_allowed(
        self, two: World, api: Api, olga: httpx.AsyncClient, body: Any, where: str
    ) -> None:
        answer = await olga.post(f"/models/{two.model_name}/rollback", json=body, headers=key())
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["where"], bool(error["what"]), api.airflow.runs) == (400, where, True, {})

    async def test_a_value_with_the_shape_of_a_credential_is_not_repeated(
        self, two: World, olga: httpx.AsyncClient
    ) -> None:
        body = move(version="postgresql://mlflow:hunter2@db.internal/mlflow")
        answer = await olga.post(f"/models/{two.model_name}/rollback", json=body, headers=key())
        assert (answer.status_code, "hunter2" in answer.text) == (400, False)

    async def test_what_is_too_large_too_often_or_of_another_kind_is_refused(
        self, two: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        path = f"/models/{two.model_name}/rollback"
        given = {**key(), "Content-Type": "application/json"}
        large = await olga.post(path, content=b"{" + b" " * MAX_BODY_BYTES + b"}", headers=given)
        form = await olga.post(path, data=move(), headers=key())
        keyless = await olga.post(path, json=move())
        assert (large.status_code, form.status_code, keyless.status_code) == (413, 415, 400)
        assert keyless.json()["errors"][0]["where"] == "header.Idempotency-Key"
        wrong = move(expected_champion="7")
        statuses = [
            (await olga.post(path, json=wrong, headers=key(str(number)))).status_code
            for number in range(WRITES_PER_MINUTE + 1)
        ]
        assert statuses == [409] * WRITES_PER_MINUTE + [429]
        assert api.airflow.runs == {}

    async def test_reads_have_a_limit_of_their_own(self, world: World) -> None:
        mlflow = DirectMlflow(settings(world.url))
        api = Api(mlflow, reads=2)
        async with api.client() as client:
            statuses = [(await client.get("/models/nothing-here")).status_code for _ in range(3)]
        async with api.client("bob") as client:
            statuses.append((await client.get("/models/nothing-here")).status_code)
        api.services.reader.close()
        mlflow.close()
        assert statuses == [404, 404, 429, 404]

    async def test_a_dag_that_would_not_run_is_not_triggered(
        self, two: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        api.airflow.paused.add("publish_model")
        run_id = two.hook.get_model_version(two.model_name, "3").run_id
        body = {"source": f"runs:/{run_id}/model"}
        answer = await olga.post(f"/models/{two.model_name}/versions", json=body, headers=key())
        assert (answer.status_code, "publish_model is paused" in answer.json()["detail"]) == (409, True)

    async def test_a_method_that_an_address_does_not_take_is_a_problem_that_names_those_it_takes(
        self, olga: httpx.AsyncClient
    ) -> None:
        for method, path, allowed in (("TRACE", "/models", "GET"), ("DELETE", "/models/x/promotion", "POST")):
            answer = await olga.request(method, path)
            assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
            assert answer.json()["type"] == "urn:airflow-mcp:problem:method-not-allowed"

    @pytest.mark.parametrize(
        ("query", "where"),
        [({"modelName": "  "}, "query.modelName"), ({"modelName": "x"}, "header.Idempotency-Key")],
        ids=["only-spaces", "odd-key"],
    )
    async def test_what_could_not_be_kept_is_named(
        self, api: Api, olga: httpx.AsyncClient, query: dict[str, str], where: str
    ) -> None:
        odd = {} if where.startswith("query") else {b"Idempotency-Key": "ключ".encode()}
        given = {**query, "version": "1", "stage": "Archived"}
        answer = await olga.put("/set-model-stage", params=given, headers=odd)
        assert (answer.status_code, [error["where"] for error in answer.json()["errors"]]) == (400, [where])
        assert api.airflow.runs == {}

    @pytest.mark.parametrize("name", ["a/b", "a:b", "x" * 251, "a'b\"", "a\nb", "..%2f", HOSTILE])
    async def test_a_name_that_mlflow_would_refuse_reaches_nothing(
        self, api: Api, olga: httpx.AsyncClient, name: str
    ) -> None:
        answer = await olga.post(f"/models/{quote(name, safe='')}/uploads", json=announced(b"x"), headers=key())
        assert answer.status_code in (400, 404), answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"

    async def test_odd_names_that_mlflow_takes_work_in_every_path(self, world: World, olga: httpx.AsyncClient) -> None:
        name = f"{world.model_name} mit Leerzeichen & 模型 #1?"
        world.hook.create_registered_model(name)
        model = await olga.get(f"/models/{quote(name, safe='')}")
        assert (model.status_code, model.json()["name"]) == (200, name)
        upload = await olga.post(f"/models/{quote(name, safe='')}/uploads", json=announced(b"abc"), headers=key())
        assert (await send(olga, upload.json(), b"abc")).json()["state"] == "complete"


class TestUploads:
    async def test_bytes_are_streamed_to_mlflow_and_can_be_named_as_a_source(
        self, world: World, api: Api, olga: httpx.AsyncClient
    ) -> None:
        data = bytes(range(256)) * 300
        path = f"/models/{world.model_name}/uploads"
        first = await olga.post(path, json=announced(data), headers=key())
        again = await olga.post(path, json=announced(data), headers=key())
        assert (first.status_code, again.status_code, first.json()) == (201, 200, again.json())
        upload = first.json()
        early = await olga.post(
            f"/models/{world.model_name}/versions", json={"source": upload["source"]}, headers=key("early")
        )
        assert (early.status_code, "not complete" in early.json()["detail"]) == (409, True)

        async def parts() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 10_000):
                yield data[start : start + 10_000]

        sent = await olga.put(
            path_of(upload["content"]),
            content=parts(),
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(len(data))},
        )
        assert (sent.status_code, sent.json()["state"]) == (200, "complete"), sent.text
        assert max(api.stored) == 10_000  # never more than a part at once
        assert world.hook.download_artifact(upload["id"], "upload/model.onnx") == data
        stored = len(api.stored)
        assert (await send(olga, upload, data)).status_code == 200
        assert len(api.stored) == stored  # complete: nothing is stored again
        body = {"source": upload["source"], "input_example": {"x": [[1.0]]}, "provenance": {"code_commit": "c" * 40}}
        begun = await olga.post(f"/models/{world.model_name}/versions", json=body, headers=key())
        ((_, run_id), run) = next(iter(api.airflow.runs.items()))
        assert (begun.status_code, run["conf"]["source"]) == (202, upload["source"])
        assert run["conf"]["provenance"] == {"code_commit": "c" * 40}
        repeated = await olga.post(f"/models/{world.model_name}/versions", json=body, headers=key())
        assert (repeated.json(), len(api.airflow.runs)) == (begun.json(), 1)  # another request ID, the same request
        assert run_id.startswith("mcp__publish__")

    @pytest.mark.parametrize(
        ("sent", "status", "kind"),
        [
            (b"abcdefghiX", 422, "digest-differs"),
            (b"abc", 400, "invalid-request"),
            (b"abcdefghij" * 2, 400, "invalid-request"),
        ],
        ids=["other-bytes", "too-few", "too-many"],
    )
    async def test_other_bytes_are_refused_and_can_be_sent_again(
        self, world: World, olga: httpx.AsyncClient, sent: bytes, status: int, kind: str
    ) -> None:
        data = b"abcdefghij"
        upload = (await olga.post(f"/models/{world.model_name}/uploads", json=announced(data), headers=key())).json()
        answer = await send(olga, upload, sent)
        assert (answer.status_code, answer.json()["type"]) == (status, f"urn:airflow-mcp:problem:{kind}"), answer.text
        assert (await olga.get(path_of(upload["content"]).removesuffix("/content"))).json()["state"] == "waiting"
        assert (await send(olga, upload, data)).json()["state"] == "complete"

    async def test_a_sender_that_stops_or_sends_more_than_it_said_stores_nothing_usable(
        self, world: World, olga: httpx.AsyncClient
    ) -> None:
        data = b"abcdefghij"
        upload = (await olga.post(f"/models/{world.model_name}/uploads", json=announced(data), headers=key())).json()
        for said in (data[:4], data + b"more"):

            async def parts(said: bytes = said) -> AsyncIterator[bytes]:
                yield said

            answer = await olga.put(
                path_of(upload["content"]),
                content=parts(),
                headers={"Content-Type": "application/octet-stream", "Content-Length": str(len(data))},
            )
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:airflow-mcp:problem:digest-differs")
        assert world.hook.get_run(upload["id"]).status == "RUNNING"

    async def test_limits_of_uploads_and_whose_they_are(self, world: World, api: Api, olga: httpx.AsyncClient) -> None:
        path = f"/models/{world.model_name}/uploads"
        large = await olga.post(path, json=announced(b"x", size=MAX_UPLOAD + 1), headers=key("large"))
        assert (large.status_code, str(MAX_UPLOAD) in large.json()["detail"]) == (413, True)
        upload = (await olga.post(path, json=announced(b"abc"), headers=key())).json()
        reused = await olga.post(path, json=announced(b"abcd"), headers=key())
        assert reused.status_code == 422
        typed = await send(olga, upload, b"abc", **{"Content-Type": "application/json"})
        assert typed.status_code == 415
        async with api.client("ina") as client:
            stolen = await send(client, upload, b"abc")
            named = await client.post(
                f"/models/{world.model_name}/versions", json={"source": upload["source"]}, headers=key()
            )
        assert (stolen.status_code, named.status_code) == (404, 404)

    async def test_two_announcements_at_once_make_one_upload(self, world: World, olga: httpx.AsyncClient) -> None:
        import asyncio

        path = f"/models/{world.model_name}/uploads"
        await olga.post(path, json=announced(b"first"), headers=key("first"))  # makes the experiment
        found = await asyncio.gather(*(olga.post(path, json=announced(b"abc"), headers=key()) for _ in range(5)))
        assert len({answer.json()["id"] for answer in found}) == 1, [answer.text for answer in found]


GRANTED = [
    {"resource": resource, "action": action}
    for resource, action in (("model:*", "read"), ("model:*", "stage"), ("environment:dev", "deploy"))
]
POLICY = json.dumps(
    {
        "apiVersion": "mcp.example.com/v1",
        "kind": "GovernancePolicy",
        "metadata": {"name": "test"},
        "spec": {
            "people": {"olga": {"accounts": ["olga"]}},
            "roles": {"stager": {"permissions": GRANTED}},
            "bindings": [{"role": "stager", "people": ["olga"]}],
        },
    }
)


def guards(route: Any) -> set[str]:
    """Return the names of the dependencies of a route."""
    return {dependency.call.__name__ for dependency in route.dependant.dependencies}


def route_of(app: Any, method: str, path: str) -> str:
    """Return the pattern of the route that answers."""
    scope = {"type": "http", "method": method, "path": path}
    return next(str(route.path) for route in _routes(app) if route.matches(scope)[0] == Match.FULL)


def _routes(app: Any) -> Iterator[Any]:
    return (route for route in app.routes if hasattr(route, "dependant"))
