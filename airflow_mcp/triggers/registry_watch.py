"""One loop per MLflow connection that looks at its registry, for everything in this process that waits for it.

MLflow is asked for all models that somebody waits for together: one paged search, however many wait. What only few need
(versions that a search of models does not tell) is asked when there is a change.
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
from airflow_mcp.mlflow_client.registry_api import names_filter
from airflow_mcp.triggers.watch import Patience

T = TypeVar("T")

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.5
"""Wait before a look that somebody new has caused: those who start with them are in it too."""


@dataclass(frozen=True, eq=False)
class Interest:
    """What one waiting trigger needs to know."""

    scope: RegistryScope
    poll_seconds: float
    """The shortest of all counts."""
    with_versions: bool = False
    """Every version with its tags, not only the newest."""


@dataclass(eq=False)
class Look:
    """What was there at one moment."""

    models: Mapping[str, RegisteredModel]
    versions: Mapping[str, Mapping[int, ModelVersion]]
    """Every version, of the models for which somebody needs them."""
    scope: RegistryScope
    """Of which models it can tell."""
    scope_of_versions: RegistryScope
    asked: dict[Any, asyncio.Future[Any]] = field(default_factory=dict)
    """What was asked besides, for everybody who needs it of this look."""

    def covers(self, interest: Interest) -> bool:
        """Say whether it tells all that somebody needs."""
        return self.scope.includes(interest.scope) and (
            not interest.with_versions or self.scope_of_versions.includes(interest.scope)
        )


@dataclass(frozen=True)
class FailedLook:
    """A look that failed, and when the next one is made."""

    error: Exception
    wait: float
    """Seconds."""


Listener = Callable[[Look | FailedLook], None]


class RegistryWatch:
    """Looks at the registry of one MLflow connection while somebody is interested; use :meth:`of`.

    :param mlflow_conn_id: the connection.
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
        """Give the watch of a connection in this event loop."""
        watches = cls._watches.setdefault(asyncio.get_running_loop(), {})
        return watches.setdefault(mlflow_conn_id, cls(mlflow_conn_id))

    @contextmanager
    def interested(self, interest: Interest) -> Iterator[None]:
        """Have what somebody needs looked at while the block runs."""
        self._interests.add(interest)
        if self._task is None:
            # Not in the context of whoever comes first: its log would get what is said for all.
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
        """Tell every look while the block runs, beginning with the last one, unless it failed: that may be mended."""
        self._listeners.add(listener)
        if isinstance(self._last, Look):
            listener(self._last)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def _covers(self, interest: Interest) -> bool:
        return isinstance(self._last, Look) and self._last.covers(interest)

    # --- what is asked besides ------------------------------------------------------------------------------------

    async def versions(self, look: Look, name: str, numbers: frozenset[int]) -> dict[int, ModelVersion]:
        """Read some versions of a model; they are asked for once per look.

        :param look: the look that made them needed.
        :param name: registered model.
        :param numbers: which versions.
        :return: those that are there, by number.
        """

        async def read() -> dict[int, ModelVersion]:
            found = await MlflowHook(self.mlflow_conn_id).read_model_versions.aio(name, numbers)
            return {int(version.version): version for version in found}

        return await _once(look, (name, numbers), read())

    async def again(self, look: Look, name: str) -> RegisteredModel:
        """Read a model once more, after a look; it is asked for once per look.

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
        hook = MlflowHook(self.mlflow_conn_id)  # each time: the connection may have been mended
        found = await self._search(hook.search_registered_models.aio, scope)
        known = self._last.models if isinstance(self._last, Look) else {}
        # What has not changed stays the same object, which makes it cheap to see that it has not.
        models = {model.name: known[model.name] if known.get(model.name) == model else model for model in found}
        versions: dict[str, dict[int, ModelVersion]] = {}
        if deep != RegistryScope():
            for version in await self._search(hook.search_model_versions.aio, deep):
                versions.setdefault(version.name, {})[int(version.version)] = version
        return Look(models, versions, scope, deep)

    async def _search(self, search: Callable[..., Coroutine[Any, Any, list[T]]], scope: RegistryScope) -> list[T]:
        where = names_filter(scope.names, scope.prefixes) if self._takes_filters else ""
        try:
            return await search(where, max_results=None)
        except MlflowError as error:
            if not where or error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self._takes_filters = False  # an older server that knows no IN
            return await search("", max_results=None)


async def _once(look: Look, key: Any, asking: Coroutine[Any, Any, T]) -> T:
    """Ask, or wait for the answer that somebody else has asked for."""
    known = look.asked.get(key)
    if known is None:
        known = look.asked[key] = asyncio.ensure_future(asking)
    else:
        asking.close()
    answer: T = await asyncio.shield(known)
    return answer
