"""The versions that this server holds: each on its way from the registry into the plan and out again, as a task.

A task changes nothing that answers: it fetches, checks and loads beside it, and reports how far it has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.copies import run_of
from airflow_mcp.core.registry.load_check import read_load_check, why_unusable
from airflow_mcp.core.serving.control_settings import ControlSettings
from airflow_mcp.core.serving.pairing import Surroundings, check_pairing
from airflow_mcp.core.serving.passports import why_no_passport
from airflow_mcp.core.serving.versions import (
    ON_THE_WAY,
    Action,
    Fetch,
    Held,
    Retire,
    Serve,
    ServedVersion,
    Start,
    VersionState,
    Wanted,
    retry_at,
)
from airflow_mcp.core.signing.keys import read_public_keys
from airflow_mcp.exceptions import InvalidArgumentError, MlflowError, MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.serving.cache import Cached, ModelCache
from airflow_mcp.serving.download import DownloadError, fetch
from airflow_mcp.serving.events import EventRing
from airflow_mcp.serving.looks import key_of
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import PoolStartError
from airflow_mcp.serving.upstream_pool import TAG_UPSTREAM, why_not_allowed

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """A version must not be loaded; the text says why."""


class HeldVersions:
    """The versions that this server holds.

    :param models: where they are loaded.
    :param mlflow: the MLflow server.
    :param cache: their files on disk.
    :param settings: what is checked.
    :param clock: returns seconds that do not go back.
    :param on_change: called after a version has come further.
    """

    def __init__(
        self,
        models: ServedModels,
        mlflow: MlflowOperations,
        cache: ModelCache,
        settings: ControlSettings,
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._models, self._mlflow, self._cache = models, mlflow, cache
        self._settings, self._clock, self._on_change = settings, clock, on_change
        self._held: dict[ServedVersion, Held] = {}
        self._tasks: dict[ServedVersion, asyncio.Task[None]] = {}
        self._files: dict[ServedVersion, Cached] = {}
        self._versions: dict[ServedVersion, ModelVersion] = {}
        self.passed: dict[str, str] = {}
        """Digest with which each version has passed its checks, for a start without MLflow."""
        self.swaps: dict[str, int] = {}
        """Versions that were started, by result."""
        self.swap_seconds = 0.0
        """How long the last version took from its first byte until it could answer."""
        self._began: dict[ServedVersion, float] = {}
        self._is_stopping = False
        self.on_gone: Callable[[ServedVersion], None] = lambda _: None
        """Called when nothing is left of a version."""
        self.events = EventRing()
        """What was started, refused and swapped, for the audit log."""
        models.on_change.append(self._notice_failures)

    @property
    def all(self) -> list[Held]:
        """Everything that is held."""
        return list(self._held.values())

    def get(self, key: ServedVersion) -> Held | None:
        """Return what is held of a version."""
        return self._held.get(key)

    def know(self, version: ModelVersion) -> None:
        """Remember what the registry says about a version.

        :param version: the version, with its tags.
        """
        self._versions[key_of(version)] = version

    def note_wanted(self, wanted: list[Wanted]) -> None:
        """Note when each version was wanted, so that the one wanted most recently stays warm longest."""
        now = self._clock()
        for wish in wanted:
            item = self._held.get(wish.key)
            if item is not None:
                self._held[wish.key] = replace(item, last_wanted=now)

    def carry_out(self, action: Action, marks: Mapping[ServedVersion, str]) -> None:
        """Begin to carry out an action.

        :param action: the action.
        :param marks: what the registry says about each version that is wanted.
        """
        key = action.key
        if isinstance(action, Fetch):
            item = self._held.get(key) or Held(key, VersionState.FETCHING)
            mark = marks.get(key, item.mark)
            failures = item.failures if mark == item.mark else 0
            self._began[key] = self._clock()
            self._put(replace(item, state=VersionState.FETCHING, is_checked=False, mark=mark, failures=failures))
            self._run(key, self._fetch_and_check(key))
        elif isinstance(action, Start):
            self._put(replace(self._held[key], state=VersionState.STARTING, reason=""))
            self._run(key, self._start(key))
        elif isinstance(action, Serve):
            before = next(
                (each.key for each in self.all if each.key.model == key.model and each.answers_as_champion), None
            )
            self.events.swapped(key, before)
            for other in self.all:
                if other.key.model == key.model:
                    self._put(replace(other, answers_as_champion=other.key == key))
            _log.info("%s answers from now on", key)
        elif isinstance(action, Retire):
            self._retire(key, action.reason)
        else:
            self._fail(key, action.reason)

    async def stop(self) -> None:
        """End every task; what is loaded stays loaded."""
        self._is_stopping = True
        try:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        finally:
            self._is_stopping = False

    # --- states ------------------------------------------------------------------------------------------------------

    def _put(self, item: Held) -> None:
        self._held[item.key] = item

    def _run(self, key: ServedVersion, work: Any) -> None:
        task = asyncio.create_task(work, name=f"{key}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._on_done(key, done))

    def _on_done(self, key: ServedVersion, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
            item = self._held.get(key)
            if task.cancelled() and item is not None and item.state in ON_THE_WAY:
                self._forget(key)  # with the follower, which begins anew
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s: a defect", key, exc_info=task.exception())
            self._fail(key, f"a defect: {type(task.exception()).__name__}")
        if not self._is_stopping:
            self._on_change()

    def _fail(self, key: ServedVersion, reason: str) -> None:
        item = self._held.get(key)
        if item is None:
            return
        failures = item.failures + 1
        next_try = retry_at(failures, self._clock())
        self._put(
            replace(
                item,
                state=VersionState.FAILED,
                reason=reason,
                failures=failures,
                next_try=next_try,
                is_checked=False,
            )
        )
        result = reason.partition(":")[0] if ":" in reason else "load"
        self.swaps[result] = self.swaps.get(result, 0) + 1
        self.events.refused(key, reason)
        _log.error("%s cannot be served: %s", key, reason)

    def _notice_failures(self) -> None:
        """Take note of a version whose processes have given up."""
        for key, pool in list(self._models.pools.items()):
            item = self._held.get(key)
            if item is not None and item.state is VersionState.READY and pool.failure:
                self._fail(key, f"died: {pool.failure}")
                self._run(key, self._models.retire(key))
                self._on_change()

    # --- the way in --------------------------------------------------------------------------------------------------

    async def _fetch_and_check(self, key: ServedVersion) -> None:
        version = self._versions[key]
        try:
            unusable = why_unusable(version)
            if unusable:
                raise _RefusedError(f"load check: {unusable}")
            if version.tags.get(TAG_UPSTREAM):
                files = self._upstream(version)
            else:
                keep = {item.key for item in self.all}
                files = await fetch(self._mlflow, version, self._cache, keep)
            self._put(replace(self._held[key], state=VersionState.CHECKING))
            await self._check(version, files)
        except (DownloadError, _RefusedError) as error:
            self._fail(key, str(error))
            return
        self._files[key] = files
        check = read_load_check(version.tags)
        memory = check.memory_bytes if check is not None else 0
        self._put(replace(self._held[key], is_checked=True, memory_bytes=memory))

    def _upstream(self, version: ModelVersion) -> Cached:
        reason = why_not_allowed(version.tags[TAG_UPSTREAM], self._settings.allowed_upstreams)
        if reason:
            raise _RefusedError(f"upstream: {reason}")
        return Cached(self._cache.folder, "")

    async def _check(self, version: ModelVersion, files: Cached) -> None:
        """Check the evidence of a version.

        :raises _RefusedError: when it must not be loaded.
        """
        key = key_of(version)
        if self._settings.passport_keys and (
            problem := await asyncio.to_thread(self._passport_problem, version, files)
        ):
            raise _RefusedError(f"passport: {problem}")
        if not files.digest:
            return  # it is loaded elsewhere
        try:
            run_tags = await self._run_tags(version)
        except MlflowError as error:
            if self.passed.get(str(key)) == files.digest:
                return  # it has passed with these very files before, and the registry is away
            raise _RefusedError(f"pairing: its run cannot be read: {error}") from None
        check = read_load_check(version.tags)
        names = set(check.libraries) - {"python"} if check is not None else set()
        here = await asyncio.to_thread(_surroundings, self._settings.image_digest, names)
        pairing = check_pairing(version.tags, run_tags, files.digest, here, self._settings.pairing_rule)
        if not pairing.may_load:
            if any(reason.startswith("its files have digest") for reason in pairing.reasons):
                await asyncio.to_thread(self._cache.drop, key)
            raise _RefusedError(str(pairing).replace("pairing refused: ", "pairing: ", 1))
        if pairing.reasons:
            _log.warning("%s: %s", key, pairing)
        self.passed[str(key)] = files.digest

    def _passport_problem(self, version: ModelVersion, files: Cached) -> str:
        """Return why a version has no passport that counts. The keys are read each time, so that one can be removed."""
        try:
            keys = read_public_keys(Path(self._settings.passport_keys).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, InvalidArgumentError) as error:
            return f"the keys in {self._settings.passport_keys} cannot be read: {error}"
        return why_no_passport(version.name, version.tags, files.digest, keys, self._settings.clearance)

    async def _run_tags(self, version: ModelVersion) -> Mapping[str, str] | None:
        run_id = run_of(version)
        if not run_id:
            return None
        try:
            run = await self._mlflow.get_run.aio(run_id)
        except MlflowNotFoundError:
            return None
        return run.tags if run.lifecycle_stage == "active" else None

    async def _start(self, key: ServedVersion) -> None:
        path = self._files[key].path
        try:
            pool = await self._models.load(key, path, self._versions[key].tags)
        except PoolStartError as error:
            self._fail(key, f"load: {error}")
            return
        item = self._held.get(key)
        if item is None or item.state is not VersionState.STARTING:
            return
        self.swap_seconds = self._clock() - self._began.get(key, self._clock())
        self.swaps["ready"] = self.swaps.get("ready", 0) + 1
        memory = pool.report.memory_bytes or item.memory_bytes
        self._put(replace(item, state=VersionState.READY, failures=0, reason="", memory_bytes=memory))
        self.events.started(key)
        _log.info("%s is ready after %.1f s", key, self.swap_seconds)

    # --- the way out -------------------------------------------------------------------------------------------------

    def _retire(self, key: ServedVersion, reason: str) -> None:
        item = self._held[key]
        _log.info("%s is given up: %s", key, reason)
        self._put(replace(item, state=VersionState.RETIRING, reason=reason))
        self._run(key, self._end(key, self._tasks.get(key) if item.state in ON_THE_WAY else None))

    async def _end(self, key: ServedVersion, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if key in self._models.pools:  # it was ready, or became so at the very last moment
            await self._models.retire(key)
        self._forget(key)

    def _forget(self, key: ServedVersion) -> None:
        self._held.pop(key, None)
        self._files.pop(key, None)
        self._began.pop(key, None)
        self.events.forget(key)
        self.on_gone(key)


def _surroundings(image: str, names: Iterable[str]) -> Surroundings:
    """Return what this image has of some libraries; model processes run in the same image. Call it in a thread."""
    libraries = {"python": python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            libraries[name] = metadata.version(name)
    return Surroundings(image, libraries)


def default_cache(settings: ControlSettings) -> ModelCache:
    """Return the cache that the settings name."""
    return ModelCache(Path(settings.cache_folder), settings.cache_bytes)
