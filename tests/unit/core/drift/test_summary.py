"""Requests and summaries of drift checks, and summaries that older versions left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.result import ColumnResult, DriftResult
from airflow_mcp.core.drift.summary import (
    DriftRequest,
    DriftSide,
    DriftSummary,
    by_severity,
    name_some,
    read_drift_summary,
)
from airflow_mcp.exceptions import EvidenceError

PIN = {"uri": "/data/v1/train.csv", "version": "v1", "hash": "sha256:00"}
BEFORE: dict[str, Any] = {
    "schema": "airflow_mcp/drift/1",
    "identity": "i",
    "run_id": "r",
    "verdict": "drifted",
    "reason": "1 of 2 compared columns drifted",
    "reference": PIN,
    "current": {**PIN, "version": "v2"},
    "reference_rows": 300,
    "current_rows": 200,
    "columns": [
        {"column": "b", "type": "numerical", "method": "ks", "threshold": 0.05, "score": 0.4, "drifted": False},
        {
            "column": "a",
            "type": "categorical",
            "method": "TVD",
            "threshold": 0.1,
            "score": 0.01,
            "drifted": True,
            "note": "missing values: 1.0% then, 2.0% now",
        },
        {"column": "c", "type": "numerical", "method": "ks", "threshold": 0.05, "score": None, "drifted": None},
    ],
    "drifted_columns_count": 1,
    "drift_share": 0.5,
    "drift_share_threshold": 0.25,
    "created_at": "2026-11-21T02:00:00+00:00",
    "environment": {"evidently": "0.7.23"},
}


def column(name: str, score: float | None, drifted: bool | None, method: str = "wasserstein") -> ColumnResult:
    return ColumnResult(column=name, type="numerical", method=method, threshold=0.1, score=score, drifted=drifted)


def test_a_summary_of_version_1_is_read_as_one_of_today() -> None:
    summary = read_drift_summary(json.dumps(BEFORE).encode(), "x")
    result = summary.result
    assert (summary.identity, summary.run_id, result.verdict, result.reason) == ("i", "r", "drifted", BEFORE["reason"])
    assert (result.reference_rows, result.current_rows, result.drift_share) == (300, 200, 0.5)
    assert (result.drifted_columns_count, result.compared_columns_count, result.policy.drift_share) == (1, 2, 0.25)
    assert summary.drifted_columns == ["a"]
    assert [(found.method, found.threshold) for found in result.columns] == [("ks", 0.05), ("TVD", 0.1), ("ks", 0.05)]
    assert result.current == (DatasetPin(**{**PIN, "version": "v2"}),)
    assert read_drift_summary(dump_document(summary).encode(), "x") == summary


@pytest.mark.parametrize(
    "text", [b"", b"{}", json.dumps({**BEFORE, "schema": "airflow_mcp/drift/3"}).encode(), b'{"schema": "x"}']
)
def test_what_is_no_summary_is_refused(text: bytes) -> None:
    with pytest.raises(EvidenceError, match=r"drift/summary\.json is not a valid"):
        read_drift_summary(text, "drift/summary.json")


def test_a_summary_of_version_1_is_read_as_strictly_as_before() -> None:
    with pytest.raises(EvidenceError, match="surprise is not a known name"):
        read_drift_summary(json.dumps({**BEFORE, "surprise": 1}).encode(), "x")


def test_a_request_survives_json_and_needs_data_or_profiles_on_both_sides() -> None:
    request = DriftRequest(
        identity="i",
        run_id="r",
        reference=DriftSide(data=(DatasetPin(**PIN),), profiles=("runs:/r/profile/profile.json",)),
        current=DriftSide(data=(DatasetPin(**PIN),)),
        policy=ComparisonPolicy(weights={"a": 1.0}, drift_on=("removed_column",)),
    )
    text = dump_document(request)
    assert parse_document(DriftRequest, text, "x") == request
    broken = {**json.loads(text), "current": {}}
    with pytest.raises(EvidenceError, match="give data, profiles or requests"):
        parse_document(DriftRequest, json.dumps(broken), "x")


def test_people_see_drifted_columns_first_then_unknown_ones_and_the_worst_of_each_kind_first() -> None:
    given = (
        column("stable", 0.01, False),
        column("mild", 0.2, True),
        column("unknown", None, None),
        column("strong", 3.0, True),
        column("certain", 1e-9, True, method="ks"),
    )
    assert [found.column for found in by_severity(given)] == ["certain", "strong", "mild", "unknown", "stable"]


def test_few_names_are_told_and_many_are_counted() -> None:
    assert name_some(["a", "b"]) == "a, b"
    assert name_some([f"c{n}" for n in range(20)]).endswith("c11 and 8 more")


def test_a_summary_of_today_names_its_schema() -> None:
    result = DriftResult(
        verdict="inconclusive",
        reason="no rows",
        precision="profile",
        policy=ComparisonPolicy(),
        reference=(),
        current=(),
        reference_is_profile=True,
        current_is_profile=False,
        reference_rows=0,
        current_rows=0,
        columns=(),
        drifted_columns_count=0,
        compared_columns_count=0,
        drift_share=None,
    )
    summary = DriftSummary(identity="i", run_id="r", result=result)
    assert json.loads(dump_document(summary))["schema"] == "airflow_mcp/drift/2"
