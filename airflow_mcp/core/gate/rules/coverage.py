"""Rules on test coverage: shares of covered lines and branches, in all code and in new code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.gate.rules.changed_lines import parse_changed_lines
from airflow_mcp.core.gate.rules.cobertura import Coverage, Share, branch_share, line_share, parse_cobertura
from airflow_mcp.core.gate.rules.report_files import FetchedReport, Report, ReportFile, ReportProblem, content_of, once
from airflow_mcp.core.gate.rules.rule_result import Fact, RuleResult
from airflow_mcp.core.gate.rules.thresholds import in_mode, write_compared
from airflow_mcp.core.gate.rules.verdicts import RuleMode, Verdict
from airflow_mcp.exceptions import EvidenceError

Rate = Annotated[float, Field(ge=0, le=1)]
_NAMED = 5


class CoverageRule(Document):
    """Limits on a coverage report."""

    report: Report
    """Report in Cobertura's XML format."""
    min_line_rate: Rate | None = None
    """Smallest share of covered lines, 0 to 1."""
    min_branch_rate: Rate | None = None
    min_new_line_rate: Rate | None = None
    """Smallest share of covered lines in new code: in the changed lines if a diff is given, otherwise in the lines that
    the report has more than the baseline."""
    max_line_rate_drop: Rate | None = None
    """Largest decrease from the baseline: 0.01 accepts 0.79 after 0.80."""
    baseline: Report | None = None
    """Coverage report from before the change."""
    changed_lines: Report | None = None
    """Unified diff of the change."""
    omit: tuple[str, ...] = ()
    """Patterns of changed files that need no coverage, such as ``tests/*``."""
    same_commit: bool = True
    """Whether the report must be about the candidate's commit, where both are known."""
    mode: RuleMode = "enforce"

    @model_validator(mode="after")
    def _say_something(self) -> CoverageRule:
        limits = (self.min_line_rate, self.min_branch_rate, self.min_new_line_rate, self.max_line_rate_drop)
        if all(limit is None for limit in limits):
            raise ValueError(
                "give at least one of min_line_rate, min_branch_rate, min_new_line_rate and max_line_rate_drop"
            )
        if self.max_line_rate_drop is not None and self.baseline is None:
            raise ValueError("max_line_rate_drop needs a baseline")
        if self.min_new_line_rate is not None and self.baseline is None and self.changed_lines is None:
            raise ValueError("min_new_line_rate needs changed_lines (a diff), or a baseline")
        return self

    @property
    def files(self) -> tuple[ReportFile, ...]:
        """Every report that has to be fetched."""
        return tuple(file for file in (self.report, self.baseline, self.changed_lines) if file is not None)

    def limits(self) -> Iterator[tuple[str, float, str]]:
        """Yield each limit: metric, bound, and the rule as text."""
        found = {
            "line_rate": (self.min_line_rate, "line coverage >= {:g}"),
            "branch_rate": (self.min_branch_rate, "branch coverage >= {:g}"),
            "new_line_rate": (self.min_new_line_rate, "line coverage of new code >= {:g}"),
            "line_rate_drop": (self.max_line_rate_drop, "loss of line coverage <= {:g}"),
        }
        for metric, (bound, words) in found.items():
            if bound is not None:
                yield metric, bound, in_mode(self.mode, f"{words.format(bound)} in {self.report}")

    def rules(self) -> tuple[str, ...]:
        """Return every rule with every setting that affects its verdict."""
        return tuple(rule for _, _, rule in self.limits())


class _Measured(NamedTuple):
    value: float | None
    """None when there is nothing to measure."""
    words: str
    facts: dict[str, Fact]


def judge_coverage(
    rule: CoverageRule, fetched: Mapping[ReportFile, FetchedReport], commit: str
) -> Iterator[RuleResult]:
    """Judge every limit of a rule.

    :param rule: the rule.
    :param fetched: the results of fetching its reports.
    :param commit: commit of the candidate's code; empty when not known.
    """
    read = _reading(rule, fetched, commit)
    for metric, bound, written in rule.limits():
        value, verdict, facts = None, None, {}
        try:
            measured = _measure(rule, metric, read)
            value, facts, reason = measured.value, measured.facts, measured.words
            if value is not None:
                holds = value <= bound if metric == "line_rate_drop" else value >= bound
                verdict = Verdict.PASSED if holds else Verdict.FAILED
                relation = "<=" if metric == "line_rate_drop" else ">="
                said = f"{write_compared(value, bound)} is {'' if holds else 'not '}{relation} {bound:g}"
                reason = f"{said}: {measured.words}"
        except ReportProblem as problem:
            verdict, reason = problem.verdict, str(problem)
        except EvidenceError as error:
            verdict, reason = Verdict.ERROR, f"{rule.report} cannot be used: {error}"
        yield RuleResult(
            rule=written,
            metric=metric,
            kind="coverage",
            mode=rule.mode,
            verdict=verdict,
            value=value,
            bound=bound,
            reason=reason,
            facts=facts,
        )


class _Reading(NamedTuple):
    """Reads the reports of a rule, each once and only when needed."""

    now: Callable[[], Coverage]
    before: Callable[[], Coverage]
    changed: Callable[[], Mapping[str, set[int]]]


def _reading(rule: CoverageRule, fetched: Mapping[ReportFile, FetchedReport], commit: str) -> _Reading:
    def now() -> Coverage:
        return _read(rule.report, fetched, commit if rule.same_commit else "")

    def before() -> Coverage:
        assert rule.baseline is not None  # noqa: S101
        return _read(rule.baseline, fetched, "")

    def changed() -> Mapping[str, set[int]]:
        assert rule.changed_lines is not None  # noqa: S101
        return parse_changed_lines(content_of(rule.changed_lines, fetched.get(rule.changed_lines), ""))

    return _Reading(once(now), once(before), once(changed))


def _measure(rule: CoverageRule, metric: str, read: _Reading) -> _Measured:
    now = read.now()
    if metric == "line_rate":
        return _of_share(line_share(now), "lines")
    if metric == "branch_rate":
        return _of_share(branch_share(now), "branches")
    if metric == "new_line_rate" and rule.changed_lines is not None:
        return _of_changed_lines(now, read.changed(), rule.omit)
    return _of_growth(now, read.before()) if metric == "new_line_rate" else _of_drop(now, read.before())


def _read(file: ReportFile, fetched: Mapping[ReportFile, FetchedReport], commit: str) -> Coverage:
    coverage = parse_cobertura(content_of(file, fetched.get(file), commit))
    if not coverage.lines:
        raise ReportProblem(Verdict.INCONCLUSIVE, f"{file} has no lines: nothing was measured")
    return coverage


def _of_share(share: Share, what: str) -> _Measured:
    if share.rate is None:
        raise ReportProblem(Verdict.INCONCLUSIVE, f"the report has no {what}")
    return _Measured(share.rate, f"{share} {what}", {"covered": share.covered, "all": share.all})


def _of_changed_lines(now: Coverage, changed: Mapping[str, set[int]], omit: Sequence[str]) -> _Measured:
    """Measure the executable changed lines. Changed files of a kind that the report measures must be in it."""
    suffixes = {PurePosixPath(name).suffix for name in now.files}
    names = {
        file: _name_in(now, file)
        for file in changed
        if PurePosixPath(file).suffix in suffixes and not any(fnmatchcase(file, pattern) for pattern in omit)
    }
    meant = Counter(names.values())
    unmeasured = sorted(file for file, name in names.items() if name is None or meant[name] > 1)
    if unmeasured:
        raise ReportProblem(Verdict.INCONCLUSIVE, _not_measured(now, unmeasured))
    lines = [
        now.files[name][number]
        for file, name in names.items()
        if name is not None
        for number in changed[file]
        if number in now.files[name]
    ]
    return _new_code(Share(sum(line.is_covered for line in lines), len(lines)), "changed lines")


def _not_measured(now: Coverage, files: Sequence[str]) -> str:
    named = ", ".join(files[:_NAMED]) + (" and others" if len(files) > _NAMED else "")
    below = f" (whose files are below {', '.join(now.roots[:_NAMED])})" if now.roots else ""
    return (
        f"changed, but not in the report: {named}. Measure them, or list them in omit if they need no coverage. A file "
        f"counts as measured if the report{below} has exactly one file of that name"
    )


def _of_growth(now: Coverage, before: Coverage) -> _Measured:
    """Count per file how many more lines there are than before, and how many more are uncovered.

    Lines move, so which of them are new cannot be told from two reports; how many can.
    """
    covered = counted = 0
    for name, lines in now.files.items():
        old = before.files.get(name, {})
        more = max(0, len(lines) - len(old))
        missed = sum(not line.is_covered for line in lines.values()) - sum(not line.is_covered for line in old.values())
        counted += more
        covered += max(0, more - max(0, missed))
    return _new_code(Share(covered, counted), "lines more than in the baseline")


def _new_code(share: Share, what: str) -> _Measured:
    facts: dict[str, Fact] = {"covered": share.covered, "all": share.all}
    if share.rate is None:
        return _Measured(None, f"does not apply: there is no new code ({what}: 0)", facts)
    return _Measured(share.rate, f"{share} {what}", facts)


def _of_drop(now: Coverage, before: Coverage) -> _Measured:
    here, there = line_share(now), line_share(before)
    rate, old = here.rate or 0.0, there.rate or 0.0
    facts: dict[str, Fact] = {"line_rate": rate, "baseline_line_rate": old}
    return _Measured(max(0.0, old - rate), f"{here} lines, {there} in the baseline", facts)


def _name_in(coverage: Coverage, file: str) -> str | None:
    """Find a file of a diff in a report. Return None if it is missing or ambiguous.

    Both names are relative: the diff's to the repository, the report's to its roots. A root is in the repository, or is
    the repository.
    """
    if file in coverage.files:
        return file
    base = PurePosixPath(file).name
    roots = [root for root in map(_folder, coverage.roots) if root]
    fitting = [
        name
        for name in coverage.files
        if name.endswith(base) and any(_is_at(root, name, file) for root in roots or [""])
    ]
    return fitting[0] if len(fitting) == 1 else None


def _folder(root: str) -> str:
    """Return a root in one spelling; empty where it carries no information (``.`` or the filesystem root)."""
    folder = normpath(root.replace("\\", "/"))
    return "" if re.fullmatch(r"\.|//?|[A-Za-z]:/?", folder) else folder


def _is_at(root: str, name: str, file: str) -> bool:
    """Whether a file of a report can be the file of a diff, below a root of the report if there is one."""
    if not root or (_is_absolute(name) and not _is_absolute(root)):
        return f"/{file}".endswith(f"/{name.lstrip('/')}") or f"/{name}".endswith(f"/{file}")
    path = normpath(name if _is_absolute(name) else f"{root}/{name}")
    if not _is_absolute(root):
        return f"/{file}".endswith(f"/{path}")
    repository = path.removesuffix(f"/{file}")
    return repository != path and f"{root}/".startswith(f"{repository}/")


def _is_absolute(path: str) -> bool:
    return re.match(r"/|[A-Za-z]:/", path) is not None
