"""``make screenshots``: the pictures of the docs, taken in a real Airflow with Chromium.

The models have a past: moves are recorded by the operators at times gone by, and MLflow's own times of registration are
put back in its database.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import time_machine

import tests.conftest  # noqa: F401  (Airflow's home, before Airflow is imported)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.mlflow_world import World
    from tests.support.page_stack import PageStack

_DESK, _PHONE = (1280, 900), (390, 844)
_WAIT_MS = 120_000


def main(folder: Path) -> None:
    """Take the pictures.

    :param folder: where they go.
    """
    from tests.support.chromium import browser
    from tests.support.mlflow_world import World
    from tests.support.page_stack import page_stack, seed_models
    from tests.support.services import MlflowServer

    with tempfile.TemporaryDirectory(prefix="screenshots-") as made, MlflowServer(Path(made) / "mlflow") as server:
        os.environ["AIRFLOW_CONN_MLFLOW_TESTS"] = json.dumps({"conn_type": "mlflow", "host": server.url})
        world = World(server.url, Path(made))

        # Before Airflow starts: it must not see the clock that is taken back.
        seed_models(world, server, lambda days: time_machine.travel(datetime.now(UTC) - timedelta(days=days)))
        give_a_past(world, Path(made) / "mlflow")
        with page_stack(Path(made), server) as stack, browser() as chromium:
            ask_for_a_release(stack)
            for taken in pictures(stack, chromium, folder):
                print(taken, taken.stat().st_size // 1024, "KiB")
        world.hook.close()


def ask_for_a_release(stack: PageStack) -> None:
    """Ask as somebody, and wait until people are asked."""
    from tests.support.page_stack import RELEASE
    from tests.support.processes import wait_until

    with closing(stack.api("ulf")) as client:
        run = client.trigger(RELEASE, {})
        assert wait_until(lambda: client.task_states(RELEASE, run).get("seat_1") == "awaiting_input", seconds=420)


def pictures(stack: PageStack, chromium: Browser, folder: Path) -> Iterator[Path]:
    """Yield each picture that was taken."""
    from tests.support.chromium import signed_in
    from tests.support.page_stack import CHURN, CLICKS, FRAUD

    framed = {
        "page-models": ("", _DESK, "light"),
        "page-model-phone": (f"mcp/ui/models/{FRAUD}", _PHONE, "dark"),
    }
    for name, (path, (width, height), scheme) in framed.items():
        size = {"width": width, "height": height}
        with closing(signed_in(chromium, stack.url, stack.token("olga"), viewport=size)) as context:
            context.add_init_script(f"localStorage.setItem('theme', '{scheme}')")
            context.set_default_timeout(_WAIT_MS)
            page = context.new_page()
            page.goto(f"{stack.url}/plugin/models/{path}")
            page.frame_locator("iframe").locator("main h1").wait_for()
            page.wait_for_timeout(1500)
            page.reload()
            page.frame_locator("iframe").locator("main h1").wait_for()
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{name}.png")
            yield small(folder / f"{name}.png")
    alone = {
        "page-model": (f"models/{FRAUD}", "olga", _DESK, "light"),
        "page-model-dark": (f"models/{FRAUD}", "olga", _DESK, "dark"),
        "page-rollback": (f"models/{FRAUD}/rollback", "olga", _DESK, "light"),
        "page-rollout": (f"models/{CLICKS}", "olga", _DESK, "dark"),
        "page-approval": (f"approvals/{CHURN}", "cora", _DESK, "light"),
        "page-approval-phone": (f"approvals/{CHURN}", "cora", (326, 844), "light"),
        "page-models-ru": ("?lang=ru", "vera", _DESK, "light"),
        "page-models-phone": ("", "vera", (326, 844), "dark"),
    }
    for name, (path, account, (width, height), scheme) in alone.items():
        size = {"width": width, "height": height}
        options = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
        with closing(signed_in(chromium, stack.url, stack.token(account), **options)) as context:
            context.set_default_timeout(_WAIT_MS)
            page = context.new_page()
            for _ in range(10):  # on a busy machine a source may be too slow for a page, and the page says so
                page.goto(f"{stack.url}/mcp/ui/{path}")
                page.locator("main h1").wait_for()
                if not page.get_by_text("did not answer").count():
                    break
                page.wait_for_timeout(6000)
            page.screenshot(path=folder / f"{name}.png", full_page=True)
            yield small(folder / f"{name}.png")


def small(picture: Path) -> Path:
    """Write a picture again with 256 colours: a page has few, and the file becomes half as large."""
    from PIL import Image

    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)
    return picture


# --- a past ---------------------------------------------------------------------------------------------------------


def give_a_past(world: World, folder: Path) -> None:
    """Give the models a history: versions over four weeks, drift checks, a journal of the rollout.

    :param world: the world.
    :param folder: folder of the MLflow server.
    """
    from tests.support.page_stack import CLICKS, FRAUD, PRICES

    now = datetime.now(UTC)
    for name in (FRAUD, CLICKS, PRICES):
        _check_drift(world, name, now)
    _measure(world, CLICKS, now)
    database = next(folder.glob("*.db"))
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        for days, version in ((20, "1"), (3, "2")):
            at = int((now - timedelta(days=days, hours=2)).timestamp() * 1000)
            connection.execute("UPDATE model_versions SET creation_time = ? WHERE version = ?", (at, version))


def _check_drift(world: World, name: str, now: datetime) -> None:
    from airflow_mcp.core import contract

    draw = random.Random(name)
    experiment = world.hook.get_or_create_experiment(f"{name}-drift")
    for day in range(14, 0, -1):
        share = draw.uniform(0.02, 0.2) if day not in (6, 7) else draw.uniform(0.32, 0.4)
        at = int((now - timedelta(days=day)).timestamp() * 1000)
        verdict = "drifted" if share > 0.3 else "not_drifted"
        tags = {
            contract.TAG_KIND: contract.KIND_DRIFT_CHECK,
            contract.TAG_MODEL_NAME: name,
            contract.TAG_DRIFT_VERDICT: verdict,
            contract.TAG_DATA_VERSION: f"{now - timedelta(days=day):%Y-%m-%d}",
        }
        run = world.hook.create_run(experiment, "drift", tags, at)
        metric = {"run_id": run.run_id, "key": "drift_share", "value": share, "timestamp": at}
        world._post("POST", "runs/log-metric", metric)
        world.hook.update_run(run.run_id, "FINISHED", at + 1000)


def _measure(world: World, name: str, now: datetime) -> None:
    """Put looks at model servers into the journal of the rollout, as its task does."""
    from airflow_mcp.core.document import dump_document
    from airflow_mcp.core.rollout.state import ARTIFACT_JOURNAL, Event, Point
    from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RolloutDocument
    from airflow_mcp.registry.rollout_control import read_journal

    document = RolloutDocument.model_validate_json(world.hook.get_model_version(name, "1").tags[TAG_ROLLOUT])
    journal = read_journal(world.hook, document.run_id)
    assert journal is not None
    draw = random.Random(name)
    points = []
    for minute in range(40, 0, -1):
        weight = 10.0 if minute < 30 else 0.0
        points.append(
            Point(
                at=now - timedelta(minutes=minute),
                weight=weight,
                canary=120 if weight else 0,
                canary_failed=draw.choice((0, 0, 1)) if weight else 0,
                champion=1100,
                champion_failed=draw.choice((0, 1, 3)),
            )
        )
    events = (
        Event(
            at=now - timedelta(minutes=40), phase="INITIALIZING", weight=0, generation=1, reason="every replica loads"
        ),
        Event(
            at=now - timedelta(minutes=30), phase="PROGRESSING", weight=10, generation=2, reason="every replica follows"
        ),
    )
    told = journal.model_copy(update={"points": tuple(points), "events": events, "looked": now})
    world.hook.upload_artifact(document.run_id, ARTIFACT_JOURNAL, dump_document(told).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
