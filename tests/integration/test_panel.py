"""The page of models: a real MLflow server, the application in process, and a stand-in for Airflow's REST API."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import HTTPException, Request
from starlette.routing import Match

from airflow_mcp.audit.stores import open_log
from airflow_mcp.core import contract
from airflow_mcp.core.access.in_force import PolicyInForce, read_in_force
from airflow_mcp.core.audit.decisions import version_registered
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.audit.log import LOG
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.retrain.documents import CONTROL_KEY
from airflow_mcp.core.rollout.state import ARTIFACT_JOURNAL, Point, RolloutState
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.plugins.access import MAX_BODY_BYTES, Access, Caller
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.plugins.app import create_app
from airflow_mcp.plugins.audit_trail import AuditTrail
from airflow_mcp.plugins.permitted import PolicyOnPage
from airflow_mcp.plugins.queries import ModelReader
from airflow_mcp.plugins.registry_index import FIRST_ROWS, RegistryIndex
from airflow_mcp.plugins.services import CSP, Services
from airflow_mcp.registry.drift_checks import DriftChecks
from airflow_mcp.registry.overview import read_overview
from airflow_mcp.registry.rollout_control import read_journal
from tests.support.approvals import POLICY, bank, put_in_force
from tests.support.audit_log import moved, sqlite_logs
from tests.support.fakes.airflow_rest import FakeAirflow
from tests.support.mlflow_world import World

pytestmark = pytest.mark.integration
HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(1)>"""
CYCLE_WORDS = {
    "en": (
        ("How long releases took", "training began", "approval asked for"),
        ("How long it took", "promoted", "Altogether"),
        ("How long it took", "Altogether: 0 s"),
    ),
    "zh-CN": (("发布耗时", "训练开始", "已申请批准"), ("已上线", "总计"), ("耗时", "训练完成")),
    "ru": (
        ("Сколько длились выпуски", "обучение началось", "запрошено одобрение"),
        ("Сколько это длилось", "выпущена", "Через"),
        ("Сколько это длилось", "обучена"),
    ),
}
"""What the pages of the model, of a version that the audit log knows, and of one that it does not know say."""
WRITE = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}


def settings(url: str, timeout: float) -> MlflowSettings:
    return MlflowSettings(conn_id="mlflow_default", base_url=url, ui_url=url, retries=0, timeout=timeout)


class Rights:
    """Olga may do everything, Bob may only read, and Eve may not read the Dag of the test."""

    def may(self, caller: Caller, right: str, dag_id: str) -> bool:
        return caller.name == "olga" or (caller.name == "bob" and right == "read")


async def authenticate(request: Request) -> Any:
    name = request.cookies.get("_token") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if name not in ("olga", "bob", "eve"):
        raise HTTPException(401, "Not authenticated")
    return SimpleNamespace(get_name=lambda: name)


class Panel:
    """The application with what it stands on."""

    def __init__(self, mlflow: DirectMlflow) -> None:
        self.airflow = FakeAirflow()
        self.services = Services(
            index=RegistryIndex(lambda: mlflow),
            reader=ModelReader(lambda: mlflow),
            access=Access(Rights()),
            airflow=lambda _, caller: AirflowRest(httpx.ASGITransport(self.airflow.app), caller.token),
            server="mlflow_default",
            metrics_token="scrape-me",
        )
        self.app = create_app(self.services, authenticate)

    def client(self, name: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, root_path="/base/mcp", raise_app_exceptions=False)
        cookies = {"_token": name} if name else {}
        return httpx.AsyncClient(transport=transport, base_url="http://airflow.test/base/mcp", cookies=cookies)


@pytest.fixture
async def panel(world: World) -> AsyncIterator[Panel]:
    mlflow = DirectMlflow(settings(world.url, 10))
    panel = Panel(mlflow)
    yield panel
    await panel.services.index.finished()
    panel.services.reader.close()
    mlflow.close()


@pytest.fixture
def two(world: World) -> World:
    """Three versions; the second is champion, the first was champion before."""
    world.versions(3)
    for version, expected in (("1", "none"), ("2", "1")):
        arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
        outcome = world.run(PromoteModelOperator, **arguments, reason="it is better", dag_run_id=f"run-{version}")
        assert outcome.state == "success", outcome.error
    world.hook.set_registered_model_tag(world.model_name, contract.TAG_DAG_ID, "nightly")
    return world


@pytest.fixture
async def olga(panel: Panel) -> AsyncIterator[httpx.AsyncClient]:
    async with panel.client("olga") as client:
        yield client


def on_page(found: PolicyInForce | None) -> PolicyOnPage:
    return PolicyOnPage(lambda: found, "test")


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


class TestReading:
    async def test_the_model_page_answers_what_is_in_production_since_when_why_and_the_way_back(
        self, two: World, olga: httpx.AsyncClient
    ) -> None:
        answer = await olga.get(f"/ui/models/{two.model_name}")
        said = text_of(answer.text)
        assert answer.status_code == 200, said
        assert "Version 2 is in production" in said
        assert "it is better" in said
        assert "The way back: version 1" in said
        assert f'href="/base/mcp/ui/models/{two.model_name}/rollback"' in answer.text

    async def test_a_look_at_the_audit_trail_needs_the_right_and_is_itself_recorded(
        self, two: World, panel: Panel, tmp_path: Path
    ) -> None:
        settings = sqlite_logs(tmp_path).owner
        may_not, may = bank(), bank(POLICY.replace("people: [vera]", "people: [vera, olga]"))
        with closing(open_log(settings)) as log:
            log.append(moved(1, subject=f"model:{two.model_name}", action="promotion.refused"))
            for policy, is_shown in ((may_not, False), (may, True)):
                put_in_force(log, policy)
                panel.services = replace(
                    panel.services,
                    access=Access(Rights(), policy=on_page(read_in_force(log))),
                    trail=AuditTrail(lambda: open_log(settings), "test"),
                )
                panel.app = create_app(panel.services, authenticate)
                async with panel.client("olga") as client:
                    answer = await client.get(f"/ui/models/{two.model_name}")
                said = text_of(answer.text)
                assert ("promotion.refused" in said) is is_shown, said
                assert ("does not let you read the audit log" in said) is not is_shown
                looks = log.facts(LOG, "audit.read")
                assert [each.event["actor"]["name"] for each in looks] == ["olga"] * is_shown
        (tmp_path / "empty").mkdir()
        empty = sqlite_logs(tmp_path / "empty").owner
        panel.services = replace(panel.services, trail=AuditTrail(lambda: open_log(empty), "test"))
        panel.app = create_app(panel.services, authenticate)
        async with panel.client("olga") as client:
            said = text_of((await client.get(f"/ui/models/{two.model_name}")).text)
        assert "the audit log has none about this model" in said
        assert said.count("it is better") > 1, "the moves that MLflow has recorded"

    async def test_the_page_says_how_long_a_release_took_to_who_may_read_the_log(
        self, two: World, panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name, settings = two.model_name, sqlite_logs(tmp_path).owner
        connection = {"conn_type": "audit_log", "extra": {"sqlite_path": settings.sqlite_path}}
        monkeypatch.setenv("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests")
        promoted = two.run(PromoteModelOperator, model_name=name, version="3", expected_champion="2")
        assert promoted.state == "success", promoted.error
        with closing(open_log(settings)) as log:
            log.append(version_registered(two.hook.get_model_version(name, "3"), "dev", AuditActor("system", "tests")))
            for policy, is_shown in ((None, True), (bank(), False)):
                if policy is not None:
                    put_in_force(log, policy)
                panel.services = replace(
                    panel.services,
                    access=Access(Rights(), policy=on_page(read_in_force(log))),
                    trail=AuditTrail(lambda: open_log(settings)),
                )
                panel.app = create_app(panel.services, authenticate)
                async with panel.client("olga") as client:
                    for language, words in CYCLE_WORDS.items():
                        for path, shown in zip(("", "/versions/3", "/versions/1"), words, strict=True):
                            page = await client.get(f"/ui/models/{name}{path}", params={"lang": language})
                            said = text_of(page.text)
                            assert [word in said for word in shown] == [is_shown] * len(shown), said

    async def test_the_list_shows_the_model_with_its_word_and_finds_it(
        self, two: World, panel: Panel, olga: httpx.AsyncClient
    ) -> None:
        await olga.get("/ui/")
        await panel.services.index.finished()
        found = await olga.get("/ui/", params={"q": two.model_name})
        assert two.model_name in found.text
        assert "1 to 1 of 1" in text_of(found.text)
        nothing = await olga.get("/ui/", params={"q": "no-such-model-anywhere"})
        assert "No model matches" in nothing.text

    async def test_the_first_look_shows_models_before_all_have_been_read(
        self, two: World, panel: Panel, olga: httpx.AsyncClient
    ) -> None:
        rows = read_overview(two.hook, most=FIRST_ROWS)
        assert 0 < len(rows) <= FIRST_ROWS
        page = await olga.get("/ui/")
        assert escape(rows[0].name) in page.text  # names of other tests have quotes

    async def test_a_drift_check_is_read_once_and_a_deleted_one_is_forgotten_after_an_hour(self, world: World) -> None:
        hours = [0.0]
        checks = DriftChecks(lambda: hours[0] * 3600)

        def check(minutes: int) -> str:
            tags = {contract.TAG_KIND: contract.KIND_DRIFT_CHECK, contract.TAG_MODEL_NAME: world.model_name}
            run = world.hook.create_run(world.experiment_id, "drift", tags, minutes * 60_000)
            world.hook.log_batch(run.run_id, {"drift_share": 0.5, "drift.age": 0.7}, timestamp_ms=minutes * 60_000)
            world.hook.update_run(run.run_id, "FINISHED", minutes * 60_000)
            return run.run_id

        def known() -> list[str]:
            return [run.run_id for run in checks.read(world.hook)[world.model_name]]

        later = 60_000_000  # minutes since 1970: later than the checks of other tests
        old, new = check(later), check(later + 60)
        assert known() == [new, old]
        assert checks.read(world.hook)[world.model_name][0].metrics == {"drift_share": 0.5}
        late = check(later + 55)  # its task was slow: it ended before the newest check, and is written after it
        world.hook.delete_run(old)
        assert known() == [new, late, old]
        hours[0] = 1.1
        assert known() == [new, late]
        for run in (new, late):
            world.hook.delete_run(run)

    @pytest.mark.parametrize(
        ("asked", "accepted", "language", "said"),
        [
            ("", "ru-RU,ru;q=0.9", "ru", "работе версия 2"),
            ("zh-CN", "ru", "zh-CN", "版本 2 正在生产中"),
            ("en", "ru", "en", "Version 2 is in production"),
            ("xx", "ru", "en", "Version 2 is in production"),
        ],
    )
    async def test_the_language_is_that_of_the_address_or_of_the_browser(
        self, two: World, olga: httpx.AsyncClient, asked: str, accepted: str, language: str, said: str
    ) -> None:
        given = {"lang": asked} if asked else {}
        answer = await olga.get(f"/ui/models/{two.model_name}", params=given, headers={"Accept-Language": accepted})
        assert (f'<html lang="{language}">' in answer.text, said in text_of(answer.text)) == (True, True), answer.text
        assert ("rollback?lang=" in answer.text) == bool(asked)

    async def test_a_rollout_has_its_chart_and_its_buttons(self, two: World, olga: httpx.AsyncClient) -> None:
        begun = two.run(
            RolloutModelOperator,
            model_name=two.model_name,
            version="3",
            expected_champion="2",
            experiment_name=two.experiment,
            steps=[{"setWeight": 5}, {"analysis": "10m"}],
            deferrable=True,
        )
        assert begun.state == "deferred", begun.error
        state = RolloutState.of(two.hook.get_model_version(two.model_name, "2"))
        assert state.active is not None
        journal = read_journal(two.hook, state.active.run_id)
        assert journal is not None
        point = Point(at=datetime.now(UTC), weight=5, canary=40, canary_failed=1, champion=760)
        told = journal.model_copy(update={"points": (point,)})
        two.hook.upload_artifact(state.active.run_id, ARTIFACT_JOURNAL, dump_document(told).encode())
        page = await olga.get(f"/ui/models/{two.model_name}")
        assert "Version 3 failed 1 of 40 answers" in page.text
        row = next(row for row in read_overview(two.hook) if row.name == two.model_name)
        assert (row.state.kind, row.state.values["canary"]) == ("rolling_out", "3")
        assert "It cannot be paused now." in page.text, "it has not begun to send requests"
        assert f'href="/base/mcp/ui/models/{two.model_name}/abort-rollout"' in page.text

    async def test_an_unchanged_page_is_not_sent_again(self, two: World, olga: httpx.AsyncClient) -> None:
        first = await olga.get("/ui/words")
        again = await olga.get("/ui/words", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")

    async def test_a_version_two_versions_a_moment_and_the_activity(
        self, two: World, panel: Panel, olga: httpx.AsyncClient
    ) -> None:
        one = await olga.get(f"/ui/models/{two.model_name}/versions/3")
        assert "Version 3 of" in one.text
        both = await olga.get(f"/ui/models/{two.model_name}/versions/2", params={"with": "1"})
        assert "Where they come from" in both.text
        past = await olga.get(f"/ui/models/{two.model_name}", params={"at": "2020-01-01T00:00Z"})
        assert "the champion was: no version" in text_of(past.text)
        wrong = await olga.get(f"/ui/models/{two.model_name}", params={"at": "yesterday"})
        assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/problem+json")
        await olga.get("/ui/")
        await panel.services.index.finished()
        assert "it is better" in (await olga.get("/ui/activity")).text

    async def test_when_mlflow_is_down_a_page_says_so_without_an_address(self) -> None:
        mlflow = DirectMlflow(settings("http://127.0.0.1:9", 1))
        panel = Panel(mlflow)
        async with panel.client("olga") as client:
            await client.get("/ui/")
            listed = await client.get("/ui/")
            model = await client.get("/ui/models/churn")
        panel.services.reader.close()
        mlflow.close()
        assert "does not answer" in listed.text
        assert (model.status_code, "127.0.0.1" in listed.text + model.text) == (503, False)


class TestAccess:
    async def test_every_route_states_its_access(self, panel: Panel) -> None:
        routes = [route for route in _routes(panel.app) if hasattr(route, "dependant")]
        assert len(routes) > 9
        unguarded = [route.path for route in routes if not {"caller_of", "metrics_token"} & guards(route)]
        writes = [route for route in routes if route.methods & {"POST", "PUT", "PATCH", "DELETE"}]
        assert unguarded == []
        assert [route.path for route in writes if "own_json" not in guards(route)] == []

    @pytest.mark.parametrize(
        ("name", "status"),
        [("olga", 200), ("bob", 200), ("eve", 404), ("", 401)],
        ids=["op", "viewer", "other", "nobody"],
    )
    async def test_who_may_not_see_a_model_is_told_that_there_is_none(
        self, two: World, panel: Panel, name: str, status: int
    ) -> None:
        async with panel.client(name) as client:
            for page in ("", "/versions/1", "/rollback", "/reports/0123/gate"):
                answer = await client.get(f"/ui/models/{two.model_name}{page}")
                expected = 404 if page.endswith("gate") and status == 200 else status
                assert answer.status_code == expected, page
                if status in (401, 404):
                    assert "Version 2" not in answer.text

    @pytest.mark.parametrize("name", ["olga", "bob", "eve", ""], ids=["op", "viewer", "other", "nobody"])
    async def test_what_each_role_gets_on_each_route(self, two: World, panel: Panel, name: str) -> None:
        model, login = f"/ui/models/{two.model_name}", name == ""
        sees = {"olga": 200, "bob": 200, "eve": 404, "": 401}[name]
        asked: list[tuple[int, str, str]] = [
            (401 if login else 307, "GET", "/ui"),
            *((401 if login else 200, "GET", path) for path in ("/ui/", "/ui/words", "/ui/activity", "/ui/approvals")),
            *((sees, "GET", f"{model}{part}") for part in ("", "/", "/versions/1", "/rollback", "/train")),
            (401 if login else 404, "GET", f"{model}/reports/{'0' * 32}/gate"),
            (401 if login else 404, "GET", f"/ui/approvals/{two.model_name}"),
            (401 if login else 200, "GET", "/static/ui.css"),
            (401, "GET", "/metrics"),  # it has a token of its own
            ({"olga": 202, "bob": 403, "eve": 404, "": 401}[name], "POST", f"{model}/rollback"),
            (401 if login else 404, "POST", f"/ui/approvals/{two.model_name}"),
        ]
        bodies = {f"{model}/rollback": _wanted()}
        answer_of_nobody = {"key": "0" * 32, "option": "Approve", "reason": "x"}
        async with panel.client(name) as client:
            for expected, method, path in asked:
                body = bodies.get(path, answer_of_nobody) if method == "POST" else None
                answer = await client.request(method, path, json=body, headers=WRITE if body else {})
                assert answer.status_code == expected, f"{method} {path}: {answer.text[:500]}"
                # The activity of other tests' models may name replicas on this machine.
                address = two.url.removeprefix("http://") if path == "/ui/activity" else "127.0.0.1"
                assert address not in answer.text, path
                assert sees == 200 or "it is better" not in answer.text, path
        assert bool(panel.airflow.runs) is (name == "olga")
        asked_for = {(method, _route_of(panel.app, method, path)) for _, method, path in asked}
        assert asked_for == {
            (method, route.path) for route in _routes(panel.app) for method in route.methods if method != "HEAD"
        }

    async def test_a_viewer_sees_the_button_disabled_with_the_reason_and_cannot_act(
        self, two: World, panel: Panel
    ) -> None:
        async with panel.client("bob") as client:
            page = await client.get(f"/ui/models/{two.model_name}")
            refused = await client.post(f"/ui/models/{two.model_name}/rollback", json=_wanted(), headers=WRITE)
        assert "You may not trigger the Dag rollback_model." in page.text
        assert (refused.status_code, panel.airflow.runs) == (403, {})
        assert refused.json()["detail"].endswith("Nothing was changed.")

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Fetch-Site": "same-origin"}, 202),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "none"}, 403),
            ({"Origin": "http://airflow.test"}, 202),
            ({"Origin": "http://airflow.test:8081"}, 403),
            ({"Origin": "null"}, 403),
            ({}, 403),
            ({"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, 415),
            ({"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}, 415),
        ],
    )
    async def test_a_write_with_a_cookie_comes_from_a_page_of_ours_as_json(
        self, two: World, panel: Panel, olga: httpx.AsyncClient, headers: dict[str, str], status: int
    ) -> None:
        given = {"Content-Type": "application/json", **headers}
        answer = await olga.post(f"/ui/models/{two.model_name}/rollback", json=_wanted(), headers=given)
        assert (answer.status_code, len(panel.airflow.runs)) == (status, int(status == 202)), answer.text

    async def test_too_large_and_too_many_writes_are_refused(self, two: World, olga: httpx.AsyncClient) -> None:
        path = f"/ui/models/{two.model_name}/rollback"
        large = await olga.post(path, content=b"{" + b" " * MAX_BODY_BYTES + b"}", headers=WRITE)
        assert large.status_code == 413
        statuses = [
            (await olga.post(path, json=_wanted(expected_champion="7"), headers=WRITE)).status_code for _ in range(11)
        ]
        assert statuses == [409] * 10 + [429]

    async def test_foreign_text_is_shown_as_text(self, two: World, olga: httpx.AsyncClient) -> None:
        name = f"{two.model_name}{HOSTILE.replace('/', '')}"  # MLflow refuses a slash in a name
        two.hook.create_registered_model(
            name, {"airflow_mcp.owner": HOSTILE, "airflow_mcp.last_move": HOSTILE}, HOSTILE
        )
        answer = await olga.get(f"/ui/models/{quote(name, safe='')}")
        assert answer.status_code == 200, answer.text
        assert "<img" not in answer.text
        assert "<script>alert" not in answer.text
        assert answer.headers["Content-Security-Policy"] == CSP

    async def test_foreign_reasons_and_origins_are_shown_as_text(self, two: World, olga: httpx.AsyncClient) -> None:
        for tag in (contract.TAG_DATA_VERSION, contract.TAG_REASON, contract.TAG_CODE_COMMIT):
            two.hook.set_model_version_tag(two.model_name, "3", tag, HOSTILE)
        arguments = {"model_name": two.model_name, "version": "3", "expected_champion": "2"}
        moved = two.run(PromoteModelOperator, **arguments, reason=HOSTILE, dag_run_id="hostile")
        assert moved.state == "success", moved.error
        model = f"/ui/models/{two.model_name}"
        for page in (model, f"{model}/versions/3", f"{model}/versions/3?with=1", f"{model}/rollback"):
            answer = await olga.get(page)
            assert (answer.status_code, "<img" in answer.text, "<script>alert" in answer.text) == (200, False, False)
            assert "&lt;img src=x" in answer.text, page

    async def test_pages_have_neither_inline_styles_nor_inline_scripts(
        self, two: World, olga: httpx.AsyncClient
    ) -> None:
        model = f"/ui/models/{two.model_name}"
        for page in ("/ui/", model, f"{model}/rollback", f"{model}/versions/1?with=2", "/ui/words", "/ui/approvals"):
            html = (await olga.get(page)).text
            assert not re.search(r"<[^>]*\s(style|on[a-z]+)=|<style|<script(?! src=)|https?://", html), page

    async def test_a_report_runs_as_nobody(self, two: World, olga: httpx.AsyncClient) -> None:
        run_id = two.hook.get_model_version(two.model_name, "3").run_id
        two.hook.upload_artifact(run_id, contract.ARTIFACT_GATE_REPORT_HTML, HOSTILE.encode())
        answer = await olga.get(f"/ui/models/{two.model_name}/reports/{run_id}/gate")
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("sandbox; default-src 'none'")
        assert "allow-scripts" not in policy
        other = two.hook.create_run(two.experiment_id, "other", {}, 1).run_id
        two.hook.upload_artifact(other, contract.ARTIFACT_GATE_REPORT_HTML, b"secret")
        assert (await olga.get(f"/ui/models/{two.model_name}/reports/{other}/gate")).status_code == 404


class TestActing:
    async def test_a_roll_back_triggers_the_dag_once_under_the_callers_token(
        self, two: World, panel: Panel, olga: httpx.AsyncClient
    ) -> None:
        path = f"/ui/models/{two.model_name}/rollback"
        form = await olga.get(path)
        assert "Roll back from version 2" in form.text
        first = await olga.post(path, json=_wanted(), headers=WRITE)
        again = await olga.post(path, json=_wanted(), headers=WRITE)
        assert (first.status_code, again.status_code, first.json()) == (202, 202, again.json())
        ((dag_id, run_id), run) = next(iter(panel.airflow.runs.items()))
        assert (len(panel.airflow.runs), dag_id, run_id[:15]) == (1, "rollback_model", "mcp__rollback__")
        assert run["conf"] == {
            "model_name": two.model_name, "reason": "bad scores", "to_version": "1", "check_first": True
        }  # fmt: skip
        assert panel.airflow.asked_with == {"Bearer olga"}
        other = await olga.post(path, json=_wanted(reason="another reason"), headers=WRITE)
        assert other.status_code == 422
        panel.airflow.tasks = [{"task_id": "load_check", "state": "success", "start_date": "1"}]
        followed = await olga.get(first.json()["page"].removeprefix("/base/mcp"))
        assert "load_check" in followed.text
        assert "Triggered by olga" in followed.text

    async def test_a_champion_that_moved_meanwhile_changes_nothing(
        self, two: World, panel: Panel, olga: httpx.AsyncClient
    ) -> None:
        given = _wanted(expected_champion="1")
        answer = await olga.post(f"/ui/models/{two.model_name}/rollback", json=given, headers=WRITE)
        assert (answer.status_code, answer.json()["champion"], panel.airflow.runs) == (409, "2", {})

    @pytest.mark.parametrize("spoil", ["paused", "missing"])
    async def test_a_dag_that_would_not_run_is_not_triggered(
        self, two: World, panel: Panel, olga: httpx.AsyncClient, spoil: str
    ) -> None:
        if spoil == "paused":
            panel.airflow.paused.add("rollback_model")
        else:
            panel.airflow.dags.clear()
        answer = await olga.post(f"/ui/models/{two.model_name}/rollback", json=_wanted(), headers=WRITE)
        assert (answer.status_code, "rollback_model" in answer.json()["detail"]) == (409, True)
        assert panel.airflow.runs == {}

    async def test_a_model_that_is_only_published_cannot_be_trained_and_the_page_says_so(
        self, two: World, panel: Panel, olga: httpx.AsyncClient
    ) -> None:
        two.hook.set_registered_model_tag(two.model_name, contract.TAG_DAG_ID, "publish_model")
        why = "This model is published, not trained: the Dag publish_model registers what somebody uploads."
        path = f"/ui/models/{two.model_name}"
        for page in (path, f"{path}/train"):
            assert why in text_of((await olga.get(page)).text), page
        panel.airflow.dags.add("publish_model")
        refused = await olga.post(f"{path}/train", json=_wanted(version=""), headers=WRITE)
        assert (refused.status_code, panel.airflow.runs) == (409, {})
        assert why in refused.json()["detail"]

    @pytest.mark.parametrize("reason", ["", "   ", "x" * 2001])
    async def test_a_reason_is_required(self, two: World, panel: Panel, olga: httpx.AsyncClient, reason: str) -> None:
        given = _wanted(reason=reason)
        answer = await olga.post(f"/ui/models/{two.model_name}/rollback", json=given, headers=WRITE)
        assert (answer.status_code, panel.airflow.runs) == (400, {})

    async def test_retraining_is_paused_and_resumed_in_the_ledger(
        self, two: World, panel: Panel, olga: httpx.AsyncClient
    ) -> None:
        panel.airflow.assets[f"retrain/{two.model_name}"] = 7
        path = f"/ui/models/{two.model_name}"
        paused = await olga.post(f"{path}/pause-retraining", json=_wanted(version=""), headers=WRITE)
        assert paused.status_code == 200, paused.text
        (entry,) = panel.airflow.states[7, CONTROL_KEY]["entries"]
        assert (entry["action"], entry["by"], entry["reason"]) == ("pause", "olga", "bad scores")
        assert "Retraining paused" in (await olga.get(path)).text
        again = await olga.post(f"{path}/pause-retraining", json=_wanted(version=""), headers=WRITE)
        assert again.status_code == 409
        resumed = await olga.post(f"{path}/resume-retraining", json=_wanted(version=""), headers=WRITE)
        assert resumed.status_code == 200


class TestMetrics:
    async def test_metrics_have_a_token_of_their_own(self, two: World, panel: Panel, olga: httpx.AsyncClient) -> None:
        assert (await olga.get("/metrics")).status_code == 401
        await olga.get("/ui/")
        await panel.services.index.finished()
        answer = await olga.get("/metrics", headers={"Authorization": "Bearer scrape-me"})
        assert f'airflow_mcp_champion_version{{model="{two.model_name}"}} 2\n' in answer.text
        assert 'airflow_mcp_up{mlflow_conn_id="mlflow_default"} 1\n' in answer.text


def _wanted(**changes: str) -> dict[str, str]:
    return {"key": "k1", "expected_champion": "2", "version": "1", "reason": "bad scores", **changes}


def guards(route: Any) -> set[str]:
    """Return the names of the dependencies of a route."""
    return {dependency.call.__name__ for dependency in route.dependant.dependencies}


def _route_of(app: Any, method: str, path: str) -> str:
    """Return the pattern of the route that answers."""
    scope = {"type": "http", "method": method, "path": path}
    return next(str(route.path) for route in _routes(app) if route.matches(scope)[0] == Match.FULL)


def _routes(app: Any) -> list[Any]:
    return [route for route in app.routes if getattr(route, "path", "")]
