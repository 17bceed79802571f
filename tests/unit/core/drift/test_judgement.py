from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from airflow_mcp.core.drift.judgement import Judgement, adjust_p_values, correct, judge
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.result import ColumnResult, DriftFinding


def column(name: str, drifted: bool | None, **changes: Any) -> ColumnResult:
    fields: dict[str, Any] = {
        "column": name,
        "type": "numerical",
        "method": "wasserstein",
        "threshold": 0.1,
        "score": None if drifted is None else 0.3 if drifted else 0.01,
        "drifted": drifted,
        "note": "" if drifted is not None else "all null",
    }
    return ColumnResult(**fields | changes)


def finding(kind: Any, exceeded: bool = True) -> DriftFinding:
    return DriftFinding(kind=kind, column="c", exceeded=exceeded, message=f"it is {kind}")


def judged(
    *columns: ColumnResult, findings: tuple[DriftFinding, ...] = (), rows: tuple[int, int] = (500, 500), **policy: Any
) -> Judgement:
    return judge(columns, findings, rows, ComparisonPolicy(**policy))


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_p_values_are_those_of_statsmodels(seed: int) -> None:
    values = np.random.default_rng(seed).random(40) ** 3
    values[:5] = values[5]
    _, expected, *_ = multipletests(values, method="fdr_bh")
    assert adjust_p_values(values.tolist()) == pytest.approx(expected.tolist())
    assert adjust_p_values([]) == []


def test_only_p_values_are_corrected() -> None:
    tests = [column(f"t{n}", True, method="ks", threshold=0.05, score=0.04) for n in range(3)]
    strong = column("strong", True, method="chisquare", threshold=0.05, score=0.001)
    found = correct([*tests, strong, column("d", True), column("u", None)])
    assert [(item.column, item.drifted) for item in found] == [
        *(("t0", True), ("t1", True), ("t2", True), ("strong", True), ("d", True), ("u", None))
    ]
    found = correct([tests[0], *(column(f"n{n}", False, method="ks", threshold=0.05, score=0.9) for n in range(9))])
    assert (found[0].drifted, found[0].adjusted) == (False, pytest.approx(0.4))
    assert found[0].score == 0.04


def test_the_share_counts_from_its_threshold_on() -> None:
    half = (column("a", True), column("b", False))
    assert judged(*half).verdict == "drifted"
    assert judged(*half).share == 0.5
    assert judged(*half, drift_share=0.51).verdict == "not_drifted"


def test_weights_decide_which_features_count() -> None:
    columns = (column("a", True, weight=9.0), column("b", False, weight=1.0), column("c", False, weight=0.0))
    found = judged(*columns, weights={"a": 9, "b": 1})
    assert (found.verdict, found.share) == ("drifted", pytest.approx(0.9))
    assert "90.0% by weight" in found.reason


def test_unknown_features_are_not_taken_for_stable() -> None:
    found = judged(column("a", False), column("b", None))
    assert found.verdict == "inconclusive"
    assert "1 features could not be compared and would decide" in found.reason
    assert judged(column("a", False), column("b", False), column("c", None)).verdict == "not_drifted"
    assert judged(column("a", None)).verdict == "inconclusive"
    assert judged().verdict == "inconclusive"


@pytest.mark.parametrize("rows", [(500, 99), (99, 500), (500, 0)])
def test_too_few_rows_are_inconclusive_whatever_drifted(rows: tuple[int, int]) -> None:
    found = judged(column("a", True), rows=rows)
    assert found.verdict == "inconclusive"
    assert f"{rows[0]} reference rows and {rows[1]} current rows" in found.reason


def test_a_change_of_the_schema_is_never_no_drift() -> None:
    columns = [column(str(number), False) for number in range(20)]
    for kind in ("removed_column", "retyped_column"):
        found = judged(*columns, findings=(finding(kind),))
        assert (found.verdict, f"it is {kind}" in found.reason) == ("inconclusive", True)
        assert judged(*columns, findings=(finding(kind),), drift_on=(kind,)).verdict == "drifted"
    assert judged(*columns, findings=(finding("added_column"),)).verdict == "not_drifted"


def test_findings_make_drift_where_the_policy_says_so() -> None:
    columns = [column(str(number), False) for number in range(20)]
    assert judged(*columns, findings=(finding("missing_rate"),)).verdict == "not_drifted"
    assert judged(*columns, findings=(finding("missing_rate"),), drift_on=("missing_rate",)).verdict == "drifted"
    quiet = finding("new_categories", exceeded=False)
    assert judged(*columns, findings=(quiet,), drift_on=("new_categories",)).verdict == "not_drifted"


@pytest.mark.parametrize("role", ["prediction", "target", "quality"])
def test_a_drifted_prediction_label_or_quality_is_drift_by_itself(role: Any) -> None:
    features = [column(str(number), False) for number in range(20)]
    found = judged(*features, column("y", True, role=role))
    assert found.verdict == "drifted"
    assert f"the {role} 'y' drifted" in found.reason
    assert found.share == 0
    assert judged(*features, column("y", True, role=role), drift_on_roles=()).verdict == "not_drifted"
    unknown = judged(*features, column("y", None, role=role))
    assert (unknown.verdict, f"the {role} 'y' could not be compared" in unknown.reason) == ("inconclusive", True)


def test_a_check_of_predictions_alone_can_pass() -> None:
    assert judged(column("p", False, role="prediction")).verdict == "not_drifted"


def test_severity_sorts_unknown_first_and_stable_last() -> None:
    columns = [
        column("stable", False),
        column("far", True, score=0.9),
        column("near", True, score=0.11),
        column("unknown", None),
        column("test", True, method="ks", threshold=0.05, score=0.01),
    ]
    ordered = sorted(columns, key=lambda item: -item.severity)
    assert [item.column for item in ordered] == ["unknown", "far", "test", "near", "stable"]
