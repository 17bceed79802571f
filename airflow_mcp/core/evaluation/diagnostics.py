"""What a metric alone does not say about a model: confusions, calibration, residuals, and how long answers take.

All of it is bounded, whatever the number of rows or classes, so that evidence stays small.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airflow_mcp.core.document import Document

Count = Annotated[int, Field(ge=0)]
MAX_CLASSES = 20
"""Rows and columns of a confusion matrix at most; the smallest classes share the last one when there are more."""
MAX_CONFUSIONS = 20
CALIBRATION_BINS = 10
HISTOGRAM_BINS = 30


class Histogram(Document):
    """How often values fall between edges; an edge belongs to the bin on its right, the last one to its left."""

    edges: Annotated[tuple[float, ...], Field(min_length=2)]
    """Ascending, in units of the values."""
    counts: tuple[Count, ...]
    """One per bin."""
    below: Count = 0
    """Values under the first edge."""
    above: Count = 0
    """Values over the last edge."""
    minimum: float
    """Of all values, also those outside the edges."""
    maximum: float

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if len(self.counts) != len(self.edges) - 1 or list(self.edges) != sorted(self.edges):
            raise ValueError("a histogram needs ascending edges and one count less than edges")
        return self


class Confusion(Document):
    """One class taken for another."""

    true: str
    predicted: str
    rows: Count


class ConfusionMatrix(Document):
    """How often each class is predicted as each class."""

    labels: tuple[str, ...]
    """Classes in their order; the last one stands for several when ``folded`` is not 0."""
    counts: tuple[tuple[Count, ...], ...]
    """Rows of the data: one line per true class, one column per predicted class."""
    folded: Count = 0
    """How many small classes the last line and column stand for."""
    largest: tuple[Confusion, ...] = ()
    """The most frequent confusions of single classes, of all classes."""

    @model_validator(mode="after")
    def _be_square(self) -> Self:
        if {len(line) for line in self.counts} | {len(self.counts)} != {len(self.labels)}:
            raise ValueError("a confusion matrix needs one line and one column per label")
        return self


class CalibrationBin(Document):
    """Rows whose probability lies above ``low``, up to and including ``high``; the first bin includes 0."""

    low: float
    high: float
    rows: Count
    positives: Count
    """Rows among them in which the event happened."""
    mean_probability: float | None
    """None without rows."""


class Calibration(Document):
    """Do events of which the model says 70 % happen in 70 % of the cases?

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
    """Between which measured calls the true percentile lies, without any assumption about their distribution."""

    low: float | None
    """Milliseconds; None where there are too few calls to give an end."""
    high: float | None


class LatencyEvidence(Document):
    """The load probe: single rows, one call after the other, in milliseconds."""

    calls: Annotated[int, Field(ge=1)]
    warmup: Count
    histogram: Histogram
    intervals: dict[str, PercentileInterval] = Field(default_factory=dict)
    """By metric, such as ``latency_ms_p99``: from order statistics (Hahn and Meeker 1991, section 5.2)."""
    confidence: float
