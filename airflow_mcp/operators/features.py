"""Read features from a Feast feature store for a training, and check that serving reads the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_mcp.core import contract
from airflow_mcp.core.argument import required_text
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.features.summary import (
    HistoricalRequest,
    HistoricalSummary,
    SkewPolicy,
    SkewRequest,
    SkewSummary,
)
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.operators.check import Verdict
from airflow_mcp.operators.feature_store import FeatureStoreOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class GetHistoricalFeaturesOperator(FeatureStoreOperator[HistoricalRequest, HistoricalSummary]):
    """Read features as of the time of each entity row, and store them as a data version that a training reads.

    The version is one Parquet file named after its content. It has an MLflow run of its own. A feature without a value
    in any row makes the result inconclusive.

    XCom: ``dataset`` (``{uri, version, hash}``, which ``TrainModelOperator`` takes), ``verdict`` (``fetched`` or
    ``inconclusive``), ``reason``, ``rows``, ``missing`` (feature to rows without a value), ``run_id``.

    :param output_uri: folder or URL below which the data version is stored (templated).
    :param time_column: column of the entity rows with the time as of which features are wanted.
    """

    template_fields: Sequence[str] = (*FeatureStoreOperator.template_fields, "output_uri")
    step = "get-features"
    kind = contract.KIND_FEATURES
    called = "reading of features"

    def __init__(self, *, output_uri: str, time_column: str = "event_timestamp", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_uri = output_uri
        self.time_column = time_column

    def asked(self, context: Context) -> HistoricalRequest:
        """Return the request.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        place = required_text("output_uri", self.output_uri)
        return self.request_of(HistoricalRequest, output=place, time_column=self.time_column)

    def collect(self, run: Run) -> HistoricalSummary:
        """Read the summary from a run.

        :raises ResultMissingError: when it is missing, or about other work.
        """
        key, parse = run.tags.get(contract.TAG_IDENTITY, ""), partial(parse_document, HistoricalSummary)
        return self.read_result(run.run_id, key, contract.ARTIFACT_FEATURES_SUMMARY, parse, self.called)

    def verdict_of(self, summary: HistoricalSummary) -> Verdict:
        """Return whether every feature has values."""
        return Verdict(summary.verdict, summary.reason)

    def outcome_of(self, summary: HistoricalSummary) -> dict[str, Any]:
        """Return what is pushed to XCom."""
        pin = summary.dataset
        return {
            "dataset": {"uri": pin.uri, "version": pin.version, "hash": pin.hash},
            "verdict": summary.verdict,
            "reason": summary.reason,
            "rows": summary.rows,
            "missing": {column.name: column.missing for column in summary.columns},
            "run_id": summary.run_id,
        }

    def show(self, summary: HistoricalSummary) -> None:
        """Write the data version and the missing values to the task log."""
        self.log.info("Data version %s: %s (%s)", summary.dataset.version, summary.dataset.uri, summary.reason)
        for column in summary.columns:
            self.log.info("  %-40s %d of %d missing", column.name, column.missing, summary.rows)


class FeatureSkewCheckOperator(FeatureStoreOperator[SkewRequest, SkewSummary]):
    """Check whether the online store serves the values that trainings see.

    Each value is equal, stale (an older offline value), skewed (no offline value of its time) or missing. The check has
    an MLflow run of its own, which holds an HTML report and the summary as JSON.

    XCom, also when the task fails: ``verdict`` (``skewed``, ``consistent`` or ``inconclusive``), ``reason``,
    ``features`` (feature to its counts), ``run_id``, ``report`` (artifact path of the HTML report).

    :param policy: limits and sample, as a :class:`~airflow_mcp.core.features.summary.SkewPolicy` or a mapping of its
        fields (templated).
    :param as_of: time of the check, ISO 8601 with an offset; None takes the present time (templated).
    """

    template_fields: Sequence[str] = (*FeatureStoreOperator.template_fields, "policy", "as_of")
    step = "compare-features"
    kind = contract.KIND_SKEW_CHECK
    called = "feature skew check"

    def __init__(
        self,
        *,
        policy: SkewPolicy | Mapping[str, Any] | None = None,
        as_of: datetime | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.policy = policy
        self.as_of = as_of

    def asked(self, context: Context) -> SkewRequest:
        """Return the request.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        return self.request_of(SkewRequest, as_of=self.as_of, policy=self.policy or SkewPolicy())

    def collect(self, run: Run) -> SkewSummary:
        """Read the summary from a run.

        :raises ResultMissingError: when it is missing, or about another check.
        """
        key, parse = run.tags.get(contract.TAG_IDENTITY, ""), partial(parse_document, SkewSummary)
        return self.read_result(run.run_id, key, contract.ARTIFACT_SKEW_SUMMARY, parse, self.called)

    def verdict_of(self, summary: SkewSummary) -> Verdict:
        """Return the verdict on the worst feature."""
        return Verdict(summary.verdict, summary.reason)

    def outcome_of(self, summary: SkewSummary) -> dict[str, Any]:
        """Return what is pushed to XCom."""
        names = {"equal", "stale", "skewed", "missing", "absent"}
        return {
            "verdict": summary.verdict,
            "reason": summary.reason,
            "features": {each.feature: each.model_dump(include=names) for each in summary.features},
            "run_id": summary.run_id,
            "report": contract.ARTIFACT_SKEW_REPORT_HTML,
        }

    def show(self, summary: SkewSummary) -> None:
        """Write the verdict and the counts of each feature to the task log."""
        self.log.info("Verdict: %s (%s)", summary.verdict, summary.reason)
        for each in summary.features:
            self.log.info(
                "  %-12s %-40s equal %d, stale %d, skewed %d, missing %d",
                *(each.verdict, each.feature, each.equal, each.stale, each.skewed, each.missing),
            )
