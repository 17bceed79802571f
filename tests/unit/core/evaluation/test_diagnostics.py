"""Parts of the evidence whose numbers do not fit together are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from airflow_mcp.core.evaluation.diagnostics import ConfusionMatrix, Histogram


@pytest.mark.parametrize(
    "changes",
    [{"edges": (0.0, 2.0, 1.0)}, {"counts": (1,)}, {"counts": (1, -1)}, {"edges": (0.0,)}, {"maximum": float("inf")}],
    ids=["not-ascending", "a-count-missing", "negative", "one-edge", "infinite"],
)
def test_a_histogram_that_cannot_be_drawn_is_refused(changes: dict[str, Any]) -> None:
    good: dict[str, Any] = {"edges": (0.0, 1.0, 2.0), "counts": (3, 4), "minimum": 0.0, "maximum": 2.0}
    assert Histogram(**good).counts == (3, 4)
    with pytest.raises(ValidationError):
        Histogram(**(good | changes))


@pytest.mark.parametrize("counts", [((1, 2),), ((1, 2), (3,)), ((1, 2), (3, 4), (5, 6)), ((1, 2), (3, -1))])
def test_a_confusion_matrix_that_is_not_square_is_refused(counts: Any) -> None:
    assert ConfusionMatrix(labels=("a", "b"), counts=((1, 2), (3, 4))).folded == 0
    with pytest.raises(ValidationError):
        ConfusionMatrix(labels=("a", "b"), counts=counts)
