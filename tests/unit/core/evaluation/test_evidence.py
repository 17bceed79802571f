"""The documents between the planes: round trips, and every problem of a bad one told at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import dump_document, parse_document, plain
from airflow_mcp.core.evaluation import evidence
from airflow_mcp.core.evaluation.diagnostics import (
    Calibration,
    CalibrationBin,
    Confusion,
    ConfusionMatrix,
    Histogram,
    LatencyEvidence,
    PercentileInterval,
)
from airflow_mcp.core.evaluation.evidence import (
    ComparisonRequest,
    EvaluationEvidence,
    EvaluationRequest,
    MetricComparison,
    MetricInterval,
    ModelEvidence,
    ModelUnderTest,
    SliceEvidence,
)
from airflow_mcp.exceptions import EvidenceError

PIN = DatasetPin(uri="s3://bucket/holdout.parquet", version="v7", hash="sha256:ab")
COMPARISON = MetricComparison(
    metric="rmse",
    method="bootstrap",
    difference=-0.1,
    low=-0.3,
    high=0.1,
    confidence=0.95,
    p_value=None,
    standard_error=0.1,
    rows=114,
    resamples=10_000,
    seed=0,
)
HISTOGRAM = Histogram(edges=(0.0, 0.5, 1.0), counts=(4, 2), above=1, minimum=0.0, maximum=3.5)
DOCUMENTS: list[Any] = [
    PIN,
    EvaluationRequest(
        identity="i",
        run_id="r",
        candidate=ModelUnderTest(model_uri="models:/m-1"),
        champion=ModelUnderTest(model_uri="models:/churn/3", run_id="q", version="3"),
        dataset=PIN,
        target="label",
        model_type="classifier",
        positive_label=1,
        slices=("region", "sex"),
        comparisons=(ComparisonRequest(metric="accuracy"), ComparisonRequest(metric="f1", confidence=0.99, seed=3)),
    ),
    EvaluationEvidence(
        identity="i",
        run_id="r",
        model_type="regressor",
        target="y",
        dataset=PIN,
        rows=114,
        candidate=ModelEvidence(
            model_uri="models:/m-1",
            metrics={"rmse": 0.1 + 0.2},
            undefined={"r2": "constant"},
            intervals={
                "rmse": MetricInterval(method="bootstrap", low=0.2, high=0.4, confidence=0.95, standard_error=0.05)
            },
            confusion=ConfusionMatrix(
                labels=("a", "b"), counts=((3, 1), (0, 2)), largest=(Confusion(true="a", predicted="b", rows=1),)
            ),
            calibration=Calibration(
                event="positive_class",
                bins=(CalibrationBin(low=0, high=1, rows=6, positives=3, mean_probability=0.4),),
                ece=0.1,
                brier=0.2,
            ),
            residuals=HISTOGRAM,
            latency=LatencyEvidence(
                calls=20,
                warmup=2,
                histogram=HISTOGRAM,
                intervals={"latency_ms": PercentileInterval(low=1.0, high=None)},
                confidence=0.95,
            ),
        ),
        champion=None,
        slices=(
            SliceEvidence(
                column="sex",
                value="f",
                rows=3,
                candidate={"rmse": 1.0},
                champion={"rmse": 2},
                intervals={
                    "rmse": MetricInterval(method="bootstrap", low=0.5, high=1.5, confidence=0.95, standard_error=0.2)
                },
            ),
        ),
        comparisons=(COMPARISON,),
        created_at="2026-11-21T02:00:00+00:00",
        environment={"python": "3.11"},
    ),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
@pytest.mark.parametrize("indent", [2, None])
def test_a_document_survives_json(document: Any, indent: int | None) -> None:
    text = dump_document(document, indent=indent)
    assert parse_document(type(document), text, "test") == document
    assert parse_document(type(document), text.encode(), "test") == document
    assert ("\n" in text) is (indent is not None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
def test_plain_values_are_json_and_make_the_document_again(document: Any) -> None:
    values = plain(document)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert type(document).model_validate(values) == document


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
def test_a_document_cannot_be_changed(document: Any) -> None:
    name = next(iter(type(document).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(document, name, "other")


def test_results_name_their_schema() -> None:
    assert plain(DOCUMENTS[2])["schema"] == evidence.EVIDENCE_SCHEMA == "airflow_mcp/evaluation/4"


def changed(document: BaseModel, **changes: Any) -> str:
    return json.dumps({**plain(document), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
def test_an_unknown_key_is_refused(document: Any) -> None:
    with pytest.raises(EvidenceError, match="surprise is not a known name"):
        parse_document(type(document), changed(document, surprise=1), "the file")


@pytest.mark.parametrize(
    ("document", "changes", "where"),
    [
        (DOCUMENTS[2], {"rows": "114"}, "rows must be a whole number; got"),
        (DOCUMENTS[2], {"rows": True}, "rows must be a whole number; got"),
        (DOCUMENTS[2], {"rows": -1}, "rows must be at least 0; got -1"),
        (DOCUMENTS[2], {"rows": 0}, "dataset, model_type and rows are needed, unless self_reported is true"),
        (DOCUMENTS[2], {"dataset": None}, "dataset, model_type and rows are needed, unless self_reported is true"),
        (DOCUMENTS[2], {"self_reported": True}, "then none is allowed"),
        (DOCUMENTS[1], {"target": ""}, "a dataset needs target and model_type"),
        (DOCUMENTS[1], {"dataset": None}, "comparisons and importance_rows need a dataset"),
        (DOCUMENTS[2], {"candidate": {"model_uri": "m", "metrics": {"f1": "0.9"}}}, "candidate.metrics.f1"),
        (DOCUMENTS[2], {"candidate": {"model_uri": "m", "metrics": {"f1": True}}}, "candidate.metrics.f1"),
        (DOCUMENTS[2], {"candidate": {"model_uri": "m", "metrics": {"f1": None}}}, "candidate.metrics.f1"),
        (DOCUMENTS[2], {"candidate": {"model_uri": "m"}}, "candidate.metrics is missing"),
        (DOCUMENTS[2], {"model_type": "ranking"}, "model_type must be one of classifier, regressor"),
        (DOCUMENTS[2], {"schema": "airflow_mcp/evaluation/9"}, "schema must be one of airflow_mcp/evaluation/1"),
        (DOCUMENTS[1], {"comparisons": [{"metric": "rmse"}]}, "comparisons must name metrics of accuracy, precision"),
        (DOCUMENTS[1], {"comparisons": [{"metric": "f1", "method": "delong"}]}, "method delong compares roc_auc, not"),
        (DOCUMENTS[1], {"comparisons": [{"metric": "f1", "confidence": 1}]}, "confidence must be less than 1; got 1"),
        (DOCUMENTS[1], {"comparisons": [{"metric": "f1", "resamples": 99}]}, "resamples"),
        (DOCUMENTS[2], {"comparisons": [{"metric": "rmse"}]}, "comparisons[0].difference is missing"),
        (DOCUMENTS[1], {"latency_calls": 0}, "latency_calls"),
        (DOCUMENTS[1], {"latency_warmup": -1}, "latency_warmup"),
        (DOCUMENTS[1], {"slices": "region"}, "slices"),
        (DOCUMENTS[0], {"uri": ""}, "uri must be text that is not empty"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(document: Any, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_document(type(document), changed(document, **changes), "the file")
    assert where in str(caught.value)


def test_every_problem_is_told_at_once_with_the_source() -> None:
    text = changed(DOCUMENTS[2], rows="x", surprise=1, model_type="?")
    with pytest.raises(EvidenceError) as caught:
        parse_document(EvaluationEvidence, text, "evaluation/evidence.json of MLflow run r")
    message = str(caught.value)
    assert message.startswith("evaluation/evidence.json of MLflow run r is not a valid EvaluationEvidence: ")
    assert message.endswith("Nothing was decided from it")
    for name in ("rows must be", "surprise is not a known name", "model_type must be"):
        assert name in message


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", "<html>", b"\xff\xfe", '{"rows": NaN}'])
def test_what_is_not_such_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(EvidenceError, match="the file is not a valid EvaluationEvidence: "):
        parse_document(EvaluationEvidence, text, "the file")


@pytest.mark.parametrize("label", [1, 0, True, 0.5, "yes", None])
def test_the_positive_label_keeps_its_type(label: Any) -> None:
    request = parse_document(EvaluationRequest, changed(DOCUMENTS[1], positive_label=label), "the file")
    assert request.positive_label == label
    assert type(request.positive_label) is type(label)


SELF_REPORTED = {"self_reported": True, "dataset": None, "model_type": None, "rows": 0}


def test_evidence_that_a_script_reported_says_so() -> None:
    found = parse_document(EvaluationEvidence, changed(DOCUMENTS[2], **SELF_REPORTED), "the file")
    assert (found.self_reported, found.dataset, found.rows) == (True, None, 0)


def test_self_reported_evidence_cannot_hold_measurements_of_the_champion() -> None:
    champion = {"model_uri": "models:/churn/3", "version": "3", "metrics": {"rmse": 1.0}}
    with pytest.raises(EvidenceError, match="cannot hold metrics of the champion"):
        parse_document(EvaluationEvidence, changed(DOCUMENTS[2], **SELF_REPORTED, champion=champion), "the file")


@pytest.mark.parametrize(
    ("version", "unknown_then"),
    [(1, ["self_reported", "comparisons"]), (2, ["comparisons"]), (3, [])],
    ids=["first", "second", "third"],
)
def test_evidence_of_an_older_version_is_still_read(version: int, unknown_then: list[str]) -> None:
    document = {name: value for name, value in plain(DOCUMENTS[2]).items() if name not in unknown_then}
    for part in document["slices"]:
        if version < 3:
            del part["intervals"]
    for name in ("intervals", "confusion", "calibration", "residuals", "latency"):
        del document["candidate"][name]
    old = json.dumps({**document, "schema": f"airflow_mcp/evaluation/{version}"})
    found = parse_document(EvaluationEvidence, old, "the file")
    assert found.self_reported is False
    assert found.comparisons == (() if version < 3 else (COMPARISON,))
    assert bool(found.slices[0].intervals) is (version >= 3)
    assert (found.candidate.latency, found.candidate.confusion, found.candidate.intervals) == (None, None, {})
