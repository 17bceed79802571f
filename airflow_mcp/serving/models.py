"""The versions that this server has loaded, and the plan that says which of them answers.

The only mutable state of what is served. The follower of the registry changes it, the routes read it, all on one event
loop, so a change is one assignment and no request ever sees half of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from airflow_mcp.core.serving.traffic import Choice, RoutingKey, TrafficPlan, choose
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.pool import ModelPool

PoolMaker = Callable[[ServedVersion, Path, Mapping[str, str]], ModelPool]
"""Makes the pool of a version from its key, the folder of its files and the tags of the version."""
NO_TAGS: Mapping[str, str] = MappingProxyType({})


class ServedModels:
    """What is loaded and what answers.

    :param make_pool: makes the pool of a version; a tag of the version can lead to another kind of pool.
    """

    def __init__(self, make_pool: PoolMaker) -> None:
        self._make_pool = make_pool
        self.pools: dict[ServedVersion, ModelPool] = {}
        """Every version that is loaded, also those that only stay warm."""
        self.reasons: dict[str, str] = {}
        """Why a model cannot answer yet, by name; for ``/readyz``."""
        self.on_change: list[Callable[[], None]] = []
        """Called after a version became ready or stopped being so, and after a plan changed."""
        self.ready: frozenset[ServedVersion] = frozenset()
        """The versions that can answer now."""
        self.usual: dict[str, tuple[Choice, ModelPool]] = {}
        """What answers every request to a model without a split, unless the caller asks for a version."""
        self._plans: dict[str, TrafficPlan] = {}

    @property
    def plans(self) -> Mapping[str, TrafficPlan]:
        """The plan in force of every model."""
        return self._plans

    def plan(self, model: str) -> TrafficPlan | None:
        """Return the plan in force; None for a model that this server does not serve."""
        return self._plans.get(model)

    def assign(self, model: str, plan: TrafficPlan) -> None:
        """Put a plan in force; from the next request on it decides.

        :param model: name of the registered model.
        :param plan: the plan; it may name versions that are not loaded.
        """
        self._plans[model] = plan
        self._changed()

    def choose(self, key: RoutingKey, *, without: ServedVersion | None = None) -> Choice | None:
        """Return the version that answers a request; None when none can.

        A champion whose processes are being replaced still gets its requests, which wait for the replacement.

        :param key: what decides where the request goes.
        :param without: a version that has just failed to answer.
        """
        plan = self._plans.get(key.model)
        if plan is None:
            return None
        ready = self.ready if without is None else self.ready - {without}
        choice = choose(plan, key, ready)
        if choice is None and not key.is_forced and plan.champion is not None:
            pool = self.pools.get(plan.champion)
            if pool is not None and not pool.failure:
                return Choice(plan.champion, "champion")
        return choice

    def can_answer(self, model: str) -> bool:
        """Return whether a request to this model without special headers would reach a version."""
        return self.choose(RoutingKey(model)) is not None

    def why_not(self, model: str) -> str:
        """Return why a model cannot answer."""
        plan = self._plans.get(model)
        pool = self.pools.get(plan.champion) if plan is not None and plan.champion is not None else None
        failure = "" if pool is None else pool.failure
        return failure or self.reasons.get(model, "") or f"{model} is being loaded"

    async def load(self, key: ServedVersion, path: Path, tags: Mapping[str, str] = NO_TAGS) -> ModelPool:
        """Load a version; it gets requests when a plan names it.

        :param key: the version.
        :param path: folder of its files.
        :param tags: tags of the version, which can say how it is served.
        :return: its pool, which is ready.
        :raises PoolStartError: when it cannot be loaded; what was loaded before is as it was.
        """
        pool = self._make_pool(key, path, tags)
        pool.on_change = self._changed
        await pool.start()
        self.pools[key] = pool
        self._changed()
        return pool

    async def retire(self, key: ServedVersion) -> None:
        """Send a version no more requests, and end it when those in flight are answered."""
        pool = self.pools.pop(key, None)
        self._changed()
        if pool is not None:
            await pool.stop()

    async def stop(self) -> None:
        """End every version; requests in flight are answered first."""
        await asyncio.gather(*(self.retire(key) for key in list(self.pools)))

    def _changed(self) -> None:
        self.ready = frozenset(key for key, pool in self.pools.items() if pool.ready)
        self.usual = {}
        for model, plan in self._plans.items():
            choice = None if plan.weight else self.choose(RoutingKey(model))
            if choice is not None:
                self.usual[model] = choice, self.pools[choice.version]
        for listener in list(self.on_change):
            listener()
