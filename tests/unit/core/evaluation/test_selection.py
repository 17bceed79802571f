"""The pick of the best candidate: order, ties, what can never win, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, ModelEvidence
from airflow_mcp.core.evaluation.selection import (
    Judged,
    Leaderboard,
    SelectionCandidate,
    read_candidates,
    require_all,
    select_best,
)
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError

DATA = DatasetPin(uri="/data/holdout.csv", version="v1", hash="sha256:aa")


def judged(name: str, metrics: dict[str, float] | None, reason: str = "it failed", **changes: Any) -> Judged:
    candidate = SelectionCandidate(name, f"run-{name}", f"models:/m-{name}")
    if metrics is None:
        return Judged(candidate, None, reason)
    given: dict[str, Any] = {
        "identity": f"evaluation-{name}",
        "run_id": candidate.run_id,
        "model_type": "classifier",
        "target": "y",
        "dataset": DATA,
        "rows": 10,
        "candidate": ModelEvidence(model_uri=candidate.model_uri, metrics=metrics),
        "champion": None,
        "created_at": "2026-11-21T02:00:00+00:00",
        **changes,
    }
    return Judged(candidate, EvaluationEvidence(**given))


def names(board: Leaderboard) -> list[str]:
    return [row.name for row in board.rows]


def test_the_greatest_or_the_smallest_value_wins_as_the_direction_says() -> None:
    candidates = [judged("a", {"m": 0.5}), judged("b", {"m": -2.0}), judged("c", {"m": 0.7})]
    assert names(select_best(candidates, "m", "maximize")) == ["c", "a", "b"]
    board = select_best(candidates, "m", "minimize")
    assert (board.winner, [row.rank for row in board.rows]) == ("b", [1, 2, 3])


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_equal_values_keep_the_order_given(direction: Any) -> None:
    candidates = [judged("z", {"m": 0.5}), judged("a", {"m": 0.5}), judged("k", {"m": 0.5})]
    assert names(select_best(candidates, "m", direction)) == ["z", "a", "k"]


def test_only_equal_values_depend_on_the_order() -> None:
    candidates = [judged(str(n), {"m": n / 7}) for n in range(20)]
    boards = set()
    for seed in range(20):
        shuffled = candidates[:]
        random.Random(seed).shuffle(shuffled)
        boards.add(tuple(names(select_best(shuffled, "m", "maximize"))))
    assert len(boards) == 1


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_never_wins_and_is_listed(direction: Any, value: float) -> None:
    strange = judged("strange", {"m": 1.0})
    assert strange.evidence is not None
    strange.evidence.candidate.metrics["m"] = value  # evidence of another maker
    board = select_best([strange, judged("good", {"m": 0.1})], "m", direction)
    assert board.winner == "good"
    assert (board.rows[1].name, board.rows[1].rank, board.rows[1].value) == ("strange", None, None)
    assert f"m is {value}" in board.rows[1].reason


def test_a_missing_or_undefined_metric_never_wins_and_is_listed_with_the_reason() -> None:
    undefined = ModelEvidence(model_uri="models:/m-u", metrics={}, undefined={"m": "one class only"})
    board = select_best(
        [judged("n", {"x": 9.0}), judged("u", {}, candidate=undefined), judged("f", None), judged("g", {"m": 0.1})],
        "m",
        "maximize",
    )
    assert [(row.name, row.reason) for row in board.rows] == [
        ("g", ""),
        ("n", "m was not measured (measured: x)"),
        ("u", "one class only"),
        ("f", "it failed"),
    ]


def test_no_valid_candidate_is_refused_with_the_reason_of_each() -> None:
    with pytest.raises(EvidenceError) as caught:
        select_best([judged("a", {"x": 1.0}), judged("b", None, "its training failed")], "m", "maximize")
    for part in ("no candidate has a usable value of 'm'", "a: m was not measured", "b: its training failed"):
        assert part in str(caught.value)


def test_candidates_measured_on_different_data_are_refused() -> None:
    other = DatasetPin(uri="/data/other.csv", version="v1", hash="sha256:bb")
    with pytest.raises(EvidenceError, match=r"not evaluated on the same data.*a: sha256:aa; b: sha256:bb"):
        select_best([judged("a", {"m": 1.0}), judged("b", {"m": 2.0}, dataset=other)], "m", "maximize")


SELF_REPORTED: dict[str, Any] = {"self_reported": True, "dataset": None, "model_type": None, "target": "", "rows": 0}


def test_self_reported_candidates_are_compared_with_each_other_only() -> None:
    own = [judged("a", {"m": 1.0}, **SELF_REPORTED), judged("b", {"m": 2.0}, **SELF_REPORTED)]
    board = select_best(own, "m", "maximize")
    assert (board.winner, board.self_reported, board.dataset) == ("b", True, None)
    with pytest.raises(EvidenceError, match="b: self-reported, no data; c: sha256:aa"):
        select_best([own[1], judged("c", {"m": 3.0})], "m", "maximize")


def test_a_candidate_without_evidence_is_named_when_all_are_needed() -> None:
    require_all([judged("a", {"m": 1.0})])
    with pytest.raises(EvidenceError, match=r"b: it failed. None of the 2 candidates was picked; .*allow_missing"):
        require_all([judged("a", {"m": 1.0}), judged("b", None)])


def test_the_table_and_the_document_show_every_candidate() -> None:
    board = select_best([judged("forest", {"auc": 0.91}), judged("linear", None)], "auc", "maximize")
    table = str(board).splitlines()
    assert table[0].split() == ["rank", "candidate", "auc", "MLflow", "run"]
    assert table[1].split() == ["1", "forest", "0.91", "run-forest"]
    assert table[2].split() == ["-", "linear", "-", "run-linear", "it", "failed"]
    assert Leaderboard.model_validate_json(board.model_dump_json(by_alias=True)) == board


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "candidates must be a list of mappings"),
        ("a", "got 'a'"),
        (None, "got None"),
        ([3], "candidates[0] must be a mapping"),
        ([{"name": ""}], "candidates[0].name must be a non-empty text; got ''"),
        ([{"run_id": "r"}], "candidates[0].name must be a non-empty text; got None"),
        ([{"name": "a", "score": 1}], "got score"),
        ([{"name": "a"}, {"name": "a"}], "got 'a' more than once"),
    ],
)
def test_wrong_candidates_are_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_candidates(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("item", "missing"),
    [
        ({"run_id": "r", "model_uri": "m"}, False),
        ({"run_id": "r", "model_uri": "m", "evidence_identity": "e"}, False),
        ({"run_id": "r", "model_uri": "m", "evidence_identity": None}, True),
        ({"run_id": "r", "model_uri": "m", "evidence_identity": "None"}, True),
        ({"run_id": None, "model_uri": "m"}, True),
        ({"run_id": "None", "model_uri": "m"}, True),
        ({"run_id": "r"}, True),
    ],
)
def test_a_candidate_whose_tasks_pushed_nothing_is_missing(item: dict[str, Any], missing: bool) -> None:
    assert read_candidates([{"name": "a", **item}])[0].is_missing is missing
