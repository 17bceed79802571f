"""The judgement of a gate: from evidence and a policy to a report with a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import Document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, ModelEvidence
from airflow_mcp.core.evaluation.replay import ReplayEvidence
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.gate.rules.benchmark import BenchmarkAnswer, judge_benchmark
from airflow_mcp.core.gate.rules.coverage import judge_coverage
from airflow_mcp.core.gate.rules.findings import judge_findings
from airflow_mcp.core.gate.rules.replay import judge_replay
from airflow_mcp.core.gate.rules.report_files import FetchedReport, ReportFile
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.significance import judge_significance
from airflow_mcp.core.gate.rules.slices import judge_slices
from airflow_mcp.core.gate.rules.thresholds import MetricThreshold, write_compared
from airflow_mcp.core.gate.rules.verdicts import Decision, GateMode, Verdict, combine, decide

GateSchema = Literal["airflow_mcp/gate/1", "airflow_mcp/gate/2", "airflow_mcp/gate/3", "airflow_mcp/gate/4"]
GATE_SCHEMA: GateSchema = "airflow_mcp/gate/4"
"""What is written. Older ones are still read: 1 knew no self-reported evidence, 2 thresholds only, 3 no modes."""


class GateReport(Document):
    """The decision of a gate and what it is based on. Stored in the candidate's run before the task can fail."""

    schema_: GateSchema = Field(default=GATE_SCHEMA, alias="schema")
    mode: GateMode = "enforce"
    dry_run: bool = False
    """Whether the gate only reported: nothing follows from the verdict."""
    verdict: Verdict
    """The worst verdict of the enforced rules."""
    decision: Decision | None = Field(default_factory=lambda known: Decision(known["verdict"].value))
    """Whether the candidate may be registered; None for a dry run. Older reports have none: the verdict is taken."""
    reason: str
    run_id: str
    model_name: str
    champion_version: str | None
    """Version of the champion that the candidate was compared with; None without a champion."""
    self_reported: bool = False
    """Whether the metrics are those that the training script logged, not measured by an evaluation."""
    evidence_identity: str
    dataset: DatasetPin | None
    rows: int
    rules: tuple[RuleResult, ...]
    created_at: str

    @property
    def opens(self) -> bool:
        """Whether the candidate may be registered and promoted."""
        return self.decision is not None and self.decision.opens

    @property
    def warnings(self) -> tuple[RuleResult, ...]:
        """Warning rules that are not met or not decided."""
        return _warnings(self.rules)

    @property
    def rows_needed(self) -> int | None:
        """Estimate of the rows that would decide every undecided rule; None when more rows would not help."""
        needed = [rule.rows_needed for rule in self.rules if _counts(rule) and rule.verdict is Verdict.INCONCLUSIVE]
        known = [rows for rows in needed if rows is not None]
        return max(known) if known and len(known) == len(needed) else None

    def table(self) -> str:
        """Return the rules as a table for a log: verdict, value, bound, rule; the reason is below each."""
        lines = [f"{'verdict':<20} {'value':>12} {'bound':>12}  rule"]
        for rule in self.rules:
            verdict = rule.verdict.value if rule.verdict else "does not apply"
            numbers = " ".join(
                f"{'-' if number is None else f'{number:.6g}':>12}" for number in (rule.value, rule.bound)
            )
            name = f"{rule.rule} [{rule.slice}]" if rule.slice else rule.rule
            lines += [f"{verdict:<20} {numbers}  {name}", f"{'':<48}{rule.reason}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Gathered:
    """Answers and reports from outside the evaluation, fetched before the judgement."""

    answers: tuple[BenchmarkAnswer, ...] = ()
    """One for each benchmark of the policy, in the same order."""
    reports: Mapping[ReportFile, FetchedReport] = field(default_factory=dict)
    commit: str = ""
    """Commit that the candidate was trained from; empty when not known."""


def judge_gathered(policy: GatePolicy, gathered: Gathered) -> tuple[RuleResult, ...]:
    """Judge the rules that need no evaluation.

    :param policy: the policy.
    :param gathered: the answers and reports.
    """
    return (
        *(judge_benchmark(rule, answer) for rule, answer in zip(policy.benchmarks, gathered.answers, strict=True)),
        *(result for rule in policy.coverage for result in judge_coverage(rule, gathered.reports, gathered.commit)),
        *(result for rule in policy.findings for result in judge_findings(rule, gathered.reports, gathered.commit)),
    )


def evaluate_gate(
    evidence: EvaluationEvidence,
    policy: GatePolicy,
    *,
    model_name: str,
    created_at: str,
    replay: ReplayEvidence | None = None,
    others: Sequence[RuleResult] = (),
) -> GateReport:
    """Judge a candidate by the evidence of its evaluation.

    Every rule is judged and reported, even after one has failed. A metric that is missing or not finite makes
    its rule inconclusive. A rule against the champion does not apply when there is no champion; it is
    inconclusive when the champion lacks the metric or is the candidate itself, and an error with self-reported
    evidence, which was not measured on the same data.

    :param evidence: result of the evaluation.
    :param policy: the policy.
    :param model_name: registered model that the candidate is for.
    :param created_at: time of the judgement, ISO 8601.
    :param replay: result of a replay of logged requests; None without one.
    :param others: results of the rules that need no evaluation.
    """
    same_model = _same_model(evidence.candidate, evidence.champion)
    rules = (
        *(_measure(threshold, evidence) for threshold in policy.thresholds),
        *(judge_significance(rule, evidence, same_model=same_model) for rule in policy.significance),
        *(judge_slices(policy.slices, evidence) if policy.slices else ()),
        *(judge_replay(policy.replay, evidence, replay, same_model=same_model) if policy.replay else ()),
        *others,
    )
    return GateReport(
        **_conclusion(rules, policy),
        run_id=evidence.run_id,
        model_name=model_name,
        champion_version=evidence.champion.version if evidence.champion else None,
        self_reported=evidence.self_reported,
        evidence_identity=evidence.identity,
        dataset=evidence.dataset,
        rows=evidence.rows,
        created_at=created_at,
    )


def _conclusion(rules: tuple[RuleResult, ...], policy: GatePolicy) -> dict[str, Any]:
    verdict = combine(rule.verdict for rule in rules if rule.verdict is not None and _counts(rule))
    return {
        "mode": policy.mode,
        "dry_run": policy.dry_run,
        "verdict": verdict,
        "decision": decide(verdict, policy.mode, has_warnings=bool(_warnings(rules)), dry_run=policy.dry_run),
        "reason": _summary(rules, verdict),
        "rules": rules,
    }


def report_without_evidence(
    rules: tuple[RuleResult, ...],
    *,
    run_id: str,
    model_name: str,
    created_at: str,
    policy: GatePolicy,
) -> GateReport:
    """Return the report of a gate without an evaluation, for example on the code before a training.

    :param rules: results of its rules.
    :param run_id: MLflow run that is judged.
    :param model_name: registered model that the candidate is for.
    :param created_at: time of the judgement, ISO 8601.
    :param mode: mode of the gate.
    :param dry_run: whether the gate only reports.
    """
    return GateReport(
        **_conclusion(rules, policy),
        run_id=run_id,
        model_name=model_name,
        champion_version=None,
        evidence_identity="",
        dataset=None,
        rows=0,
        created_at=created_at,
    )


def error_report(
    reason: str,
    *,
    run_id: str,
    model_name: str,
    created_at: str,
    policy: GatePolicy,
    others: Sequence[RuleResult] = (),
) -> GateReport:
    """Report that the evidence cannot be used: verdict ``error``.

    :param reason: what is wrong with the evidence.
    :param run_id: the candidate's MLflow run.
    :param model_name: registered model the candidate is meant for.
    :param created_at: time of the judgement, ISO 8601.
    :param policy: the gate's policy; its mode and its dry run are reported.
    :param others: what became of the rules that need no evaluation.
    """
    return GateReport(
        mode=policy.mode,
        dry_run=policy.dry_run,
        verdict=Verdict.ERROR,
        decision=decide(Verdict.ERROR, policy.mode, has_warnings=False, dry_run=policy.dry_run),
        reason=reason,
        run_id=run_id,
        model_name=model_name,
        champion_version=None,
        evidence_identity="",
        dataset=None,
        rows=0,
        rules=tuple(others),
        created_at=created_at,
    )


def _counts(rule: RuleResult) -> bool:
    """Whether a rule decides. A warning rule does so only when it is an error: its finding is unknown then."""
    return rule.mode == "enforce" or (rule.mode == "warn" and rule.verdict is Verdict.ERROR)


def _warnings(rules: Iterable[RuleResult]) -> tuple[RuleResult, ...]:
    undesired = (Verdict.FAILED, Verdict.INCONCLUSIVE)
    return tuple(rule for rule in rules if rule.mode == "warn" and rule.verdict in undesired)


def _measure(threshold: MetricThreshold, evidence: EvaluationEvidence) -> RuleResult:
    value = evidence.candidate.metrics.get(threshold.metric)
    champion_value = evidence.champion.metrics.get(threshold.metric) if evidence.champion else None
    bound = threshold.bound(champion_value)
    verdict, reason = _judge(threshold, evidence, value, bound)
    return RuleResult(
        rule=str(threshold),
        metric=threshold.metric,
        mode=threshold.mode,
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
    warnings = _warnings(rules)
    warned = f"; only warned of: {_reasons(warnings)}" if warnings else ""
    deciding = [rule for rule in rules if _counts(rule) and rule.verdict is verdict]
    if not deciding:
        return f"no rule applies: {_why_none_applies(rules)}{warned}"
    if verdict is not Verdict.PASSED:
        return f"{_reasons(deciding)}{warned}"
    holding = [rule for rule in rules if rule.mode != "dry_run" and rule.verdict is Verdict.PASSED]
    if len(holding) == len(rules):
        return f"all rules hold ({len(rules)})"
    others = [rule for rule in rules if rule not in holding and rule not in warnings]
    said = "do not apply" if all(rule.verdict is None for rule in others) else "decide nothing"
    return f"{len(holding)} of {len(rules)} rules hold{f', the others {said}' if others else ''}{warned}"


def _why_none_applies(rules: Iterable[RuleResult]) -> str:
    reasons = {rule.reason.removeprefix("does not apply: ") for rule in rules if rule.verdict is None}
    return "; ".join(sorted(reasons)) or "there is none that is enforced"


def _reasons(rules: Iterable[RuleResult]) -> str:
    return "; ".join(f"{rule.rule}{f' [{rule.slice}]' if rule.slice else ''}: {rule.reason}" for rule in rules)
