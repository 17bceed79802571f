"""The request and the summary of a drift check, as the two planes exchange them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airflow_mcp.core.data.logged_requests import CHAMPION_ROLES, LogRoles
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import CheckRequest, Document, parse_document
from airflow_mcp.core.drift.policy import METHODS, ComparisonPolicy
from airflow_mcp.core.drift.profile import ColumnType
from airflow_mcp.core.drift.result import ColumnResult, DriftResult, DriftVerdict
from airflow_mcp.core.engine import Engine

DRIFT_SCHEMA: Literal["airflow_mcp/drift/2"] = "airflow_mcp/drift/2"
"""The version that is written; version 1, with Evidently's result only, can be read."""
_SCHEMA_1 = b'"airflow_mcp/drift/1"'
_SHOWN = 12


class DriftSide(Document):
    """One of the two datasets."""

    data: tuple[DatasetPin, ...] = ()
    """Files, folders, globs or URLs, read as one dataset."""
    requests: str = ""
    """Prediction log of the model server: file, folder, glob or URL. Columns of the server itself are not compared."""
    roles: LogRoles = CHAMPION_ROLES
    """Roles whose rows of such a log are compared."""
    profiles: tuple[str, ...] = ()
    """Stored profiles, merged: ``runs:/<run id>/<artifact>``, paths or URLs. Where there are any, they are compared; of
    the data only a sample is drawn for Evidently's report."""

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if not (self.data or self.profiles or self.requests):
            raise ValueError("give data, profiles or requests")
        return self


class DriftRequest(CheckRequest):
    """The request of the step ``drift``."""

    identity: str
    run_id: str
    """MLflow run of the check."""
    model_name: str = ""
    """Registered model, for the report."""
    reference: DriftSide
    current: DriftSide
    policy: ComparisonPolicy
    evidently_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Rows sampled from each dataset for Evidently's HTML report; 0 makes no such report."""
    engine: Engine = "local"
    """What reads the data; the address of a cluster is in ``AIRFLOW_MCP_ENGINE_ADDRESS``."""


class EvidentlySample(Document):
    """The rows behind Evidently's report, which is not used for the verdict."""

    reference_rows: int
    current_rows: int
    is_complete: bool
    """Whether these are all rows of both datasets."""
    note: str = ""
    """Why there is no report, or what it does not contain."""


class DriftSummary(Document):
    """Result of a drift check, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_DRIFT_SUMMARY`."""

    schema_: Literal["airflow_mcp/drift/2"] = Field(default=DRIFT_SCHEMA, alias="schema")
    identity: str
    run_id: str
    """MLflow run of the check; empty, like the identity, for a check on the command line without MLflow."""
    model_name: str = ""
    result: DriftResult
    reference_profiles: tuple[str, ...] = ()
    """Stored profiles that served as reference."""
    evidently: EvidentlySample | None = None
    """None when no such report was requested."""

    @property
    def drifted_columns(self) -> list[str]:
        """Names of the columns that drifted, worst first."""
        return [column.column for column in by_severity(self.result.columns) if column.drifted]


def by_severity(columns: tuple[ColumnResult, ...]) -> list[ColumnResult]:
    """Sort columns for a report: drifted, then unknown, then the others; each group worst first."""
    rank = {True: 0, None: 1, False: 2}
    return sorted(columns, key=lambda column: (rank[column.drifted], -column.severity, column.column))


def read_drift_summary(text: bytes, source: str) -> DriftSummary:
    """Read the summary of a drift check, of any version.

    :param text: JSON text.
    :param source: where it came from, for the message.
    :raises EvidenceError: when it is not such a summary.
    """
    if _SCHEMA_1 in text[:200]:
        return parse_document(_DriftSummary1, text, source).as_now()
    return parse_document(DriftSummary, text, source)


def name_some(columns: list[str]) -> str:
    """Return the names of columns, shortened to a few."""
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return ", ".join(columns[:_SHOWN]) + more


# --- version 1 -----------------------------------------------------------------------------------------------------


class _ColumnDrift1(Document):
    column: str
    type: ColumnType
    method: str
    threshold: float
    score: float | None
    drifted: bool | None
    note: str = ""

    def as_now(self) -> ColumnResult:
        method = self.method if self.method in METHODS else ""
        given = self.model_dump(exclude={"method"})
        return ColumnResult(**given, method=method, error=None)


class _DriftSummary1(Document):
    schema_: Literal["airflow_mcp/drift/1"] = Field(alias="schema")
    identity: str
    run_id: str
    verdict: DriftVerdict
    reason: str
    reference: DatasetPin
    current: DatasetPin
    reference_rows: int
    current_rows: int
    columns: tuple[_ColumnDrift1, ...]
    drifted_columns_count: int
    drift_share: float | None
    drift_share_threshold: float
    created_at: str
    environment: dict[str, str] = Field(default={})

    def as_now(self) -> DriftSummary:
        result = DriftResult(
            verdict=self.verdict,
            reason=self.reason,
            precision="exact",
            policy=ComparisonPolicy(precision="exact", drift_share=self.drift_share_threshold),
            reference=(self.reference,),
            current=(self.current,),
            reference_is_profile=False,
            current_is_profile=False,
            reference_rows=self.reference_rows,
            current_rows=self.current_rows,
            columns=tuple(column.as_now() for column in self.columns),
            drifted_columns_count=self.drifted_columns_count,
            compared_columns_count=sum(column.drifted is not None for column in self.columns),
            drift_share=self.drift_share,
            created_at=self.created_at,
            environment=self.environment,
        )
        return DriftSummary(identity=self.identity, run_id=self.run_id, result=result)
