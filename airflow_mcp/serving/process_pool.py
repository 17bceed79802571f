"""The model processes of one version: batches of what has queued, and the end of processes that hang or die."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from airflow_mcp.core.serving.arrays import reader_of
from airflow_mcp.core.serving.batching import BatchQueue, halves
from airflow_mcp.core.serving.frames import SECONDS, AnswerKind, Frame, joined_rows
from airflow_mcp.core.serving.poison import PoisonousRequests
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.core.serving.signature import ModelDescription, read_model_file
from airflow_mcp.exceptions import EvidenceError
from airflow_mcp.serving.decoding import BodyDecoder
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.model_process import LinkOwner, Loader, WorkerLink
from airflow_mcp.serving.pool import LoadReport, ModelAnswer, ModelPool, ModelRequest, PoolStartError
from airflow_mcp.serving.workers import Workers

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 0.25
"""How often timeouts are looked at: one timer for all requests is cheaper than one for each."""
_MAX_DEATHS, _DEATHS_SECONDS = 3, 60.0
"""As many deaths within this time without an answer in between, and more than there are processes: it gives up."""
_RETRY_AFTER = 1
_BATCHES = ("auto", "always", "never")
_SPLIT_BY_ROW = (AnswerKind.FLOATS, AnswerKind.INTEGERS, AnswerKind.ROWS, AnswerKind.MAPPING)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that has no answer yet."""

    request: ModelRequest
    future: asyncio.Future[ModelAnswer]
    rows: int
    form: Any
    deadline: float
    deaths: int = 0
    """How many processes died while they answered it."""


@dataclass(slots=True, eq=False)
class _Running:
    """A batch that a process is answering."""

    batch: list[_Waiting]
    number: int
    rows: int
    since: float
    hangs: bool = False


class ProcessPool(ModelPool, LinkOwner):
    """The model processes of one version.

    :param name: name and version, for the log.
    :param path: folder of the model's files.
    :param settings: settings of the server.
    :param batch: ``auto``, ``always`` or ``never``; takes precedence over the settings.
    """

    def __init__(self, name: str, path: Path, settings: ServingSettings, batch: str = "") -> None:
        self._name = name
        self._path = path
        self._settings = settings
        self._batch = batch or settings.batch
        self.max_queue_rows = settings.max_queue_rows
        self._queue: BatchQueue[_Waiting] = BatchQueue(settings.max_batch_rows)
        self._workers = Workers(name, path, settings, self)
        self._idle: list[WorkerLink] = []
        self._running: dict[WorkerLink, _Running] = {}
        self._deaths: deque[float] = deque()
        self._poison = PoisonousRequests()
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._is_dispatching = self._is_stopping = False
        self._failed_starts = 0
        self._failure = ""
        self._report = LoadReport()
        self.restarts = 0

    # --- what others see ---------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a process can answer."""
        return bool(self._idle or self._running) and not self._failure and not self._is_stopping

    @property
    def in_flight(self) -> int:
        """Number of requests that are queued or being answered."""
        return len(self._queue) + sum(len(running.batch) for running in self._running.values())

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._queue.rows

    @property
    def failure(self) -> str:
        """Why the pool has given up; empty while it has not."""
        return self._failure

    @property
    def report(self) -> LoadReport:
        """What was found out when the version was loaded."""
        return self._report

    @property
    def processes(self) -> int:
        """Number of processes that are ready."""
        return len(self._idle) + len(self._running)

    # --- begin and end -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the version, and return when it can answer.

        :raises PoolStartError: when it cannot be loaded; nothing of it is left.
        """
        started = time.monotonic()
        if self._batch not in _BATCHES:
            known = ", ".join(_BATCHES)
            raise PoolStartError(f"tag airflow_mcp.batch must be one of {known}; got {self._batch!r}")
        description = self._read_description()
        self.decoder = self._decoder = BodyDecoder(description.signature, self._settings)
        try:
            ready = await self._workers.start()
        except BaseException:
            await self._end_processes()
            raise
        self._report = self._written_report(description, ready, time.monotonic() - started)
        self._decoder.is_batched = self._report.is_batched
        self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._look_at_timeouts)

    def _read_description(self) -> ModelDescription:
        try:
            return read_model_file((self._path / "MLmodel").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, EvidenceError) as error:
            raise PoolStartError(f"its files cannot be read: {error}") from None

    def _written_report(self, description: ModelDescription, ready: dict[str, Any], seconds: float) -> LoadReport:
        allowed, why = bool(ready["is_batched"]), str(ready["why_alone"])
        if self._batch == "never":
            allowed, why = False, "the settings say so"
        elif self._batch == "always" and reader_of(description.signature) is not None:
            allowed, why = True, ""
        return LoadReport(
            seconds=seconds,
            memory_bytes=self._workers.memory_bytes,
            signature=description.signature,
            is_batched=allowed,
            why_alone=why,
            flavors=description.flavors,
        )

    async def stop(self) -> None:
        """Answer what is in flight, and end."""
        waiting = [item.future for item in self._all_waiting()]
        if waiting:
            await asyncio.wait(waiting, timeout=self._settings.request_timeout)
        await self._end_processes()

    async def _end_processes(self) -> None:
        self._is_stopping = True
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._tasks:
            task.cancel()
        self._refuse_all(Problem("not_ready", "the version has been stopped", retry_after=_RETRY_AFTER))
        links = (*self._idle, *self._running)
        for link in links:
            link.close()
        await self._workers.stop()
        for link in links:  # one whose loader was killed before, and that hangs
            link.abandon()

    # --- requests ----------------------------------------------------------------------------------------------------

    def submit(self, request: ModelRequest) -> Awaitable[ModelAnswer]:
        """Queue a request; awaiting the result gives the answer.

        :raises Problem: when too many rows wait, or the pool has given up.
        """
        queue, rows = self._queue, request.rows
        if self._failure or self._is_stopping:
            raise Problem("not_ready", "the version does not answer any more", retry_after=_RETRY_AFTER)
        if queue.rows and queue.rows + rows > self.max_queue_rows:
            raise Problem("overloaded", "too many rows are waiting for the model", retry_after=_RETRY_AFTER)
        if self._poison and self._poison.refuses(_digest(request), time.monotonic()):
            raise Problem("model_crashed", "this request ended the process of the model before, so it is not asked")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ModelAnswer] = loop.create_future()
        form = None if request.is_alone else (request.kind, request.form)
        queue.add(_Waiting(request, future, rows, form, loop.time() + self._settings.request_timeout))
        if self._idle and not self._is_dispatching:
            # After the other requests that have arrived with this one, so that they share its batch.
            self._is_dispatching = True
            loop.call_soon(self._dispatch)
        return future

    def _dispatch_after_answers(self) -> None:
        """Send the next batch after the answers of the last one: some callers ask again at once and share it."""
        if not self._is_dispatching:
            self._is_dispatching = True
            loop = asyncio.get_running_loop()
            # One turn of the loop wakes the waiting tasks, which send; the next one reads what has arrived.
            loop.call_soon(loop.call_soon, loop.call_soon, self._dispatch)

    def _dispatch(self) -> None:
        self._is_dispatching = False
        while self._idle and (batch := self._queue.take()):
            batch = [waiting for waiting in batch if not waiting.future.done()]
            if batch:
                self._send(self._idle.pop(), batch)

    def _send(self, link: WorkerLink, batch: list[_Waiting]) -> None:
        self._batches = (self._batches + 1) & 0xFFFFFFFF
        request, rows = batch[0].request, sum(waiting.rows for waiting in batch)
        payload = joined_rows(request.kind, request.form, [waiting.request.payload for waiting in batch], rows)
        self._running[link] = _Running(batch, self._batches, rows, asyncio.get_running_loop().time())
        link.send(self._batches, rows, request.kind, payload)

    # --- answers -----------------------------------------------------------------------------------------------------

    def on_frame(self, link: WorkerLink, frame: Frame) -> None:
        """Take an answer, or the news that a process is ready."""
        if self._workers.is_starting(link):
            if self._workers.on_first_frame(link, frame):
                self._idle.append(link)
                self._dispatch()
                self._changed()
            return
        running = self._running.get(link)
        if running is None or frame.batch != running.number:
            _log.error("%s: a model process answered what it was not asked, so it is ended", self._name)
            link.kill()
            return
        del self._running[link]
        self._deaths.clear()  # the version answers, so the deaths before were not its own fault
        self._idle.append(link)
        self._dispatch_after_answers()
        if frame.kind == AnswerKind.ERROR:
            self._on_error(running, frame)
        elif not self._answer(running, frame):
            self._ask_alone(running.batch)

    def _answer(self, running: _Running, frame: Frame) -> bool:
        """Answer every request of a batch with its rows; False when it is not clear which rows are whose."""
        kind, seconds = AnswerKind(frame.kind), SECONDS.unpack_from(frame.payload)[0]
        batch = running.batch
        if self.on_batch is not None:
            self.on_batch(seconds, frame.rows)
        if kind not in _SPLIT_BY_ROW:
            if len(batch) > 1:
                return False
            _resolve(batch[0], ModelAnswer(kind, frame.payload[SECONDS.size :], frame.rows, seconds))
            return True
        values = _entries(kind, frame.payload)
        if len(batch) == 1:
            _resolve(batch[0], ModelAnswer(kind, values, frame.rows, seconds))
            return True
        if frame.rows != running.rows:
            return False
        start = 0
        for waiting in batch:
            end = start + waiting.rows
            _resolve(waiting, ModelAnswer(kind, _part(values, start, end), waiting.rows, seconds))
            start = end
        return True

    def _ask_alone(self, batch: Sequence[_Waiting]) -> None:
        """Ask each request alone, now and in future: the model does not answer row by row."""
        if self._decoder.is_batched:
            self._decoder.is_batched = False
            _log.warning(
                "%s: the model does not return one answer per row, so requests no longer share batches", self._name
            )
        for waiting in batch:
            self._queue.add_again([waiting])
        self._dispatch()

    def _on_error(self, running: _Running, frame: Frame) -> None:
        if len(running.batch) > 1:
            for half in halves(running.batch):
                self._queue.add_again(half)
            self._dispatch()
            return
        code, message = msgspec.msgpack.decode(frame.payload[SECONDS.size :])
        _refuse(running.batch[0], Problem(code, message))

    # --- processes that hang or die ----------------------------------------------------------------------------------

    def _look_at_timeouts(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sweep = loop.call_later(_SWEEP_SECONDS, self._look_at_timeouts)
        problem = Problem("timeout", f"the model did not answer within {self._settings.request_timeout:g} s")
        for link, running in self._running.items():
            for waiting in running.batch:
                if waiting.deadline <= now:
                    _refuse(waiting, problem)
            if not running.hangs and now - running.since > self._settings.request_timeout:
                running.hangs = True
                _log.warning("%s: a model process hangs, so it is ended", self._name)
                link.kill()
        for waiting in self._queue:
            if waiting.deadline <= now:
                _refuse(waiting, problem)
        self._queue.drop(_is_over)

    def on_lost(self, link: WorkerLink) -> None:
        """Replace a process that has ended, and ask again what it was asked."""
        if link in self._idle:
            self._idle.remove(link)
        if self._workers.is_starting(link):
            self._workers.on_lost(link)
            return
        running = self._running.pop(link, None)
        if self._is_stopping:
            return
        self.restarts += 1
        if running is not None and running.hangs:
            self._on_hang(running)
        else:
            self._deaths.append(time.monotonic())
            if running is not None:
                self._on_death(running)
        self._changed()
        if self._has_died_too_often():
            self._give_up(f"its processes died {len(self._deaths)} times within {_DEATHS_SECONDS:g} s")
        else:
            self._in_background(self._replace(link.loader))

    def on_defect(self, error: BaseException) -> None:
        """Stop answering: without the task that has failed, nothing replaces the processes."""
        _log.error("%s: a defect", self._name, exc_info=error)
        if not self._failure and not self._is_stopping:
            self._give_up(f"a defect: {type(error).__name__}")

    def _on_hang(self, running: _Running) -> None:
        problem = Problem("timeout", f"the model did not answer within {self._settings.request_timeout:g} s")
        for waiting in running.batch:
            _refuse(waiting, problem)

    def _on_death(self, running: _Running) -> None:
        for waiting in running.batch:
            waiting.deaths += 1
            if waiting.deaths > 1 or not self._settings.retry_after_crash:
                _log.error(
                    "%s: a request ended a model process; id %s", self._name, waiting.request.request_id.decode()
                )
                _refuse(waiting, Problem("model_crashed", "the process of the model died while it answered"))
                self._poison.add(_digest(waiting.request), time.monotonic())
            else:
                self._queue.add_again([waiting])

    def _has_died_too_often(self) -> bool:
        while self._deaths and self._deaths[0] < time.monotonic() - _DEATHS_SECONDS:
            self._deaths.popleft()
        return len(self._deaths) >= max(_MAX_DEATHS, self._settings.processes + 1)

    async def _replace(self, loader: Loader) -> None:
        try:
            await self._workers.replace(loader)
        except PoolStartError as error:
            self._deaths.append(time.monotonic())
            self._failed_starts += 1
            if self._failed_starts >= _MAX_DEATHS or self._has_died_too_often():
                self._give_up(f"a process that ended could not be replaced: {error}")
            else:
                self._in_background(self._replace(loader))
        else:
            self._failed_starts = 0

    def _give_up(self, reason: str) -> None:
        self._failure = reason
        _log.error("%s: given up: %s", self._name, reason)
        self._refuse_all(Problem("not_ready", "the version does not answer any more", retry_after=_RETRY_AFTER))
        self._changed()

    def _refuse_all(self, problem: Problem) -> None:
        for waiting in self._all_waiting():
            _refuse(waiting, problem)
        self._queue.drop(_is_over)

    def _all_waiting(self) -> list[_Waiting]:
        return [*self._queue, *(waiting for running in self._running.values() for waiting in running.batch)]

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_defect(error)

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


def _digest(request: ModelRequest) -> bytes:
    return hashlib.blake2b(request.payload, digest_size=16, person=request.kind.name.encode()).digest()


def _part(values: Any, start: int, end: int) -> Any:
    if isinstance(values, dict):
        return {name: entries[start:end] for name, entries in values.items()}
    return values[start:end]


def _entries(kind: AnswerKind, payload: bytes) -> Any:
    if kind is AnswerKind.FLOATS:
        return memoryview(payload)[SECONDS.size :].cast("d").tolist()
    if kind is AnswerKind.INTEGERS:
        return memoryview(payload)[SECONDS.size :].cast("q").tolist()
    return msgspec.msgpack.decode(payload[SECONDS.size :])


def _resolve(waiting: _Waiting, answer: ModelAnswer) -> None:
    if not waiting.future.done():
        waiting.future.set_result(answer)


def _is_over(waiting: _Waiting) -> bool:
    return waiting.future.done()


def _refuse(waiting: _Waiting, problem: Problem) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(problem)
