"""A follower through orders of events that are hard to bring about with real processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK
from airflow_mcp.core.serving.control_settings import ControlSettings
from airflow_mcp.core.serving.settings import ModelAddress
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RoutingKey
from airflow_mcp.core.serving.versions import ServedVersion, VersionState
from airflow_mcp.exceptions import MlflowNotFoundError, MlflowUnreachableError
from airflow_mcp.serving import follower as module
from airflow_mcp.serving import holding
from airflow_mcp.serving.cache import Cached, ModelCache
from airflow_mcp.serving.follower import Follower
from airflow_mcp.serving.looks import Looker
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import LoadReport, ModelAnswer, ModelPool, ModelRequest, PoolStartError

IMAGE = "sha256:" + "1" * 64
EVIDENCE = {contract.TAG_GATE_VERDICT: "passed", contract.TAG_DATA_HASH: "sha256:a"}


class Pool(ModelPool):
    """A version that is loaded at once, and fails on demand."""

    def __init__(self, key: ServedVersion, breaks: set[str]) -> None:
        self._breaks, self._key = breaks, key
        self._failure, self.is_stopped = "", False

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self._key.version in self._breaks:
            raise PoolStartError("it does not load")

    def submit(self, request: ModelRequest) -> Awaitable[ModelAnswer]:
        raise NotImplementedError

    async def stop(self) -> None:
        self.is_stopped = True

    def die(self) -> None:
        self._failure = "three deaths in 60 s"
        assert self.on_change is not None
        self.on_change()

    @property
    def ready(self) -> bool:
        return not self._failure and not self.is_stopped

    @property
    def in_flight(self) -> int:
        return 0

    @property
    def failure(self) -> str:
        return self._failure

    @property
    def report(self) -> LoadReport:
        return LoadReport(memory_bytes=100)


class _Operation:
    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    async def aio(self, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return self._answer(*arguments)


class Registry:
    """What the follower asks of MLflow."""

    def __init__(self) -> None:
        self.champion = "1"
        self.tags: dict[str, dict[str, str]] = {}
        self.is_away = False
        self.away_for = ""
        """The only model that the registry does not answer for."""
        self.get_model_version = _Operation(self._version)
        self.get_model_version_by_alias = _Operation(lambda name, *_: self._version(name, self.champion))
        self.get_run = _Operation(self._run)

    def _version(self, name: str, number: str) -> ModelVersion:
        self._require()
        if name == self.away_for:
            raise MlflowUnreachableError("no answer")
        if number not in self.tags:
            raise MlflowNotFoundError("gone")
        return ModelVersion(name, number, "READY", source="x", run_id=f"r{number}", tags=self.tags[number])

    def _run(self, run_id: str) -> Run:
        self._require()
        return Run(run_id, "1", "FINISHED", tags=EVIDENCE)

    def _require(self) -> None:
        if self.is_away:
            raise MlflowUnreachableError("no answer")

    def add(self, number: str, memory: int = 0, **tags: str) -> None:
        check = LoadCheck("passed", "", image=IMAGE, digest=f"sha256:{number}", memory_bytes=memory)
        self.tags[number] = {**EVIDENCE, **check.to_tags(), **tags}


class World:
    """A follower with its registry, cache and pools."""

    def __init__(
        self, folder: Path, registry: Registry | None = None, names: Sequence[str] = ("fraud",), **settings: Any
    ) -> None:
        self.registry = registry or Registry()
        self.breaks: set[str] = set()
        self.made: dict[str, Pool] = {}
        self.models = ServedModels(self._make)
        given = {"image_digest": IMAGE, "poll_seconds": 0.02, **settings}
        control = ControlSettings.model_validate(given)
        mlflow: Any = self.registry
        addresses = [ModelAddress(name) for name in names]
        cache = ModelCache(folder, 10**9)
        self.follower = Follower(addresses, self.models, mlflow, Looker(mlflow, 1.0), cache, control)

    def _make(self, key: ServedVersion, *_: Any) -> ModelPool:
        self.made[key.version] = Pool(key, self.breaks)
        return self.made[key.version]

    def answers(self) -> tuple[str, str] | None:
        choice = self.models.choose(RoutingKey("fraud", b"x"))
        return None if choice is None else (choice.version.version, choice.role)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not what():  # noqa: ASYNC110  (a test may poll)
                await asyncio.sleep(0.005)

    async def until_answers(self, version: str, role: str = "champion") -> None:
        await self.until(lambda: self.answers() == (version, role))

    def state(self, number: str) -> VersionState | None:
        item = self.follower.held.get(ServedVersion("fraud", number))
        return item.state if item is not None else None

    def play(self, *stories: Callable[[], Awaitable[None]]) -> None:
        """Run each story while the follower follows; it ends in between."""

        async def run() -> None:
            for story in stories:
                task = asyncio.create_task(self.follower.run())
                try:
                    await story()
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                assert task.cancelled() or task.exception() is None

        asyncio.run(run())


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fetch without files, and look often."""

    async def fetch(_: Any, version: ModelVersion, *__: Any) -> Cached:
        return Cached(tmp_path, f"sha256:{version.version}")

    monkeypatch.setattr(holding, "fetch", fetch)
    monkeypatch.setattr(module, "_TICK", 0.01)
    monkeypatch.setattr(module, "_SHORTEST_PAUSE", 0.0)


def split(**fields: Any) -> str:
    values = {"identity": "r", "generation": 5, "phase": "PROGRESSING", "stable": "1", "canary": "2", "weight": 100}
    return json.dumps({"schema": "airflow_mcp/rollout/1", **values, **fields})


def test_an_older_generation_is_ignored(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.registry.add("1", **{TAG_ROLLOUT: split()})
    world.registry.add("2")

    async def story() -> None:
        await world.until_answers("2", "canary")
        world.registry.add("1", **{TAG_ROLLOUT: split(generation=4, weight=0)})
        await world.until(lambda: "generation 4 is older" in _plan(world).error)
        assert world.answers() == ("2", "canary")
        world.registry.add("1", **{TAG_ROLLOUT: split(generation=6, weight=0)})
        await world.until_answers("1")

    world.play(story)


def _plan(world: World) -> Any:
    plan = world.models.plan("fraud")
    assert plan is not None
    return plan


def test_a_champion_that_dies_is_replaced_by_the_standby_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    rule = {"threshold": 0.1, "duration": 60, "stable": "1"}
    world.registry.add("1")
    world.registry.add("2", **{TAG_ROLLBACK: json.dumps({"schema": "airflow_mcp/rollback/1", **rule})})
    world.registry.champion = "2"
    monkeypatch.setattr(holding, "retry_at", lambda failures, now: now + 0.2)

    async def story() -> None:
        await world.until_answers("2")
        await world.until(lambda: world.state("1") is VersionState.READY)
        world.made["2"].die()
        await world.until_answers("1", "standby")
        assert world.follower.held.swaps["died"] == 1
        await world.until_answers("2")

    world.play(story)


def test_a_champion_that_dies_without_a_policy_is_replaced_by_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.registry.add("1")
    world.registry.add("2")

    async def story() -> None:
        await world.until_answers("1")
        world.registry.champion = "2"
        await world.until_answers("2")
        world.made["2"].die()
        await world.until(lambda: world.answers() is None)
        await world.until(lambda: "three deaths" in world.models.reasons.get("fraud", ""))
        assert world.answers() is None

    world.play(story)


def test_a_version_that_needs_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    mebibyte = 1024 * 1024
    world = World(tmp_path, memory_bytes=300 * mebibyte)
    world.registry.add("1", memory=200 * mebibyte)
    world.registry.add("2", memory=400 * mebibyte)

    async def story() -> None:
        await world.until_answers("1")
        world.registry.champion = "2"
        await world.until(lambda: "memory: it needs 400 MiB" in world.models.reasons.get("fraud", ""))
        assert world.state("2") is VersionState.FAILED
        assert world.answers() == ("1", "champion")

    world.play(story)


class TestAStartWithoutMlflow:
    def registry(self, tmp_path: Path) -> Registry:
        """Let a server follow a registry for a while, which then goes away."""
        world = World(tmp_path)
        world.registry.add("1")
        world.play(lambda: world.until_answers("1"))
        world.registry.is_away = True
        return world.registry

    def test_serves_what_the_registry_said_last(self, tmp_path: Path) -> None:
        world = World(tmp_path, self.registry(tmp_path))

        async def story() -> None:
            await world.until_answers("1")
            assert world.follower.why_incomplete() == ""
            world.registry.is_away = False
            world.registry.add("2")
            world.registry.champion = "2"
            await world.until_answers("2")

        world.play(story)

    def test_serves_a_model_that_the_registry_says_nothing_about_beside_others(self, tmp_path: Path) -> None:
        names = ("fraud", "churn")
        registry = Registry()
        registry.add("1")
        for away_for in ("", "churn", "churn"):  # a start without it does not forget it either
            registry.away_for = away_for
            world = World(tmp_path, registry, names)
            answering: list[str] = []

            async def story(world: World = world, answering: list[str] = answering) -> None:
                await world.until(lambda: all(map(world.models.can_answer, names)))
                answering += names

            world.play(story)
            assert answering == [*names]

    def test_may_have_to_wait_for_the_registry(self, tmp_path: Path) -> None:
        world = World(tmp_path, self.registry(tmp_path), require_registry=True)

        async def story() -> None:
            await world.until_answers("1")
            assert "require_registry" in world.follower.why_incomplete()
            world.registry.is_away = False
            await world.until(lambda: not world.follower.why_incomplete())

        world.play(story)

    def test_refuses_files_that_never_passed_their_checks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(tmp_path, self.registry(tmp_path))

        async def fetch(*_: Any) -> Cached:
            return Cached(tmp_path, "sha256:other")

        monkeypatch.setattr(holding, "fetch", fetch)

        async def story() -> None:
            await world.until(lambda: "pairing: its run cannot be read" in world.models.reasons.get("fraud", ""))
            assert world.state("1") is VersionState.FAILED
            assert world.answers() is None

        world.play(story)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"looks": 7}', '{"looks": {"fraud": {}}}', '{"looks": {"fraud": 7}}']
    )
    def test_waits_where_the_plan_cannot_be_read(self, tmp_path: Path, text: str) -> None:
        registry = self.registry(tmp_path)
        (tmp_path / "plan.json").write_text(text)
        world = World(tmp_path, registry)

        async def story() -> None:
            await asyncio.sleep(0.1)
            assert world.answers() is None
            assert "no answer" in world.models.reasons["fraud"]
            registry.is_away = False
            await world.until_answers("1")

        world.play(story)


def test_a_new_champion_is_logged_with_the_trace_that_made_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path)
    world.registry.add("1", **{contract.TAG_TRACE_ID: "0af7651916cd43dd8448eb211c80319c"})

    async def story() -> None:
        await world.until_answers("1")

    caplog.set_level("INFO")
    world.play(story)
    assert "version 1, made in trace 0af7651916cd43dd8448eb211c80319c" in caplog.text


def test_versions_that_are_no_longer_needed_end(tmp_path: Path) -> None:
    world = World(tmp_path, keep_warm=1)
    for number in "1234":
        world.registry.add(number)
    gone: list[str] = []
    world.follower.held.on_gone = lambda key: gone.append(key.version)

    async def story() -> None:
        for number in "1234":
            world.registry.champion = number
            await world.until_answers(number)
        await world.until(lambda: len(gone) == 2)
        assert gone == ["1", "2"]
        assert world.made["1"].is_stopped
        assert not world.made["3"].is_stopped

    world.play(story)


def test_a_follower_that_is_started_again_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.registry.add("1")
    fetch, tries = holding.fetch, list[int]()

    async def hang_at_first(*arguments: Any) -> Cached:
        tries.append(1)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return await fetch(*arguments)

    monkeypatch.setattr(holding, "fetch", hang_at_first)

    async def begins() -> None:
        await world.until(lambda: len(tries) == 1)

    async def begins_anew() -> None:
        await world.until_answers("1")

    world.play(begins, begins_anew)
    assert len(tries) == 2


def test_what_is_started_swapped_and_refused_is_told_for_the_audit_log(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in "12":
        world.registry.add(number)
    world.registry.add("3", **LoadCheck("failed", "it does not load").to_tags())

    async def story() -> None:
        for number in "12":
            world.registry.champion = number
            await world.until_answers(number)
        world.registry.champion = "3"
        await world.until(lambda: world.state("3") is VersionState.FAILED)

    world.play(story)
    told = json.loads(world.follower.held.events.page())["events"]
    assert [(each["action"], each["version"], each["before"]) for each in told] == [
        *(("started", "1", ""), ("swapped", "1", ""), ("started", "2", ""), ("swapped", "2", "1")),
        ("refused", "3", ""),
    ]
    assert "it does not load" in told[-1]["reason"]
