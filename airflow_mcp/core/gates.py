"""The evaluation gate: evidence and a policy in, a report with a verdict out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from airflow_mcp.core.argument import read_argument, read_metric_list
from airflow_mcp.core.evidence import DatasetPin, EvaluationEvidence, ModelEvidence
from airflow_mcp.core.rule_result import RuleResult
from airflow_mcp.core.significance import SignificanceRule, judge_significance
from airflow_mcp.core.slices import SlicePolicy, judge_slices
from airflow_mcp.core.thresholds import MetricThreshold, parse_threshold, write_compared
from airflow_mcp.core.verdicts import Verdict, combine
from airflow_mcp.exceptions import InvalidArgumentError

GateSchema = Literal["airflow_mcp/gate/1", "airflow_mcp/gate/2", "airflow_mcp/gate/3"]
GATE_SCHEMA: GateSchema = "airflow_mcp/gate/3"
"""What is written; version 1 knew no self-reported evidence, version 2 thresholds only; both are still read."""


@dataclass(frozen=True)
class GatePolicy:
    """What a candidate must hold."""

    thresholds: tuple[MetricThreshold, ...]
    significance: tuple[SignificanceRule, ...] = ()
    slices: SlicePolicy | None = None

    def __post_init__(self) -> None:
        """Refuse a policy that would judge nothing."""
        if not (self.thresholds or self.significance or self.slices):
            raise InvalidArgumentError(
                "thresholds is empty; at least one rule is needed, for example 'accuracy >= 0.92', or one in "
                "significance or slices"
            )

    @classmethod
    def parse(cls, thresholds: Sequence[str], significance: Sequence[Any] = (), slices: Any = None) -> GatePolicy:
        """Read a policy from its rules.

        :param thresholds: rules as :func:`~airflow_mcp.core.thresholds.parse_threshold` reads them.
        :param significance: mappings of :class:`~airflow_mcp.core.significance.SignificanceRule`, or metrics.
        :param slices: mapping of :class:`~airflow_mcp.core.slices.SlicePolicy`; None judges no slices.
        :raises InvalidArgumentError: with every rule that cannot be read.
        """
        problems: list[str] = []
        parsed = _readable(problems, lambda: _parse_thresholds(thresholds))
        certain = _readable(problems, lambda: read_metric_list(SignificanceRule, "significance", significance))
        policy = None if slices is None else _readable(problems, lambda: read_argument(SlicePolicy, "slices", slices))
        if problems:
            raise InvalidArgumentError("; ".join(problems))
        return cls(parsed or (), certain or (), policy)

    def rules(self) -> tuple[str, ...]:
        """Write every rule with everything that decides, as the report names it."""
        written = (*map(str, self.thresholds), *map(str, self.significance))
        return (*written, *self.slices.rules()) if self.slices else written


_Read = TypeVar("_Read")


def _readable(problems: list[str], read: Callable[[], _Read]) -> _Read | None:
    try:
        return read()
    except InvalidArgumentError as error:
        problems.append(str(error))
        return None


def _parse_thresholds(thresholds: Sequence[str]) -> tuple[MetricThreshold, ...]:
    if isinstance(thresholds, str):
        raise InvalidArgumentError(f"thresholds must be a list of rules, got the text {thresholds!r}")
    problems: list[str] = []
    parsed = [_readable(problems, partial(parse_threshold, text)) for text in thresholds]
    if problems:
        raise InvalidArgumentError("; ".join(problems))
    return tuple(threshold for threshold in parsed if threshold is not None)


class GateReport(BaseModel):
    """What the gate decided and from what; stored in the candidate's run before anything fails."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: GateSchema = Field(default=GATE_SCHEMA, alias="schema")
    verdict: Verdict
    reason: str
    run_id: str
    model_name: str
    champion_version: str | None
    """Version of the champion that the candidate was compared with; None when there was no champion."""
    self_reported: bool = False
    """Whether the metrics are the training script's own: nobody measured them again on other data."""
    evidence_identity: str
    dataset: DatasetPin | None
    rows: int
    rules: tuple[RuleResult, ...]
    created_at: str

    @property
    def passed(self) -> bool:
        """Whether the candidate may go on."""
        return self.verdict is Verdict.PASSED


def evaluate_gate(evidence: EvaluationEvidence, policy: GatePolicy, *, model_name: str, created_at: str) -> GateReport:
    """Judge a candidate by the evidence of its evaluation.

    Every rule is measured and reported, also after one has failed. A metric that is missing or not finite makes
    its rule inconclusive; a rule against the champion does not apply when there is no champion, and is
    inconclusive when the champion lacks the metric or is the candidate itself. With self-reported evidence such a
    rule is an error: nothing was measured on the same data.

    :param evidence: what the evaluation measured.
    :param policy: what must hold.
    :param model_name: registered model the candidate is meant for.
    :param created_at: time of the judgement, ISO 8601.
    """
    same_model = _same_model(evidence.candidate, evidence.champion)
    rules = (
        *(_measure(threshold, evidence) for threshold in policy.thresholds),
        *(judge_significance(rule, evidence, same_model=same_model) for rule in policy.significance),
        *(judge_slices(policy.slices, evidence) if policy.slices else ()),
    )
    verdict = combine(rule.verdict for rule in rules if rule.verdict is not None)
    return GateReport(
        verdict=verdict,
        reason=_summary(rules, verdict),
        run_id=evidence.run_id,
        model_name=model_name,
        champion_version=evidence.champion.version if evidence.champion else None,
        self_reported=evidence.self_reported,
        evidence_identity=evidence.identity,
        dataset=evidence.dataset,
        rows=evidence.rows,
        rules=rules,
        created_at=created_at,
    )


def error_report(reason: str, *, run_id: str, model_name: str, created_at: str) -> GateReport:
    """Report that the evidence cannot be used: verdict ``error``, no rule measured.

    :param reason: what is wrong with the evidence.
    :param run_id: the candidate's MLflow run.
    :param model_name: registered model the candidate is meant for.
    :param created_at: time of the judgement, ISO 8601.
    """
    return GateReport(
        verdict=Verdict.ERROR,
        reason=reason,
        run_id=run_id,
        model_name=model_name,
        champion_version=None,
        evidence_identity="",
        dataset=None,
        rows=0,
        rules=(),
        created_at=created_at,
    )


def _measure(threshold: MetricThreshold, evidence: EvaluationEvidence) -> RuleResult:
    value = evidence.candidate.metrics.get(threshold.metric)
    champion_value = evidence.champion.metrics.get(threshold.metric) if evidence.champion else None
    bound = threshold.bound(champion_value)
    verdict, reason = _judge(threshold, evidence, value, bound)
    return RuleResult(
        rule=str(threshold),
        metric=threshold.metric,
        verdict=verdict,
        value=value,
        bound=bound,
        champion_value=champion_value,
        reason=reason,
    )


def _judge(
    threshold: MetricThreshold, evidence: EvaluationEvidence, value: float | None, bound: float | None
) -> tuple[Verdict | None, str]:
    if threshold.against_champion and evidence.self_reported:
        return Verdict.ERROR, "refused: self-reported metrics cannot be compared with the champion; evaluate on data"
    if threshold.against_champion and evidence.champion is None:
        return None, "does not apply: there is no champion yet"
    if threshold.against_champion and _same_model(evidence.candidate, evidence.champion):
        return Verdict.INCONCLUSIVE, "the candidate is the champion; there is nothing to compare"
    if value is None:
        return Verdict.INCONCLUSIVE, _missing("candidate", threshold.metric, evidence.candidate)
    if bound is None:
        return Verdict.INCONCLUSIVE, _no_bound(threshold, evidence.champion)
    holds = threshold.holds(value, bound)
    said = "" if holds else "not "
    relation = f"{write_compared(value, bound)} is {said}{threshold.comparison} {write_compared(bound, value)}"
    return (Verdict.PASSED if holds else Verdict.FAILED), relation


def _no_bound(threshold: MetricThreshold, champion: ModelEvidence | None) -> str:
    value = champion.metrics.get(threshold.metric) if champion else None
    if value is None:
        return _missing("champion", threshold.metric, champion)
    if threshold.percent and value == 0:
        return f"the champion's {threshold.metric} is 0, of which a percentage means nothing; use an absolute change"
    return f"the champion's {threshold.metric} of {value:g} gives no finite bound"


def _missing(who: str, metric: str, model: ModelEvidence | None) -> str:
    undefined: Mapping[str, str] = model.undefined if model else {}
    measured = ", ".join(sorted(model.metrics)) if model else ""
    why = undefined.get(metric) or f"it was not measured (measured: {measured or 'nothing'})"
    return f"no value of {metric!r} for the {who}: {why}"


def _same_model(candidate: ModelEvidence, champion: ModelEvidence | None) -> bool:
    if champion is None:
        return False
    return candidate.model_uri == champion.model_uri or bool(candidate.run_id and candidate.run_id == champion.run_id)


def _summary(rules: Sequence[RuleResult], verdict: Verdict) -> str:
    deciding = [rule for rule in rules if rule.verdict is verdict]
    if not deciding:
        return "no rule applies: every rule compares with a champion and there is none yet"
    if verdict is Verdict.PASSED:
        return (
            f"{len(deciding)} of {len(rules)} rules hold, the others do not apply"
            if len(deciding) < len(rules)
            else f"all rules hold ({len(rules)})"
        )
    return "; ".join(f"{rule.rule}{f' [{rule.slice}]' if rule.slice else ''}: {rule.reason}" for rule in deciding)
