"""The evaluation gate: evidence and a policy in, a report with a verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_mcp.core.evidence import DatasetPin, EvaluationEvidence, ModelEvidence
from airflow_mcp.core.thresholds import MetricThreshold, parse_threshold, write_compared
from airflow_mcp.core.verdicts import Verdict, combine
from airflow_mcp.exceptions import InvalidArgumentError

GateSchema = Literal["airflow_mcp/gate/1", "airflow_mcp/gate/2"]
GATE_SCHEMA: GateSchema = "airflow_mcp/gate/2"
"""What is written; version 1, which knew no self-reported evidence, is still read."""


@dataclass(frozen=True)
class GatePolicy:
    """What a candidate must hold."""

    thresholds: tuple[MetricThreshold, ...]

    def __post_init__(self) -> None:
        """Refuse a policy that would judge nothing."""
        if not self.thresholds:
            raise InvalidArgumentError(
                "thresholds is empty; at least one rule is needed, for example 'accuracy >= 0.92'"
            )

    @classmethod
    def parse(cls, thresholds: Sequence[str]) -> GatePolicy:
        """Read a policy from its rules.

        :param thresholds: rules as :func:`~airflow_mcp.core.thresholds.parse_threshold` reads them.
        :raises InvalidArgumentError: with every rule that cannot be read.
        """
        if isinstance(thresholds, str):
            raise InvalidArgumentError(f"thresholds must be a list of rules, got the text {thresholds!r}")
        parsed, problems = [], []
        for text in thresholds:
            try:
                parsed.append(parse_threshold(text))
            except InvalidArgumentError as error:
                problems.append(str(error))
        if problems:
            raise InvalidArgumentError("; ".join(problems))
        return cls(tuple(parsed))


class RuleResult(BaseModel):
    """One rule, measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    metric: str
    verdict: Verdict | None
    """None when the rule does not apply: it compares with a champion and there is none yet."""
    value: float | None
    bound: float | None
    champion_value: float | None
    reason: str


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
    rules = tuple(_measure(threshold, evidence) for threshold in policy.thresholds)
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
    return "; ".join(f"{rule.rule}: {rule.reason}" for rule in deciding)
