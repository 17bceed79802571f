"""The policy of a gate: rules of every kind, their modes, and what follows an inconclusive verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any, Protocol, TypedDict, TypeVar, Unpack, cast, get_args

from pydantic import BeforeValidator, Field, model_validator

from airflow_mcp.core.argument import choice, flag, nearest, read_argument, read_list, read_metric_list
from airflow_mcp.core.document import Document
from airflow_mcp.core.gate.rules.benchmark import BenchmarkRule
from airflow_mcp.core.gate.rules.coverage import CoverageRule
from airflow_mcp.core.gate.rules.findings import FindingsRule
from airflow_mcp.core.gate.rules.replay import ReplayRule
from airflow_mcp.core.gate.rules.report_files import ReportFile
from airflow_mcp.core.gate.rules.significance import SignificanceRule
from airflow_mcp.core.gate.rules.slices import SlicePolicy
from airflow_mcp.core.gate.rules.thresholds import MetricThreshold, parse_threshold
from airflow_mcp.core.gate.rules.verdicts import GateMode, RuleMode
from airflow_mcp.exceptions import InvalidArgumentError


class OtherRules(TypedDict, total=False):
    """Rules that need no evaluation: a mapping of each kind, or a list of mappings."""

    benchmarks: Any
    coverage: Any
    findings: Any


@dataclass(frozen=True)
class GatePolicy:
    """The rules that a candidate must meet."""

    thresholds: tuple[MetricThreshold, ...] = ()
    significance: tuple[SignificanceRule, ...] = ()
    slices: SlicePolicy | None = None
    benchmarks: tuple[BenchmarkRule, ...] = ()
    coverage: tuple[CoverageRule, ...] = ()
    findings: tuple[FindingsRule, ...] = ()
    mode: GateMode = "enforce"
    """Mode of the whole gate; a rule may have a weaker one."""
    dry_run: bool = False
    """Report only: nothing follows from the verdict."""
    replay: ReplayRule | None = None

    def __post_init__(self) -> None:
        """Check that the policy has rules, and that at least one is enforced."""
        modes = [rule.mode for rule in self._all()]
        if not modes:
            raise InvalidArgumentError(
                "thresholds must have at least one rule, for example 'accuracy >= 0.92', unless significance, slices, "
                "replay, benchmarks, coverage or findings has one; got none"
            )
        if "enforce" not in modes:
            raise InvalidArgumentError(
                f"at least one rule must be enforced; got only {' and '.join(sorted(set(modes)))}. To make the whole "
                "gate warn, set its mode instead"
            )

    @classmethod
    def parse(
        cls,
        thresholds: Sequence[str] = (),
        significance: Sequence[Any] = (),
        slices: Any = None,
        *,
        replay: Any = None,
        mode: GateMode | str = "enforce",
        dry_run: bool | str = False,
        **others: Unpack[OtherRules],
    ) -> GatePolicy:
        """Read a policy from its rules.

        :param thresholds: rules as :func:`~airflow_mcp.core.gate.rules.thresholds.parse_threshold` reads them.
        :param significance: metrics, or mappings of
            :class:`~airflow_mcp.core.gate.rules.significance.SignificanceRule`.
        :param slices: mapping of :class:`~airflow_mcp.core.gate.rules.slices.SlicePolicy`; None judges no slices.
        :param replay: mapping of :class:`~airflow_mcp.core.gate.rules.replay.ReplayRule`; None judges no replay.
        :param mode: mode of the whole gate.
        :param dry_run: report only.
        :param others: ``benchmarks``, ``coverage`` and ``findings``: a mapping of the rule's class, or a list of them.
        :raises InvalidArgumentError: with every rule that cannot be read.
        """
        problems = [
            f"policy.{name} is not a known name. {nearest(name, [field.name for field in fields(cls)])}"
            for name in sorted(others.keys() - OtherRules.__annotations__.keys())
        ]
        in_mode = _readable(problems, lambda: choice("mode", mode, get_args(GateMode)))
        reports_only = _readable(problems, lambda: flag("dry_run", dry_run))
        parsed = _readable(problems, lambda: _parse_thresholds(thresholds))
        certain = _readable(problems, lambda: read_metric_list(SignificanceRule, "significance", significance))
        policy = None if slices is None else _readable(problems, lambda: read_argument(SlicePolicy, "slices", slices))
        replayed = None if replay is None else _readable(problems, lambda: read_argument(ReplayRule, "replay", replay))
        benchmarks = _readable(problems, lambda: read_list(BenchmarkRule, "benchmarks", others.get("benchmarks", ())))
        coverage = _readable(problems, lambda: read_list(CoverageRule, "coverage", others.get("coverage", ())))
        findings = _readable(problems, lambda: read_list(FindingsRule, "findings", others.get("findings", ())))
        if problems:
            raise InvalidArgumentError("; ".join(problems))
        return cls(
            thresholds=parsed or (),
            significance=certain or (),
            slices=policy,
            benchmarks=benchmarks or (),
            coverage=coverage or (),
            findings=findings or (),
            mode=cast("GateMode", in_mode),
            dry_run=bool(reports_only),
            replay=replayed,
        )

    @property
    def needs_evidence(self) -> bool:
        """Whether a rule needs the evidence of an evaluation."""
        return bool(self.thresholds or self.significance or self.slices or self.replay)

    @property
    def files(self) -> tuple[ReportFile, ...]:
        """Every report of an earlier step that a rule needs, once."""
        of_coverage = [file for rule in self.coverage for file in rule.files]
        return tuple(dict.fromkeys((*of_coverage, *(file for rule in self.findings for file in rule.files))))

    def rules(self) -> tuple[str, ...]:
        """Return every rule with every setting that affects its verdict, as the report names it."""
        return (
            *map(str, self.thresholds),
            *map(str, self.significance),
            *(self.slices.rules() if self.slices else ()),
            *(self.replay.rules() if self.replay else ()),
            *map(str, self.benchmarks),
            *(written for coverage in self.coverage for written in coverage.rules()),
            *(written for findings in self.findings for written in findings.rules()),
        )

    def _all(self) -> Iterator[_HasMode]:
        yield from self.thresholds
        yield from self.significance
        if self.slices is not None:
            yield self.slices
        if self.replay is not None:
            yield self.replay
        yield from self.benchmarks
        yield from self.coverage
        yield from self.findings


class _HasMode(Protocol):
    @property
    def mode(self) -> RuleMode: ...


_Read = TypeVar("_Read")


def _readable(problems: list[str], read: Callable[[], _Read]) -> _Read | None:
    try:
        return read()
    except InvalidArgumentError as error:
        problems.append(str(error))
        return None


def _parse_thresholds(thresholds: Sequence[str]) -> tuple[MetricThreshold, ...]:
    if isinstance(thresholds, str):
        raise InvalidArgumentError(f"thresholds must be a list of rules; got {thresholds!r}")
    problems: list[str] = []
    parsed = [_readable(problems, partial(parse_threshold, text)) for text in thresholds]
    if problems:
        raise InvalidArgumentError("; ".join(problems))
    return tuple(threshold for threshold in parsed if threshold is not None)


def _task_ids(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


TaskIds = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_task_ids)]


class EscalationPolicy(Document):
    """Which tasks take over when the gate is inconclusive; each of them follows the gate directly."""

    extend: TaskIds = ()
    """They gather more evidence: followed when more rows would decide every undecided rule."""
    max_rows: Annotated[int, Field(ge=1)] | None = None
    """More rows than this are not gathered; None sets no limit."""
    ask: TaskIds = ()
    """They ask a person: followed when nothing is to be gathered."""

    @model_validator(mode="after")
    def _name_somebody(self) -> EscalationPolicy:
        if not self.extend and not self.ask:
            raise ValueError("extend and ask are both empty; name the tasks that take over, for example ask='approve'")
        if self.max_rows is not None and not self.extend:
            raise ValueError("max_rows limits extend, which is empty")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks that may take over."""
        return tuple(dict.fromkeys((*self.extend, *self.ask)))

    def followed(self, rows_needed: int | None) -> tuple[str, ...]:
        """Name the tasks that take over.

        :param rows_needed: about how many rows would decide; None when more rows would not.
        :return: nothing when nobody takes over.
        """
        is_gathered = rows_needed is not None and (self.max_rows is None or rows_needed <= self.max_rows)
        return self.extend if self.extend and is_gathered else self.ask


def read_escalation(value: Any) -> EscalationPolicy | None:
    """Read the argument ``escalation``.

    :param value: the policy, or a mapping of its fields.
    :return: None when no task takes over.
    :raises InvalidArgumentError: when it is anything else.
    """
    if value is None or isinstance(value, EscalationPolicy):
        return value
    if not isinstance(value, Mapping):
        known = ", ".join(EscalationPolicy.model_fields)
        raise InvalidArgumentError(f"escalation must be a mapping of {known}; got {value!r}")
    return read_argument(EscalationPolicy, "escalation", value)
