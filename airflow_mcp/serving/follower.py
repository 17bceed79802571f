"""Follows the registry: looks, loads beside what answers, and then changes one pointer.

A look never waits for a load, and a load never touches what answers. Whatever the registry does, the last plan that
could be carried out stays in force.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from airflow_mcp.core.contract import TAG_TRACE_ID
from airflow_mcp.core.serving.control_settings import ControlSettings
from airflow_mcp.core.serving.settings import ModelAddress
from airflow_mcp.core.serving.traffic import BreakerRule, TrafficPlan, follows
from airflow_mcp.core.serving.versions import Budget, Held, ServedVersion, VersionState, Wanted, plan_versions
from airflow_mcp.exceptions import MlflowError, RefusedError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.serving.breakers import Breakers, Watched
from airflow_mcp.serving.cache import ModelCache
from airflow_mcp.serving.holding import HeldVersions
from airflow_mcp.serving.looks import Look, Looker, Wishes, result_of, wishes_of
from airflow_mcp.serving.memory import free_memory
from airflow_mcp.serving.metrics import PREFIX
from airflow_mcp.serving.models import ServedModels

_log = logging.getLogger(__name__)
_TICK = 1.0
"""Seconds between two looks at what is held and at the breakers."""
_SHORTEST_PAUSE = 1.0
"""Seconds between two looks at the registry, however often a webhook calls."""
_SUDDEN_ONLY = BreakerRule(threshold=0.99, duration=1e9)
"""A canary without a rule of its own is only stopped when it fails suddenly."""


class Follower:
    """Keeps what is served as the registry says.

    :param addresses: the models of the registry.
    :param models: what is loaded and what answers.
    :param mlflow: the MLflow server, for files and runs.
    :param looker: looks at the registry.
    :param cache: versions on disk, and the last plan.
    :param settings: what is followed and checked.
    """

    def __init__(
        self,
        addresses: Sequence[ModelAddress],
        models: ServedModels,
        mlflow: MlflowOperations,
        looker: Looker,
        cache: ModelCache,
        settings: ControlSettings,
    ) -> None:
        self._addresses = tuple(addresses)
        self._models, self._looker, self._cache = models, looker, cache
        self._settings = settings
        self._clock: Callable[[], float] = time.monotonic
        self.breakers = Breakers(self._clock, self._changed)
        self.held = HeldVersions(models, mlflow, cache, settings, self._clock, self._changed)
        self._looks: dict[str, Look] = {}
        self._problems: dict[str, str] = {}
        """Why the last look at each model failed."""
        self._results: dict[str, int] = {}
        self._last_success = 0.0
        self._wake = asyncio.Event()
        self._is_stepping = self._has_changed = False
        self._kept: tuple[dict[str, Look], dict[str, str]] | None = None
        """What the plan in the cache was written from."""
        self._watched: dict[ServedVersion, Watched] = {}
        for address in self._addresses:
            models.reasons[address.name] = "the registry has not been read yet"
            models.assign(address.name, TrafficPlan())

    def look_soon(self) -> None:
        """Look at the registry now, or as soon as the last look is a second old."""
        self._wake.set()

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        await self._look_at_all()
        self._use_last_plan()
        self._changed()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_looking())
                group.create_task(self._keep_ticking())
        finally:
            await self.held.stop()

    async def _keep_looking(self) -> None:
        while True:
            pause = self._settings.poll_seconds * random.uniform(0.8, 1.2)  # noqa: S311  (spreads replicas)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            started = self._clock()
            await self._look_at_all()
            self._changed()
            await asyncio.sleep(max(0.0, _SHORTEST_PAUSE - (self._clock() - started)))

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.breakers.look()
            self._changed()

    # --- looks -------------------------------------------------------------------------------------------------------

    async def _look_at_all(self) -> None:
        await asyncio.gather(*(self._look_at(address) for address in self._addresses))

    async def _look_at(self, address: ModelAddress) -> None:
        name = address.name
        try:
            look = await self._looker.look(address, datetime.now(UTC))
        except (MlflowError, RefusedError, TimeoutError) as error:
            result, text = result_of(error), str(error) or f"no answer within {self._settings.registry_timeout:g} s"
            if self._problems.get(name) != text:
                _log.warning("look at %s: %s", name, text)
            self._problems[name] = text
        else:
            result = "ok"
            self._problems.pop(name, None)
            self._last_success = time.time()
            self._take(name, look)
        self._results[result] = self._results.get(result, 0) + 1

    def _take(self, name: str, look: Look) -> None:
        before = self._looks.get(name)
        if before is None or before.champion.version != look.champion.version:
            trace = look.champion.tags.get(TAG_TRACE_ID) or "unknown"
            _log.info("the champion of %s is version %s, made in trace %s", name, look.champion.version, trace)
        self._looks[name] = look
        for version in (look.champion, *look.others.values()):
            self.held.know(version)

    def _use_last_plan(self) -> None:
        """Take what the registry said last about each model that it says nothing about now."""
        plan = self._cache.read_plan()
        try:
            looks = {name: Look.of_plan(found) for name, found in plan.get("looks", {}).items()}
            passed = {str(key): str(digest) for key, digest in plan.get("passed", {}).items()}
        except (TypeError, KeyError, AttributeError, ValueError):
            _log.warning("the plan in the cache cannot be read, so this server waits for the registry")
            return
        names = {address.name: address for address in self._addresses}
        for name, look in looks.items():
            address = names.get(name)
            if name not in self._looks and address is not None and address.version in ("", look.champion.version):
                _log.warning("the registry cannot be read; %s is served as it said last", name)
                self._take(name, look)
        self.held.passed = passed

    def _keep_plan(self) -> None:
        state = dict(self._looks), dict(self.held.passed)
        if state != self._kept:
            self._kept = looks, passed = state
            self._cache.write_plan({"looks": {name: look.to_plan() for name, look in looks.items()}, "passed": passed})

    # --- steps -------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Do what follows from anything that has happened."""
        self._has_changed = True
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._has_changed:
                self._has_changed = False
                self._step()
        finally:
            self._is_stepping = False

    def _step(self) -> None:
        wishes = {name: wishes_of(look, self._looker.policy, datetime.now(UTC)) for name, look in self._looks.items()}
        wanted = [wish for model in wishes.values() for wish in model.wanted]
        self._carry_out(wanted)
        for name, model in wishes.items():
            self._assign(name, model)
        self._explain(wishes)
        self._keep_plan()

    def _carry_out(self, wanted: list[Wanted]) -> None:
        self.held.note_wanted(wanted)
        marks = {wish.key: wish.mark for wish in wanted}
        memory = self._free_memory() if any(item.is_waiting for item in self.held.all) else None
        budget = Budget(memory_bytes=memory, keep_warm=self._settings.keep_warm)
        for action in plan_versions(wanted, self.held.all, budget, self._clock()):
            self.held.carry_out(action, marks)

    def _free_memory(self) -> int | None:
        if not self._settings.memory_bytes:
            return free_memory()
        loaded = (VersionState.STARTING, VersionState.READY, VersionState.RETIRING)
        taken = sum(item.memory_bytes for item in self.held.all if item.state in loaded)
        return self._settings.memory_bytes - taken

    def _assign(self, name: str, wishes: Wishes) -> None:
        present = self._models.plan(name) or TrafficPlan()
        answering = next((item.key for item in self.held.all if self._answers(item, name)), None)
        if answering is None or answering in (wishes.champion, wishes.standby):
            plan = self._plan_of(wishes, present)
        else:
            # The new champion is not there yet. The old one goes on alone, because its split is void.
            plan = replace(present, champion=answering, canary=None, weight=0.0, shadow=0.0, error=wishes.error)
        self._watch(name, plan)
        plan = replace(plan, tripped=self.breakers.open & frozenset(plan.versions))
        if plan != present:
            _log_plan(name, plan, present)
            self._models.assign(name, plan)

    def _answers(self, item: Held, name: str) -> bool:
        return item.key.model == name and item.answers_as_champion

    def _plan_of(self, wishes: Wishes, present: TrafficPlan) -> TrafficPlan:
        document = wishes.document
        if document is not None and present.champion == wishes.champion and not follows(document, present):
            return replace(present, error=f"generation {document.generation} is older than the one in force")
        base = TrafficPlan(
            champion=wishes.champion,
            forced=self._settings.forced,
            standby=wishes.standby,
            champion_breaker=wishes.champion_rule,
            error=wishes.error,
        )
        if document is None:
            return base
        return replace(
            base,
            canary=wishes.canary,
            weight=document.weight,
            shadow=document.shadow,
            salt=document.salt or document.identity,
            sticky=document.sticky.lower(),
            generation=document.generation,
            identity=document.identity,
            canary_breaker=document.breaker,
        )

    def _watch(self, name: str, plan: TrafficPlan) -> None:
        self._watched = {key: watched for key, watched in self._watched.items() if key.model != name}
        if plan.canary is not None:
            since = f"{plan.identity} {plan.generation}"
            self._watched[plan.canary] = Watched(plan.canary_breaker or _SUDDEN_ONLY, True, since)
        if plan.champion is not None and plan.champion_breaker is not None:
            self._watched[plan.champion] = Watched(plan.champion_breaker, False, str(plan.champion))
        self.breakers.watch(self._watched)

    def _explain(self, wishes: Mapping[str, Wishes]) -> None:
        """Write down why each model cannot answer, for readiness."""
        for address in self._addresses:
            name = address.name
            if name not in wishes:
                self._models.reasons[name] = self._problems.get(name, "the registry has not been read yet")
                continue
            item = self.held.get(wishes[name].champion)
            if item is None or item.state is VersionState.READY:
                self._models.reasons.pop(name, None)
            else:
                self._models.reasons[name] = f"{item.key} is {item.state}" + (f": {item.reason}" if item.reason else "")

    # --- what others see ---------------------------------------------------------------------------------------------

    def why_incomplete(self) -> str:
        """Return why the server is not ready although its models can answer; empty when it is."""
        if self._settings.require_registry and not self._last_success:
            return "the registry has not been read yet, and require_registry is set"
        return ""

    def status(self) -> dict[str, Any]:
        """Return a part of ``/status``."""
        now = self._clock()
        versions = {
            str(item.key): {
                "state": str(item.state),
                "reason": item.reason,
                "answers": item.answers_as_champion,
                "next_try_seconds": round(item.next_try - now, 1) if item.state is VersionState.FAILED else None,
                "breaker": self.breakers.reason(item.key),
            }
            for item in self.held.all
        }
        return {
            "last_success": self._last_success or None,
            "looks": dict(self._results),
            "problems": dict(self._problems),
            "versions": versions,
        }

    def collect(self) -> Iterator[Metric]:
        """Return its metrics."""
        looks = CounterMetricFamily(f"{PREFIX}_looks", "Looks at the registry, by result", labels=["result"])
        for result, count in self._results.items():
            looks.add_metric([result], count)
        up = GaugeMetricFamily(f"{PREFIX}_registry_up", "1 if the last look at every model succeeded")
        up.add_metric([], float(bool(self._last_success) and not self._problems))
        last = GaugeMetricFamily(f"{PREFIX}_registry_last_success_seconds", "When a look succeeded last, in Unix time")
        last.add_metric([], self._last_success)
        states = GaugeMetricFamily(
            f"{PREFIX}_version_state", "1 for the state of each version", labels=["model", "version", "state"]
        )
        breakers = GaugeMetricFamily(
            f"{PREFIX}_breaker_open", "1 while a version gets no requests", labels=["model", "version"]
        )
        opened = self.breakers.open
        for item in self.held.all:
            states.add_metric([item.key.model, item.key.version, str(item.state)], 1.0)
            breakers.add_metric([item.key.model, item.key.version], float(item.key in opened))
        swaps = CounterMetricFamily(f"{PREFIX}_swaps", "Versions that were started, by result", labels=["result"])
        for result, count in self.held.swaps.items():
            swaps.add_metric([result], count)
        seconds = GaugeMetricFamily(
            f"{PREFIX}_swap_seconds", "From the first byte of the last version to its first answer"
        )
        seconds.add_metric([], self.held.swap_seconds)
        yield from (looks, up, last, states, breakers, swaps, seconds)


def _log_plan(name: str, plan: TrafficPlan, before: TrafficPlan) -> None:
    if plan.error and plan.error != before.error:
        _log.error("%s: %s", name, plan.error)
    _log.info(
        "%s: champion %s, canary %s at %g %%, standby %s, generation %d",
        name,
        plan.champion.version if plan.champion else "none",
        plan.canary.version if plan.canary else "none",
        plan.weight,
        plan.standby.version if plan.standby else "none",
        plan.generation,
    )
