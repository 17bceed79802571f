"""One loop per MLflow connection that looks at its registry, for all triggers of this process.

One paged search reads all models that any trigger waits for, however many wait. What few triggers need (versions that a
search of models does not return) is read when there is a change.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.events import RegistryScope
from airflow_mcp.exceptions import MlflowError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.mlflow_client.registry_api import names_filters
from airflow_mcp.triggers.watch import Patience

T = TypeVar("T")

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.5
"""Wait before a look that a new trigger causes: triggers that start at the same time share it."""


@dataclass(frozen=True, eq=False)
class Interest:
    """What one waiting trigger needs to read."""

    scope: RegistryScope
    poll_seconds: float
    """The shortest of all triggers applies."""
    with_versions: bool = False
    """Every version with its tags, not only the newest."""


@dataclass(eq=False)
class Look:
    """The registry at one moment."""

    models: Mapping[str, RegisteredModel]
    versions: Mapping[str, Mapping[int, ModelVersion]]
    """All versions of the models for which a trigger needs them."""
    scope: RegistryScope
    """The models that were read."""
    scope_of_versions: RegistryScope
    asked: dict[Any, asyncio.Future[Any]] = field(default_factory=dict)
    """Further questions about this look, shared by all triggers that ask them."""

    def covers(self, interest: Interest) -> bool:
        """Return whether the look has everything that a trigger needs."""
        return self.scope.includes(interest.scope) and (
            not interest.with_versions or self.scope_of_versions.includes(interest.scope)
        )


@dataclass(frozen=True)
class FailedLook:
    """A look that failed, and the wait before the next one."""

    error: Exception
    wait: float
    """Seconds."""


Listener = Callable[[Look | FailedLook], None]


class RegistryWatch:
    """Looks at the registry of one MLflow connection while a trigger is interested; use :meth:`of`.

    :param mlflow_conn_id: connection to MLflow.
    """

    _watches: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, RegistryWatch]]] = WeakKeyDictionary()

    def __init__(self, mlflow_conn_id: str) -> None:
        self.mlflow_conn_id = mlflow_conn_id
        self._interests: set[Interest] = set()
        self._listeners: set[Listener] = set()
        self._last: Look | FailedLook | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._takes_filters = True
        self._patience = Patience(f"the registry of MLflow connection {mlflow_conn_id!r}", log, 60)

    @classmethod
    def of(cls, mlflow_conn_id: str) -> RegistryWatch:
        """Return the watch of a connection in this event loop."""
        watches = cls._watches.setdefault(asyncio.get_running_loop(), {})
        return watches.setdefault(mlflow_conn_id, cls(mlflow_conn_id))

    @contextmanager
    def interested(self, interest: Interest) -> Iterator[None]:
        """Keep looking at what a trigger needs while the block runs."""
        self._interests.add(interest)
        if self._task is None:
            # Not in the context of the first trigger: its log would get the messages for all.
            self._task = asyncio.get_running_loop().create_task(self._look_for_ever(), context=contextvars.Context())
        elif self._patience.poll_seconds > interest.poll_seconds or not self._covers(interest):
            self._wake.set()
        try:
            yield
        finally:
            self._interests.discard(interest)
            if not self._interests and self._task is not None:
                self._task.cancel()
                for asked in self._last.asked.values() if isinstance(self._last, Look) else ():
                    asked.cancel()
                self._task = self._last = None

    @contextmanager
    def heard(self, listener: Listener) -> Iterator[None]:
        """Call a listener with every look while the block runs, first with the last one unless that failed."""
        self._listeners.add(listener)
        if isinstance(self._last, Look):
            listener(self._last)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def _covers(self, interest: Interest) -> bool:
        return isinstance(self._last, Look) and self._last.covers(interest)

    # --- further questions ----------------------------------------------------------------------------------------

    async def versions(self, look: Look, name: str, numbers: frozenset[int]) -> dict[int, ModelVersion]:
        """Read some versions of a model, once per look.

        :param look: the look that they belong to.
        :param name: registered model.
        :param numbers: numbers of the versions.
        :return: the existing ones, by number.
        """

        async def read() -> dict[int, ModelVersion]:
            found = await MlflowHook(self.mlflow_conn_id).read_model_versions.aio(name, numbers)
            return {int(version.version): version for version in found}

        return await _once(look, (name, numbers), read())

    async def again(self, look: Look, name: str) -> RegisteredModel:
        """Read a model again after a look, once per look.

        :raises MlflowNotFoundError: when it was deleted meanwhile.
        """
        return await _once(look, name, MlflowHook(self.mlflow_conn_id).get_registered_model.aio(name))

    # --- the loop -------------------------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(GATHER_SECONDS)
            self._wake.clear()
            self._patience.poll_seconds = min(interest.poll_seconds for interest in self._interests)
            try:
                self._last = await self._look()
                wait = self._patience.succeeded()
            except Exception as error:
                wait = self._patience.failed(error)
                self._last = FailedLook(error, wait)
            for listener in tuple(self._listeners):
                listener(self._last)
            try:
                await asyncio.wait_for(self._wake.wait(), max(0.0, wait - GATHER_SECONDS))
            except TimeoutError:
                continue

    async def _look(self) -> Look:
        interests = tuple(self._interests)
        scope = RegistryScope.union(each.scope for each in interests)
        deep = RegistryScope.union(each.scope for each in interests if each.with_versions)
        hook = MlflowHook(self.mlflow_conn_id)  # a new one each time reads corrections of the connection
        found = await self._search(hook.search_registered_models.aio, scope)
        known = self._last.models if isinstance(self._last, Look) else {}
        # An unchanged model stays the same object, so listeners see cheaply that it has not changed.
        models = {model.name: known[model.name] if known.get(model.name) == model else model for model in found}
        versions: dict[str, dict[int, ModelVersion]] = {}
        if deep != RegistryScope():
            for version in await self._search(hook.search_model_versions.aio, deep):
                versions.setdefault(version.name, {})[int(version.version)] = version
        return Look(models, versions, scope, deep)

    async def _search(self, search: Callable[..., Coroutine[Any, Any, list[T]]], scope: RegistryScope) -> list[T]:
        filters = names_filters(scope.names, scope.prefixes) if self._takes_filters else ("",)
        try:
            return [item for where in filters for item in await search(where, max_results=None)]
        except MlflowError as error:
            if filters == ("",) or error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self._takes_filters = False  # an older server without IN in filters
            return await search("", max_results=None)


async def _once(look: Look, key: Any, asking: Coroutine[Any, Any, T]) -> T:
    """Ask, or wait for the answer to the same question of another trigger."""
    known = look.asked.get(key)
    if known is None:
        known = look.asked[key] = asyncio.ensure_future(asking)
    else:
        asking.close()
    answer: T = await asyncio.shield(known)
    return answer
