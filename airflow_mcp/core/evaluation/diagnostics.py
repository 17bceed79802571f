"""Diagnostics of a model beyond its metrics: confusion matrix, calibration, residuals and latency.

All of it is bounded, whatever the number of rows or classes, so that evidence stays small.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airflow_mcp.core.document import Document

Count = Annotated[int, Field(ge=0)]
MAX_CLASSES = 20
"""Largest number of rows and columns of a confusion matrix; further, smaller classes share the last one."""
MAX_CONFUSIONS = 20
CALIBRATION_BINS = 10
HISTOGRAM_BINS = 30


class Histogram(Document):
    """A histogram. An edge belongs to the bin on its right, the last edge to the bin on its left."""

    edges: Annotated[tuple[float, ...], Field(min_length=2)]
    """Bin edges, ascending, in units of the values."""
    counts: tuple[Count, ...]
    """Number of values per bin."""
    below: Count = 0
    """Number of values below the first edge."""
    above: Count = 0
    """Number of values above the last edge."""
    minimum: float
    """Smallest of all values, including those outside the edges."""
    maximum: float

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if len(self.counts) != len(self.edges) - 1 or list(self.edges) != sorted(self.edges):
            raise ValueError("a histogram needs ascending edges and one count less than edges")
        return self


class Confusion(Document):
    """A class predicted as another class."""

    true: str
    predicted: str
    rows: Count


class ConfusionMatrix(Document):
    """A confusion matrix."""

    labels: tuple[str, ...]
    """Classes in order; the last one stands for several when ``folded`` is not 0."""
    counts: tuple[tuple[Count, ...], ...]
    """Counts: one row per true class, one column per predicted class."""
    folded: Count = 0
    """Number of small classes in the last row and column."""
    largest: tuple[Confusion, ...] = ()
    """Most frequent confusions of two classes, over all classes."""

    @model_validator(mode="after")
    def _be_square(self) -> Self:
        if {len(line) for line in self.counts} | {len(self.counts)} != {len(self.labels)}:
            raise ValueError("a confusion matrix needs one line and one column per label")
        return self


class CalibrationBin(Document):
    """Rows with a probability above ``low``, up to and including ``high``; the first bin includes 0."""

    low: float
    high: float
    rows: Count
    positives: Count
    """Rows of the bin in which the event happened."""
    mean_probability: float | None
    """None without rows."""


class Calibration(Document):
    """Calibration of probabilities: do events predicted with 70 % happen in 70 % of the cases?

    With two classes the event is the positive class; with more it is "the predicted class is right".
    """

    event: Literal["positive_class", "predicted_class"]
    bins: tuple[CalibrationBin, ...]
    ece: float
    """Expected calibration error, ``Σ rows/n · |share - mean probability|`` over bins of equal width (Naeini, Cooper
    and Hauskrecht 2015; for several classes Guo et al. 2017)."""
    brier: float
    """Mean of ``(probability - happened)²``, with more than two classes summed over them: 0 to 2 (Brier 1950)."""


class PercentileInterval(Document):
    """Interval of a percentile from order statistics, without assumptions on the distribution."""

    low: float | None
    """Milliseconds; None when there are too few calls for this end."""
    high: float | None


class LatencyEvidence(Document):
    """Latency of calls with one row each, one after the other, in milliseconds."""

    calls: Annotated[int, Field(ge=1)]
    warmup: Count
    histogram: Histogram
    intervals: dict[str, PercentileInterval] = Field(default_factory=dict)
    """Intervals by metric, such as ``latency_ms_p99``, from order statistics (Hahn and Meeker 1991, section 5.2)."""
    confidence: float
