"""Step ``ship-log``: turn closed segments of the prediction log into Parquet and store them.

The model server starts it and closes its standard input at the end. A segment is deleted after its object is complete.
The object's name follows from the segment's name and content, so a segment that is stored twice after a kill is one
object, also when another server with the same folder stores it the second time.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.serving.prediction_log import (
    ENV_LOG_URI,
    EVENT_COLUMNS,
    LOG_COLUMNS,
    is_closed_segment,
    object_path,
)
from airflow_mcp.exceptions import DataUnreachableError, InvalidArgumentError

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
"""Seconds between two looks for closed segments."""
_LOCAL = ("file", "local")


class _Segment(NamedTuple):
    header: Mapping[str, Any]
    records: list[dict[str, Any]]
    unreadable: int

    @property
    def has_events(self) -> bool:
        """Whether it holds events instead of rows."""
        return bool(self.header.get("events"))


def ship_log(folder: Path, pod: str, environ: Mapping[str, str], *, once: bool = False) -> int:
    """Store closed segments until standard input ends, and then once more.

    :param folder: folder of the segments.
    :param pod: name of this server among its replicas.
    :param environ: environment variables. :data:`ENV_LOG_URI` is the address below which the objects are stored,
        as fsspec reads it. It may hold credentials, so it is not an argument of the command line.
    :param once: whether to store what is there and return.
    :return: exit code.
    :raises InvalidArgumentError: when the address cannot be used.
    :raises DataUnreachableError: at the end, when segments are left that could not be stored.
    """
    uri = environ.get(ENV_LOG_URI, "")
    if not uri:
        raise InvalidArgumentError(f"{ENV_LOG_URI} must be the address of the prediction log; got none")
    store = _Store(uri)
    while not once and not _input_has_ended():
        ship_segments(folder, store, pod)
    left = ship_segments(folder, store, pod)
    if left:
        raise DataUnreachableError(
            f"{left} segments of the prediction log could not be stored in {public_uri(uri)}. They stay in {folder}, "
            "and the next server with this folder stores them"
        )
    return 0


def ship_segments(folder: Path, store: _Store, pod: str) -> int:
    """Store every closed segment, the oldest first, and stop at the first that cannot be stored.

    :return: number of segments that are left.
    """
    names = sorted(path.name for path in folder.glob("*") if is_closed_segment(path.name))
    for done, name in enumerate(names):
        try:
            _ship(folder / name, store, pod)
        except FileNotFoundError:
            continue  # the server made room while the store was away
        except OSError as error:
            _log.warning("the prediction log cannot be stored in %s: %s", store.name, type(error).__name__)
            return len(names) - done
    return 0


def _ship(path: Path, store: _Store, pod: str) -> None:
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another server with this folder is storing it
        if not path.exists():
            return  # it has been stored
        _ship_locked(path, store, pod)


def _ship_locked(path: Path, store: _Store, pod: str) -> None:
    segment = _read(path)
    if segment is None or not segment.records:
        _log.warning("segment %s holds no rows and is deleted", path.name)
        path.unlink()
        return
    if segment.unreadable:
        _log.warning("segment %s: %d lines cannot be read and are left out", path.name, segment.unreadable)
    place = object_path(
        str(segment.header["model"]), path.name, str(segment.header.get("pod") or pod), events=segment.has_events
    )
    store.put(place, _parquet(_table(segment, _event_fields() if segment.has_events else _fields(segment))))
    path.unlink()
    _log.info("%d rows stored as %s", len(segment.records), place)


def _read(path: Path) -> _Segment | None:
    """Read a segment; None when it has no header. The last line of a server that was killed may be torn."""
    with path.open("rb") as stream:
        records = list(_lines(stream))
    header = records[0] if records else None
    if not isinstance(header, dict):
        return None
    if not ({"model", "names", "types"} <= header.keys() or {"model", "events"} <= header.keys()):
        return None
    rows = [record for record in records[1:] if isinstance(record, dict)]
    return _Segment(header, rows, len(records) - 1 - len(rows))


def _lines(stream: Any) -> Iterator[Any]:
    for line in stream:
        try:
            yield json.loads(line)
        except ValueError:
            yield None


def _table(segment: _Segment, fields: list[tuple[str, pa.DataType]]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    columns = [_column([record.get(name) for record in segment.records], kind) for name, kind in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _event_fields() -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa  # noqa: PLC0415

    types = {"requested_at": pa.timestamp("us", tz="UTC"), "status": pa.int32(), "latency_ms": pa.float64()}
    return [(name, types.get(name, pa.string())) for name in EVENT_COLUMNS]


def _fields(segment: _Segment) -> list[tuple[str, pa.DataType]]:
    """Return the columns of rows with the types of the signature, the same for every segment of a version."""
    import pyarrow as pa  # noqa: PLC0415

    types: Mapping[str, pa.DataType] = {
        "boolean": pa.bool_(),
        "integer": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
    }
    ours: Mapping[str, pa.DataType] = {
        "row": pa.int32(),
        "requested_at": pa.timestamp("us", tz="UTC"),
        "prediction": types.get(segment.header.get("prediction", ""), pa.string()),
        "probability": pa.float64(),
        "latency_ms": pa.float64(),
    }
    names: Mapping[str, str] = segment.header["names"]
    fields = [(name, types.get(kind, pa.string())) for name, kind in segment.header["types"].items()]
    fields += [(names[name], ours.get(name, pa.string())) for name in LOG_COLUMNS]
    prediction = names["prediction"]
    if not segment.header.get("prediction"):
        fields = [(name, _type_of(segment.records, name) if name == prediction else kind) for name, kind in fields]
    return fields


def _type_of(records: list[dict[str, Any]], name: str) -> pa.DataType:
    """Return the type of predictions whose signature names none."""
    import pyarrow as pa  # noqa: PLC0415

    values = [record.get(name) for record in records if record.get(name) is not None]
    if values and all(isinstance(value, bool) for value in values):
        return pa.bool_()
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        are_whole = all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in values)
        return pa.int64() if are_whole else pa.float64()
    return pa.string()


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    import pandas as pd  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_timestamp(kind):
        return pa.array(pd.to_datetime(values, utc=True, format="ISO8601"), type=kind)
    if pa.types.is_string(kind):
        return pa.array([None if value is None else _text(value) for value in values], type=kind)
    try:
        return pa.array(values, type=kind, safe=False)
    except (pa.ArrowException, OverflowError):
        return pa.array([_fitting(value, kind) for value in values], type=kind, safe=False)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """Return a value that a column of numbers can hold; null for one that does not fit, so the others are stored."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(value, int) and not isinstance(value, bool):
        if pa.types.is_floating(kind):
            return float(value) if abs(value) < 1 << 1023 else None
        return value if -(1 << (kind.bit_width - 1)) <= value < 1 << (kind.bit_width - 1) else None
    return None if isinstance(value, str) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


class _Store:
    """Where the objects are kept."""

    def __init__(self, uri: str) -> None:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415

        self.name = public_uri(uri)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(uri)
        except (ValueError, ImportError) as error:
            raise InvalidArgumentError(
                f"the address of the prediction log must be one that fsspec can use; got {self.name}: "
                f"{type(error).__name__}. Nothing was stored"
            ) from None
        protocol = self._fs.protocol
        names = (protocol,) if isinstance(protocol, str) else protocol
        self._is_local = any(name in _LOCAL for name in names)

    def put(self, place: str, content: bytes) -> None:
        """Store an object that is complete as soon as it is seen; one of the same name is replaced.

        :raises OSError: when it cannot be stored.
        """
        path = f"{self._root.rstrip('/')}/{place}"
        try:
            if not self._is_local:
                self._fs.pipe_file(path, content)
                return
            folder, _, name = path.rpartition("/")
            self._fs.makedirs(folder, exist_ok=True)
            part = f"{folder}/_{name}.{uuid4().hex}"
            self._fs.pipe_file(part, content)
            self._fs.mv(part, path)
        except FileNotFoundError as error:  # of the store, not of the segment
            raise OSError(str(error)) from error
        except OSError:
            raise
        except Exception as error:  # whatever the library of the store raises
            raise OSError(f"{type(error).__name__}: {error}") from error


def _input_has_ended() -> bool:
    """Wait a little; return whether the server has closed this process's standard input."""
    readable, _, _ = select.select([sys.stdin], [], [], LOOK_SECONDS)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)
