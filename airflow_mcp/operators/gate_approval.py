"""Record that a person approved an inconclusive gate; only then may the candidate be registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_mcp.core import contract
from airflow_mcp.core.argument import required_text
from airflow_mcp.core.gate.approval import Approval, read_answer, read_approval, require_approvable
from airflow_mcp.core.gate.rules.verdicts import Decision
from airflow_mcp.exceptions import EvidenceError
from airflow_mcp.links.mlflow import GateReportLink, MlflowRunLink
from airflow_mcp.operators.base import ModelControlOperator, require_active
from airflow_mcp.registry.evidence import find_gate_report
from airflow_mcp.registry.recording import approval_event

if TYPE_CHECKING:
    from airflow.sdk import Context


class RecordApprovalOperator(ModelControlOperator):
    """Record a person's approval of an inconclusive gate: the candidate is ``approved`` and may be registered.

    The answer comes from Airflow's ``ApprovalOperator`` and is about one report: if the candidate was judged again
    since, the answer does not count. Failed candidates and unusable evidence cannot be approved. Who approved, when and
    why is stored as an artifact and a tag of the run, and is copied to the model version.

    XCom: ``run_id``, ``decision`` (``approved``), ``by``, ``at``.

    :param run_id: the candidate's MLflow run (templated).
    :param model_name: registered model of the candidate (templated).
    :param report_hash: hash of the report that the person was asked about, ``gate.output["report_hash"]`` (templated).
    :param answer: the person's answer: the output of the ``ApprovalOperator`` (templated).
    :param reason: why it is approved; empty takes the field ``reason`` of the form, if it has one (templated).
    """

    template_fields: Sequence[str] = ("run_id", "model_name", "report_hash", "answer", "reason")
    operator_extra_links = (MlflowRunLink(), GateReportLink())
    ui_color = "#fde2e0"
    gate_report_url: str = ""
    """Address of the report for the extra link, set while the task runs."""

    def __init__(
        self,
        *,
        run_id: str,
        model_name: str,
        report_hash: str,
        answer: Mapping[str, Any],
        reason: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.model_name = model_name
        self.report_hash = report_hash
        self.answer = answer
        self.reason = reason

    def act(self, context: Context) -> dict[str, Any]:
        """Check the answer and its report, then record the approval.

        :raises InvalidArgumentError: when an argument is missing, or ``answer`` is not an answer.
        :raises EvidenceError: when the run is deleted or has no report, or the candidate was judged again since.
        :raises GateRejectedError: when the answer is not an approval, came from a timeout, or the report is not
            inconclusive.
        """
        model_name = required_text("model_name", self.model_name)
        asked = required_text("report_hash", self.report_hash)
        answer = read_answer(self.answer)
        by, at = read_approval(answer)
        run = self.hook.get_run(required_text("run_id", self.run_id))
        require_active(run)
        self.mlflow_run_url = self.hook.run_url(run)
        self.gate_report_url = self.hook.artifact_url(run, contract.ARTIFACT_GATE_REPORT_HTML)
        stored = find_gate_report(self.hook, run.run_id)
        if stored is None:
            raise EvidenceError(
                f"there is no {contract.ARTIFACT_GATE_REPORT_JSON} in MLflow run {run.run_id}. Run the gate first"
            )
        require_approvable(stored.report, stored.hash, asked, model_name=model_name)
        approval = Approval(
            run_id=run.run_id,
            model_name=model_name,
            report_hash=stored.hash,
            by=by,
            at=at,
            reason=self.reason or str((answer.params_input or {}).get("reason") or ""),
            recorded_by=str(self.actor(context)),
        )
        self._record(context, approval)
        self.log.info("%s approved the inconclusive verdict at %s: %s", by, at, approval.reason or "no reason given")
        return {"run_id": run.run_id, "decision": Decision.APPROVED.value, "by": by, "at": at}

    def _record(self, context: Context, approval: Approval) -> None:
        """Store the approval first and the gate verdict last: only the verdict allows the registration."""
        document = approval.model_dump_json(by_alias=True, indent=2).encode()
        self.hook.upload_artifact(
            approval.run_id, contract.ARTIFACT_GATE_APPROVAL, document, content_type="application/json"
        )
        self.hook.set_tag(approval.run_id, contract.TAG_GATE_APPROVAL, approval.to_tag())
        self.record(context, partial(approval_event, approval))
        self.hook.set_tag(approval.run_id, contract.TAG_GATE_VERDICT, Decision.APPROVED.value)
