"""Sends samples to where Airflow sends its own metrics, as its section ``[metrics]`` says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from airflow.sdk import conf
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    DagRunTriggerException,
    TaskAwaitingInput,
    TaskDeferred,
)
from airflow.sdk.observability.stats import Stats, normalize_name_for_stats

from airflow_mcp.exceptions import MlflowError, RefusedError
from airflow_mcp.metrics.catalogue import METRICS, PREFIX, Outcome
from airflow_mcp.metrics.tasks import Sample

log = logging.getLogger(__name__)
_SECTION = "metrics"
_LONGEST = 100
"""Characters of the value of a tag: Airflow sends nothing whose name and tags have more than 250 together."""


@contextmanager
def reported(report: Callable[[Outcome], Iterable[Sample]]) -> Iterator[None]:
    """Send samples when the work inside has ended; a task that goes on later has not ended.

    :param report: returns the samples for how it ended.
    """
    try:
        yield
    except BaseException as error:
        ended = ending_of(error)
        if ended is not None:
            publish(report(ended))
        raise
    publish(report("succeeded"))


def ending_of(error: BaseException) -> Outcome | None:
    """Return how a task ends with an error; None when it only waits.

    :param error: what it has raised.
    """
    if isinstance(error, TaskDeferred | TaskAwaitingInput):
        return None
    if isinstance(error, DagRunTriggerException):  # how an operator asks Airflow for a Dag run
        return "succeeded"
    if isinstance(error, AirflowSkipException):
        return "skipped"
    is_final = isinstance(error, MlflowError) and error.is_final
    return "refused" if is_final or isinstance(error, RefusedError | AirflowFailException) else "failed"


def publish(samples: Iterable[Sample]) -> None:
    """Send samples; a failure is logged and changes nothing, because the work that they are about is done.

    :param samples: what is sent. Where Airflow sends no tags, their values become the last parts of the name.
    """
    try:
        is_tagged = sends_tags()
        for sample in samples:
            tags = {
                tag: normalize_name_for_stats(value[:_LONGEST], False) or "none" for tag, value in sample.tags.items()
            }
            _send(sample, tags, is_tagged=is_tagged)
    except Exception as error:
        log.warning("metrics could not be sent: %s: %s", type(error).__name__, error)


def sends_tags() -> bool:
    """Return whether Airflow sends tags; plain StatsD has none."""
    names = ("otel_on", "statsd_influxdb_enabled", "statsd_datadog_enabled")
    return any(conf.getboolean(_SECTION, name, fallback=False) for name in names)


def _send(sample: Sample, tags: dict[str, str], *, is_tagged: bool) -> None:
    metric, name = METRICS[sample.metric], PREFIX + sample.metric
    if not is_tagged:
        ordered = [tags["model"], *(tags[tag] for tag in metric.tags)]
        name, tags = ".".join((name, *(value.replace(".", "_") for value in ordered))), {}
    if metric.kind == "counter":
        Stats.incr(name, int(sample.value), tags=tags)
    elif metric.kind == "gauge":
        Stats.gauge(name, sample.value, tags=tags)
    else:
        Stats.timing(name, sample.value, tags=tags)
