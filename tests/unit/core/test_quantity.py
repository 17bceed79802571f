"""Amounts as Kubernetes writes them."""

from __future__ import annotations

import pytest

from airflow_mcp.core.quantity import amount_of


@pytest.mark.parametrize(
    ("text", "amount"),
    [("4Gi", 4 * 1024**3), ("500m", 0.5), ("2", 2), ("1.5G", 1.5e9), ("3k", 3000), ("1Ti", 1024**4), ("7Ki", 7168)],
)
def test_reads_an_amount(text: str, amount: float) -> None:
    assert amount_of(text) == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "Gi", "4 Gi", "4gb", "4K", "-1", "1e3"])
def test_refuses_what_is_not_an_amount(text: str) -> None:
    with pytest.raises(ValueError, match="must be a Kubernetes quantity"):
        amount_of(text)
