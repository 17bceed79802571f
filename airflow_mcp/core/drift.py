"""What a drift check compares and how: method and threshold are pinned per column type, never chosen by row count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from airflow_mcp.exceptions import InvalidArgumentError

ScoreKind = Literal["p_value", "distance"]

NUMERICAL_METHODS: Mapping[str, ScoreKind] = {
    "ks": "p_value",
    "wasserstein": "distance",
    "psi": "distance",
    "jensenshannon": "distance",
    "kl_div": "distance",
}
"""Methods for numerical columns; a p-value drifts below its threshold, a distance at or above it."""

CATEGORICAL_METHODS: Mapping[str, ScoreKind] = {
    "chisquare": "p_value",
    "z": "p_value",
    "jensenshannon": "distance",
    "psi": "distance",
    "kl_div": "distance",
    "TVD": "p_value",
}
"""Methods for categorical columns, by Evidently's names."""


@dataclass(frozen=True)
class DriftPolicy:
    """When a dataset counts as drifted."""

    numerical_method: str = "wasserstein"
    """Normed Wasserstein distance by default (in standard deviations of the reference)."""
    numerical_threshold: float = 0.1
    categorical_method: str = "jensenshannon"
    categorical_threshold: float = 0.1
    drift_share: float = 0.5
    """Share of drifted columns (0 to 1) from which on the dataset counts as drifted."""
    min_rows: int = 100
    """Fewer rows than this in either dataset: inconclusive."""

    def __post_init__(self) -> None:
        """Refuse what could never give an answer, listing every problem."""
        problems = [
            *_check_method("numerical", self.numerical_method, self.numerical_threshold, NUMERICAL_METHODS),
            *_check_method("categorical", self.categorical_method, self.categorical_threshold, CATEGORICAL_METHODS),
        ]
        if not 0 < self.drift_share <= 1:
            problems.append(f"drift_share is {self.drift_share!r}; allowed: above 0 and at most 1")
        if self.min_rows < 1:
            problems.append(f"min_rows is {self.min_rows!r}; allowed: 1 or more")
        if problems:
            raise InvalidArgumentError("; ".join(problems))


def _check_method(kind: str, method: str, threshold: float, allowed: Mapping[str, ScoreKind]) -> list[str]:
    if method not in allowed:
        return [f"{kind}_method is {method!r}; allowed: {', '.join(sorted(allowed))}"]
    if not math.isfinite(threshold) or threshold <= 0:
        return [f"{kind}_threshold is {threshold!r}; allowed: a finite number above 0"]
    if allowed[method] == "p_value" and threshold >= 1:
        return [f"{kind}_threshold is {threshold!r}; allowed for the p-value of {method!r}: between 0 and 1"]
    return []
