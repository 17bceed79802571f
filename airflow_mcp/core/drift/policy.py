"""How two datasets are compared: methods, thresholds, roles and limits, and how ``auto`` chooses a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.drift.profile import ColumnRole, ColumnType

AUTO = "auto"
DriftMode = Literal["profile", "exact"]
DriftCorrection = Literal["none", "benjamini_hochberg"]
FindingKind = Literal[
    "added_column", "removed_column", "retyped_column", "missing_rate", "new_categories", "out_of_range", "outliers"
]
ScoreKind = Literal["p_value", "distance"]
SMALL_REFERENCE = 1000
"""Up to so many reference values ``auto`` chooses a test with a p-value, above a distance."""
FEW_VALUES = 5
"""Numbers with at most so many different values are compared as categories by ``auto``."""
FEW_INTEGERS = 10
"""Whole numbers with at most so many different values are categories where nobody says otherwise."""


class Method(NamedTuple):
    """One method of comparing two distributions."""

    score: ScoreKind
    threshold: float
    """Default, that of Evidently 0.7.23. A p-value drifts below it (KS: at it too), a distance at or above it."""
    types: frozenset[ColumnType]
    """Column types it may be asked for; ``auto`` also counts the few values of a number as categories."""


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
"""Every method by Evidently's name."""


def methods_for(kind: ColumnType) -> list[str]:
    """Give the names of the methods for a type of column."""
    return [name for name, method in METHODS.items() if kind in method.types]


def choose_method(kind: ColumnType, reference_values: int, distinct: int) -> str:
    """Choose as Evidently 0.7.23 does where nothing is given.

    :param kind: type of the column.
    :param reference_values: values in the reference data, without missing and infinite ones.
    :param distinct: different values in both datasets together; more than :data:`FEW_VALUES` are all the same.
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
    """What is different for one column."""

    type: ColumnType | None = None
    method: str | None = None
    threshold: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.method not in (None, AUTO):
            _check_method("method", str(self.method), self.threshold, self.type)
        elif self.threshold is not None:
            raise ValueError("threshold needs a method: what it means depends on which one is used")
        return self


class OutlierPolicy(Document):
    """Rows that are unlike the rows of the reference, found by an isolation forest on its numbers."""

    sample_rows: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Rows drawn of each dataset."""
    expected_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Share of the reference's own rows that counts as outliers."""
    largest_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """A greater share among the current rows is a finding that exceeds its limit."""
    examples: Annotated[int, Field(ge=0, le=100)] = 5
    """How many of the most unlike rows are kept in the result, with their values."""
    seed: Annotated[int, Field(ge=0)] = 0


class ComparisonPolicy(Document):
    """When a dataset counts as drifted."""

    mode: DriftMode = "profile"
    """``profile``: bounded memory, scores within a stated error. ``exact``: every value is held, one
    column at a time; needs data on both sides."""
    numerical_method: str = AUTO
    numerical_threshold: float | None = None
    """None: the method's default."""
    categorical_method: str = AUTO
    categorical_threshold: float | None = None
    columns: tuple[str, ...] = ()
    """Columns to compare; empty: all that are not ignored."""
    ignored_columns: tuple[str, ...] = ()
    categorical_columns: tuple[str, ...] = ()
    """Columns that hold categories whatever their type."""
    rules: dict[str, ColumnRule] = Field(default_factory=dict)
    """What is different for single columns."""
    prediction: str = ""
    """Column with the model's prediction."""
    target: str = ""
    """Column with the label. With a prediction too, a column of quality is derived and compared."""
    quality_columns: tuple[str, ...] = ()
    """Columns that say how good each prediction was."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Importance of features for the share; a feature without one counts 0. Empty: all count the same."""
    correction: DriftCorrection = "none"
    """``benjamini_hochberg`` holds the share of false alarms among the p-values of all columns down."""
    drift_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of drifted features, weighted, from which on the dataset drifts."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """Fewer values than this on either side: not compared."""
    missing_rate_change: Annotated[float, Field(gt=0, le=1)] = 0.1
    """A change of the share of missing values by more than this is a finding."""
    new_category_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """More rows than this share in categories that the reference does not have are a finding."""
    out_of_range_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """More rows than this share outside the reference's minimum and maximum are a finding."""
    drift_on: tuple[FindingKind, ...] = ()
    """Findings by which, where they exceed their limit, the dataset counts as drifted."""
    drift_on_roles: tuple[ColumnRole, ...] = ("prediction", "target", "quality")
    """Roles of which one drifted column makes the dataset drifted; features count by their share."""
    outliers: OutlierPolicy | None = None
    """None: rows are not looked at. Needs data on both sides."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_method("numerical_method", self.numerical_method, self.numerical_threshold, "numerical")
        _check_method("categorical_method", self.categorical_method, self.categorical_threshold, "categorical")
        both = sorted(set(self.named_columns) & set(self.ignored_columns))
        if both:
            raise ValueError(f"{', '.join(map(repr, both))}: asked for and ignored at once")
        if self.prediction and self.prediction == self.target:
            raise ValueError(f"prediction and target are both {self.target!r}")
        if self.weights and not any(self.weights.values()):
            raise ValueError("weights are all 0; at least one must be above")
        if "feature" in self.drift_on_roles:
            raise ValueError("drift_on_roles: features count by their share, see drift_share")
        return self

    @property
    def named_columns(self) -> tuple[str, ...]:
        """Columns that must be in both datasets, each once."""
        asked = (*self.columns, *self.categorical_columns, *self.rules, *self.weights, *self.quality_columns)
        roles = tuple(name for name in (self.prediction, self.target) if name)
        return tuple(dict.fromkeys((*asked, *roles)))

    def role_of(self, column: str) -> ColumnRole:
        """Say what a column is to the model."""
        if column == self.prediction:
            return "prediction"
        if column == self.target:
            return "target"
        return "quality" if column in self.quality_columns else "feature"

    def method_of(self, column: str, kind: ColumnType) -> tuple[str, float | None]:
        """Give method and threshold asked for; ``auto`` and None where the choice is open."""
        rule = self.rules.get(column)
        if rule is not None and rule.method is not None:
            return rule.method, rule.threshold
        if kind == "numerical":
            return self.numerical_method, self.numerical_threshold
        return self.categorical_method, self.categorical_threshold


def _check_method(argument: str, method: str, threshold: float | None, kind: ColumnType | None) -> None:
    if method == AUTO:
        if threshold is not None:
            raise ValueError(f"{argument} is 'auto' and has a threshold: what it means depends on the method; pin one")
        return
    allowed = methods_for(kind) if kind else list(METHODS)
    if method not in allowed:
        raise ValueError(f"{argument} is {method!r}; allowed: auto, {', '.join(allowed)}")
    if threshold is not None and not 0 < threshold < (1 if METHODS[method].score == "p_value" else float("inf")):
        limit = "between 0 and 1" if METHODS[method].score == "p_value" else "above 0"
        raise ValueError(f"the threshold of {argument} {method!r} is {threshold!r}; allowed: a number {limit}")
