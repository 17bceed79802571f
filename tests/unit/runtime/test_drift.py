from __future__ import annotations

import pytest

from airflow_mcp.core.evidence import ColumnDrift, DatasetPin, DriftRequest, DriftSummary
from airflow_mcp.runtime.drift import metric_names, summarize

PIN = DatasetPin(uri="a.csv", hash="sha256:" + "0" * 64)


def summary(
    answers: list[bool | None], share: float = 0.5, rows: tuple[int, int] = (200, 200), new: tuple[str, ...] = ()
) -> DriftSummary:
    columns = [
        ColumnDrift(
            column=f"c{number}",
            type="numerical",
            method="ks",
            threshold=0.05,
            score=None if answer is None else 0.01,
            drifted=answer,
            note="unknown" if answer is None else "",
        )
        for number, answer in enumerate(answers)
    ]
    request = DriftRequest(
        identity="i",
        run_id="r",
        reference=PIN,
        current=PIN,
        numerical_method="ks",
        numerical_threshold=0.05,
        categorical_method="chisquare",
        categorical_threshold=0.05,
        drift_share=share,
        min_rows=100,
    )
    return summarize(request, (PIN, PIN), rows, columns, new)


@pytest.mark.parametrize(
    ("answers", "share", "verdict"),
    [
        ([True, False], 0.5, "drifted"),
        ([True, False, False], 0.5, "not_drifted"),
        ([False, False], 0.5, "not_drifted"),
        ([True, None, None, None], 0.5, "drifted"),
        ([False, None], 0.5, "inconclusive"),
        ([False, False, False, None], 0.5, "not_drifted"),
        ([True, False, False, None], 0.5, "inconclusive"),
        ([None, None], 0.5, "inconclusive"),
        ([], 0.5, "inconclusive"),
        ([True, True, False], 1.0, "not_drifted"),
    ],
)
def test_the_verdict_follows_the_share_and_never_takes_absence_for_a_pass(
    answers: list[bool | None], share: float, verdict: str
) -> None:
    assert summary(answers, share).verdict == verdict


@pytest.mark.parametrize("rows", [(99, 1000), (1000, 99)])
def test_too_few_rows_are_inconclusive_whatever_the_columns_say(rows: tuple[int, int]) -> None:
    result = summary([False, False], rows=rows)
    assert result.verdict == "inconclusive"
    assert "at least 100 of each" in result.reason


def test_the_share_is_of_compared_columns_and_the_rest_is_explained() -> None:
    result = summary([True, False, False, None], new=("extra",))
    assert result.drift_share == 1 / 3
    assert result.drifted_columns_count == 1
    assert "c3: unknown" in result.reason
    assert "only in the current data: extra" in result.reason
    assert summary([None]).drift_share is None


def test_metric_names_are_allowed_by_mlflow_and_differ() -> None:
    names = metric_names(["age", "a/b", "a%b", "..", "größe (cm)"])
    assert names == {
        "age": "drift/age",
        "a/b": "drift/a_b",
        "a%b": "drift/a_b_2",
        "..": "drift/_",
        "größe (cm)": "drift/größe _cm_",
    }
