"""When predictions can be judged by labels that arrive later, and when the model counts as degraded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.metrics import metric_direction

MAX_WINDOWS = 20
"""Most windows that one check judges; the retrain ledger keeps a few more."""
MAX_WAITING = 100
"""Most windows that may wait for their labels at the same time."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Share = Annotated[float, Field(gt=0, le=1)]


class QualityLimit(Document):
    """A limit of one metric; exactly one of ``minimum``, ``maximum`` and ``largest_loss`` is given."""

    metric: Annotated[str, Field(min_length=1)]
    minimum: float | None = None
    maximum: float | None = None
    largest_loss: Annotated[float, Field(ge=0)] | None = None
    """By how much the metric may be worse than in the evaluation of the champion, in units of the metric."""

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        given = [name for name in ("minimum", "maximum", "largest_loss") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of minimum, maximum and largest_loss; got {', '.join(given) or 'none'}")
        return self

    @property
    def is_relative(self) -> bool:
        """Whether the limit depends on the evaluation of the champion."""
        return self.largest_loss is not None

    def bound(self, baseline: float | None) -> float | None:
        """Return the number that the metric is compared with; None when the baseline is needed and not known.

        :param baseline: the metric in the evaluation of the champion.
        """
        if self.largest_loss is None:
            return self.minimum if self.minimum is not None else self.maximum
        if baseline is None:
            return None
        return baseline - self.largest_loss if self.needs_at_least else baseline + self.largest_loss

    @property
    def needs_at_least(self) -> bool:
        """Whether the metric must be at least the bound; otherwise it must be at most the bound."""
        if self.largest_loss is not None:
            return metric_direction(self.metric) == "maximize"
        return self.minimum is not None


class TrafficLimits(Document):
    """Latency and errors of the logged requests, counted in windows of their own; they never decide the verdict."""

    window: timedelta = timedelta(minutes=5)
    """Length of a window; whole seconds."""
    largest_p95: Annotated[float, Field(gt=0)] | None = None
    """Seconds; a window is exceeded when its 95th percentile is above it."""
    largest_error_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of failed requests above which a window is exceeded."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window < timedelta(seconds=1) or self.window.microseconds:
            raise ValueError(
                f"window must be a whole number of seconds, at least 1; got {self.window.total_seconds():g} s"
            )
        return self


class QualityPolicy(Document):
    """When a window of predictions is judged, and by which limits."""

    limits: Annotated[tuple[QualityLimit, ...], Field(min_length=1)]
    """A window is degraded when one limit is broken, and not degraded when every limit is kept."""
    window: timedelta = timedelta(days=1)
    """Length of a window of prediction time. Windows start at whole multiples of it since 1970 in UTC."""
    windows: Annotated[int, Field(ge=1, le=MAX_WINDOWS)] = 7
    """How many of the newest windows whose label delay has passed are judged."""
    label_delay: timedelta = timedelta(0)
    """A window is judged only when this time has passed since its end."""
    min_labelled: Share = 0.8
    """A window with a smaller share of labelled predictions is inconclusive."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """A window with fewer labelled predictions is inconclusive."""
    largest_label_gap: Share = 0.1
    """Labels are biased when the labelled share of a group of predictions differs from that of the window by more."""
    min_group_rows: Annotated[int, Field(ge=1)] = 30
    """Groups with fewer predictions are not compared for bias."""
    largest_calibration_error: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Expected calibration error of the champion's evaluation up to which quality is estimated without labels."""
    traffic: TrafficLimits = TrafficLimits()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window < timedelta(minutes=1) or self.window.microseconds:
            raise ValueError(
                f"window must be a whole number of seconds, at least 60; got {self.window.total_seconds():g} s"
            )
        if self.label_delay < timedelta(0):
            raise ValueError(f"label_delay must be zero or longer; got {self.label_delay.total_seconds():g} s")
        if self.label_delay > self.window * MAX_WAITING:
            raise ValueError(
                f"label_delay must be at most {MAX_WAITING} windows; got {self.label_delay.total_seconds():g} s. "
                "All windows in it would wait for labels"
            )
        return self


class WindowBounds(NamedTuple):
    """One window of prediction time."""

    start: datetime
    """First moment in the window."""
    end: datetime
    """First moment after it."""
    is_due: bool
    """Whether the label delay has passed since its end."""


def window_bounds(policy: QualityPolicy, as_of: datetime) -> list[WindowBounds]:
    """Return the windows of a check, oldest first: those to judge, then those that wait for their labels.

    A window that has not ended is in neither group.

    :param policy: length and number of windows, and the label delay.
    :param as_of: the time of the check.
    """
    newest = (as_of - _EPOCH) // policy.window
    due = (as_of - policy.label_delay - _EPOCH) // policy.window
    return [
        WindowBounds(_EPOCH + number * policy.window, _EPOCH + (number + 1) * policy.window, number < due)
        for number in range(due - policy.windows, newest)
    ]


def window_name(start: datetime, window: timedelta) -> str:
    """Return the name of a window, the same in every check of the same length of window.

    :param start: its first moment.
    :param window: its length.
    """
    return f"quality {start:%Y-%m-%dT%H:%M:%SZ} {int(window.total_seconds())}s"
