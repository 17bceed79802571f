"""What is counted for each version, and how it reads in Prometheus' format."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from airflow_mcp.core.serving.frames import AnswerKind
from airflow_mcp.core.serving.traffic import Choice
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.metrics import MAX_VALUES, Metrics
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import ModelAnswer

VERSION = ServedVersion("fraud", "8")
CHAMPION = Choice(VERSION, "champion")
PREFIX = "airflow_mcp_serving_"


def no_pool(*_: Any) -> Any:
    raise AssertionError("nothing is loaded here")


def metrics() -> Metrics:
    return Metrics(ServedModels(no_pool))


def exchange(choice: Choice | None = CHAMPION, *, status: int = 200, code: str = "", answer: Any = None) -> Exchange:
    made = Exchange({"headers": []}, 0.0)
    made.model, made.choice, made.status, made.code, made.seconds = "fraud", choice, status, code, 0.003
    made.answer = answer
    return made


def samples(found: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of a metric by its labels other than model and version, in the order of their names."""
    return {
        tuple(
            value for label, value in sorted(sample.labels.items()) if label not in ("model", "version")
        ): sample.value
        for family in text_string_to_metric_families(found.exposition().decode())
        for sample in family.samples
        if sample.name == name
    }


def test_requests_are_counted_by_role_and_status() -> None:
    counted = metrics()
    for each in (exchange(), exchange(), exchange(status=500, code="model_failed")):
        counted.record(each)
    counted.record(exchange(Choice(VERSION, "canary")))
    assert samples(counted, f"{PREFIX}requests_total") == {
        ("200", "champion"): 2.0,
        ("500", "champion"): 1.0,
        ("200", "canary"): 1.0,
    }
    buckets = samples(counted, f"{PREFIX}request_seconds_bucket")
    assert [buckets[edge, "champion"] for edge in ("0.002", "0.005", "+Inf")] == [0.0, 3.0, 3.0]
    assert abs(samples(counted, f"{PREFIX}request_seconds_sum")["champion",] - 0.009) < 1e-9


def test_requests_that_reach_no_version_are_counted_by_their_error() -> None:
    counted = metrics()
    counted.record(exchange(None, status=429, code="rate_limited"))
    assert samples(counted, f"{PREFIX}refused_total") == {("rate_limited",): 1.0}
    assert samples(counted, f"{PREFIX}requests_total") == {}


def test_classes_are_counted_and_neither_numbers_with_fractions_nor_sentences() -> None:
    counted = metrics()
    sentence = b'"' + b"x" * 40 + b'"'
    for answer in (
        ModelAnswer(AnswerKind.INTEGERS, [0, 1, 1], 3),
        ModelAnswer(AnswerKind.ROWS, [b'"spam"', b"true", b"[0.1,0.9]", sentence, b'{"a":1}'], 5),
        ModelAnswer(AnswerKind.FLOATS, [0.5], 1),
    ):
        counted.record(exchange(answer=answer))
    assert samples(counted, f"{PREFIX}predictions_total") == {
        ("0",): 1.0,
        ("1",): 2.0,
        ("spam",): 1.0,
        ("true",): 1.0,
        ("other",): 3.0,
    }


def test_numbers_are_counted_by_ranges() -> None:
    counted = metrics()
    counted.record(exchange(answer=ModelAnswer(AnswerKind.FLOATS, [0.5, 0.51, -0.5, 0.0, float("nan"), 1e300], 6)))
    counted.record(exchange(answer=ModelAnswer(AnswerKind.INTEGERS, [1], 1)))
    found = {name: count for (name,), count in samples(counted, f"{PREFIX}prediction_range_total").items()}
    assert found == {"0.5012": 1.0, "0.4467": 1.0, "-0.4467": 1.0, "0": 1.0, "NaN": 1.0, "8.913e+08": 1.0, "1": 1.0}


def test_requests_that_do_not_fit_the_signature_are_counted_and_0_of_them_too() -> None:
    counted = metrics()
    canary = Choice(VERSION, "canary")
    for each in (exchange(), exchange(canary, status=400, code="invalid_rows"), exchange(canary, status=400)):
        counted.record(each)
    assert samples(counted, f"{PREFIX}unfit_total") == {("champion",): 0.0, ("canary",): 1.0}


def test_only_so_many_classes_have_a_series_of_their_own() -> None:
    counted = metrics()
    counted.record(exchange(answer=ModelAnswer(AnswerKind.INTEGERS, list(range(100)), 100)))
    found = samples(counted, f"{PREFIX}predictions_total")
    assert len(found) == MAX_VALUES + 1
    assert found["other",] == 100.0 - MAX_VALUES


def test_the_series_of_a_version_that_is_gone_vanish() -> None:
    counted = metrics()
    counted.batch_observer(VERSION)(0.002, 64)
    counted.record(exchange())
    assert samples(counted, f"{PREFIX}batch_rows_sum") == {(): 64.0}
    counted.forget(VERSION)
    assert samples(counted, f"{PREFIX}batch_rows_sum") == {}
    counted.record(exchange())
    assert samples(counted, f"{PREFIX}requests_total") == {("200", "champion"): 1.0}
