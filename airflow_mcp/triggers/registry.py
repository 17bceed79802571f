"""Trigger with an event for each change of the model registry; all watchers of an MLflow connection share one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_mcp import settings
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.registry.events import (
    EVENT_NAMES,
    ModelState,
    RegistryScope,
    RegistryWatermark,
    SeenModel,
    Wanted,
    look_at_model,
    read_registry_watermark,
    seems_unrecorded,
    versions_to_read,
)
from airflow_mcp.exceptions import InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.triggers.registry_watch import FailedLook, Interest, Look, RegistryWatch
from airflow_mcp.triggers.watch import (
    DEFAULT_POLL_SECONDS,
    SETTLE_SECONDS,
    Patience,
    PollingTrigger,
    read_state,
    write_state,
)

DEFAULT_EVENTS = ("new_version", "alias_moved")
LONGEST_QUESTION_SECONDS = 60
"""Airflow drops a watcher that takes too long for one look."""


@dataclass(eq=False)
class Turn:
    """An item of the shared stream: a look, or the news that Airflow has stored the events of earlier turns."""

    look: Look | None = None
    stored: tuple[Turn, ...] = ()
    has_news: bool = False
    """Set by a watcher that gave events or must write its watermark."""


class RegistryEventTrigger(PollingTrigger, BaseEventTrigger):
    """Watch registered models in MLflow; the changes between two looks give one event.

    Every move of ``champion`` by this package is reported with its author, even several between two looks. So is every
    new version when it is ``READY``. For other aliases, tags and unrecorded moves, two looks are compared.

    The watermark is written after Airflow has confirmed that it stored the events. A triggerer that dies before that
    gives them again, with the same ``key``; none is lost. Nothing here raises: errors are logged once per kind.

    Payload: ``kind`` (``model``) and ``changes``, a list, oldest first as far as that is known; each with ``event``,
    ``model_name``, ``version``, ``run_id``, ``alias``, ``tag``, ``from``, ``to``, ``by``, ``reason``, ``key``.

    :param models: name of a registered model, or several; they need not exist yet. A trailing ``*`` is a prefix
        match.
    :param events: which changes give events: ``new_version``, ``alias_moved``, ``alias_removed``,
        ``model_tag_changed``, ``version_tag_changed``.
    :param aliases: aliases that count; None is all.
    :param tags: names of tags that count; None is all but the bookkeeping of this package.
    :param mlflow_conn_id: connection to MLflow; None takes option ``mlflow_conn_id``.
    :param poll_seconds: seconds between two looks, at least 1; the shortest of all watchers of a connection counts.
    """

    settle_seconds = SETTLE_SECONDS

    def __init__(
        self,
        *,
        models: str | Sequence[str],
        events: Sequence[str] = DEFAULT_EVENTS,
        aliases: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        mlflow_conn_id: str | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.models = _texts("models", [models] if isinstance(models, str) else models)
        self.events = _texts("events", events)
        self.aliases = None if aliases is None else _texts("aliases", aliases)
        self.tags = None if tags is None else _texts("tags", tags)
        self.mlflow_conn_id = mlflow_conn_id
        self.scope = RegistryScope.of(self.models)
        chosen = frozenset(name for name in EVENT_NAMES if name in self.events)
        if len(chosen) != len(set(self.events)):
            raise InvalidArgumentError(f"events must be some of {', '.join(EVENT_NAMES)}; got {self.events!r}")
        self.wanted = Wanted(
            chosen,
            None if self.aliases is None else frozenset(self.aliases),
            None if self.tags is None else frozenset(self.tags),
        )

    @property
    def subject(self) -> str:
        """The watched models in words, for messages."""
        return f"models {', '.join(self.models)}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor, without ``poll_seconds``."""
        return {name: getattr(self, name) for name in ("models", "events", "aliases", "tags", "mlflow_conn_id")}

    # --- Airflow's shared stream ----------------------------------------------------------------------------------

    def shared_stream_key(self) -> Hashable:
        """Share one stream among all watchers of a connection."""
        return f"{__name__}.{type(self).__name__}", _connection(self.mlflow_conn_id)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Create the source of the stream for all watchers of a connection."""
        return LooksProducer(_connection(kwargs.get("mlflow_conn_id")))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Turn]) -> AsyncIterator[TriggerEvent]:
        """Return the events of this watcher."""
        interest = Interest(self.scope, self.poll_seconds, "version_tag_changed" in self.wanted.events)
        watch = RegistryWatch.of(_connection(self.mlflow_conn_id))
        memory = _Memory(self, watch, interest)
        with watch.interested(interest):
            async for turn in shared_stream:
                if changes := await memory.take(turn):
                    # One event for all changes: of simultaneous events, Airflow may show a Dag run only the first.
                    yield TriggerEvent({"kind": "model", "changes": changes})  # type: ignore[no-untyped-call]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch without Airflow's shared stream; a short wait replaces the confirmation that events are stored."""
        async for event in self.filter_shared_stream(self._turns()):
            yield event

    async def _turns(self) -> AsyncIterator[Turn]:
        looks: asyncio.Queue[Look | FailedLook] = asyncio.Queue()
        with RegistryWatch.of(_connection(self.mlflow_conn_id)).heard(looks.put_nowait):
            while True:
                look = await looks.get()
                turn = Turn(look if isinstance(look, Look) else None)
                yield turn
                while turn.has_news:
                    await asyncio.sleep(self.settle_seconds)
                    turn = Turn(stored=(turn,))
                    yield turn


class LooksProducer(SharedStreamProducer):
    """The source of the shared stream: looks at the registry, and confirmations that events are stored.

    :param mlflow_conn_id: connection to MLflow.
    """

    def __init__(self, mlflow_conn_id: str) -> None:
        self._mlflow_conn_id = mlflow_conn_id
        self._turns: asyncio.Queue[Turn] = asyncio.Queue()

    async def open_stream(self) -> AsyncIterator[tuple[Turn, Turn]]:
        """Return turns forever."""
        with RegistryWatch.of(self._mlflow_conn_id).heard(self._hear):
            while True:
                turn = await self._turns.get()
                yield turn, turn

    def _hear(self, look: Look | FailedLook) -> None:
        self._turns.put_nowait(Turn(look if isinstance(look, Look) else None))

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Note that Airflow has stored every event of some turns."""
        stored = tuple(item.broker_payload for item in batch if item.broker_payload.has_news)
        if stored:
            self._turns.put_nowait(Turn(stored=stored))


class _Memory:
    """The memory of one watcher, in this process and in the state store of its assets.

    Events are always computed from the written watermark, so there are no further ones until it is written.
    """

    def __init__(self, trigger: RegistryEventTrigger, watch: RegistryWatch, interest: Interest) -> None:
        self._trigger, self._watch, self._interest = trigger, watch, interest
        self._patience = Patience(trigger.subject, trigger.log, interest.poll_seconds)
        self._is_read = False
        self._known: RegistryWatermark | None = None
        self._next: RegistryWatermark | None = None
        """The watermark to write when its events are stored."""
        self._told_in: Turn | None = None
        self._look: Look | None = None
        self._done: dict[str, RegisteredModel] = {}
        """Models without news as they are."""

    async def take(self, turn: Turn) -> list[dict[str, Any]]:
        """Process a turn of the stream and return its changes; never raises."""
        self._look = turn.look or self._look
        try:
            async with asyncio.timeout(LONGEST_QUESTION_SECONDS):
                events = await self._take(turn)
        except Exception as error:
            self._patience.tell(error, self._interest.poll_seconds)
            return []
        self._patience.tell_end()
        return events

    async def _take(self, turn: Turn) -> list[dict[str, Any]]:
        if self._next is not None:
            if self._told_in is not None and self._told_in not in turn.stored:
                return []
            self._told_in = None  # only the writing is left, which may take several tries
            await write_state(self._trigger, self._next.to_json())
            self._known, self._next = self._next, None
        look = self._look
        if look is None or not look.covers(self._interest):
            return []
        if not self._is_read:
            self._known, self._is_read = await read_state(self._trigger, read_registry_watermark), True
        after, events = await self._compare(look)
        self._look = None
        if after != self._known:
            self._next, self._told_in, turn.has_news = after, turn, True
        return events

    async def _compare(self, look: Look) -> tuple[RegistryWatermark | None, list[dict[str, Any]]]:
        """Compare a look with the watermark, without changing the memory."""
        known, scope = self._known, self._interest.scope
        names = look.models if scope.prefixes else [name for name in sorted(scope.names) if name in look.models]
        names = [name for name in names if scope.has(name)]
        fresh = [
            name for name in names if self._interest.with_versions or self._done.get(name) is not look.models[name]
        ]
        if known is not None and known.scope == scope and not fresh:
            return known, []
        kept = {name: state for name, state in (known.models if known else {}).items() if scope.has(name)}
        events: list[dict[str, Any]] = []
        done: dict[str, RegisteredModel] = {}
        for name in fresh:
            before = known.before(name) if known else None
            found = await self._compare_model(before, look, look.models[name])
            if found is None:
                continue
            kept[name], told, is_settled = found
            events += told
            if is_settled:
                done[name] = look.models[name]
            if before is None:
                self._tell_first_look(name, kept[name])
        self._done |= done
        return RegistryWatermark(scope, kept), events

    async def _compare_model(
        self, before: ModelState | None, look: Look, model: RegisteredModel
    ) -> tuple[ModelState, list[dict[str, Any]], bool] | None:
        """Compare one model; None when it cannot be judged at this look."""
        wanted = self._trigger.wanted
        if seems_unrecorded(before, model):
            try:
                again = await self._watch.again(look, model.name)
            except MlflowNotFoundError:
                return None
            if again.aliases != model.aliases:
                return None
            model = again
        versions = {int(version.version): version for version in model.latest_versions}
        versions |= look.versions.get(model.name, {}) if self._interest.with_versions else {}
        if missing := versions_to_read(before, model, wanted).difference(versions):
            versions |= await self._watch.versions(look, model.name, missing)
        return look_at_model(before, SeenModel(model, versions, self._interest.with_versions), wanted)

    def _tell_first_look(self, name: str, state: ModelState) -> None:
        self._trigger.log.info(
            "First look at model %r: newest version %s, aliases %s. The next change gives an event",
            *(name, state.newest or "none", dict(state.aliases) or "none"),
        )


def _connection(mlflow_conn_id: str | None) -> str:
    """Return the connection to use; None is the default of the deployment, which may change at any time."""
    return mlflow_conn_id or settings.default_mlflow_conn_id()


def _texts(name: str, values: Sequence[str]) -> list[str]:
    """Check a list of texts.

    :raises InvalidArgumentError: when it is anything else, or empty.
    """
    if isinstance(values, str) or not values or not all(isinstance(value, str) and value for value in values):
        raise InvalidArgumentError(f"{name} must be a list with at least one text; got {values!r}")
    return list(values)
