"""The report of a drift check is one page that needs nothing else, and says everything in words too."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.page import PICTURES, render_drift_report
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.result import (
    ColumnHistogram,
    ColumnResult,
    ColumnSide,
    DriftFinding,
    DriftResult,
    OutlierRow,
    Outliers,
)
from airflow_mcp.core.drift.summary import DriftSummary, EvidentlySample

HOSTILE = "<script>alert(1)</script>&"
NUMBERS = ColumnHistogram(edges=(0.0, 1.0, 2.0), reference=(0.25, 0.75), current=(0.5, 0.5))
SIDE = ColumnSide(type="double", kind="numerical", rows=200, missing=20, mean=1.5)


def column(name: str, **changes: Any) -> ColumnResult:
    given: dict[str, Any] = {
        "type": "numerical",
        "method": "wasserstein",
        "threshold": 0.1,
        "score": 0.25,
        "drifted": True,
        "reference": SIDE,
        "current": SIDE,
        "histogram": NUMBERS,
    }
    return ColumnResult(column=name, **{**given, **changes})


def summary(*columns: ColumnResult, evidently: EvidentlySample | None = None, **changes: Any) -> DriftSummary:
    pin = DatasetPin(uri="/data/v1/train.csv", version="v1", hash="sha256:00ff")
    given: dict[str, Any] = {
        "verdict": "drifted",
        "reason": "1 of 2 compared features drifted",
        "precision": "profile",
        "policy": ComparisonPolicy(numerical_method="wasserstein"),
        "reference": (pin,),
        "current": (pin.model_copy(update={"uri": "/data/v2/recent.csv"}),),
        "reference_is_profile": True,
        "current_is_profile": False,
        "reference_rows": 5000,
        "current_rows": 455,
        "columns": columns,
        "drifted_columns_count": 1,
        "compared_columns_count": 2,
        "drift_share": 0.5,
        "created_at": "2026-11-21T02:00:00+00:00",
    }
    result = DriftResult(**{**given, **changes})
    return DriftSummary(
        identity="i",
        run_id="r1",
        model_name="fraud",
        result=result,
        reference_profiles=("runs:/t1/profile/profile.json",),
        evidently=evidently,
    )


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition("</style>")[2]).split())


def test_the_page_needs_nothing_else_and_is_well_formed() -> None:
    page = render_drift_report(summary(column("amount"), column("kind", drifted=False, score=0.01)))
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=|url\(|@import", page)
    body = page[page.index("<body>") : page.index("</body>") + len("</body>")]
    ElementTree.fromstring(re.sub(r"&(ndash|le|ge|plusmn);", "-", body.replace("<br>", "<br/>")))


def test_names_and_notes_from_the_data_are_only_text() -> None:
    hostile = column(
        HOSTILE, note=HOSTILE, histogram=ColumnHistogram(labels=(HOSTILE,), reference=(1.0,), current=(1.0,))
    )
    finding = DriftFinding(kind="added_column", column=HOSTILE, exceeded=True, message=HOSTILE)
    page = render_drift_report(summary(hostile, findings=(finding,), reason=HOSTILE))
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;") >= 5


def test_verdict_data_and_methods_are_said() -> None:
    said = words(render_drift_report(summary(column("amount", chosen=True, error=0.004, adjusted=0.3))))
    for text in (
        "drifted · 5,000 reference rows · 455 current rows · 1 columns",
        "profile of /data/v1/train.csv v1 · sha256:00ff",
        "runs:/t1/profile/profile.json",
        "50% of the compared features (1 of 2); the limit is 50%",
        "0.25 &plusmn; 0.004 corrected 0.3 wasserstein (auto), drifts &ge; 0.1",
        "10.0%",
        "numbers: wasserstein",
        "MLflow run r1",
    ):
        assert text in said


def test_the_worst_column_comes_first_and_an_unknown_one_before_those_that_are_stable() -> None:
    page = render_drift_report(
        summary(
            column("quiet", drifted=False, score=0.01),
            column("gone", drifted=None, score=None, method="", threshold=None, current=None, histogram=None),
            column("loud", score=2.0),
        )
    )
    assert page.index("<code>loud") < page.index("<code>gone") < page.index("<code>quiet")
    assert "? not known" in page


def test_only_the_worst_columns_of_wide_data_have_a_picture_and_the_page_says_so() -> None:
    columns = [column(f"c{number}", score=0.2 + number) for number in range(PICTURES + 50)]
    page = render_drift_report(summary(*columns))
    assert page.count('class="plot"') == PICTURES
    assert "The last 50 columns have no picture." in page
    assert all(f"<code>c{number}</code>" in page for number in range(PICTURES + 50))


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (None, ""),
        (
            EvidentlySample(reference_rows=1000, current_rows=455, is_complete=False, note="It shows the 100 worst."),
            "drift/evidently.html shows a random sample: 1,000 reference and 455 current rows. It decides nothing. "
            "It shows the 100 worst.",
        ),
        (EvidentlySample(reference_rows=3, current_rows=4, is_complete=True), "shows all rows: 3 reference"),
        (EvidentlySample(reference_rows=0, current_rows=0, is_complete=False, note="no rows"), "Evidently no rows"),
    ],
)
def test_what_evidently_was_given_is_said(sample: EvidentlySample | None, said: str) -> None:
    page = words(render_drift_report(summary(column("amount"), evidently=sample)))
    assert said in page
    assert ("Evidently" in page) is (sample is not None)


def test_findings_beyond_their_limit_come_first_and_outliers_are_shown() -> None:
    findings = (
        DriftFinding(
            kind="missing_rate", column="a", reference=0.0, current=0.05, limit=0.1, exceeded=False, message="few"
        ),
        DriftFinding(kind="removed_column", column="b", exceeded=True, message="b is gone"),
    )
    outliers = Outliers(
        rows=(5000, 455),
        threshold=0.6,
        reference_share=0.01,
        current_share=0.12,
        examples=(OutlierRow(score=0.71, values={"amount": 1e6, "age": None}),),
    )
    page = render_drift_report(summary(column("amount"), findings=findings, outliers=outliers))
    said = words(page)
    assert page.index("b is gone") < page.index(">few<")
    assert "12.00% of 455 current rows are unlike the reference" in said
    assert "0.710 1e+06 &ndash;" in said


def test_many_findings_are_folded_and_none_is_lost() -> None:
    findings = tuple(
        DriftFinding(kind="added_column", column=f"new_{number}", exceeded=True, message="new") for number in range(40)
    )
    page = render_drift_report(summary(column("amount"), findings=findings))
    assert "<summary>25 further findings</summary>" in page
    assert all(f"<code>new_{number}</code>" in page for number in range(40))


def test_nothing_compared_is_a_page_too() -> None:
    empty = summary(verdict="inconclusive", drift_share=None, reference_rows=0, compared_columns_count=0)
    said = words(render_drift_report(empty))
    assert "inconclusive" in said
    assert "no feature could be compared" in said
    assert "There was no column to compare." in said


@pytest.mark.parametrize(("mean", "shown"), [(1_764_028_800.0, "2025-11-25"), (1e12, "1e+12")])
def test_the_mean_of_times_is_a_date(mean: float, shown: str) -> None:
    side = ColumnSide(type="timestamp[s]", kind="time", rows=200, missing=0, mean=mean)
    page = render_drift_report(summary(column("when", reference=side, current=side, score=None, drifted=None)))
    assert f"{shown}<br>{shown}" in page
