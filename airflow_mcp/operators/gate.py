"""Judge a candidate by its evidence; the report is stored before the task can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from airflow_mcp.core import contract
from airflow_mcp.core.argument import NO_CHAMPION, OnInconclusive, OnRefusal, choice, flag, read_policy, required_text
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.evaluation.replay import ReplayEvidence
from airflow_mcp.core.gate.approval import as_decided
from airflow_mcp.core.gate.inputs import GateCase, judge_case, stored_inputs, versions
from airflow_mcp.core.gate.judgement import GateReport, Gathered
from airflow_mcp.core.gate.policy import EscalationPolicy, GatePolicy, read_escalation
from airflow_mcp.core.gate.report.page import render_gate_report
from airflow_mcp.core.gate.rules.verdicts import Decision, GateMode, Verdict
from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.pipeline.reuse import require_passing_report, require_reusable
from airflow_mcp.exceptions import EvidenceError, GateRejectedError, InvalidArgumentError
from airflow_mcp.hooks.benchmark import ask_benchmark
from airflow_mcp.hooks.reports import fetch_report
from airflow_mcp.links.mlflow import GateReportLink, MlflowRunLink
from airflow_mcp.operators.base import ModelControlOperator, now, require_active
from airflow_mcp.registry.evidence import find_evidence, find_gate_report, find_replay
from airflow_mcp.registry.recording import gate_event

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.audit.event import AuditEvent

NO_DECISION = "none"
"""Stands in XCom for the decision of a dry run."""
_SHORT_FORM: Mapping[str, Any] = {
    "thresholds": (),
    "significance": (),
    "slices": None,
    "replay": None,
    "mode": GatePolicy.mode,
}
"""Fields of the policy that are arguments of their own, with their defaults."""


class EvaluationGateOperator(ModelControlOperator):
    """Judge a candidate by rules; the report is stored in its MLflow run first.

    Verdicts: ``passed``; ``failed`` (a rule is not met); ``inconclusive`` (a metric is missing or not finite, no rule
    applies, or an interval does not decide); ``error`` (the evidence cannot be used, or is self-reported while a rule
    compares with the champion or needs slices).

    The ``decision`` follows from the verdict: it is the verdict itself, or ``warned`` when the gate, or the rule that
    is not met, only warns. After ``passed`` and ``warned`` the Dag continues and the model may be registered. A dry run
    decides nothing: the Dag always continues, and registration is neither allowed nor forbidden by it.

    Rules in ``benchmarks``, ``coverage`` and ``findings`` need no evaluation. A gate with no other rules judges a run
    without evidence, for example the run of a step that tests code.

    XCom, also when the task fails: ``verdict``, ``mode``, ``dry_run``, ``decision`` (``none`` for a dry run),
    ``reason``, ``run_id``, ``champion_version`` (the version compared with, or ``none``), ``self_reported`` (whether
    the training script's own metrics were judged), ``rows_needed`` (about how many rows would
    decide, where more rows would), ``report`` (artifact path of the HTML report), ``report_hash`` and ``rules``.

    :param run_id: the candidate's MLflow run, which holds the evidence (templated).
    :param model_name: registered model of the candidate (templated).
    :param thresholds: rules such as ``accuracy >= 0.92``, ``latency_ms <= 150`` or ``f1 >= champion - 0.01``
        (templated). A rule against the champion does not apply while there is no champion.
    :param significance: improvements over the champion that must be certain (templated): metrics, or mappings of
        ``metric``, ``min_effect`` (in units of the metric, 0), ``confidence`` (0.95), ``min_rows`` (100), ``method``
        (``auto``) and ``mode``. The evaluation must have computed these ``comparisons``.
    :param slices: rules for every slice of the data (templated): mapping of ``floors`` (rules), ``max_gap`` (metric to
        largest gap), ``by`` (columns), ``min_rows`` (30), ``confidence`` (0.95), ``correction`` (``holm``) and
        ``mode``.
    :param replay: how many logged requests may be answered differently (templated): mapping of ``max_flip_rate``,
        ``segments`` (columns), ``max_segment_flip_rate``, ``min_requests`` (1000), ``min_segment_requests`` (100),
        ``max_left_out`` (0.01), ``confidence`` (0.95) and ``mode``. Needs a ``ReplayModelOperator`` before the gate.
    :param policy: the rules as a :class:`~airflow_mcp.core.gate.policy.GatePolicy` or a mapping of its fields
        (templated). Fields without an argument of their own are ``benchmarks`` (what web services must answer),
        ``coverage`` (what coverage reports must show) and ``findings`` (how many findings SARIF reports may hold), each
        a mapping or a list of them. A field that is given both ways is refused.
    :param evidence_identity: identity of the expected evaluation (``evaluate.output["identity"]``); None accepts any
        evidence in the run (templated).
    :param replay_identity: identity of the expected replay (``replay.output["identity"]``); None accepts any replay of
        these models in the run (templated).
    :param mode: ``enforce``; or ``warn``, which accepts failed and inconclusive candidates and marks them as warned
        (templated). A rule may be weaker than the gate, not stronger.
    :param dry_run: judge and store a separate report, but decide nothing: the Dag continues, and no tag that other
        tasks read is written (templated).
    :param on_failed: what happens when the candidate is not accepted: ``fail`` this task without a retry, or ``skip``
        the downstream tasks. An error fails the task in any case.
    :param on_inconclusive: what happens when the enforced gate is inconclusive and no task takes over: ``fail`` or
        ``skip``, as for ``on_failed``; None takes ``on_failed``.
    :param escalation: which directly downstream tasks take over when the enforced gate is inconclusive, as an
        :class:`~airflow_mcp.core.gate.policy.EscalationPolicy` or a mapping: ``extend`` (task ids that gather more
        rows, followed when more rows would decide, at most ``max_rows``) and ``ask`` (task ids that ask a person).
        Otherwise these tasks are skipped (templated).
    :param reuse: true uses the report that the run holds already, and judges nothing. The report is refused unless it
        accepted this evidence by these rules (templated).
    """

    template_fields: Sequence[str] = (
        "run_id",
        "model_name",
        "thresholds",
        "significance",
        "slices",
        "replay",
        "policy",
        "evidence_identity",
        "replay_identity",
        "mode",
        "dry_run",
        "escalation",
        "reuse",
    )
    operator_extra_links = (MlflowRunLink(), GateReportLink())
    ui_color = "#fde2e0"
    gate_report_url: str = ""
    """Address of the report for the extra link, set while the task runs."""

    def __init__(
        self,
        *,
        run_id: str,
        model_name: str,
        thresholds: Sequence[str] = (),
        significance: Sequence[str | Mapping[str, Any]] = (),
        slices: Mapping[str, Any] | None = None,
        replay: Mapping[str, Any] | None = None,
        policy: GatePolicy | Mapping[str, Any] | None = None,
        evidence_identity: str | None = None,
        replay_identity: str | None = None,
        mode: GateMode | str = GatePolicy.mode,
        dry_run: bool | str = False,
        on_failed: OnRefusal = "fail",
        on_inconclusive: OnInconclusive | None = None,
        escalation: EscalationPolicy | Mapping[str, Any] | None = None,
        reuse: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.model_name = model_name
        self.thresholds = thresholds
        self.significance = significance
        self.slices = slices
        self.replay = replay
        self.policy = policy
        self.evidence_identity = evidence_identity
        self.replay_identity = replay_identity
        self.mode = mode
        self.dry_run = dry_run
        self.on_failed = on_failed
        self.on_inconclusive = on_inconclusive
        self.escalation = escalation
        self.reuse = reuse
        choice("on_failed", on_failed, get_args(OnRefusal))
        if (
            on_inconclusive is not None
            and choice("on_inconclusive", on_inconclusive, get_args(OnInconclusive)) == "continue"
        ):
            raise InvalidArgumentError(
                "on_inconclusive 'continue' is not supported by a gate: nothing could be registered afterwards. "
                "Use mode='warn' to accept such candidates, marked as warned"
            )

    def act(self, context: Context) -> dict[str, Any]:
        """Judge, store the report, then fail, skip, branch or continue.

        :raises InvalidArgumentError: when a rule cannot be read, or a task in ``escalation`` is not downstream.
        :raises EvidenceError: when the run is deleted, so that no report can be stored, or the report to reuse is
            missing or does not match.
        :raises GateRejectedError: when the candidate is not accepted, the task is to fail and no other task takes
            over, or the report to reuse did not accept the candidate.
        """
        policy, branches = self._policy(), self._branches()
        run = self.hook.get_run(required_text("run_id", self.run_id))
        require_active(run)
        self.mlflow_run_url = self.hook.run_url(run)
        model_name = required_text("model_name", self.model_name)
        if flag("reuse", self.reuse):
            result = self._reused(run, model_name, policy)
            with self.pushed_when_raising(context, result):
                self._go_on(context, branches)
            return result
        judged = self._judge(run, model_name, policy)
        report = judged.report
        result = self._store(context, judged, run)
        self._show(report)
        with self.pushed_when_raising(context, result):
            if report.opens or report.dry_run:
                self._go_on(context, branches)
            else:
                self._stop(context, branches, report)
        return result

    def _policy(self) -> GatePolicy:
        short = {name: getattr(self, name) for name in _SHORT_FORM}
        policy = read_policy(GatePolicy, self.policy, short, _SHORT_FORM, lambda fields: GatePolicy.parse(**fields))
        return replace(policy, dry_run=policy.dry_run or flag("dry_run", self.dry_run))

    # --- consequences ---------------------------------------------------------------------------------------------

    def _branches(self) -> EscalationPolicy | None:
        """Return which tasks take over. A task that is not directly downstream would never run, so it is refused."""
        policy = read_escalation(self.escalation)
        strangers = sorted(set(policy.tasks) - self.downstream_task_ids) if policy else ()
        if strangers:
            raise InvalidArgumentError(
                f"escalation must name tasks that are directly downstream of {self.task_id!r} "
                f"({', '.join(sorted(self.downstream_task_ids)) or 'there are none'}); got {', '.join(strangers)}. "
                "Nothing was judged"
            )
        return policy

    def _go_on(self, context: Context, branches: EscalationPolicy | None) -> None:
        """Continue the Dag; tasks that would have taken over are skipped."""
        if branches is not None:
            self.follow_only(context, self.downstream_task_ids - set(branches.tasks))

    def _stop(self, context: Context, branches: EscalationPolicy | None, report: GateReport) -> None:
        if branches is not None and report.verdict is Verdict.INCONCLUSIVE:
            followed = branches.followed(report.rows_needed)
            if followed:
                self.log.info("The gate is inconclusive; %s takes over", ", ".join(followed))
                self.follow_only(context, set(followed))
                return
        ending = self.on_failed
        if report.verdict is Verdict.INCONCLUSIVE and self.on_inconclusive is not None:
            ending = cast("OnRefusal", self.on_inconclusive)
        if ending == "skip" and report.verdict is not Verdict.ERROR:
            self.log.info("The gate's verdict is %s; its downstream tasks are skipped", report.verdict)
            self.skip_downstream(context)
            return
        raise GateRejectedError(
            f"evaluation gate of {report.model_name}: {report.verdict}: {report.reason}. The report is "
            f"{contract.ARTIFACT_GATE_REPORT_HTML} in MLflow run {report.run_id}. Nothing was registered"
        )

    # --- the report -----------------------------------------------------------------------------------------------

    def _reused(self, run: Run, model_name: str, policy: GatePolicy) -> dict[str, Any]:
        """Take the report of an earlier Dag run, if it let this very evidence through.

        :return: what the task pushes.
        """
        require_reusable(run, model_name=model_name)
        evidence, stored = self._evidence(run.run_id), find_gate_report(self.hook, run.run_id)
        if stored is None:
            raise EvidenceError(
                f"there is no {contract.ARTIFACT_GATE_REPORT_JSON} in MLflow run {run.run_id} to reuse; start at the "
                "gate"
            )
        report = as_decided(stored.report, stored.hash, run.tags)
        require_passing_report(report, evidence, model_name=model_name, policy=policy)
        self.log.info("Reused the report of %s; nothing was judged again", report.created_at)
        self.gate_report_url = self.hook.artifact_url(run, contract.ARTIFACT_GATE_REPORT_HTML)
        self._show(report)
        return _result(report, _PAGES, stored.hash)

    def _judge(self, run: Run, model_name: str, policy: GatePolicy) -> _Judged:
        evidence, replay, problem = None, None, ""
        gathered = self._gather(run, policy)
        if policy.needs_evidence or self.evidence_identity is not None:
            try:
                evidence = self._evidence(run.run_id)
                replay = self._replay(run.run_id) if policy.replay else None
            except EvidenceError as error:
                evidence, problem = None, str(error)
        case = GateCase(
            run_id=run.run_id,
            model_name=model_name,
            created_at=now().isoformat(),
            policy=policy,
            gathered=gathered,
            evidence=evidence,
            replay=replay,
            problem=problem,
        )
        return _Judged(judge_case(case), case)

    def _gather(self, run: Run, policy: GatePolicy) -> Gathered:
        """Fetch what the rules ask for: answers of services, and reports. What is missing never counts as passed."""
        return Gathered(
            answers=tuple(ask_benchmark(rule) for rule in policy.benchmarks),
            reports={file: fetch_report(self.hook, file) for file in policy.files},
            commit=run.tags.get(contract.TAG_CODE_COMMIT, ""),
        )

    def _evidence(self, run_id: str) -> EvaluationEvidence:
        source = f"{contract.ARTIFACT_EVIDENCE} of MLflow run {run_id}"
        evidence = find_evidence(self.hook, run_id)
        if evidence is None:
            raise EvidenceError(f"there is no {source}. Evaluate the candidate first")
        if evidence.run_id != run_id:
            raise EvidenceError(f"{source} belongs to run {evidence.run_id}. Evaluate the candidate again")
        if self.evidence_identity is not None and evidence.identity != self.evidence_identity:
            raise EvidenceError(
                f"{source} is from evaluation {evidence.identity}, not from {self.evidence_identity}: the candidate "
                "was evaluated again in the meantime. Judge it with the newer evaluation"
            )
        return evidence

    def _replay(self, run_id: str) -> ReplayEvidence | None:
        """Return the replay, if it is the expected one."""
        if self.replay_identity == "":  # there was no champion to replay against, and so no replay
            return None
        replay = find_replay(self.hook, run_id)
        if replay is not None and self.replay_identity is not None and replay.identity != self.replay_identity:
            raise EvidenceError(
                f"{contract.ARTIFACT_REPLAY} of MLflow run {run_id} is from replay {replay.identity}, not from "
                f"{self.replay_identity}: the requests were replayed again in the meantime. Judge the newer replay"
            )
        return replay

    def _store(self, context: Context, judged: _Judged, run: Run) -> dict[str, Any]:
        """Store the report, then the decision as a tag. A dry run does not change what other tasks read.

        :return: the XCom of the task.
        """
        report = judged.report
        pages = _DRY_RUN_PAGES if report.dry_run else _PAGES
        html = render_gate_report(report, judged.case.evidence, judged.case.replay).encode()
        document = dump_document(report).encode()
        inputs_hash = "" if report.dry_run else self._keep_inputs(judged.case)
        self.hook.upload_artifact(report.run_id, pages.html, html, content_type="text/html")
        self.hook.upload_artifact(report.run_id, pages.json, document, content_type="application/json")
        self.gate_report_url = self.hook.artifact_url(run, pages.html)
        if report.decision is None:
            self.hook.set_tag(report.run_id, contract.TAG_GATE_DRY_RUN, report.verdict.value)
        else:
            if report.self_reported or contract.TAG_SELF_REPORTED in run.tags:
                self.hook.set_tag(report.run_id, contract.TAG_SELF_REPORTED, str(report.self_reported).lower())
            if run.tags.get(contract.TAG_GATE_APPROVAL):
                self.hook.set_tag(report.run_id, contract.TAG_GATE_APPROVAL, "")
            event = partial(gate_event, report, report.decision.value, content_hash(document), inputs_hash)
            self._decide(context, report, report.decision, event)
        return _result(report, pages, content_hash(document))

    def _keep_inputs(self, case: GateCase) -> str:
        """Store everything that the judgement was made from, so that it can be made again; return its hash."""
        inputs = stored_inputs(case, versions())
        for stored in inputs.files:
            if stored.path.startswith(contract.ARTIFACT_GATE_REPORTS_DIR):
                content = case.gathered.reports[stored.rule_file].content or b""
                self.hook.upload_artifact(case.run_id, stored.path, content)
        document = dump_document(inputs).encode()
        self.hook.upload_artifact(case.run_id, contract.ARTIFACT_GATE_INPUTS, document, content_type="application/json")
        return content_hash(document)

    def _decide(
        self, context: Context, report: GateReport, decision: Decision, event: Callable[[str, Actor], AuditEvent]
    ) -> None:
        """Set the tag that other tasks read, and record the decision.

        A tag that lets a candidate through is set after the record; one that stops it is set in any case.
        """
        if not report.opens:
            self.hook.set_tag(report.run_id, contract.TAG_GATE_VERDICT, decision.value)
        self.record(context, event)
        if report.opens:
            self.hook.set_tag(report.run_id, contract.TAG_GATE_VERDICT, decision.value)

    def _show(self, report: GateReport) -> None:
        if report.self_reported:
            self.log.warning("Self-reported: the training script's own metrics, not measured again")
        if report.dry_run:
            self.log.info("Dry run: the verdict decides nothing")
        elif report.decision is Decision.WARNED:
            self.log.warning("Accepted with a warning, which is recorded in run, report, version and history")
        self.log.info("Verdict: %s (%s)\n%s", report.verdict.value, report.reason, report.table())


class _Judged(NamedTuple):
    """A report, and what it was made from."""

    report: GateReport
    case: GateCase


class _Pages(NamedTuple):
    """Where a report is stored."""

    html: str
    json: str


_PAGES = _Pages(contract.ARTIFACT_GATE_REPORT_HTML, contract.ARTIFACT_GATE_REPORT_JSON)
_DRY_RUN_PAGES = _Pages(contract.ARTIFACT_GATE_DRY_RUN_HTML, contract.ARTIFACT_GATE_DRY_RUN_JSON)


def _result(report: GateReport, pages: _Pages, stored_hash: str) -> dict[str, Any]:
    return {
        "verdict": report.verdict.value,
        "mode": report.mode,
        "dry_run": report.dry_run,
        "decision": report.decision.value if report.decision else NO_DECISION,
        "reason": report.reason,
        "run_id": report.run_id,
        "champion_version": report.champion_version or NO_CHAMPION,
        "self_reported": report.self_reported,
        "rows_needed": report.rows_needed,
        "report": pages.html,
        "report_hash": stored_hash,
        "rules": [rule.model_dump(mode="json") for rule in report.rules],
    }
