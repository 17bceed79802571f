"""DatasetVersionSensor on real folders and repositories, in a worker and in the triggerer."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.serde import deserialize, serialize

from airflow_mcp.sensors.dataset import DatasetVersionSensor
from tests.support.git_server import Repository
from tests.support.task_harness import TaskOutcome, run_task

WAITS: dict[str, Any] = {"poke_interval": 0.05, "timeout": 0.2}


def sensor(**options: Any) -> DatasetVersionSensor:
    return DatasetVersionSensor(task_id="wait", retries=3, **{"deferrable": False, **WAITS, **options})


def deferred(act: Callable[[], object], **options: Any) -> tuple[TaskOutcome, dict[str, Any]]:
    """Defer, do something while the trigger of the database waits, and resume with its event."""
    operator = sensor(deferrable=True, **{**options, "timeout": 60})
    outcome = run_task(operator)
    assert outcome.state == "deferred", outcome.error
    stored = outcome.supervisor.messages("DeferTask")[-1]
    module, _, name = stored.classpath.rpartition(".")
    arguments = deserialize(serialize(deserialize(stored.trigger_kwargs)))
    trigger = getattr(importlib.import_module(module), name)(**{**arguments, "poll_seconds": 1})
    trigger.poll_seconds = 0.01

    async def wait() -> dict[str, Any]:
        async with asyncio.timeout(30):
            events = aiter(trigger.run())
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.05)
            act()
            return dict((await first).payload)

    event = asyncio.run(wait())
    return run_task(operator, supervisor=outcome.supervisor, resume_with=event), event


def test_a_version_that_is_there_ends_the_wait_at_once(tmp_path: Path) -> None:
    (tmp_path / "v2").mkdir()
    for deferrable in (False, True):
        outcome = run_task(sensor(root=str(tmp_path), other_than="v1", deferrable=deferrable))
        assert outcome.state == "success", outcome.error
        assert outcome.result == {"root": str(tmp_path), "version": "v2"}


def test_the_version_that_is_known_is_waited_out(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    outcome = run_task(sensor(root=str(tmp_path), other_than="v1"))
    assert (outcome.state, "timed out" in str(outcome.error)) == ("failed", True)
    assert run_task(sensor(root=str(tmp_path), other_than="v1", soft_fail=True)).state == "skipped"
    resumed, event = deferred((tmp_path / "v2").mkdir, root=str(tmp_path), other_than="v1")
    assert event["status"] == "found"
    assert resumed.result == {"root": str(tmp_path), "version": "v2"}


def test_what_dvc_tracks_is_waited_for_by_its_hash(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "models")
    repository.commit("outs:\n- {md5: aa11, path: train.csv}\n", "train.csv.dvc")
    place = {"repo_url": repository.url, "path": "train.csv"}
    known = run_task(sensor(dvc=place)).result["version"]
    assert known == "aa11"

    def change() -> None:
        repository.commit("nothing about the data")
        repository.commit("outs:\n- {md5: bb22, path: train.csv}\n", "train.csv.dvc")

    resumed, _ = deferred(change, dvc=place, other_than=known)
    assert (resumed.result["version"], resumed.result["hash"]) == ("bb22", "bb22")
    assert resumed.result["commit"] == repository.git("rev-parse", "HEAD")


def test_a_place_that_cannot_be_read_yet_is_looked_at_again(tmp_path: Path) -> None:
    root = tmp_path / "later"
    outcome = run_task(sensor(root=str(root)))
    assert "timed out" in str(outcome.error)

    def appear() -> None:
        root.mkdir()
        (root / "v1").mkdir()

    resumed, _ = deferred(appear, root=str(root))
    assert resumed.result["version"] == "v1"


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of root, uri, dvc, lfs must be given; got none"),
        ({"root": "/data", "uri": "/data/a.csv"}, "exactly one of root, uri, dvc, lfs must be given; got root, uri"),
        ({"lfs": {"repo_url": "https://example.com/x"}}, "lfs must be a mapping with repo_url and path"),
        ({"root": "/data", "other_than": 3}, "other_than must be text, or '' for any version; got 3"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(options: dict[str, Any], message: str, deferrable: bool) -> None:
    outcome = run_task(sensor(deferrable=deferrable, **options))
    assert outcome.state == "failed"
    assert message in str(outcome.error)


def test_what_the_trigger_cannot_mend_fails_the_task(tmp_path: Path) -> None:
    operator = sensor(root=str(tmp_path), deferrable=True)
    outcome = run_task(operator)
    refused = {"status": "refused", "found": {}, "message": "root is gone"}
    assert run_task(operator, supervisor=outcome.supervisor, resume_with=refused).state == "failed"
    failed = {"status": "failed", "found": {}, "message": "401"}
    assert run_task(operator, supervisor=outcome.supervisor, resume_with=failed).state == "up_for_retry"
