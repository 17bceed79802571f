"""A person's yes to an inconclusive gate: what it must say to count, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_mcp.core.contract import TAG_GATE_APPROVAL, TAG_GATE_VERDICT
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.gate.rules.verdicts import Decision, Verdict
from airflow_mcp.exceptions import EvidenceError, GateRejectedError, InvalidArgumentError

APPROVE = "Approve"
"""Option of Airflow's ``ApprovalOperator`` that means yes."""
APPROVAL_SCHEMA: Literal["airflow_mcp/gate_approval/1"] = "airflow_mcp/gate_approval/1"


class Approval(BaseModel):
    """Who accepted which report, when and why; stored in the candidate's run."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["airflow_mcp/gate_approval/1"] = Field(default=APPROVAL_SCHEMA, alias="schema")
    run_id: str
    model_name: str
    report_hash: str
    """Hash of the report that was accepted."""
    by: str
    """Airflow's name of the person."""
    at: str
    """When the person answered, ISO 8601."""
    reason: str
    recorded_by: str
    """Task that wrote it down."""

    def to_tag(self) -> str:
        """Write it as the value of a tag, which the model version gets too."""
        return json.dumps({"by": self.by, "at": self.at, "reason": self.reason, "report": self.report_hash})


class ApprovalAnswer(BaseModel):
    """What a person answered, as Airflow's human-in-the-loop operators return it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    chosen_options: tuple[str, ...]
    responded_by_user: Mapping[str, Any] | None = None
    responded_at: datetime | None = None
    params_input: Mapping[str, Any] | None = None
    timedout: bool = False


def read_answer(value: Any) -> ApprovalAnswer:
    """Read the argument ``answer``.

    :param value: result of Airflow's ``ApprovalOperator``.
    :raises InvalidArgumentError: when it is anything else.
    """
    try:
        return ApprovalAnswer.model_validate(value)
    except ValueError:
        raise InvalidArgumentError(
            f"answer is {value!r}; allowed: the output of Airflow's ApprovalOperator. If it comes from a task, that "
            "task pushed nothing"
        ) from None


def read_approval(answer: ApprovalAnswer) -> tuple[str, str]:
    """Give who said yes, and when.

    :param answer: what a person answered.
    :raises GateRejectedError: when it is no yes, or nobody said it: a default after a time-out is nobody's.
    """
    user = answer.responded_by_user or {}
    by = str(user.get("name") or user.get("id") or "")
    if answer.chosen_options != (APPROVE,):
        raise GateRejectedError(
            f"the answer is {', '.join(answer.chosen_options) or 'empty'}, not {APPROVE}; the candidate stays out"
        )
    if answer.timedout or not by or answer.responded_at is None:
        raise GateRejectedError(
            "nobody answered: the option was taken by default, or it is not known who took it. The candidate stays out"
        )
    return by, answer.responded_at.isoformat()


def require_approvable(report: GateReport, found_hash: str, asked_hash: str, *, model_name: str) -> None:
    """Refuse an approval of anything but an inconclusive report, and of another report than the person was asked about.

    :param report: the report that is in the run now.
    :param found_hash: its hash.
    :param asked_hash: hash of the report that the person was asked about.
    :param model_name: registered model.
    :raises EvidenceError: when the candidate was judged again since, or for another model.
    :raises GateRejectedError: when the report says that the candidate failed, or that nobody knows.
    """
    if found_hash != asked_hash or report.model_name != model_name:
        raise EvidenceError(
            f"the gate report in MLflow run {report.run_id} is {found_hash} about {report.model_name!r}, but "
            f"{asked_hash} about {model_name!r} was approved; the candidate was judged again since. Ask again"
        )
    if report.decision is not Decision.INCONCLUSIVE:
        raise GateRejectedError(
            f"the gate report in MLflow run {report.run_id} says {report.verdict}: {report.reason}. Only an "
            "inconclusive verdict can be accepted by a person"
        )


def as_decided(report: GateReport, found_hash: str, tags: Mapping[str, str]) -> GateReport:
    """Give a report with what a person decided about it since.

    :param report: an inconclusive report is approved when the run says so about this very one.
    :param found_hash: its hash.
    :param tags: tags of the run.
    """
    try:
        approval: Any = json.loads(tags.get(TAG_GATE_APPROVAL) or "null")
    except ValueError:
        return report
    is_approved = (
        report.verdict is Verdict.INCONCLUSIVE
        and tags.get(TAG_GATE_VERDICT) == Decision.APPROVED
        and isinstance(approval, dict)
        and approval.get("report") == found_hash
    )
    return report.model_copy(update={"decision": Decision.APPROVED}) if is_approved else report
