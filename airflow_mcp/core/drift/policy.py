"""How two datasets are compared: methods, thresholds, roles and limits, and how ``auto`` chooses a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.drift.profile import ColumnRole, ColumnType
from airflow_mcp.core.engine import Engine
from airflow_mcp.exceptions import InvalidArgumentError

AUTO = "auto"
DriftPrecision = Literal["profile", "exact"]
DriftCorrection = Literal["none", "benjamini_hochberg"]
FindingKind = Literal[
    "added_column", "removed_column", "retyped_column", "missing_rate", "new_categories", "out_of_range", "outliers"
]
ScoreKind = Literal["p_value", "distance"]
SMALL_REFERENCE = 1000
"""``auto`` chooses a test with a p-value up to this many reference values, and a distance above."""
FEW_VALUES = 5
"""``auto`` compares numbers with at most this many distinct values as categories."""
FEW_INTEGERS = 10
"""Whole numbers with at most this many distinct values are categories unless the policy says otherwise."""


class Method(NamedTuple):
    """One method of comparing two distributions."""

    score: ScoreKind
    threshold: float
    """Default threshold, that of Evidently 0.7.23. A p-value below it is drift (for KS also an equal one), and so is a
    distance at or above it."""
    types: frozenset[ColumnType]
    """Column types it can be used for; ``auto`` also treats numbers with few distinct values as categories."""


_NUMERICAL, _CATEGORICAL = frozenset[ColumnType]({"numerical"}), frozenset[ColumnType]({"categorical"})
METHODS: Mapping[str, Method] = {
    "wasserstein": Method("distance", 0.1, _NUMERICAL),
    "ks": Method("p_value", 0.05, _NUMERICAL),
    "jensenshannon": Method("distance", 0.1, _NUMERICAL | _CATEGORICAL),
    "psi": Method("distance", 0.1, _NUMERICAL | _CATEGORICAL),
    "kl_div": Method("distance", 0.1, _NUMERICAL | _CATEGORICAL),
    "chisquare": Method("p_value", 0.05, _CATEGORICAL),
    "z": Method("p_value", 0.05, _CATEGORICAL),
    "TVD": Method("p_value", 0.1, _CATEGORICAL),
}
"""Every method, by the name that Evidently uses."""


def methods_for(kind: ColumnType) -> list[str]:
    """Return the names of the methods for a column type."""
    return [name for name, method in METHODS.items() if kind in method.types]


def choose_method(kind: ColumnType, reference_values: int, distinct: int) -> str:
    """Choose a method by the defaults of Evidently 0.7.23.

    :param kind: type of the column.
    :param reference_values: number of reference values, without missing and infinite ones.
    :param distinct: distinct values in both datasets together; only up to :data:`FEW_VALUES` does the number matter.
    """
    few = kind == "categorical" or distinct <= FEW_VALUES
    if reference_values > SMALL_REFERENCE:
        return "jensenshannon" if few else "wasserstein"
    if few:
        return "z" if distinct <= 2 else "chisquare"
    return "ks"


def has_drifted(method: str, score: float, threshold: float) -> bool:
    """Judge one score as Evidently does."""
    if METHODS[method].score == "distance":
        return score >= threshold
    return score <= threshold if method == "ks" else score < threshold


class ColumnRule(Document):
    """Settings of one column that differ from the others."""

    type: ColumnType | None = None
    method: str | None = None
    threshold: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.method not in (None, AUTO):
            _check_method("method", str(self.method), self.threshold, self.type)
        elif self.threshold is not None:
            raise ValueError("threshold needs a method, because its meaning depends on the method")
        return self


class OutlierPolicy(Document):
    """Search for rows unlike the reference rows, by an isolation forest on the numeric columns."""

    sample_rows: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Rows sampled from each dataset."""
    expected_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Share of the reference rows that counts as outliers."""
    largest_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """A larger share of outliers among the current rows exceeds the limit."""
    examples: Annotated[int, Field(ge=0, le=100)] = 5
    """Number of the most unlike rows to keep in the result, with their values."""
    seed: Annotated[int, Field(ge=0)] = 0


class ComparisonPolicy(Document):
    """How two datasets are compared, and when they count as drifted."""

    precision: DriftPrecision = "profile"
    """``profile``: bounded memory, scores within a stated error. ``exact``: every value is held, one
    column at a time; needs data on both sides."""
    numerical_method: str = AUTO
    numerical_threshold: float | None = None
    """None uses the default of the method."""
    categorical_method: str = AUTO
    categorical_threshold: float | None = None
    columns: tuple[str, ...] = ()
    """Columns to compare; empty compares all that are not ignored."""
    ignored_columns: tuple[str, ...] = ()
    categorical_columns: tuple[str, ...] = ()
    """Columns to compare as categories whatever their type."""
    rules: dict[str, ColumnRule] = Field(default_factory=dict)
    """Settings of single columns."""
    prediction: str = ""
    """Column with the prediction of the model."""
    target: str = ""
    """Column with the label. If the prediction is given as well, a quality column is derived and compared."""
    quality_columns: tuple[str, ...] = ()
    """Columns with the quality of each prediction."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Importance of features for ``drift_share``; a feature without one counts 0. Empty weights all equally."""
    correction: DriftCorrection = "none"
    """``benjamini_hochberg`` limits the false discovery rate over the p-values of all columns."""
    drift_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The dataset counts as drifted from this weighted share of drifted features on."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """A column with fewer values on either side is not compared."""
    missing_rate_change: Annotated[float, Field(gt=0, le=1)] = 0.1
    """A larger change of the share of missing values is a finding."""
    new_category_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A larger share of rows in categories unknown to the reference is a finding."""
    out_of_range_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A larger share of rows outside the minimum and maximum of the reference is a finding."""
    drift_on: tuple[FindingKind, ...] = ()
    """Kinds of findings that make the dataset count as drifted when they exceed their limit."""
    drift_on_roles: tuple[ColumnRole, ...] = ("prediction", "target", "quality")
    """Roles of which a single drifted column makes the dataset count as drifted; features count by ``drift_share``."""
    outliers: OutlierPolicy | None = None
    """None does not look at rows. Needs data on both sides."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_method("numerical_method", self.numerical_method, self.numerical_threshold, "numerical")
        _check_method("categorical_method", self.categorical_method, self.categorical_threshold, "categorical")
        both = sorted(set(self.named_columns) & set(self.ignored_columns))
        if both:
            raise ValueError(f"{', '.join(map(repr, both))}: cannot be both compared and ignored")
        if self.prediction and self.prediction == self.target:
            raise ValueError(f"prediction and target must differ; got {self.target!r} for both")
        if self.weights and not any(self.weights.values()):
            raise ValueError("at least one weight must be above 0; got none")
        if "feature" in self.drift_on_roles:
            raise ValueError("drift_on_roles must not have feature: features count by drift_share; got feature")
        return self

    @property
    def named_columns(self) -> tuple[str, ...]:
        """Columns that must be in both datasets, without repetition."""
        asked = (*self.columns, *self.categorical_columns, *self.rules, *self.weights, *self.quality_columns)
        roles = tuple(name for name in (self.prediction, self.target) if name)
        return tuple(dict.fromkeys((*asked, *roles)))

    def role_of(self, column: str) -> ColumnRole:
        """Return the role of a column for the model."""
        if self.prediction and column == self.prediction:
            return "prediction"
        if self.target and column == self.target:
            return "target"
        return "quality" if column in self.quality_columns else "feature"

    def method_of(self, column: str, kind: ColumnType) -> tuple[str, float | None]:
        """Return the requested method and threshold; ``auto`` and None where nothing was requested."""
        rule = self.rules.get(column)
        if rule is not None and rule.method is not None:
            return rule.method, rule.threshold
        if kind == "numerical":
            return self.numerical_method, self.numerical_threshold
        return self.categorical_method, self.categorical_threshold


def _check_method(argument: str, method: str, threshold: float | None, kind: ColumnType | None) -> None:
    if method == AUTO:
        if threshold is not None:
            raise ValueError(
                f"{argument} must name a method when a threshold is given, because the method gives it its meaning; "
                "got 'auto'"
            )
        return
    allowed = methods_for(kind) if kind else list(METHODS)
    if method not in allowed:
        raise ValueError(f"{argument} must be one of auto, {', '.join(allowed)}; got {method!r}")
    if threshold is not None and not 0 < threshold < (1 if METHODS[method].score == "p_value" else float("inf")):
        limit = "between 0 and 1" if METHODS[method].score == "p_value" else "above 0"
        raise ValueError(f"the threshold of {argument} {method!r} must be a number {limit}; got {threshold!r}")


def require_no_rows(policy: ComparisonPolicy, engine: Engine, evidently_rows: int = 0) -> None:
    """Check that a comparison needs only profiles, because rows do not leave an engine.

    :param engine: what reads the data; ``local`` has the rows.
    :param evidently_rows: rows for Evidently's report.
    :raises InvalidArgumentError: when the comparison needs rows.
    """
    needs = ["precision 'exact'"] * (policy.precision == "exact") + ["outliers"] * (policy.outliers is not None)
    needs += ["evidently_rows"] * bool(evidently_rows)
    if engine != "local" and needs:
        raise InvalidArgumentError(
            f"engine must be local for {', '.join(needs)}, which need rows; got {engine!r}, from which only profiles "
            "come back. Nothing was compared"
        )
