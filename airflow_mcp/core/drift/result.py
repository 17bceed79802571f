"""The result of comparing two datasets, column by column."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import Document
from airflow_mcp.core.drift.policy import METHODS, ComparisonPolicy, DriftPrecision, FindingKind
from airflow_mcp.core.drift.profile import ColumnKind, ColumnRole, ColumnType

RESULT_SCHEMA: Literal["airflow_mcp/drift_result/1"] = "airflow_mcp/drift_result/1"
DriftVerdict = Literal["drifted", "not_drifted", "inconclusive"]
OTHER = "(other)"
"""Name for all rare categories together."""


class ColumnSide(Document):
    """One column in one of the two datasets."""

    type: str
    """Type as read."""
    kind: ColumnKind
    rows: int
    missing: int
    """Rows without a value, including NaN."""
    infinite: int = 0
    distinct: int | None = None
    """None when there are too many to count."""
    mean: float | None = None
    deviation: float | None = None
    """Standard deviation of the population."""
    minimum: float | None = None
    maximum: float | None = None


class ColumnHistogram(Document):
    """Both distributions in the same bins, as shares of all values, for a picture."""

    edges: tuple[float, ...] = ()
    """Bin edges of numbers, ascending. The outermost bins also hold the values beyond them."""
    labels: tuple[str, ...] = ()
    """Most frequent categories; the last may be ``(other)``."""
    reference: tuple[float, ...] = ()
    current: tuple[float, ...] = ()


class ColumnResult(Document):
    """One column compared."""

    column: str
    role: ColumnRole = "feature"
    type: ColumnType
    """Type it was compared as."""
    method: str
    """Method used, never ``auto``; empty when not compared."""
    chosen: bool = False
    """Whether ``auto`` chose the method."""
    threshold: float | None = None
    score: float | None = None
    """p-value or distance; None when it could not be computed."""
    error: float | None = 0.0
    """Largest difference to the exact score; 0 when the score is exact, None when there is no useful bound."""
    adjusted: float | None = None
    """p-value after the correction, by which the column was judged."""
    drifted: bool | None = None
    """None when not known."""
    close: bool = False
    """Whether the exact score, within the error, could be on the other side of the threshold: compare with
    ``precision="exact"`` to be sure."""
    weight: float = 1.0
    reference: ColumnSide | None = None
    """None when the reference lacks the column."""
    current: ColumnSide | None = None
    histogram: ColumnHistogram | None = None
    note: str = ""

    @property
    def severity(self) -> float:
        """Distance from the threshold, 1 at the threshold, to sort by. Unknown columns come first."""
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
    """An observation on the data other than the test of a distribution."""

    kind: FindingKind
    column: str = ""
    """Empty for a finding on whole rows."""
    reference: float | None = None
    """Share in the reference, for kinds that have one."""
    current: float | None = None
    limit: float | None = None
    exceeded: bool
    """Whether it exceeds its limit; changes of the schema always do."""
    message: str


class OutlierRow(Document):
    """One row of the current data that is unlike the reference."""

    score: float
    """Score of the isolation forest: larger is more unlike; 0.5 is usual."""
    values: dict[str, float | None]
    """Numeric values of the row."""


class Outliers(Document):
    """Rows of the current data that are unlike the rows of the reference."""

    rows: tuple[int, int]
    """Number of judged rows of reference and current data."""
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
    precision: DriftPrecision
    policy: ComparisonPolicy
    reference: tuple[DatasetPin, ...]
    """The data that was compared; for a profile the data it was made from."""
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
    """Number of compared features."""
    drift_share: float | None
    """Weight of drifted features divided by the weight of compared ones; None when none was compared."""
    created_at: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
