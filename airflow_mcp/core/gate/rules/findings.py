"""Rules on the findings of static analysis and security scanners: how many there may be, and how many new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.gate.rules.report_files import FetchedReport, Report, ReportFile, ReportProblem, content_of, once
from airflow_mcp.core.gate.rules.rule_result import Fact, RuleResult
from airflow_mcp.core.gate.rules.sarif import LEVELS, Findings, SarifResult, parse_sarif
from airflow_mcp.core.gate.rules.thresholds import in_mode
from airflow_mcp.core.gate.rules.verdicts import RuleMode, Verdict
from airflow_mcp.exceptions import EvidenceError

Subject = Literal["error", "warning", "note", "none", "total"]
Count = Annotated[int, Field(ge=0)]
_NAMED = 5


class FindingsRule(Document):
    """Limits on the findings of a SARIF report."""

    report: Report
    """Report in the format SARIF 2.1.0."""
    max: dict[Subject, Count] = Field(default_factory=dict)
    """Largest number of findings per level (``error``, ``warning``, ``note``, ``none``) and in ``total``."""
    max_new: dict[Subject, Count] = Field(default_factory=dict)
    """The same for findings that the baseline does not have."""
    max_by_rule: dict[str, Count] = Field(default_factory=dict)
    """Largest number of findings per rule id of the tool."""
    baseline: Report | None = None
    """Report from before the change; None uses what the report itself marks as new (``baselineState``)."""
    tools: tuple[str, ...] = ()
    """Tools that must have run; only their findings count. Empty counts the findings of every tool."""
    same_commit: bool = True
    """Whether the report must be about the candidate's commit, where both are known."""
    mode: RuleMode = "enforce"

    @model_validator(mode="after")
    def _say_something(self) -> FindingsRule:
        if not (self.max or self.max_new or self.max_by_rule):
            raise ValueError("give at least one of max, max_new and max_by_rule, for example max={'error': 0}")
        if self.baseline is not None and not self.max_new:
            raise ValueError("baseline needs max_new")
        return self

    @property
    def files(self) -> tuple[ReportFile, ...]:
        """Every report that has to be fetched."""
        return (self.report,) if self.baseline is None else (self.report, self.baseline)

    def limits(self) -> Iterator[_Limit]:
        """Yield each limit."""
        for subject, bound in self.max.items():
            yield _Limit(subject, bound, self._written(f"findings ({subject}) <= {bound}"), _of(subject), False)
        for subject, bound in self.max_new.items():
            yield _Limit(subject, bound, self._written(f"new findings ({subject}) <= {bound}"), _of(subject), True)
        for name, bound in self.max_by_rule.items():
            yield _Limit(name, bound, self._written(f"findings of rule {name} <= {bound}"), _of_rule(name), False)

    def rules(self) -> tuple[str, ...]:
        """Return every rule with every setting that affects its verdict."""
        return tuple(limit.rule for limit in self.limits())

    def _written(self, rule: str) -> str:
        tools = f" by {', '.join(self.tools)}" if self.tools else ""
        return in_mode(self.mode, f"{rule}{tools} in {self.report}")


class _Limit(NamedTuple):
    metric: str
    bound: int
    rule: str
    counts: Callable[[SarifResult], bool]
    is_about_new: bool


def _of(subject: Subject) -> Callable[[SarifResult], bool]:
    return lambda finding: subject in ("total", finding.level)


def _of_rule(name: str) -> Callable[[SarifResult], bool]:
    return lambda finding: finding.rule == name


def judge_findings(
    rule: FindingsRule, fetched: Mapping[ReportFile, FetchedReport], commit: str
) -> Iterator[RuleResult]:
    """Judge every limit of a rule.

    :param rule: the rule.
    :param fetched: the results of fetching its reports.
    :param commit: commit of the candidate's code; empty when not known.
    """
    read = once(lambda: _read(rule, rule.report, fetched, commit if rule.same_commit else ""))
    new = once(lambda: _new(rule, read(), fetched))
    for limit in rule.limits():
        value, facts = None, {}
        try:
            report = read()
            subject = new() if limit.is_about_new else report.found
            found = [finding for finding in subject if limit.counts(finding)]
            value, facts = len(found), _facts(report, found)
            verdict = Verdict.PASSED if value <= limit.bound else Verdict.FAILED
            reason = f"{value} is {'' if value <= limit.bound else 'not '}<= {limit.bound}{_examples(found)}"
        except ReportProblem as problem:
            verdict, reason = problem.verdict, str(problem)
        except EvidenceError as error:
            verdict, reason = Verdict.ERROR, f"{rule.report} cannot be used: {error}"
        yield RuleResult(
            rule=limit.rule,
            metric=limit.metric,
            kind="findings",
            mode=rule.mode,
            verdict=verdict,
            value=value,
            bound=limit.bound,
            reason=reason,
            facts=facts,
        )


def _read(rule: FindingsRule, file: ReportFile, fetched: Mapping[ReportFile, FetchedReport], commit: str) -> Findings:
    """Read a report. An incomplete report cannot be judged: its findings could be missing."""
    report = parse_sarif(content_of(file, fetched.get(file), commit))
    missing = [tool for tool in rule.tools if tool not in report.tools]
    problems = [*report.problems, *([f"{', '.join(missing)} did not run"] if missing else ())]
    if problems:
        raise ReportProblem(Verdict.INCONCLUSIVE, f"{file}: {'; '.join(problems)}")
    found = tuple(finding for finding in report.found if not rule.tools or finding.tool in rule.tools)
    return report._replace(found=found)


def _new(rule: FindingsRule, report: Findings, fetched: Mapping[ReportFile, FetchedReport]) -> Sequence[SarifResult]:
    if rule.baseline is None:
        if any(finding.is_new is None for finding in report.found):
            raise ReportProblem(
                Verdict.INCONCLUSIVE, f"{rule.report} does not say which findings are new; give a baseline"
            )
        return [finding for finding in report.found if finding.is_new]
    known = Counter(finding.identity for finding in _read(rule, rule.baseline, fetched, "").found)
    new = []
    for finding in report.found:
        if known[finding.identity] > 0:
            known[finding.identity] -= 1
        else:
            new.append(finding)
    return new


def _facts(report: Findings, found: Sequence[SarifResult]) -> dict[str, Fact]:
    levels = Counter(finding.level for finding in found)
    by_rule = Counter(finding.rule for finding in found).most_common(_NAMED)
    return {
        "tools": ", ".join(dict.fromkeys(report.tools)),
        **{level: levels[level] for level in LEVELS if levels[level]},
        **{f"rule {name}": count for name, count in by_rule},
    }


def _examples(found: Sequence[SarifResult]) -> str:
    counts = Counter(finding.rule for finding in found).most_common(_NAMED)
    return f": {', '.join(f'{name} ({count})' for name, count in counts)}" if counts else ""
