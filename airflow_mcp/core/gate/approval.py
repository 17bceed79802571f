"""Approval of an inconclusive gate by a person: when an answer counts, and what is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_mcp.core.contract import TAG_GATE_APPROVAL, TAG_GATE_VERDICT
from airflow_mcp.core.document import Document
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.gate.rules.verdicts import Decision, Verdict
from airflow_mcp.exceptions import EvidenceError, GateRejectedError, InvalidArgumentError

APPROVE = "Approve"
"""Option of Airflow's ``ApprovalOperator`` that means yes."""
APPROVAL_SCHEMA: Literal["airflow_mcp/gate_approval/1"] = "airflow_mcp/gate_approval/1"


class Approval(Document):
    """Who accepted which report, when and why. Stored in the candidate's run."""

    schema_: Literal["airflow_mcp/gate_approval/1"] = Field(default=APPROVAL_SCHEMA, alias="schema")
    run_id: str
    model_name: str
    report_hash: str
    """Hash of the report that was accepted."""
    by: str
    """User name of the person in Airflow."""
    at: str
    """When the person answered, ISO 8601."""
    reason: str
    recorded_by: str
    """Task that recorded it."""

    def to_tag(self) -> str:
        """Return the value of the tag that the run and the model version get."""
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
            f"answer must be the output of Airflow's ApprovalOperator; got {value!r}. If it comes from another task, "
            "that task pushed no XCom"
        ) from None


def read_approval(answer: ApprovalAnswer) -> tuple[str, str]:
    """Return who approved, and when.

    :param answer: the person's answer.
    :raises GateRejectedError: when the answer is not an approval, or when no person gave it: the default option that
        Airflow takes after a time-out does not count.
    """
    user = answer.responded_by_user or {}
    by = str(user.get("name") or user.get("id") or "")
    if answer.chosen_options != (APPROVE,):
        raise GateRejectedError(
            f"the answer is {', '.join(answer.chosen_options) or 'empty'}, not {APPROVE}. The candidate was not "
            "registered"
        )
    if answer.timedout or not by or answer.responded_at is None:
        raise GateRejectedError(
            "no person answered: the option was taken by default, or the answer names nobody. The candidate was not "
            "registered"
        )
    return by, answer.responded_at.isoformat()


def require_approvable(report: GateReport, found_hash: str, asked_hash: str, *, model_name: str) -> None:
    """Check that the approved report is the current one, and inconclusive.

    :param report: the report that is in the run now.
    :param found_hash: its hash.
    :param asked_hash: hash of the report that the person was asked about.
    :param model_name: registered model.
    :raises EvidenceError: when the candidate has been judged again since, or for another model.
    :raises GateRejectedError: when the report's verdict is not ``inconclusive``.
    """
    if found_hash != asked_hash or report.model_name != model_name:
        raise EvidenceError(
            f"the gate report in MLflow run {report.run_id} is {found_hash} about {report.model_name!r}, but "
            f"{asked_hash} about {model_name!r} was approved: the candidate was judged again since. Ask for approval "
            "again"
        )
    if report.decision is not Decision.INCONCLUSIVE:
        raise GateRejectedError(
            f"the gate report in MLflow run {report.run_id} says {report.verdict}: {report.reason}. Only an "
            "inconclusive verdict can be accepted by a person"
        )


def as_decided(report: GateReport, found_hash: str, tags: Mapping[str, str]) -> GateReport:
    """Return a report with the decision ``approved`` if a person has approved it.

    :param report: the report; an approval of any other report does not count.
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
