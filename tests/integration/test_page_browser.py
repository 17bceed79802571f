"""The page in a real Airflow with real accounts: by hand in Chromium, and route by route for every role."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from airflow_mcp.core import contract
from tests.support.airflow_stack import ADMIN
from tests.support.chromium import browser, find_chromium, signed_in
from tests.support.mlflow_world import World
from tests.support.onnx_files import linear_onnx
from tests.support.page_stack import CHURN, CLICKS, FRAUD, PRICES, RELEASE, PageStack, page_stack, seed_models
from tests.support.paths import DOCS
from tests.support.processes import wait_until
from tests.support.services import MlflowServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]  # MLflow's own, about types
SECONDS = 120
PAGES = (
    "",
    f"models/{FRAUD}",
    f"models/{CLICKS}",
    f"models/{FRAUD}/versions/2",
    f"models/{FRAUD}/versions/2?with=1",
    f"models/{FRAUD}?at=2026-11-01T08:00Z",
    f"models/{FRAUD}/rollback",
    f"models/{CLICKS}/abort-rollout",
    "activity",
    "approvals",
    f"approvals/{CHURN}",
    "words",
)
DARK_PAGES = ("", f"models/{CLICKS}", f"models/{FRAUD}/rollback", f"approvals/{CHURN}")
"""Together they have every kind of part; the others differ only in what they say."""
needs_browser = pytest.mark.skipif(
    find_chromium() is None, reason="Chromium is not installed: apt-get install chromium"
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageStack]:
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch, MlflowServer(folder / "mlflow", http="gunicorn") as server:
        patch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": server.url}))
        world = World(server.url, folder)
        with page_stack(folder, server, lambda: seed_models(world, server)) as started:
            with closing(started.api("ulf")) as asking:
                started.release = asking.trigger(RELEASE, {})
            yield started
        world.hook.close()


@pytest.fixture
def champion(stack: PageStack, world: World) -> Any:
    return lambda name: world.hook.get_registered_model(name).aliases.get("champion")


@pytest.fixture
def registry_server(stack: PageStack) -> MlflowServer:
    return stack.mlflow


@pytest.fixture
def asked(stack: PageStack) -> None:
    """Wait until the release of the fixture waits for people."""
    with closing(stack.api()) as client:
        assert wait_until(
            lambda: client.task_states(RELEASE, stack.release).get("seat_1") in ("awaiting_input", "success"),
            seconds=SECONDS,
        ), client.task_states(RELEASE, stack.release)


# --- by hand --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(stack: PageStack) -> Iterator[Browser]:
    with browser() as started:
        yield started


def opened(chromium: Browser, stack: PageStack, account: str, **options: Any) -> Page:
    context = signed_in(chromium, stack.url, stack.token(account), **options)
    context.set_default_timeout(SECONDS * 500)
    return context.new_page()


def framed(page: Page, stack: PageStack, path: str = "") -> Frame:
    """Open the page in Airflow's frame and return the frame."""
    page.goto(f"{stack.url}/plugin/models/{path}")
    handle = page.locator("iframe").element_handle()
    frame = handle.content_frame() if handle is not None else None
    assert frame is not None
    frame.locator("main h1").wait_for()
    return frame


def tab_to(frame: Frame, what: str) -> None:
    """Press Tab until a link, a button or a field that says or is named so has the focus, as without a mouse."""
    script = """() => {
        const at = document.activeElement;
        return at?.matches("a, button, textarea") ? `${at.innerText} #${at.id}` : "";
    }"""
    seen = []
    for _ in range(80):
        frame.page.keyboard.press("Tab")
        seen.append(frame.evaluate(script).strip())
        if what in seen[-1]:
            return
    raise AssertionError(f"{what!r} cannot be reached by keyboard: {seen}")


@needs_browser
def test_by_keyboard_in_airflows_frame_a_model_is_rolled_back_to_success(
    stack: PageStack, chromium: Browser, champion: Any
) -> None:
    assert champion(FRAUD) == "2"
    page = opened(chromium, stack, "olga", viewport={"width": 1280, "height": 900})
    frame = framed(page, stack)
    frame.locator("#q").focus()
    for target in (FRAUD, "Roll back…"):
        tab_to(frame, target)
        page.keyboard.press("Enter")
        frame.locator("h1", has_text=FRAUD if target == FRAUD else "Roll back from version 2").wait_for()
    tab_to(frame, "#reason")
    page.keyboard.type("wrong amounts since midnight")
    tab_to(frame, "Roll back to version 1")
    page.keyboard.press("Enter")
    frame.locator("strong", has_text="Done").wait_for(timeout=2 * SECONDS * 1000)
    assert "Triggered by olga" in frame.locator("main").inner_text()
    assert champion(FRAUD) == "1"
    tab_to(frame, "To the model")
    page.keyboard.press("Enter")
    frame.locator(".big", has_text="Version 1 is in production").wait_for()
    assert f"/plugin/models/mcp/ui/models/{FRAUD}" in page.url, "a link to this page can be shared"


@needs_browser
def test_no_page_breaks_a_rule_of_accessibility_or_needs_more_than_326_pixels(
    stack: PageStack, chromium: Browser, asked: None
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for width, scheme in ((1280, "light"), (326, "dark")):
        page = opened(
            chromium,
            stack,
            "olga",
            viewport={"width": width, "height": 844},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        for path in PAGES:
            page.goto(f"{stack.url}/mcp/ui/{path}")
            where = f"{path} at {width} px, {scheme}"
            if scheme == "light" or path in DARK_PAGES:
                found = Axe().run(page).response["violations"]
                assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == [], where
            wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, where


@needs_browser
def test_the_frame_on_a_phone_follows_airflows_theme_and_links_leave_it(stack: PageStack, chromium: Browser) -> None:
    page = opened(chromium, stack, "olga", viewport={"width": 390, "height": 844})
    frame = framed(page, stack, f"mcp/ui/models/{FRAUD}")
    assert frame.evaluate("() => innerWidth") < 340
    for theme in ("dark", "light"):
        page.evaluate(f"() => {{ document.documentElement.className = '{theme}' }}")
        frame.wait_for_function(f"() => document.documentElement.dataset.theme === '{theme}'")
    said = []
    page.on("console", lambda message: said.append(message.text) if "Security Policy" in message.text else None)
    with stack.client("olga") as client:
        body = {"key": "t1", "expected_champion": "none", "version": "", "reason": "new data"}
        answer = client.post(f"/ui/models/{PRICES}/train", json=body)
        assert answer.status_code == 202, answer.text
    frame.goto(f"{stack.url}{answer.json()['page']}")
    frame.locator("a", has_text="Open the Dag run").click()
    page.wait_for_url("**/dags/nightly_retrain/runs/**")
    assert said == []


# --- role by role ---------------------------------------------------------------------------------------------------

READ = ("/ui/", f"/ui/models/{FRAUD}", f"/ui/models/{FRAUD}/versions/1", "/ui/activity", "/ui/words", "/static/ui.css")
MAY_NOT = "You may not trigger the Dag "
NO_ROLE = "The access policy does not permit it: {account} has no role that grants model:"


@pytest.mark.parametrize("account", ["admin", "olga", "otto", "ulf", "cora", "vera", ""])
def test_every_role_reads_and_nobody_else(stack: PageStack, account: str) -> None:
    with stack.client(account) as client:
        found = {path: client.get(path).status_code for path in READ}
    assert found == dict.fromkeys(READ, 200 if account else 401)


@pytest.mark.parametrize(
    ("account", "said"),
    [
        ("admin", "Version 999 cannot be chosen"),
        ("olga", "Version 999 cannot be chosen"),
        ("otto", NO_ROLE),  # may trigger Dags in Airflow, and the policy does not know him
        ("ulf", NO_ROLE),
        ("vera", MAY_NOT),
        ("", ""),
    ],
    ids=["admin", "op", "op-without-role", "user", "viewer", "anonymous"],
)
def test_only_whom_airflow_and_the_policy_permit_may_act_and_the_others_see_why(
    stack: PageStack, champion: Any, account: str, said: str
) -> None:
    body = {"key": uuid4().hex, "expected_champion": champion(CHURN), "version": "999", "reason": "bad"}
    with stack.client(account) as client:
        for path in (f"/ui/models/{CHURN}/promote", f"/ui/models/{CLICKS}/abort-rollout"):
            is_shown = said.startswith("Version") or "promote" in path
            wanted = said.format(account=account)
            shown = client.get(path)
            if not said.startswith("Version"):
                answer = client.post(path, json=body)
                assert answer.status_code == (403 if account else 401), answer.text
                assert wanted in answer.json().get("detail", "")
                assert ("This is not possible" in shown.text) == bool(account)
                assert wanted in shown.text or not is_shown
            elif path.endswith("promote"):
                answer = client.post(path, json=body)
                assert (answer.status_code, wanted in answer.json()["detail"]) == (409, True), answer.text
                assert 'id="reason"' in shown.text


def test_a_rollout_is_aborted_from_the_page_under_the_callers_name(stack: PageStack, world: World) -> None:
    path = f"/ui/models/{CLICKS}/abort-rollout"
    with stack.client("olga") as client:
        body = {"key": "a1", "expected_champion": "1", "version": "", "reason": "errors rise"}
        answer = client.post(path, json=body)
        assert answer.status_code == 202, answer.text
        page = answer.json()["page"].removeprefix("/mcp")
        assert wait_until(lambda: "Done" in client.get(page).text, seconds=SECONDS), client.get(page).text
        assert "Rolling out" not in client.get(f"/ui/models/{CLICKS}").text
    facts = stack.log.facts(f"model:{CLICKS}")
    assert facts[-1].event["actor"]["name"] == "olga"


def test_an_approval_is_given_on_the_page_by_whom_the_policy_asks_and_by_nobody_else(
    stack: PageStack, asked: None
) -> None:
    path = f"/ui/approvals/{CHURN}"
    whys = {
        "ulf": "You asked for this release",
        "olga": "At the step compliance these may answer: role:compliance.",
        "otto": "The policy does not know the account otto.",
    }
    for account, why in whys.items():
        with stack.client(account) as client:
            shown = client.get(path).text
            mark = "0" * 32
            refused = client.post(path, json={"key": mark, "option": "Approve", "reason": "looks right"})
            assert ("This is not yours to answer" in shown, why in shown) == (True, True), account
            assert refused.status_code in (403, 409)
            assert "not yours" in client.get("/ui/approvals").text
    with stack.client("cora") as client:
        assert wait_until(lambda: CHURN in client.get("/ui/approvals").text, seconds=SECONDS)
        assert "Version 2 waits for an approval" in client.get(f"/ui/models/{CHURN}").text
        shown = client.get(path).text
        found = re.search(r'data-key="([0-9a-f]{32})"', shown)
        assert found is not None, shown
        body = {"key": found[1], "option": "Approve", "reason": "looks right"}
        for account in ("ulf", "olga", "otto"):
            with stack.client(account) as other:
                assert other.post(path, json=body).status_code == 403, account
        assert client.post(path, json={**body, "key": "0" * 32}).status_code == 409
        answer = client.post(path, json=body)
        assert answer.status_code == 202, answer.text
        assert client.post(path, json=body).status_code in (404, 409)
        assert wait_until(lambda: client.get(path).status_code == 404, seconds=SECONDS)
        assert CHURN not in re.sub(r"<[^>]+>", "", client.get("/ui/approvals").text)
    with closing(stack.api()) as client:
        assert client.wait_for_run(RELEASE, stack.release, SECONDS) == "success"
        assert client.xcom(RELEASE, stack.release, "seat_1", "by") == "cora"


# --- the publisher API ------------------------------------------------------------------------------------------------


def in_bash(blocks: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the commands of a page in one shell that stops at the first that fails."""
    script = "\n".join(["set -euo pipefail", *blocks])
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed: apt-get install jq")
def test_the_walk_of_the_publishers_page_works_as_it_is_printed(stack: PageStack, world: World, tmp_path: Path) -> None:
    """The commands of docs/publisher.md, one after the other, with nothing but curl and jq."""
    page = (DOCS / "publisher.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.S)
    assert len(blocks) == 7
    (tmp_path / "model.onnx").write_bytes(linear_onnx())
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "AIRFLOW": stack.url,
        "ACCOUNT": ADMIN,  # olga has ten writes a minute, which other tests need
        "PASSWORD": stack.airflow.password,
        "BUILD": "4711",
        "NO_PROXY": "127.0.0.1",
    }
    done = in_bash(blocks, tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"complete"' in done.stdout
    assert '"status": 409' in done.stdout
    version = world.hook.get_model_version("demand", "1")
    assert version.tags[contract.TAG_LOAD_CHECK] == "passed"
    assert version.tags[contract.TAG_REASON] == "build 4711"
    assert version.tags[f"{contract.TAG_REPORTED_PREFIX}code_commit"].startswith("3f9c2d7e")
    assert world.hook.get_registered_model("demand").aliases == {"challenger": "1"}
    operation = json.loads((tmp_path / "state.json").read_text())
    assert (operation["action"], operation["by"], operation["status"]) == ("stage", ADMIN, "succeeded")
    assert stack.url not in (tmp_path / "state.json").read_text() + (tmp_path / "upload.json").read_text()
    again = in_bash(blocks[:5], tmp_path, environment)  # the same build once more
    assert again.returncode == 0, again.stdout + again.stderr
    assert [each.version for each in world.hook.search_model_versions("name = 'demand'")] == ["1"]


@pytest.mark.parametrize("account", ["admin", "olga", "otto", "ulf", "vera", ""])
def test_what_each_role_gets_from_the_publisher_api(stack: PageStack, account: str) -> None:
    """Otto is an operator of Airflow whom the policy does not know; Ulf and Vera may only read."""
    # 409 for whoever may act: version 1 is the champion already.
    acts = {"admin": 409, "olga": 409, "": 401}.get(account, 403)
    publishes = {"admin": 201, "olga": 201, "": 401}.get(account, 403)
    reads = 200 if account else 401
    body = {"version": "1", "expected_champion": "1", "reason": "a test of roles"}
    upload = {"format": "onnx", "size": 1, "sha256": f"sha256:{'0' * 64}"}
    asked: list[tuple[int, str, str, Any]] = [
        *((reads, "GET", path, None) for path in ("models", "champions", "operations", "openapi.json")),
        *((reads, "GET", f"models/{PRICES}{part}", None) for part in ("", "/versions", "/versions/1", "/history")),
        (publishes, "POST", f"models/{PRICES}/uploads", upload),
        (acts, "POST", f"models/{CHURN}/promotion", body),
    ]
    with stack.client(account) as client:
        for expected, method, path, sent in asked:
            key = {"Idempotency-Key": f"role {path}"}
            answer = client.request(method, f"/api/v1/{path}", json=sent, headers=key)
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                time.sleep(60)  # the tests before have used up the actions of this minute
                answer = client.request(method, f"/api/v1/{path}", json=sent, headers=key)
            assert answer.status_code == expected, f"{account}: {method} {path}: {answer.text}"
            assert "X-Request-ID" in answer.headers
            if expected >= 400:
                assert answer.headers["Content-Type"] == "application/problem+json", answer.text
            assert "127.0.0.1" not in answer.text
