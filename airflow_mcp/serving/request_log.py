"""Writes the prediction log: rows and answers into segments on disk, which another process turns into Parquet.

A request without rows in the log, such as one that failed, becomes an event beside them, without any input.

Serving never waits for the store. When it is away, segments wait on disk up to a limit, and beyond it the oldest go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import struct
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from airflow_mcp.core.serving.control_settings import ControlSettings
from airflow_mcp.core.serving.frames import FrameKind, rows_as_list
from airflow_mcp.core.serving.outliers import OutlierRanges
from airflow_mcp.core.serving.prediction_log import (
    ENV_LOG_URI,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENT_SECONDS,
    OPEN,
    Answered,
    Event,
    LogForm,
    events_header,
    oldest_beyond,
    segment_name,
)
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.log_folder import FILE_MODE, LogFolder
from airflow_mcp.serving.metrics import PREFIX
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import ModelAnswer, ModelRequest

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_LONGEST_PAUSE = 60.0
"""Longest wait before the process that stores segments is started again; it doubles with each end in a row."""
_STEADY_SECONDS = 120.0
"""A process that ran as long did not end because of a setting, so the next one is started soon."""
_STOP_SECONDS = 30.0
"""How long the end of the server waits for the last segments to be stored."""
_NO_VERSION = ""
"""Version of the key under which the events of a model are written: all of its versions share a segment."""
_NOT_FOR_SHIPPER = ("AIRFLOW_MCP_SERVING_", "MLFLOW_")


def shipper_environment(environment: Mapping[str, str], uri: str) -> dict[str, str]:
    """Return the environment of the process that stores segments: credentials of the store, none of MLflow or ours.

    :param environment: environment of this process.
    :param uri: address of the log.
    """
    passed = {name: value for name, value in environment.items() if not name.startswith(_NOT_FOR_SHIPPER)}
    return {**passed, ENV_LOG_URI: uri}


class ReadRows(NamedTuple):
    """The rows of a request."""

    rows: Sequence[Sequence[Any]]
    positions: Sequence[int] | None
    """Which columns of the signature the rows have; None for all."""


class RowReader:
    """Reads the rows of requests to one version back from what is sent to the model.

    :param pack_codes: format of a row of numbers; empty when a column is not a number.
    """

    def __init__(self, pack_codes: str) -> None:
        self._packer = struct.Struct(pack_codes) if pack_codes else None

    def read(self, request: ModelRequest) -> ReadRows | None:
        """Return the rows; None when only the model process can read them."""
        if request.kind is FrameKind.PACKED and self._packer is not None:
            return ReadRows(list(self._packer.iter_unpack(request.payload)), None)
        if request.kind is FrameKind.COLUMNS:
            rows = msgspec.msgpack.decode(rows_as_list([request.payload], request.rows))
            return ReadRows(rows, msgspec.msgpack.decode(request.form))
        return None


class _Segment:
    """The open segment of one version."""

    def __init__(self, folder: LogFolder, header: bytes, number: int, now: float) -> None:
        folder.own()  # before the file is made: an open segment without an owner is taken over
        self.opened = now
        self.name = segment_name(now, number, folder.owner)
        self._path = folder.path / f"{OPEN}{self.name}"
        self._final = folder.path / self.name
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        self._stream: IO[bytes] = os.fdopen(descriptor, "wb", buffering=1 << 20)
        self.bytes = self._stream.write(header)

    def write(self, lines: bytes) -> None:
        self.bytes += self._stream.write(lines)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()
        self._path.rename(self._final)


class _Version(NamedTuple):
    form: LogForm | None
    """None when the rule of the settings cannot be applied to the version, so that none of its rows is logged."""
    reader: RowReader
    names: tuple[str, ...]


class RequestLog:
    """Writes what was asked and answered.

    :param models: what is loaded; their signatures name the columns.
    :param settings: where to, how much, and which columns.
    """

    def __init__(self, models: ServedModels, settings: ControlSettings) -> None:
        self._models, self._settings = models, settings
        self._rule = settings.log_rule
        self._folder = LogFolder(Path(settings.log_folder))
        self._versions: dict[ServedVersion, _Version] = {}
        self._open: dict[ServedVersion, _Segment] = {}
        self._numbers = 0
        self._encoder = msgspec.json.Encoder()
        self._pod = socket.gethostname()
        self._shipper: Process | None = None
        self._shipper_started = self._next_start = 0.0
        self._pause = _LOOK_SECONDS
        self.dropped: dict[str, int] = {}
        """Rows or segments that were not logged, by reason."""
        self.logged = self.events = 0
        self.ranges: dict[ServedVersion, OutlierRanges] = {}
        """What the training data of each version contained, if rows outside of it are counted."""
        self.outliers: dict[ServedVersion, list[int]] = {}
        """Rows outside of it, and all rows that were judged."""

    # --- one exchange ------------------------------------------------------------------------------------------------

    def record(self, exchange: Exchange) -> None:
        """Log an exchange after its answer was sent; a failure is counted and never seen by the caller."""
        answer, request, choice = exchange.answer, exchange.request, exchange.choice
        if self._settings.log_sample < 1 and random.random() >= self._settings.log_sample:  # noqa: S311
            return
        if answer is None or request is None or choice is None:
            self._write_event(exchange)
        elif not self.write(choice.version, choice.role, request, answer, exchange.seconds):
            self._write_event(exchange)  # latency and errors are shares of all requests, also of those without rows

    def write(self, key: ServedVersion, role: str, request: ModelRequest, answer: ModelAnswer, seconds: float) -> bool:
        """Log one answer.

        :param key: the version that answered.
        :param role: in which role.
        :param request: the request as it was sent to the model.
        :param answer: its answer.
        :param seconds: how long it took.
        :return: whether it has rows that can be logged.
        """
        try:
            version = self._version(key)
            read = version.reader.read(request) if version is not None else None
            if version is None or read is None:
                self._drop("form")
                return False
            if key in self.ranges:
                self._count_outliers(key, version, read)
            values = answer.values
            if not isinstance(values, list) or len(values) != len(read.rows):
                self._drop("answer")
            elif self._settings.log_uri and version.form is None:
                self._drop("columns")
            elif self._settings.log_uri and version.form is not None:
                answered = Answered(
                    request.request_id.decode(), time.time() - seconds, key.version, role, read.rows, values, seconds
                )
                records = version.form.records(answered, read.positions)
                self._append(key, version.form.header(key.model, key.version), records)
                self.logged += len(records)
                return True
        except OSError as error:
            self._fail(key, error)
            return True
        except (ValueError, TypeError, IndexError, msgspec.MsgspecError):
            self._drop("defect")
            _log.exception("a row of the prediction log could not be written")
        return False

    def _write_event(self, exchange: Exchange) -> None:
        """Log that a served model was asked, without what was asked."""
        if not self._settings.log_uri or self._models.plan(exchange.model) is None:
            return
        choice, seconds = exchange.choice, exchange.seconds
        key = ServedVersion(exchange.model, _NO_VERSION)
        event = Event(
            exchange.request_id.decode(),
            time.time() - seconds,
            "" if choice is None else choice.version.version,
            "" if choice is None else choice.role,
            exchange.status,
            exchange.code,
            seconds,
        )
        try:
            self._append(key, events_header(exchange.model), [event.record()])
            self.events += 1
        except OSError as error:
            self._fail(key, error)

    def _fail(self, key: ServedVersion, error: OSError) -> None:
        self._drop("disk")
        _log.warning("the prediction log cannot be written: %s", error.strerror or error)
        self._abandon(key)

    def _version(self, key: ServedVersion) -> _Version | None:
        found = self._versions.get(key)
        if found is None:
            pool = self._models.pools.get(key)
            if pool is None or not pool.report.signature.columns:
                return None
            signature = pool.report.signature
            columns = [(column.name, column.type) for column in signature.columns]
            names = tuple(name for name, _ in columns)
            form = None
            if not self._refuses(key, names):
                form = LogForm(columns, [column.type for column in signature.outputs], self._rule)
            found = _Version(form, RowReader(signature.pack_codes), names)
            self._versions[key] = found
        return found

    def _refuses(self, key: ServedVersion, names: Sequence[str]) -> bool:
        """Return whether nothing of a version may be logged, because a column to hide may have another name in it."""
        unknown = self._rule.unknown(names)
        if unknown and self._settings.log_uri:
            _log.error(
                "no answer of %s is logged: AIRFLOW_MCP_SERVING_LOG_EXCLUDE and AIRFLOW_MCP_SERVING_LOG_HASH must name "
                "columns of its signature; got %s. Correct them and restart the server",
                *(key, ", ".join(map(repr, unknown))),
            )
        return bool(unknown)

    def _append(self, key: ServedVersion, header: Mapping[str, Any], records: list[dict[str, Any]]) -> None:
        segment = self._open.get(key)
        if segment is None:
            self._numbers += 1
            line = self._encoder.encode({**header, "pod": self._pod}) + b"\n"
            segment = self._open[key] = _Segment(self._folder, line, self._numbers, time.time())
        segment.write(self._encoder.encode_lines(records))
        if segment.bytes >= MAX_SEGMENT_BYTES:
            self._close(key)

    def _count_outliers(self, key: ServedVersion, version: _Version, read: ReadRows) -> None:
        names = version.names if read.positions is None else [version.names[at] for at in read.positions]
        counted = self.outliers.setdefault(key, [0, 0])
        counted[0] += self.ranges[key].count(names, read.rows)
        counted[1] += len(read.rows)

    def _drop(self, reason: str, number: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + number

    def _close(self, key: ServedVersion) -> None:
        segment = self._open.pop(key, None)
        if segment is not None:
            segment.close()

    def _abandon(self, key: ServedVersion) -> None:
        with contextlib.suppress(OSError):
            self._close(key)

    # --- segments ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Close segments in time and have them stored, until cancelled."""
        if not self._settings.log_uri:
            return
        self._folder.own()
        self._folder.take_over()
        try:
            while True:
                await self._keep_shipping()
                await asyncio.sleep(_LOOK_SECONDS)
                self._look()
        finally:
            await self._stop()

    def _look(self) -> None:
        """Close what is old enough, and make room."""
        now = time.time()
        for key, segment in list(self._open.items()):
            try:
                is_gone = key.version != _NO_VERSION and key not in self._models.pools
                if now - segment.opened >= MAX_SEGMENT_SECONDS or is_gone:
                    self._close(key)
                else:
                    segment.flush()
            except OSError as error:
                _log.warning("the prediction log cannot be written: %s", error.strerror or error)
                self._open.pop(key, None)
                self._drop("disk")
        self._versions = {key: found for key, found in self._versions.items() if key in self._models.pools}
        for name in oldest_beyond(self._folder.closed(), self._settings.log_disk_bytes):
            (self._folder.path / name).unlink(missing_ok=True)
            self._drop("room")

    async def _keep_shipping(self) -> None:
        """Start the process that stores segments, again if it has ended."""
        if self._shipper is not None and self._shipper.returncode is None:
            return
        now = time.monotonic()
        if self._shipper is not None:
            self._put_off(now, self._shipper.returncode)
        if now < self._next_start:
            return
        self._shipper_started = now
        arguments = ("-m", "airflow_mcp.work", "ship-log", "--folder", str(self._folder.path), "--pod", self._pod)
        self._shipper = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=shipper_environment(os.environ, self._settings.log_uri),
            stdin=asyncio.subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        )

    def _put_off(self, now: float, code: int | None) -> None:
        """Decide when the process that has ended is started again."""
        self._shipper = None
        if now - self._shipper_started >= _STEADY_SECONDS:
            self._pause = _LOOK_SECONDS
        self._next_start = now + self._pause
        _log.warning(
            "the process that stores the prediction log ended with code %s. It is started again in %g s; segments "
            "wait in %s",
            *(code, self._pause, self._folder.path),
        )
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _stop(self) -> None:
        """Close everything and let the last segments be stored."""
        for key in list(self._open):
            self._abandon(key)
        self._folder.disown()
        shipper = self._shipper
        if shipper is None or shipper.returncode is not None:
            return
        if shipper.stdin is not None:
            shipper.stdin.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await shipper.wait()
        except TimeoutError:
            _log.warning("the last segments of the prediction log stay in %s", self._folder.path)
            shipper.kill()
            await shipper.wait()

    def collect(self) -> Iterator[Metric]:
        """Return its metrics."""
        logged = CounterMetricFamily(f"{PREFIX}_log_rows", "Rows written to the prediction log")
        logged.add_metric([], self.logged)
        events = CounterMetricFamily(f"{PREFIX}_log_events", "Requests written to the log without rows")
        events.add_metric([], self.events)
        dropped = CounterMetricFamily(f"{PREFIX}_log_dropped", "What was not logged, by reason", labels=["reason"])
        for reason, count in self.dropped.items():
            dropped.add_metric([reason], count)
        waiting = GaugeMetricFamily(f"{PREFIX}_log_waiting_bytes", "Bytes that wait to be stored")
        waiting.add_metric([], sum(self._folder.closed().values()) if self._settings.log_uri else 0)
        labels = ["model", "version"]
        outliers = CounterMetricFamily(
            f"{PREFIX}_outlier_rows", "Rows with values that the training data does not cover", labels=labels
        )
        judged = CounterMetricFamily(f"{PREFIX}_judged_rows", "Rows compared with the training data", labels=labels)
        for key, (found, rows) in self.outliers.items():
            outliers.add_metric([key.model, key.version], found)
            judged.add_metric([key.model, key.version], rows)
        yield from (logged, events, dropped, waiting, outliers, judged)
