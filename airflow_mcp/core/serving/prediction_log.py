"""The prediction log: one row per predicted row, in the form that replays and drift checks read.

A row holds every input column under its own name, and the columns of :data:`LOG_COLUMNS`. Where a signature has one of
those names, all of ours get a prefix for that model, so that the model's own names never change.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

LOG_COLUMNS = (
    *("request_id", "row", "requested_at", "model_version", "role", "prediction", "probability", "latency_ms"),
)
"""Columns that are not inputs of the model."""
EVENT_COLUMNS = ("request_id", "requested_at", "model_version", "role", "status", "error", "latency_ms")
"""Columns of an event: a request without a row in the log, because it failed or its rows cannot be logged."""
EVENTS = "_events"
"""Folder of the events below the address of the log; readers of rows pass over it, as its name begins with ``_``."""
_MODEL = "model="
PREFIX = "mcp_"
_LONGEST_PREFIX = 10
ENV_LOG_URI = "AIRFLOW_MCP_SERVING_LOG_URI"
"""Environment variable with the address below which the log is stored."""
OPEN = "_open-"
"""Begins the name of a segment that is being written; readers pass over names that begin with ``_``."""
SEGMENT_SUFFIX = ".jsonl"
MAX_SEGMENT_BYTES = 64 * 1024 * 1024
MAX_SEGMENT_SECONDS = 60.0
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
"""Also ``~``, which begins what stands for such a character."""


def our_columns(inputs: Iterable[str]) -> dict[str, str]:
    """Return the names of our columns beside some input columns, by their names in :data:`LOG_COLUMNS`.

    :param inputs: names of all other columns.
    """
    taken, prefix = set(inputs), ""
    while any(prefix + name in taken for name in LOG_COLUMNS):
        prefix += PREFIX
    return {name: prefix + name for name in LOG_COLUMNS}


def find_our_columns(columns: Iterable[str]) -> dict[str, str]:
    """Return the names of our columns in a log, by their names in :data:`LOG_COLUMNS`.

    :param columns: names of all columns of the log.
    :return: empty when it is not a prediction log.
    """
    present = set(columns)
    found: dict[str, str] = {}
    for depth in range(_LONGEST_PREFIX):
        names = {name: PREFIX * depth + name for name in LOG_COLUMNS}
        if all(names[name] in present for name in ("request_id", "row", "requested_at")):
            found = names  # ours are those with the longest prefix, the others are the model's
    return {name: column for name, column in found.items() if column in present}


@dataclass(frozen=True)
class LogRule:
    """What is written of a request."""

    exclude: frozenset[str] = frozenset()
    """Input columns that are left out."""
    hashed: frozenset[str] = frozenset()
    """Input columns of which only a keyed hash is written, so that rows of one person still belong together."""
    key: bytes = field(default=b"", repr=False)
    """Key of the hash: without it, values that are easily guessed could be found out."""

    def unknown(self, columns: Iterable[str]) -> list[str]:
        """Return the columns that the rule names and a signature does not have, so that it cannot be applied.

        :param columns: names of all columns of the signature.
        """
        return sorted((self.exclude | self.hashed).difference(columns))


class Answered(NamedTuple):
    """One request and its answer."""

    request_id: str
    at: float
    """When it arrived, in seconds since the epoch."""
    version: str
    role: str
    rows: Sequence[Sequence[Any]]
    """The rows, each with a value per column of the form."""
    predictions: Sequence[Any]
    """One for each row."""
    seconds: float


class Event(NamedTuple):
    """One request without a row in the log."""

    request_id: str
    at: float
    """When it arrived, in seconds since the epoch."""
    version: str
    """The version that was asked; empty when none could be."""
    role: str
    status: int
    """HTTP status of the answer."""
    error: str
    """Code of the error; empty for an answer."""
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return the event, to be written as JSON."""
        values = (self.request_id, _time_text(self.at), self.version, self.role, self.status, self.error)
        return dict(zip(EVENT_COLUMNS, (*values, round(self.seconds * 1000, 3)), strict=True))


def events_header(model: str) -> dict[str, Any]:
    """Return the first line of a segment of events.

    :param model: name of the registered model.
    """
    return {"model": model, "events": True}


def events_of(uri: str) -> str:
    """Return where the events of a prediction log are.

    :param uri: address of the log, or of a part of it.
    """
    parts = uri.rstrip("/").split("/")
    place = next((number for number, part in enumerate(parts) if part.startswith(_MODEL)), len(parts))
    return "/".join((*parts[:place], EVENTS, *parts[place:]))


def _time_text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")


class LogForm:
    """How rows of one version are written.

    :param columns: input columns with MLflow's names of their types, in the order of the rows.
    :param outputs: MLflow's names of the types of the outputs.
    :param rule: what is written of the inputs.
    """

    def __init__(self, columns: Sequence[tuple[str, str]], outputs: Sequence[str], rule: LogRule) -> None:
        self._rule = rule
        self._names = our_columns(name for name, _ in columns)
        self._kept = [(position, name) for position, (name, _) in enumerate(columns) if name not in rule.exclude]
        self._is_whole = len(self._kept) == len(columns)
        self._inputs = tuple(name for _, name in self._kept)
        self._hashed = tuple(name for name in self._inputs if name in rule.hashed)
        self.types: dict[str, str] = {
            name: "string" if name in rule.hashed else kind for name, kind in columns if name not in rule.exclude
        }
        """MLflow's type of each input column that is written."""
        self._prediction_type = outputs[0] if len(outputs) == 1 else ""

    def header(self, model: str, version: str) -> dict[str, Any]:
        """Return the first line of a segment: what the rows are, for the process that turns them into Parquet.

        :param model: name of the registered model.
        :param version: number of the version.
        """
        return {
            "model": model,
            "version": version,
            "names": self._names,
            "types": self.types,
            "prediction": self._prediction_type,
        }

    def records(self, answered: Answered, positions: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a request, to be written as JSON.

        :param answered: the request and its answer.
        :param positions: which columns the rows have, if not all; the others are null.
        """
        names, inputs = self._names, self._inputs
        where = None if positions is None else {column: index for index, column in enumerate(positions)}
        same = {
            names["request_id"]: answered.request_id,
            names["requested_at"]: _time_text(answered.at),
            names["model_version"]: answered.version,
            names["role"]: answered.role,
            names["latency_ms"]: round(answered.seconds * 1000, 3),
        }
        row_name, prediction_name, probability_name = names["row"], names["prediction"], names["probability"]
        records = []
        for number, row in enumerate(answered.rows):
            record: dict[str, Any] = dict(zip(inputs, self._values(row, where), strict=True))
            for name in self._hashed:
                record[name] = self._hash(record[name])
            record.update(same)
            record[row_name] = number
            record[prediction_name], record[probability_name] = _prediction(answered.predictions[number])
            records.append(record)
        return records

    def _values(self, row: Sequence[Any], where: Mapping[int, int] | None) -> Iterable[Any]:
        """Return the values of the columns that are written, in their order."""
        if where is None:
            return row if self._is_whole else (row[position] for position, _ in self._kept)
        places = (where.get(position) for position, _ in self._kept)
        return (None if index is None else row[index] for index in places)

    def _hash(self, value: Any) -> str | None:
        if value is None:
            return None
        return hashlib.blake2b(
            str(value).encode("utf-8", "surrogatepass"), key=self._rule.key[:64], digest_size=16
        ).hexdigest()


def _prediction(answer: Any) -> tuple[Any, float | None]:
    """Return the prediction of one row, and its probability if the model returns both."""
    if isinstance(answer, dict) and "prediction" in answer:
        given = answer.get("probability")
        probability = float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None
        return _scalar(answer["prediction"]), probability
    return _scalar(answer), None


def _scalar(value: Any) -> Any:
    """Return a value that a column can hold: a list or an object is written as JSON."""
    if isinstance(value, list | dict | tuple):
        # A model with one output column returns lists of one value.
        return value[0] if len(value) == 1 and isinstance(value, list) else json.dumps(value)
    return value


def segment_name(opened_at: float, number: int, owner: str = "") -> str:
    """Return the name of a closed segment.

    :param opened_at: when it was opened, in seconds since the epoch.
    :param number: number of the segment in its process.
    :param owner: the process, among those that share a folder.
    """
    return f"{int(opened_at * 1000):013d}-{number}{'-' if owner else ''}{owner}{SEGMENT_SUFFIX}"


def is_closed_segment(name: str) -> bool:
    """Return whether a file is a segment that nobody writes any more.

    :param name: name of the file.
    """
    return name.endswith(SEGMENT_SUFFIX) and not name.startswith("_")


def owner_of(segment: str) -> str:
    """Return the owner of an open segment; empty when its name has none.

    :param segment: name of the segment, with :data:`OPEN`.
    """
    return segment.removeprefix(OPEN).removesuffix(SEGMENT_SUFFIX).partition("-")[2].partition("-")[2]


def object_path(model: str, segment: str, pod: str, *, events: bool = False) -> str:
    """Return where the rows of a segment are kept, below the address of the log.

    :param model: name of the registered model.
    :param segment: name of the closed segment.
    :param pod: name of this server among its replicas.
    :param events: whether the segment holds events.
    """
    milliseconds, _, number = segment.removesuffix(SEGMENT_SUFFIX).partition("-")
    opened = datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    folder = f"{EVENTS + '/' if events else ''}{_MODEL}{safe_name(model)}/date={opened:%Y-%m-%d}/hour={opened:%H}"
    return f"{folder}/{milliseconds}-{safe_name(pod)}-{number}.parquet"


def safe_name(text: str) -> str:
    """Return a name without characters that mean something in a path; different texts have different names."""
    name = _UNSAFE.sub(_escaped, text)
    return name if name.strip(".") else "~" + name.replace(".", "~2E")


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def oldest_beyond(sizes: Mapping[str, int], limit: int) -> list[str]:
    """Return which segments must go so that the others fit.

    :param sizes: bytes of each closed segment by name; names sort by time.
    :param limit: bytes that may remain.
    """
    gone, total = [], sum(sizes.values())
    for name in sorted(sizes):
        if total <= limit:
            break
        gone.append(name)
        total -= sizes[name]
    return gone
