"""Judge a candidate by its evidence, and write the report before anything fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mcp.core import contract
from airflow_mcp.core.adoption import require_adoptable, require_passing_report
from airflow_mcp.core.evidence import EvaluationEvidence
from airflow_mcp.core.gate_html import render_gate_report
from airflow_mcp.core.gates import GatePolicy, GateReport, error_report, evaluate_gate
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.verdicts import Verdict
from airflow_mcp.exceptions import EvidenceError, GateRejectedError
from airflow_mcp.hooks.evidence import find_evidence, find_gate_report
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.base import (
    NO_CHAMPION,
    ON_REFUSAL,
    ModelControlOperator,
    OnRefusal,
    choice,
    flag,
    now,
    require_active,
    required_text,
)

if TYPE_CHECKING:
    from airflow.sdk import Context


class EvaluationGateOperator(ModelControlOperator):
    """Let a candidate pass only if every rule holds; the report is stored in its MLflow run first.

    Verdicts: ``passed``; ``failed`` (a rule does not hold); ``inconclusive`` (a metric is missing or not finite, or
    no rule applies, or an interval does not decide); ``error`` (the evidence cannot be used, or is self-reported and
    a rule compares with the champion or asks for slices). Only ``passed`` lets the Dag go on.

    XCom, also when the task fails: ``verdict``, ``reason``, ``run_id``, ``champion_version`` (the version compared
    with, or ``none``), ``self_reported`` (whether the training script's own metrics were judged), ``report`` (artifact
    path of the HTML report) and ``rules``.

    :param run_id: the candidate's MLflow run, which holds the evidence (templated).
    :param model_name: registered model that the candidate is meant for (templated).
    :param thresholds: rules such as ``accuracy >= 0.92``, ``latency_ms <= 150`` or ``f1 >= champion - 0.01``
        (templated). A rule against the champion does not apply while there is none.
    :param significance: improvements over the champion that must be certain (templated): metrics, or mappings of
        ``metric``, ``min_effect`` (in units of the metric, 0), ``confidence`` (0.95), ``min_rows`` (100) and ``method``
        (``auto``). The evaluation must have made these ``comparisons``.
    :param slices: what must hold in every slice (templated): mapping of ``floors`` (rules), ``max_gap`` (metric to
        largest gap), ``by`` (columns), ``min_rows`` (30), ``confidence`` (0.95) and ``correction`` (``holm``).
    :param evidence_identity: identity of the evaluation that is expected (``evaluate.output["identity"]``); None
        takes whatever evidence the run holds (templated).
    :param on_failed: what happens when the verdict is not ``passed``: ``fail`` this task without a retry, or
        ``skip`` the tasks behind it.
    :param adopt: true takes the passing report that the run holds already, and judges nothing; it is refused unless
        it passed this evidence by these rules (templated).
    """

    template_fields: Sequence[str] = (
        "run_id",
        "model_name",
        "thresholds",
        "significance",
        "slices",
        "evidence_identity",
        "adopt",
    )
    operator_extra_links = (MlflowRunLink(),)
    ui_color = "#fde2e0"

    def __init__(
        self,
        *,
        run_id: str,
        model_name: str,
        thresholds: Sequence[str] = (),
        significance: Sequence[str | Mapping[str, Any]] = (),
        slices: Mapping[str, Any] | None = None,
        evidence_identity: str | None = None,
        on_failed: OnRefusal = "fail",
        adopt: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.model_name = model_name
        self.thresholds = thresholds
        self.significance = significance
        self.slices = slices
        self.evidence_identity = evidence_identity
        self.on_failed = on_failed
        self.adopt = adopt
        choice("on_failed", on_failed, ON_REFUSAL)

    def act(self, context: Context) -> dict[str, Any]:
        """Judge, store the report, then fail, skip or go on.

        :raises InvalidArgumentError: when a threshold cannot be read.
        :raises EvidenceError: when the run is deleted, so that no report can be stored, or what is to be adopted is
            not there or does not fit.
        :raises GateRejectedError: when the verdict is not ``passed`` and ``on_failed`` is ``fail``, or the report to
            adopt is not a pass.
        """
        policy = GatePolicy.parse(self.thresholds, self.significance, self.slices)
        run = self.hook.get_run(required_text("run_id", self.run_id))
        require_active(run)
        self.mlflow_run_url = self.hook.run_url(run)
        model_name = required_text("model_name", self.model_name)
        if flag("adopt", self.adopt):
            return _result(self._adopted(run, model_name, policy))
        report, evidence = self._judge(run.run_id, model_name, policy)
        self._store(report, evidence, run)
        self._show(report)
        result = _result(report)
        if report.passed:
            return result
        self.push(context, result)
        if self.on_failed == "skip" and report.verdict is not Verdict.ERROR:
            self.log.info("The gate's verdict is %s; the tasks behind it are skipped", report.verdict)
            self.skip_downstream(context)
            return result
        raise GateRejectedError(
            f"evaluation gate of {report.model_name}: {report.verdict}: {report.reason}. The report is "
            f"{contract.ARTIFACT_GATE_REPORT_HTML} in MLflow run {report.run_id}; nothing was registered"
        )

    def _adopted(self, run: Run, model_name: str, policy: GatePolicy) -> GateReport:
        """Take the report of an earlier Dag run, if it let this very evidence pass."""
        require_adoptable(run, model_name=model_name)
        evidence, report = self._evidence(run.run_id), find_gate_report(self.hook, run.run_id)
        if report is None:
            raise EvidenceError(
                f"there is no {contract.ARTIFACT_GATE_REPORT_JSON} in MLflow run {run.run_id} to adopt; start at the "
                "gate"
            )
        require_passing_report(report, evidence, model_name=model_name, policy=policy)
        self.log.info("Adopted the report of %s; nothing was judged again", report.created_at)
        self._show(report)
        return report

    def _judge(self, run_id: str, model_name: str, policy: GatePolicy) -> tuple[GateReport, EvaluationEvidence | None]:
        created_at = now().isoformat()
        try:
            evidence = self._evidence(run_id)
        except EvidenceError as error:
            return error_report(str(error), run_id=run_id, model_name=model_name, created_at=created_at), None
        return evaluate_gate(evidence, policy, model_name=model_name, created_at=created_at), evidence

    def _evidence(self, run_id: str) -> EvaluationEvidence:
        source = f"{contract.ARTIFACT_EVIDENCE} of MLflow run {run_id}"
        evidence = find_evidence(self.hook, run_id)
        if evidence is None:
            raise EvidenceError(f"there is no {source}; evaluate the candidate first")
        if evidence.run_id != run_id:
            raise EvidenceError(f"{source} is about run {evidence.run_id}")
        if self.evidence_identity is not None and evidence.identity != self.evidence_identity:
            raise EvidenceError(
                f"{source} is from evaluation {evidence.identity}, expected {self.evidence_identity}; "
                "the candidate was evaluated again in the meantime"
            )
        return evidence

    def _store(self, report: GateReport, evidence: EvaluationEvidence | None, run: Run) -> None:
        html = render_gate_report(report, evidence).encode()
        document = report.model_dump_json(by_alias=True, indent=2).encode()
        self.hook.upload_artifact(report.run_id, contract.ARTIFACT_GATE_REPORT_HTML, html, content_type="text/html")
        self.hook.upload_artifact(
            report.run_id, contract.ARTIFACT_GATE_REPORT_JSON, document, content_type="application/json"
        )
        if report.self_reported or contract.TAG_SELF_REPORTED in run.tags:
            self.hook.set_tag(report.run_id, contract.TAG_SELF_REPORTED, str(report.self_reported).lower())
        self.hook.set_tag(report.run_id, contract.TAG_GATE_VERDICT, report.verdict.value)

    def _show(self, report: GateReport) -> None:
        if report.self_reported:
            self.log.warning("Self-reported: these metrics are the training script's own; nobody measured them again")
        self.log.info("Verdict: %s (%s)", report.verdict.value, report.reason)
        for rule in report.rules:
            name = f"{rule.rule} [{rule.slice}]" if rule.slice else rule.rule
            self.log.info("  %-16s %-32s %s", rule.verdict.value if rule.verdict else "-", name, rule.reason)


def _result(report: GateReport) -> dict[str, Any]:
    return {
        "verdict": report.verdict.value,
        "reason": report.reason,
        "run_id": report.run_id,
        "champion_version": report.champion_version or NO_CHAMPION,
        "self_reported": report.self_reported,
        "report": contract.ARTIFACT_GATE_REPORT_HTML,
        "rules": [rule.model_dump(mode="json") for rule in report.rules],
    }
