"""Limits on coverage, on all code and on new code."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.argument import read_argument
from airflow_mcp.core.gate.rules import coverage
from airflow_mcp.core.gate.rules.cobertura import Coverage, parse_cobertura
from airflow_mcp.core.gate.rules.coverage import CoverageRule, judge_coverage
from airflow_mcp.core.gate.rules.report_files import FetchedReport, ReportFile
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.exceptions import InvalidArgumentError
from tests.support.paths import REPORTS

NOW = {"run_id": "1", "path": "reports/coverage.xml"}
BEFORE = {"run_id": "0", "path": "reports/coverage.xml"}
DIFF = {"run_id": "1", "path": "reports/change.diff"}
COVERAGE, CHANGE = (REPORTS / "coverage.xml").read_bytes(), (REPORTS / "change.diff").read_bytes()


def report(*roots: str, **files: str) -> bytes:
    """Make a report with roots: file to a text in which each letter is a line, ``x`` one that ran."""
    classes = "".join(
        f'<class filename="{name.replace("__", "/")}.py"><lines>'
        + "".join(f'<line number="{number}" hits="{int(line == "x")}"/>' for number, line in enumerate(lines, 1))
        + "</lines></class>"
        for name, lines in files.items()
    )
    sources = "".join(f"<source>{root}</source>" for root in roots)
    packages = f"<packages><package><classes>{classes}</classes></package></packages>"
    return f"<coverage><sources>{sources}</sources>{packages}</coverage>".encode()


def judge(
    now: bytes | None = COVERAGE,
    before: bytes | None = None,
    diff: bytes | None = None,
    commits: tuple[str, str] = ("", ""),
    **limits: Any,
) -> list[RuleResult]:
    given: dict[str, Any] = {"report": NOW, **limits}
    given |= {"baseline": BEFORE} if before is not None else {}
    given |= {"changed_lines": DIFF} if diff is not None else {}
    rule = read_argument(CoverageRule, "coverage", given)
    fetched = {
        ReportFile(**NOW): FetchedReport(now, "there is none", commits[0]),
        ReportFile(**BEFORE): FetchedReport(before, "there is none"),
        ReportFile(**DIFF): FetchedReport(diff, "there is none"),
    }
    results = list(judge_coverage(rule, fetched, commits[1]))
    assert tuple(result.rule for result in results) == rule.rules()
    return results


@pytest.mark.parametrize(
    ("limits", "value", "verdict"),
    [
        ({"min_line_rate": 0.75}, 0.75, "passed"),
        ({"min_line_rate": 0.7501}, 0.75, "failed"),
        ({"min_branch_rate": 0.5}, 0.5, "passed"),
        ({"min_branch_rate": 0.51}, 0.5, "failed"),
    ],
)
def test_rates_of_all_code_are_judged_at_their_boundaries(limits: dict[str, float], value: float, verdict: str) -> None:
    (result,) = judge(**limits)
    assert (result.value, result.verdict, result.kind) == (value, verdict, "coverage")
    assert result.bound == next(iter(limits.values()))


def test_every_limit_is_a_rule_of_its_own() -> None:
    lines, branches = judge(min_line_rate=0.7, min_branch_rate=0.9, mode="warn")
    assert (lines.verdict, branches.verdict) == ("passed", "failed")
    assert lines.rule == "warn: line coverage >= 0.7 in reports/coverage.xml"
    assert lines.reason == "0.75 is >= 0.7: 9 of 12 lines"
    assert lines.facts == {"covered": 9, "all": 12}


def test_changed_lines_are_measured_where_they_can_run() -> None:
    (result,) = judge(diff=CHANGE, min_new_line_rate=0.7)
    assert result.value == pytest.approx(6 / 9)  # scale.py, all of it is new
    assert (result.verdict, result.facts) == ("failed", {"covered": 6, "all": 9})
    assert judge(diff=b"", min_new_line_rate=1)[0].verdict is None
    docs = b"diff --git a/R.md b/R.md\n--- a/R.md\n+++ b/R.md\n@@ -1 +1 @@\n-a\n+b\n"
    assert judge(diff=docs, min_new_line_rate=1)[0].reason == "does not apply: there is no new code (changed lines: 0)"


def added(file: str) -> bytes:
    return f"--- a/{file}\n+++ b/{file}\n@@ -0,0 +1 @@\n+x\n".encode()


def test_a_changed_file_that_was_not_measured_is_no_pass_unless_it_needs_no_coverage() -> None:
    (result,) = judge(diff=CHANGE + added("tests/test_more.py"), min_new_line_rate=0.5)
    assert result.verdict == "inconclusive"
    assert "changed, but not in the report: tests/test_more.py" in result.reason
    assert (
        judge(diff=CHANGE + added("tests/test_more.py"), min_new_line_rate=0.5, omit=["tests/*"])[0].value is not None
    )


@pytest.mark.parametrize(
    ("named", "file"),
    [("a", "src/a.py"), ("pkg__a", "pkg/a.py"), ("pkg__a", "src/pkg/a.py"), ("src__pkg__a", "pkg/a.py")],
)
def test_files_of_diff_and_report_are_matched_by_their_common_end(named: str, file: str) -> None:
    assert judge(report(**{named: "x"}), diff=added(file), min_new_line_rate=1)[0].verdict == "passed"


def test_a_file_of_the_same_name_in_another_folder_is_another_file() -> None:
    assert judge(report(lib__a="x"), diff=added("src/a.py"), min_new_line_rate=1)[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("root", "named", "file"),
    [
        ("/ci/repo", "src__a", "src/a.py"),
        ("/ci/repo/src", "a", "src/a.py"),
        ("/ci/repo/src/../lib/", "a", "lib/a.py"),
        ("/app", "src__pkg__a", "src/pkg/a.py"),
        ("/app/src/pkg", "a", "src/pkg/a.py"),
        ("C:\\ci\\src", "pkg__a", "src/pkg/a.py"),
        ("/", "ci__repo__src__a", "src/a.py"),
        ("C:\\", "ci__repo__src__a", "src/a.py"),
        (".", "pkg__a", "src/pkg/a.py"),
        ("src", "pkg__a", "src/pkg/a.py"),
        ("./src", "pkg__a", "service/src/pkg/a.py"),
        ("/ci/repo", "__ci__repo__src__a", "src/a.py"),
        ("src", "__ci__repo__src__a", "src/a.py"),
    ],
)
def test_files_are_found_below_the_roots_of_a_report(root: str, named: str, file: str) -> None:
    assert judge(report(root, **{named: "x"}), diff=added(file), min_new_line_rate=1)[0].verdict == "passed"


@pytest.mark.parametrize(
    ("roots", "named", "file"),
    [
        (["/ci/repo/src/a"], "utils", "src/b/utils.py"),
        (["src/a"], "utils", "src/b/utils.py"),
        (["/ci/repo"], "pkg__setup", "setup.py"),
        (["/ci/repo/src"], "xa", "src/a.py"),
        (["/ci/repo/src", "/ci/repo/lib"], "pkg__a", "web/pkg/a.py"),
    ],
)
def test_a_file_elsewhere_than_below_the_roots_was_not_measured(roots: list[str], named: str, file: str) -> None:
    (result,) = judge(report(*roots, **{named: "x"}), diff=added(file), min_new_line_rate=0)
    assert result.verdict == "inconclusive"
    assert f"not in the report: {file}." in result.reason
    assert f"below {', '.join(roots)}" in result.reason


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a__x", "b__x"], ["x.py"]),
        (["x", "pkg__x"], ["src/pkg/x.py"]),
        (["x"], ["a/x.py", "b/x.py"]),
        (["x"], ["src/x.py", "x.py"]),
    ],
)
def test_a_file_that_could_be_several_was_not_measured(names: list[str], files: list[str]) -> None:
    diff = b"".join(map(added, files))
    (result,) = judge(report(**dict.fromkeys(names, "x")), diff=diff, min_new_line_rate=0)
    assert result.verdict == "inconclusive"
    assert f"not in the report: {', '.join(files)}." in result.reason


def test_of_files_that_could_be_meant_that_of_the_very_name_is() -> None:
    now = report("/ci/repo", "/ci/repo/src", src__a="x", a="..", b__src__a="..")
    assert judge(now, diff=added("src/a.py"), min_new_line_rate=1)[0].verdict == "passed"


@pytest.mark.parametrize(
    ("before", "now", "value", "verdict"),
    [
        ({"a": "xx.."}, {"a": "xx..xxxx"}, 1.0, "passed"),
        ({"a": "xx.."}, {"a": "xx..xx.."}, 0.5, "failed"),
        ({"a": "xx.."}, {"a": "xx..", "b": "x..."}, 0.25, "failed"),
        ({"a": "xx.."}, {"a": "....xx"}, 0.0, "failed"),
        ({"a": "xx.."}, {"a": "xx.."}, None, None),
        ({"a": "xx.."}, {"a": "xx"}, None, None),
    ],
    ids=["covered", "half", "new-file", "lost", "same", "removed"],
)
def test_new_code_is_what_there_is_more_than_in_the_baseline(
    before: dict[str, str], now: dict[str, str], value: float | None, verdict: str | None
) -> None:
    (result,) = judge(report(**now), report(**before), min_new_line_rate=0.8)
    assert (result.value, result.verdict) == (value, verdict)


@pytest.mark.parametrize(
    ("now", "value", "verdict"),
    [
        ("xxxxxxxx..", 0, "passed"),
        ("xxxxxxxxxx", 0, "passed"),
        ("xxxxxxx...", 0.1, "passed"),
        ("xxxxxx....", 0.2, "failed"),
    ],
)
def test_a_loss_against_the_baseline_is_limited(now: str, value: float, verdict: str) -> None:
    (result,) = judge(report(a=now), report(a="xxxxxxxx.."), max_line_rate_drop=0.1 + 1e-9)
    assert (result.value, result.verdict) == (pytest.approx(value), verdict)


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (None, "inconclusive"),
        (b"", "error"),
        (b"<html/>", "error"),
        (b"<coverage/>", "inconclusive"),
        (COVERAGE[:99], "error"),
    ],
    ids=["missing", "empty", "html", "no-lines", "cut"],
)
def test_a_report_that_shows_nothing_is_never_a_pass(now: bytes | None, verdict: str) -> None:
    for result in judge(now, min_line_rate=0.0, min_branch_rate=0.0):
        assert (result.verdict, result.value) == (verdict, None)


def test_a_baseline_or_a_diff_that_shows_nothing_is_never_a_pass() -> None:
    assert judge(before=b"", max_line_rate_drop=1)[0].verdict == "error"
    assert judge(before=b"<coverage/>", min_new_line_rate=0)[0].verdict == "inconclusive"
    assert judge(diff=b"<html/>", min_new_line_rate=0)[0].verdict == "error"
    assert judge(report(a="x"), min_branch_rate=0)[0].verdict == "inconclusive"  # nobody measured branches


@pytest.mark.parametrize(("now", "verdict"), [(COVERAGE, "passed"), (COVERAGE[:99], "error"), (b"<coverage/>", None)])
def test_a_report_is_read_once_however_many_limits_there_are(
    monkeypatch: pytest.MonkeyPatch, now: bytes, verdict: str | None
) -> None:
    read: list[bytes] = []

    def parse(content: bytes) -> Coverage:
        read.append(content)
        return parse_cobertura(content)

    monkeypatch.setattr(coverage, "parse_cobertura", parse)
    limits = {"min_line_rate": 0, "min_branch_rate": 0, "min_new_line_rate": 0, "max_line_rate_drop": 1}
    results = judge(now, report(scale="x"), **limits)
    assert [result.verdict for result in results] == [verdict or "inconclusive"] * 4
    assert [read.count(content) for content in dict.fromkeys(read)] == [1] * (2 if verdict == "passed" else 1)


@pytest.mark.parametrize(
    ("commits", "more", "verdict"),
    [
        (("abc", "abc"), {}, "passed"),
        (("abc", "def"), {}, "error"),
        (("", "def"), {}, "passed"),
        (("abc", ""), {}, "passed"),
        (("abc", "def"), {"same_commit": False}, "passed"),
    ],
)
def test_a_report_about_other_code_does_not_count(commits: tuple[str, str], more: dict[str, Any], verdict: str) -> None:
    assert judge(commits=commits, min_line_rate=0.5, **more)[0].verdict == verdict


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"report": NOW}, "give at least one of"),
        ({"report": NOW, "min_line_rate": 80}, "coverage.min_line_rate"),
        ({"report": NOW, "max_line_rate_drop": 0.1}, "max_line_rate_drop needs a baseline"),
        ({"report": NOW, "min_new_line_rate": 0.1}, "min_new_line_rate needs changed_lines"),
        ({"min_line_rate": 0.5}, "coverage.report"),
        ({"report": "coverage.xml", "min_line_rate": 0.5}, "it must be absolute or a URI, or have a run_id"),
        ({"report": {"run_id": "1", "path": "/x"}, "min_line_rate": 0.5}, "it must be relative, with a run_id"),
        ({"report": {"path": "/x", "conn_id": "c"}, "min_line_rate": 0.5}, "conn_id is for URIs"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_argument(CoverageRule, "coverage", given)
    assert message in str(caught.value)
