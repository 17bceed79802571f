"""Requests and summaries of the two feature steps, as the two planes exchange them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import CheckRequest, Document

FeaturesVerdict = Literal["fetched", "inconclusive"]
SkewVerdict = Literal["skewed", "consistent", "inconclusive"]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class FeatureRequest(CheckRequest):
    """What both steps ask a feature store for."""

    model_name: str = ""
    feature_repo: Text
    """Folder with ``feature_store.yaml``, where the work plane runs."""
    features: tuple[Text, ...] = ()
    """``<feature view>:<feature>``; empty takes those of the feature service."""
    feature_service: str = ""
    entities: DatasetPin
    """Table of entity keys."""

    @model_validator(mode="after")
    def _require_features(self) -> Self:
        if bool(self.features) == bool(self.feature_service):
            raise ValueError("give either features or feature_service")
        return self


class HistoricalRequest(FeatureRequest):
    """The request of the step ``get-features``."""

    time_column: Text = "event_timestamp"
    """Column of the entity rows with the time as of which features are wanted."""
    output: Text
    """Folder or URL below which the data version is stored."""


class FeatureColumn(Document):
    """One feature of a data version."""

    name: str
    missing: Count
    """Rows without a value: none was known at their time, or it had expired."""


class HistoricalSummary(Document):
    """Result of the step ``get-features``."""

    schema_: Literal["airflow_mcp/features/1"] = Field(default="airflow_mcp/features/1", alias="schema")
    identity: str
    run_id: str
    model_name: str = ""
    verdict: FeaturesVerdict
    reason: str
    dataset: DatasetPin
    """The data version: one Parquet file."""
    entities: DatasetPin
    features: tuple[str, ...]
    feature_service: str = ""
    registry_hash: str
    """``sha256:`` of the definitions of the feature store."""
    rows: Count
    first: AwareDatetime
    last: AwareDatetime
    """First and last time as of which features were asked for."""
    columns: tuple[FeatureColumn, ...]
    created_at: str
    environment: dict[str, str] = Field(default_factory=dict)


class SkewPolicy(Document):
    """How far online values may be from those that trainings see."""

    largest_skewed: Share = 0.0
    """Share of the values of one feature that may differ from the offline value of the same time."""
    largest_stale: Share = 0.05
    """Share that may be an older offline value."""
    largest_missing: Share = 0.05
    """Share that may be missing online although the offline store has it."""
    tolerance: Annotated[float, Field(ge=0)] = 1e-6
    """Largest relative difference of two equal floats; whole numbers and other values must be equal."""
    sample_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Largest number of entity keys that are compared, drawn at random."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """With fewer keys that have a value, a feature is inconclusive."""
    seed: Annotated[int, Field(ge=0)] = 0


class SkewRequest(FeatureRequest):
    """The request of the step ``compare-features``."""

    as_of: AwareDatetime | None = None
    """Time of the check; offline values are those that were known then. None takes the present time."""
    policy: SkewPolicy = SkewPolicy()


class SkewExample(Document):
    """One value that differs."""

    key: str
    state: Literal["stale", "skewed", "missing"]
    online: str
    offline: str
    """The offline value now."""
    offline_then: str
    """The offline value as of the online value's own time; empty when there is none."""
    online_at: str
    """Time of the online value, ISO 8601; empty when there is none."""


class FeatureSkew(Document):
    """One feature compared, value by value."""

    feature: str
    equal: Count
    stale: Count
    """Equal to the offline value as of the online value's own time, and not to that of now."""
    skewed: Count
    """Equal to neither."""
    missing: Count
    """Missing online only."""
    absent: Count
    """Missing in both; such keys are not judged."""
    oldest_seconds: float | None = None
    """Age of the oldest stale value."""
    verdict: SkewVerdict
    reason: str
    examples: tuple[SkewExample, ...] = ()

    @property
    def judged(self) -> int:
        """Keys with a value in at least one of the stores."""
        return self.equal + self.stale + self.skewed + self.missing


class SkewSummary(Document):
    """Result of the step ``compare-features``."""

    schema_: Literal["airflow_mcp/feature_skew/1"] = Field(default="airflow_mcp/feature_skew/1", alias="schema")
    identity: str
    run_id: str
    model_name: str = ""
    verdict: SkewVerdict
    reason: str
    as_of: AwareDatetime
    policy: SkewPolicy
    entities: DatasetPin
    keys: Count
    """Entity keys that were compared."""
    registry_hash: str
    features: tuple[FeatureSkew, ...]
    created_at: str
    environment: dict[str, str] = Field(default_factory=dict)


def judge_feature(counts: dict[str, int], policy: SkewPolicy) -> tuple[SkewVerdict, str]:
    """Return the verdict on one feature.

    :param counts: keys by ``equal``, ``stale``, ``skewed`` and ``missing``.
    :param policy: the limits.
    """
    judged = sum(counts.values())
    if judged < policy.min_rows:
        return "inconclusive", f"{judged} keys have a value, and min_rows is {policy.min_rows}"
    limits = {"skewed": policy.largest_skewed, "stale": policy.largest_stale, "missing": policy.largest_missing}
    beyond = [
        f"{counts[name] / judged:.2%} of the values are {name}, and the limit is {limit:.2%}"
        for name, limit in limits.items()
        if counts[name] / judged > limit
    ]
    return ("skewed", "; ".join(beyond)) if beyond else ("consistent", f"{judged} values are within the limits")


def judge_skew(features: tuple[FeatureSkew, ...]) -> tuple[SkewVerdict, str]:
    """Return the verdict of a check: that of its worst feature.

    :param features: every feature that was compared.
    """
    for verdict in ("skewed", "inconclusive", "consistent"):
        found = [each for each in features if each.verdict == verdict]
        if found:
            return verdict, "; ".join(f"{each.feature}: {each.reason}" for each in found[:5])
    return "inconclusive", "no feature was compared"
