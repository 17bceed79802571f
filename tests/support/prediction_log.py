"""Prediction logs as the model server writes them: its own form of rows, its own segments, shipped by its own step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mcp.core.serving.prediction_log import (
    ENV_LOG_URI,
    Answered,
    Event,
    LogForm,
    LogRule,
    events_header,
    segment_name,
)
from airflow_mcp.work.steps.ship_log import ship_log

COLUMNS = [("amount", "double"), ("country", "string")]


@dataclass(frozen=True)
class Logged:
    """One request and its answer.

    :param at: seconds since the epoch.
    :param prediction: as the model returned it; a list for a request of several rows.
    """

    request_id: str
    at: float
    prediction: Any
    row: tuple[Any, ...] = (1.0, "DE")
    version: str = "1"
    role: str = "champion"
    seconds: float = 0.002
    error: str = ""


def write_log(folder: Path, logged: Sequence[Logged], *, columns: Sequence[tuple[str, str]] = COLUMNS) -> str:
    """Write a log and return its address.

    :param folder: folder of this log; it may have one already, which then grows.
    """
    spool, store = folder / "spool", folder / "store"
    spool.mkdir(parents=True, exist_ok=True)
    form = LogForm(columns, [], LogRule())
    lines = [json.dumps(form.header("fraud", "1"))]
    for each in logged:
        predictions = each.prediction if isinstance(each.prediction, list) else [each.prediction]
        rows = [each.row] * len(predictions)
        answered = Answered(each.request_id, each.at, each.version, each.role, rows, predictions, each.seconds)
        lines += [json.dumps(record) for record in form.records(answered)]
    number = 1 + len(list(store.rglob("*.parquet")))
    (spool / segment_name(logged[0].at, number)).write_text("\n".join(lines) + "\n")
    ship_log(spool, "pod-a", {ENV_LOG_URI: str(store)}, once=True)
    return str(store)


def write_events(folder: Path, events: Sequence[Event]) -> None:
    """Add events to a log that :func:`write_log` has written, in the order in which they are named."""
    lines = [events_header("fraud"), *(event.record() for event in events)]
    (folder / "spool" / segment_name(events[0].at, 1)).write_text("\n".join(map(json.dumps, lines)) + "\n")
    ship_log(folder / "spool", "pod-a", {ENV_LOG_URI: str(folder / "store")}, once=True)
