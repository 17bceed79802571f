"""What a comparison of two datasets found, column by column, as a document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import Document
from airflow_mcp.core.drift.policy import METHODS, ComparisonPolicy, DriftMode, FindingKind
from airflow_mcp.core.drift.profile import ColumnKind, ColumnRole, ColumnType

RESULT_SCHEMA: Literal["airflow_mcp/drift_result/1"] = "airflow_mcp/drift_result/1"
DriftVerdict = Literal["drifted", "not_drifted", "inconclusive"]
OTHER = "(other)"
"""Name under which rare categories are counted together."""


class ColumnSide(Document):
    """One column in one of the two datasets."""

    type: str
    """As it was read."""
    kind: ColumnKind
    rows: int
    missing: int
    """Without a value, NaN included."""
    infinite: int = 0
    distinct: int | None = None
    """None when there are too many to have counted."""
    mean: float | None = None
    deviation: float | None = None
    """Standard deviation of the population."""
    minimum: float | None = None
    maximum: float | None = None


class ColumnHistogram(Document):
    """Both distributions in the same bins, as shares of all values, for a picture."""

    edges: tuple[float, ...] = ()
    """Of numbers: one more than bins, ascending. The outermost bins hold what lies beyond, too."""
    labels: tuple[str, ...] = ()
    """Of categories: the most frequent ones; the last may be ``(other)``."""
    reference: tuple[float, ...] = ()
    current: tuple[float, ...] = ()


class ColumnResult(Document):
    """One column compared."""

    column: str
    role: ColumnRole = "feature"
    type: ColumnType
    """What it was compared as."""
    method: str
    """The method that was used, never ``auto``; empty when it was not compared."""
    chosen: bool = False
    """Whether ``auto`` chose the method."""
    threshold: float | None = None
    score: float | None = None
    """p-value or distance; None when it could not be computed."""
    error: float | None = 0.0
    """The exact score differs by at most this much; 0 when this is it, None when there is no useful bound."""
    adjusted: float | None = None
    """p-value after the correction; it is what was judged."""
    drifted: bool | None = None
    """None when it is not known."""
    close: bool = False
    """Whether the exact score, within the error, could be on the other side of the threshold: compare in the mode
    ``exact`` to be sure."""
    weight: float = 1.0
    reference: ColumnSide | None = None
    """None when the column is not in the reference."""
    current: ColumnSide | None = None
    histogram: ColumnHistogram | None = None
    note: str = ""

    @property
    def severity(self) -> float:
        """How far beyond its threshold, 1 at the threshold; to sort by. Unknown columns come first."""
        judged = self.adjusted if self.adjusted is not None else self.score
        if judged is None or self.threshold is None:
            return float("inf")
        if self.is_p_value:
            return self.threshold / max(judged, 1e-300)
        return judged / self.threshold

    @property
    def is_p_value(self) -> bool:
        """Whether a small score means drift."""
        return self.method in METHODS and METHODS[self.method].score == "p_value"


class DriftFinding(Document):
    """Something about the data that is no test of a distribution."""

    kind: FindingKind
    column: str = ""
    """Empty for rows as a whole."""
    reference: float | None = None
    """Share in the reference, where the kind has one."""
    current: float | None = None
    limit: float | None = None
    exceeded: bool
    """Whether it is beyond its limit; changes of the schema always are."""
    message: str


class OutlierRow(Document):
    """One row of the current data that is unlike the reference."""

    score: float
    """Of the isolation forest: greater is more unlike; 0.5 is usual."""
    values: dict[str, float | None]
    """The numbers it was judged by."""


class Outliers(Document):
    """Rows of the current data that are unlike the rows of the reference."""

    rows: tuple[int, int]
    """Rows judged of reference and current data."""
    threshold: float
    """Score from which on a row is an outlier."""
    reference_share: float
    current_share: float
    examples: tuple[OutlierRow, ...] = ()


class DriftResult(Document):
    """Result of a comparison."""

    schema_: Literal["airflow_mcp/drift_result/1"] = Field(default=RESULT_SCHEMA, alias="schema")
    verdict: DriftVerdict
    reason: str
    """The verdict in words."""
    mode: DriftMode
    policy: ComparisonPolicy
    reference: tuple[DatasetPin, ...]
    """As used. Those of a profile are the data that it was made of."""
    current: tuple[DatasetPin, ...]
    reference_is_profile: bool
    current_is_profile: bool
    reference_rows: Annotated[int, Field(ge=0)]
    current_rows: Annotated[int, Field(ge=0)]
    columns: tuple[ColumnResult, ...]
    """In the order of the reference."""
    findings: tuple[DriftFinding, ...] = ()
    outliers: Outliers | None = None
    drifted_columns_count: int
    """Drifted features."""
    compared_columns_count: int
    """Features that could be compared."""
    drift_share: float | None
    """Weight of drifted features over that of compared ones; None when none was compared."""
    created_at: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
