"""A field of somebody else's answer: every way in which it is no clear yes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core.argument import read_argument
from airflow_mcp.core.gate.rules.benchmark import BenchmarkAnswer, BenchmarkRule, judge_benchmark
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.exceptions import InvalidArgumentError

URL = "https://api.monitoring/v1/benchmark?service=churn"


def rule(**changes: Any) -> BenchmarkRule:
    given = {"url": URL, "path": "regression", "expect": False}
    return read_argument(BenchmarkRule, "benchmarks", {**given, **changes})


def bound(threshold: str) -> BenchmarkRule:
    return rule(expect=None, threshold=threshold)


def judge(asked: BenchmarkRule, body: Any, status: int | None = 200, **more: Any) -> RuleResult:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge_benchmark(asked, BenchmarkAnswer(status, content, **more))


@pytest.mark.parametrize(
    ("asked", "said", "verdict"),
    [
        (rule(), False, "passed"),
        (rule(), True, "failed"),
        (rule(), 0, "error"),  # 0 is not false
        (rule(), "false", "error"),
        (rule(), None, "error"),
        (rule(), [], "error"),
        (rule(expect=1), 1.0, "passed"),
        (rule(expect=1), True, "error"),
        (rule(expect="ok"), "ok", "passed"),
        (rule(expect="ok"), "OK", "failed"),
        (bound("<= 0.05"), 0.05, "passed"),
        (bound("<= 0.05"), 0.0501, "failed"),
        (bound("< 5"), 5, "failed"),
        (bound(">= -1"), -1, "passed"),
        (bound("<= 0.05"), "0.01", "error"),
        (bound("<= 1"), True, "error"),
        (bound("<= 1"), None, "error"),
    ],
)
def test_only_the_value_that_is_asked_for_passes(asked: BenchmarkRule, said: Any, verdict: str) -> None:
    assert judge(asked, {"regression": said}).verdict == verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(None, "inconclusive"), (429, "inconclusive"), (500, "inconclusive"), (503, "inconclusive")]
    + [(code, "error") for code in (201, 204, 301, 302, 307, 400, 401, 403, 404)],
)
def test_no_status_but_200_passes_whatever_the_body_says(status: int | None, verdict: str) -> None:
    assert judge(rule(), {"regression": False}, status).verdict == verdict


@pytest.mark.parametrize("asked", [rule(), rule(expect=1), bound("<= 5"), bound(">= 5")])
@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1e400"])
def test_a_number_that_is_too_large_is_an_error(asked: BenchmarkRule, number: str) -> None:
    result = judge(asked, f'{{"regression": {number}}}'.encode())
    assert (result.verdict, result.value) == (Verdict.ERROR, None)
    assert "which is outside the range of a number" in result.reason


@pytest.mark.parametrize("asked", [rule(), rule(expect="ok"), bound("<= 5")])
@pytest.mark.parametrize(
    "said",
    [
        {"regression": "s3cret\\t0ken"},
        {"regression": "x" * 75 + "s3cret\\t0ken"},
        {"regression": [{"s3cret\\t0ken": 1}]},
        {"regression": "s3cret\\t\N{EURO SIGN}ken"},
    ],
)
def test_no_reason_shows_a_credential(asked: BenchmarkRule, said: Any) -> None:
    secrets = ("s3cret\\t0ken", "s3cret\\t\N{EURO SIGN}ken")
    for body in (json.dumps(said).encode(), json.dumps(said, ensure_ascii=False).encode()):
        shown = judge(asked, body, secrets=secrets).model_dump_json()
        assert "***" in shown
        assert "s3cret" not in shown
    for status in (None, 200):
        result = judge(asked, said, status, problem=f"Illegal value {secrets[0]!r}", secrets=secrets)
        assert result.reason.endswith("Illegal value '***'")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>sign in</html>", b"false", b"[]", b"{}", b'{"regression"', b'{"Regression": false}'),
        *(b"\xff\xfe", b'{"regression": false', b'{"regression": NaN}', b"[" * 100_000),
    ],
)
def test_an_answer_that_does_not_say_it_is_an_error(body: bytes) -> None:
    result = judge(rule(), body)
    assert result.verdict is Verdict.ERROR
    assert result.value is None


def test_a_number_that_is_infinite_is_no_number() -> None:
    assert judge(bound("<= 5"), b'{"regression": -1e999}').verdict is Verdict.ERROR


def test_half_an_answer_is_none() -> None:
    assert judge(rule(), {"regression": False}, problem="the answer is larger than 5 bytes").verdict is Verdict.ERROR


def test_the_report_says_what_was_seen_without_the_secrets() -> None:
    result = judge(
        rule(), {"regression": True, "echo": "Bearer s3cret\n"}, milliseconds=12.34, tries=2, secrets=("s3cret",)
    )
    assert result.facts == {
        "url": URL,
        "status": 200,
        "milliseconds": 12.3,
        "tries": 2,
        "excerpt": '{"regression": true, "echo": "Bearer ***\\n"}',
    }
    assert (result.kind, result.reason) == ("benchmark", "regression is true, not false")
    long = judge(rule(), {"regression": False, "x": "y" * 10_000})
    assert len(str(long.facts["excerpt"])) == 300


def test_a_rule_says_everything_that_decides() -> None:
    assert str(rule()) == f"regression is false at {URL}"
    assert str(bound("<= 0.05").model_copy(update={"mode": "warn"})) == f"warn: regression <= 0.05 at {URL}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expect": None}, "give exactly one of expect and threshold"),
        ({"threshold": "< 5"}, "give exactly one of expect and threshold"),
        ({"expect": None, "threshold": "champion"}, "threshold must be a rule"),
        ({"expect": None, "threshold": ">= champion"}, "not a comparison with the champion"),
        ({"expect": {"a": 1}}, "expect"),
        ({"path": "a b"}, "path must be a path such as results[0].score; got 'a b'"),
        ({"url": "ftp://host/x"}, "url must be an http or https address"),
        ({"url": "https:///x"}, "url must be an http or https address"),
        ({"url": "https://host:99999/x"}, "url must be an http or https address"),
        ({"url": "https://host/x#part"}, "url must not have a fragment"),
        ({"timeout": 0}, "timeout"),
        ({"retries": 11}, "retries"),
        ({"hedaers": {}}, "hedaers is not a known name. Known names: conn_id, expect"),
    ],
)
def test_a_rule_that_cannot_be_asked_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        rule(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://ada:s3cret@host/x", "https://host/x?token=s3cret", "https://host/?API_KEY=s3cret"]
)
def test_a_credential_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        rule(url=url)
    assert "not shown here" in str(caught.value)
    assert "s3cret" not in str(caught.value)
