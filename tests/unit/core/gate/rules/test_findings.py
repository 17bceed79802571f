"""Limits on findings: reports of real tools, and every report that does not tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core.argument import read_argument
from airflow_mcp.core.gate.rules import findings
from airflow_mcp.core.gate.rules.findings import FindingsRule, judge_findings
from airflow_mcp.core.gate.rules.report_files import FetchedReport, ReportFile
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.sarif import Findings, parse_sarif
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from tests.support.paths import REPORTS

RUFF, BANDIT = (REPORTS / "ruff.sarif").read_bytes(), (REPORTS / "bandit.sarif").read_bytes()
NOW, BEFORE = {"run_id": "1", "path": "reports/x.sarif"}, {"run_id": "0", "path": "reports/x.sarif"}


def finding(rule: str = "R1", file: str = "a.py", text: str = "bad", **more: Any) -> dict[str, Any]:
    where = {"physicalLocation": {"artifactLocation": {"uri": file}, "region": {"startLine": more.pop("line", 1)}}}
    return {"ruleId": rule, "message": {"text": text}, "locations": [where], **more}


def sarif(*results: dict[str, Any], **run: Any) -> bytes:
    driver = {"name": "tool", "rules": [{"id": "R9", "defaultConfiguration": {"level": "error"}}]}
    return json.dumps(
        {"version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": list(results), **run}]}
    ).encode()


def judge(
    now: bytes | None, before: bytes | None = None, commits: tuple[str, str] = ("", ""), **limits: Any
) -> list[RuleResult]:
    given = {"report": NOW, **limits, **({"baseline": BEFORE} if before is not None else {})}
    rule = read_argument(FindingsRule, "findings", given)
    fetched = {
        ReportFile(**NOW): FetchedReport(now, "there is none", commits[0]),
        ReportFile(**BEFORE): FetchedReport(before, "there is none"),
    }
    results = list(judge_findings(rule, fetched, commits[1]))
    assert tuple(result.rule for result in results) == rule.rules()
    return results


def test_a_report_of_bandit_is_read() -> None:
    report = parse_sarif(BANDIT)
    assert report.tools == ("Bandit",)
    assert sorted((found.rule, found.level) for found in report.found) == [
        ("B101", "note"),
        ("B404", "note"),
        ("B602", "error"),
    ]
    assert report.problems == ()


def test_a_report_of_ruff_is_read() -> None:
    report = parse_sarif(RUFF)
    assert report.tools == ("ruff",)
    assert {"S602", "ANN001"} <= {found.rule for found in report.found}
    assert {found.level for found in report.found} == {"error"}


@pytest.mark.parametrize(
    ("limits", "value", "verdict"),
    [
        ({"max": {"error": 1}}, 1, "passed"),
        ({"max": {"error": 0}}, 1, "failed"),
        ({"max": {"warning": 0}}, 0, "passed"),
        ({"max": {"total": 2}}, 3, "failed"),
        ({"max_by_rule": {"B602": 0}}, 1, "failed"),
        ({"max_by_rule": {"B999": 0}}, 0, "passed"),
        ({"max": {"error": 0}, "tools": ["Bandit"]}, 1, "failed"),
    ],
)
def test_findings_are_counted_by_level_rule_and_tool(limits: dict[str, Any], value: int, verdict: str) -> None:
    (result,) = judge(BANDIT, **limits)
    assert (result.value, result.verdict, result.kind) == (value, verdict, "findings")


def test_the_report_names_what_was_found() -> None:
    (result,) = judge(BANDIT, max={"total": 0}, mode="warn")
    assert result.rule == "warn: findings (total) <= 0 in reports/x.sarif"
    assert result.reason.startswith("3 is not <= 0: ")
    assert "B602 (1)" in result.reason
    assert result.facts["tools"] == "Bandit"
    assert result.facts["error"] == 1


@pytest.mark.parametrize(
    ("result", "counts"),
    [
        (finding(), {"warning": 1}),
        (finding(level="note"), {"note": 1}),
        (finding(level="none"), {"none": 1}),
        (finding("R9"), {"error": 1}),  # as the tool says of the rule
        ({"message": {"text": "x"}, "ruleIndex": 0}, {"error": 1}),
        ({"message": {"text": "x"}, "rule": {"id": "R9"}}, {"error": 1}),
        (finding(kind="pass"), {}),
        (finding(kind="review"), {}),
        (finding(suppressions=[{"kind": "inSource"}]), {}),
        (finding(suppressions=[{"kind": "external", "status": "rejected"}]), {"warning": 1}),
        (finding(suppressions=[]), {"warning": 1}),
        (finding(baselineState="absent"), {}),
    ],
)
def test_levels_and_what_counts_at_all_are_those_of_the_standard(
    result: dict[str, Any], counts: dict[str, int]
) -> None:
    levels = [found.level for found in parse_sarif(sarif(result)).found]
    assert {level: levels.count(level) for level in levels} == counts


def rules(*levels: str, **component: str) -> dict[str, Any]:
    """Make a component of a tool whose rules, r0 and so on, have these levels."""
    made = [{"id": f"r{place}", "defaultConfiguration": {"level": level}} for place, level in enumerate(levels)]
    return {"rules": made, **component}


@pytest.mark.parametrize(
    ("result", "level"),
    [
        ({"ruleIndex": 0}, "note"),
        ({"ruleIndex": 1, "rule": {"index": 1, "toolComponent": {"index": 0}}}, "error"),
        ({"rule": {"index": 1, "toolComponent": {"index": 1}}}, "none"),
        ({"rule": {"index": 1, "toolComponent": {"name": "second"}}}, "none"),
        ({"rule": {"index": 1, "toolComponent": {"name": "same", "guid": "g1"}}}, "error"),
        ({"rule": {"index": 0, "toolComponent": {"name": "tool"}}}, "note"),
        ({"rule": {"index": 0, "toolComponent": {"index": 7}}}, "warning"),
        ({"ruleId": "r1"}, "error"),  # the driver has none of that name, an extension has
        ({"ruleId": "r0"}, "note"),
        ({"ruleId": "r0", "rule": {"index": 0, "toolComponent": {"index": 0}}}, "warning"),
        ({"ruleId": "r2"}, "warning"),
    ],
)
def test_a_rule_of_an_extension_has_its_own_level(result: dict[str, Any], level: str) -> None:
    extensions = [rules("warning", "error", name="same", guid="g1"), rules("error", "none", name="second")]
    tool = {"driver": {**rules("note"), "name": "tool"}, "extensions": extensions}
    (found,) = parse_sarif(sarif({"message": {"text": "x"}, **result}, tool=tool)).found
    assert found.level == level


@pytest.mark.parametrize("now", [BANDIT, BANDIT[:99], sarif(results=None)], ids=["good", "cut", "tells-nothing"])
def test_a_report_is_read_once_however_many_limits_there_are(monkeypatch: pytest.MonkeyPatch, now: bytes) -> None:
    read: list[bytes] = []

    def parse(content: bytes) -> Findings:
        read.append(content)
        return parse_sarif(content)

    monkeypatch.setattr(findings, "parse_sarif", parse)
    limits = {"max": {"error": 9, "warning": 9}, "max_new": {"error": 9, "total": 9}, "max_by_rule": {"B602": 9}}
    alone = [judge(now, sarif(), **{name: {of: 9}})[0] for name, each in limits.items() for of in each if "new" in name]
    read.clear()
    results = judge(now, sarif(), **limits)
    assert len(results) == 5
    assert results[2:4] == alone
    assert [read.count(content) for content in dict.fromkeys(read)] == [1] * (2 if now == BANDIT else 1)


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ([finding()], [finding()], 0),
        ([finding(line=1)], [finding(line=99)], 0),
        ([finding()], [finding(), finding(line=2)], 1),
        ([finding()], [finding(file="b.py")], 1),
        ([finding()], [finding("R2")], 1),
        ([finding()], [finding(text="worse")], 1),
        ([finding()], [], 0),
        ([finding(fingerprints={"v1": "x"})], [finding(text="reworded", fingerprints={"v1": "x"})], 0),
        ([finding(partialFingerprints={"v1": "x"})], [finding(partialFingerprints={"v1": "y"})], 1),
        ([finding(file="file:///tmp/run-1/a.py")], [finding(file="file:///tmp/run-2/a.py")], 0),
    ],
    ids=["same", "moved", "twice", "file", "rule", "text", "gone", "fingerprint", "partial", "absolute"],
)
def test_new_findings_are_those_that_the_baseline_does_not_have(
    before: list[dict[str, Any]], now: list[dict[str, Any]], new: int
) -> None:
    (result,) = judge(sarif(*now), sarif(*before), max_new={"total": 0})
    assert (result.value, result.verdict) == (new, "failed" if new else "passed")


def test_without_a_baseline_the_report_must_say_what_is_new() -> None:
    states = [finding(baselineState=state) for state in ("new", "unchanged", "updated", "absent")]
    assert judge(sarif(*states), max_new={"total": 0})[0].value == 1
    (result,) = judge(sarif(finding()), max_new={"total": 5})
    assert (result.verdict, result.value) == ("inconclusive", None)
    assert "does not say which findings are new; give a baseline" in result.reason
    assert judge(sarif(), max_new={"total": 0})[0].verdict == "passed"


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (None, "inconclusive"),
        (b"", "error"),
        (b"<html/>", "error"),
        (b"{}", "error"),
        (BANDIT[:200], "error"),
        (b"[" * 100_000, "error"),
        (json.dumps({"version": "2.0.0", "runs": []}).encode(), "error"),
        (json.dumps({"version": "2.1.0", "runs": {}}).encode(), "error"),
        (json.dumps({"version": "2.1.0", "runs": [{"results": []}]}).encode(), "error"),
        (json.dumps({"version": "2.1.0", "runs": []}).encode(), "inconclusive"),
        (sarif(results=None), "inconclusive"),
        (sarif(invocations=[{"executionSuccessful": False}]), "inconclusive"),
        (sarif(finding(level="fatal")), "error"),
    ],
)
def test_a_report_that_does_not_tell_is_never_a_pass(now: bytes | None, verdict: str) -> None:
    (result,) = judge(now, max={"total": 100})
    assert (result.verdict, result.value) == (verdict, None)


def test_a_baseline_that_does_not_tell_is_never_a_pass() -> None:
    assert judge(sarif(), b"", max_new={"total": 5})[0].verdict == "error"
    assert judge(sarif(), sarif(results=None), max_new={"total": 5})[0].verdict == "inconclusive"


def test_a_tool_that_must_run_and_did_not_is_no_pass() -> None:
    (result,) = judge(BANDIT, max={"error": 5}, tools=["Bandit", "semgrep"])
    assert result.verdict == "inconclusive"
    assert "semgrep did not run" in result.reason


def test_a_report_about_other_code_does_not_count() -> None:
    assert judge(sarif(), commits=("abc", "def"), max={"total": 0})[0].verdict == "error"
    assert judge(sarif(), commits=("abc", "def"), max={"total": 0}, same_commit=False)[0].verdict == "passed"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give at least one of"),
        ({"max": {"errors": 0}}, "findings.max.errors"),
        ({"max": {"error": -1}}, "findings.max.error"),
        ({"max": {"error": 0}, "baseline": BEFORE}, "baseline needs max_new"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_argument(FindingsRule, "findings", {"report": NOW, **given})
    assert message in str(caught.value)


def test_a_list_where_an_object_is_meant_is_refused() -> None:
    with pytest.raises(EvidenceError, match="message is not an object"):
        parse_sarif(sarif({"message": [], "ruleId": "x"}))
