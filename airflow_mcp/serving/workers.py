"""Starts the processes of one version, and starts others in the place of those that have ended."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from airflow_mcp.core.serving.frames import SECONDS, AnswerKind, Frame
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving.model_process import LinkOwner, Loader, WorkerLink, model_environment
from airflow_mcp.serving.pool import PoolStartError

T = TypeVar("T")
_log = logging.getLogger(__name__)
_TRIES = 2
"""A loader may have ended together with the process that is replaced, which only the first try shows."""


class Workers:
    """The loaders of one version, and its processes until they are ready.

    :param name: name and version, for the log.
    :param path: folder of the model's files.
    :param settings: settings of the server.
    :param owner: what the frames of the processes are for.
    """

    def __init__(self, name: str, path: Path, settings: ServingSettings, owner: LinkOwner) -> None:
        self._name = name
        self._path = path
        self._settings = settings
        self._owner = owner
        self._loaders: list[Loader] = []
        self._starting: dict[WorkerLink, asyncio.Future[dict[str, Any]]] = {}
        self._loading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    @property
    def memory_bytes(self) -> int:
        """Memory of the largest loader."""
        return max((loader.memory_bytes for loader in self._loaders), default=0)

    async def start(self) -> dict[str, Any]:
        """Start as many processes as the settings say.

        :return: what the first one says when it is ready.
        :raises PoolStartError: when one of them cannot be started, or not in time.
        """
        return await self._in_time(self._start())

    async def replace(self, loader: Loader) -> None:
        """Start a process in the place of one that has ended.

        :param loader: the loader that had started it.
        :raises PoolStartError: when it cannot be started, or not in time.
        """
        await self._in_time(self._replace(loader))

    async def stop(self) -> None:
        """End all processes that are starting, and all loaders."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        for link in self._starting:
            link.close()
        await asyncio.gather(*(loader.stop() for loader in self._loaders))

    def is_starting(self, link: WorkerLink) -> bool:
        """Return whether a process is not ready yet."""
        return link in self._starting

    def on_first_frame(self, link: WorkerLink, frame: Frame) -> bool:
        """Take the first frame of a process, and return whether it is ready."""
        payload, future = frame.payload[SECONDS.size :], self._starting[link]
        if future.done():
            return False
        if frame.kind == AnswerKind.READY:
            future.set_result(msgspec.json.decode(payload))
            return True
        future.set_exception(PoolStartError(str(msgspec.msgpack.decode(payload)[1])))
        return False

    def on_lost(self, link: WorkerLink) -> None:
        """Take notice that a process has ended before it was ready."""
        future = self._starting[link]
        if not future.done():
            future.set_exception(PoolStartError("the process ended while it answered the input example"))

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._settings.load_timeout):
                return await work
        except TimeoutError:
            raise PoolStartError(f"it did not load within {self._settings.load_timeout:g} s") from None
        except OSError as error:
            raise PoolStartError(f"its processes could not be started: {error}") from None

    async def _start(self) -> dict[str, Any]:
        loader = await self._new_loader()
        first = await self._new_worker(loader)
        further = range(self._settings.processes - 1)
        if loader.can_fork:
            await asyncio.gather(*(self._new_worker(loader) for _ in further))
        else:
            await asyncio.gather(*(self._load_and_work() for _ in further))
        return first

    async def _replace(self, loader: Loader) -> None:
        if not loader.can_fork:
            self._forget(loader)
            await loader.stop()
            await self._load_and_work()
            return
        for left in reversed(range(_TRIES)):
            try:
                await self._new_worker(await self._forking_loader())
            except (PoolStartError, OSError) as error:
                if not left:
                    raise
                _log.warning("%s: a process could not be replaced: %s. It is tried once more", self._name, error)
            else:
                return

    async def _forking_loader(self) -> Loader:
        """Return a loader that lives; loads the model again when there is none."""
        async with self._loading:
            for loader in self._loaders:
                if not loader.has_ended:
                    return loader
            return await self._new_loader()

    async def _new_loader(self) -> Loader:
        environment = model_environment(os.environ, self._settings.model_environment)
        loader = Loader(self._name, self._path, environment, self._on_loader_lost)
        self._loaders.append(loader)
        try:
            await loader.start()
        except BaseException:
            self._forget(loader)
            await loader.stop()
            raise
        return loader

    def _forget(self, loader: Loader) -> None:
        if loader in self._loaders:  # one that has ended by itself may have been removed before
            self._loaders.remove(loader)

    async def _load_and_work(self) -> None:
        await self._new_worker(await self._new_loader())

    async def _new_worker(self, loader: Loader) -> dict[str, Any]:
        """Start a process that answers, and return what it says when it is ready."""
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        links: list[WorkerLink] = []

        def register(link: WorkerLink) -> None:
            links.append(link)
            self._starting[link] = ready

        try:
            await loader.spawn(self._owner, register=register)
            return await ready
        except BaseException:
            for link in links:
                link.abandon()
            raise
        finally:
            for link in links:
                self._starting.pop(link, None)
            ready.cancel()

    def _on_loader_lost(self) -> None:
        """Load again beside the processes that go on, so that the next one that ends can be replaced at once."""
        dead = [loader for loader in self._loaders if loader.has_ended]
        for loader in dead:
            self._loaders.remove(loader)
        if any(loader.can_fork for loader in dead) and not self._is_stopping:
            task = asyncio.get_running_loop().create_task(self._load_again())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._owner.on_defect(error)

    async def _load_again(self) -> None:
        try:
            await self._in_time(self._forking_loader())
        except PoolStartError as error:
            _log.error("%s: the model could not be loaded again: %s", self._name, error)
