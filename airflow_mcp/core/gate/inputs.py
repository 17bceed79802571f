"""Everything that a gate decided from, stored with its report, so that the decision can be made again later."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from platform import python_version
from typing import Any, Literal

from pydantic import Field

from airflow_mcp import __version__
from airflow_mcp.core.contract import ARTIFACT_GATE_REPORTS_DIR
from airflow_mcp.core.document import Document, dump_document, parse_document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.evaluation.replay import ReplayEvidence
from airflow_mcp.core.gate.judgement import (
    GateReport,
    Gathered,
    error_report,
    evaluate_gate,
    judge_gathered,
    report_without_evidence,
)
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.gate.rules.benchmark import BenchmarkAnswer, masked
from airflow_mcp.core.gate.rules.report_files import FetchedReport, ReportFile
from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import EvidenceError

INPUTS_SCHEMA: Literal["airflow_mcp/gate_inputs/1"] = "airflow_mcp/gate_inputs/1"


@dataclass(frozen=True, kw_only=True)
class GateCase:
    """What one judgement is made from."""

    run_id: str
    model_name: str
    created_at: str
    """Time of the judgement, ISO 8601."""
    policy: GatePolicy
    gathered: Gathered
    evidence: EvaluationEvidence | None = None
    """None for a gate without an evaluation, or when it cannot be used."""
    replay: ReplayEvidence | None = None
    problem: str = ""
    """Why the evidence cannot be used."""


def judge_case(case: GateCase) -> GateReport:
    """Return the report of a judgement; equal cases give equal reports.

    :param case: what it is made from.
    """
    others = judge_gathered(case.policy, case.gathered)
    about: dict[str, Any] = {"model_name": case.model_name, "created_at": case.created_at}
    if case.problem:
        return error_report(case.problem, run_id=case.run_id, policy=case.policy, others=others, **about)
    if case.evidence is None:
        return report_without_evidence(others, run_id=case.run_id, policy=case.policy, **about)
    return evaluate_gate(case.evidence, case.policy, replay=case.replay, others=others, **about)


class StoredAnswer(Document):
    """The answer of a service."""

    status: int | None
    body: str
    """Base64; secrets are masked."""
    problem: str
    milliseconds: float
    tries: int


class StoredFile(Document):
    """A report of an earlier step, and where its content is."""

    file: dict[str, Any]
    """Where the policy says that it is."""
    run_id: str = ""
    """MLflow run with the content; empty when there was none."""
    path: str = ""
    """Artifact of that run."""
    hash: str = ""
    problem: str = ""
    commit: str = ""

    @property
    def rule_file(self) -> ReportFile:
        """The file as the policy names it."""
        return ReportFile.model_validate(self.file)


class GateInputs(Document):
    """Everything that a gate decided from, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_GATE_INPUTS`."""

    schema_: Literal["airflow_mcp/gate_inputs/1"] = Field(default=INPUTS_SCHEMA, alias="schema")
    run_id: str
    model_name: str
    created_at: str
    policy: dict[str, Any]
    """Arguments of :meth:`~airflow_mcp.core.gate.policy.GatePolicy.parse`."""
    evidence: str = ""
    """The evidence as JSON text; empty without."""
    replay: str = ""
    problem: str = ""
    answers: tuple[StoredAnswer, ...] = ()
    files: tuple[StoredFile, ...] = ()
    commit: str = ""
    packages: dict[str, str]
    """Versions of what judged."""


def stored_inputs(case: GateCase, packages: Mapping[str, str]) -> GateInputs:
    """Return a case as it is stored.

    :param case: the case.
    :param packages: versions of what judges.
    """
    gathered = case.gathered
    return GateInputs(
        run_id=case.run_id,
        model_name=case.model_name,
        created_at=case.created_at,
        policy=policy_arguments(case.policy),
        evidence=dump_document(case.evidence) if case.evidence else "",
        replay=dump_document(case.replay) if case.replay else "",
        problem=case.problem,
        answers=tuple(_stored_answer(answer) for answer in gathered.answers),
        files=tuple(_stored_file(case.run_id, file, found) for file, found in gathered.reports.items()),
        commit=gathered.commit,
        packages=dict(packages),
    )


def case_of(inputs: GateInputs, contents: Mapping[str, bytes]) -> GateCase:
    """Return the case that was stored.

    :param inputs: the stored inputs.
    :param contents: content of the files, by hash.
    :raises EvidenceError: when a content is missing, or a stored document cannot be read by this version.
    :raises InvalidArgumentError: when this version does not know an argument of the policy.
    """
    source = "the stored inputs of the gate"
    return GateCase(
        run_id=inputs.run_id,
        model_name=inputs.model_name,
        created_at=inputs.created_at,
        policy=GatePolicy.parse(**inputs.policy),
        gathered=Gathered(
            answers=tuple(_answer(answer) for answer in inputs.answers),
            reports={stored.rule_file: _fetched(stored, contents) for stored in inputs.files},
            commit=inputs.commit,
        ),
        evidence=parse_document(EvaluationEvidence, inputs.evidence, source) if inputs.evidence else None,
        replay=parse_document(ReplayEvidence, inputs.replay, source) if inputs.replay else None,
        problem=inputs.problem,
    )


def versions() -> dict[str, str]:
    """Return the versions of what judges here."""
    return {"airflow-mcp": __version__, "pydantic": metadata.version("pydantic"), "python": python_version()}


def policy_arguments(policy: GatePolicy) -> dict[str, Any]:
    """Return the arguments of :meth:`~airflow_mcp.core.gate.policy.GatePolicy.parse` that give this policy, as JSON.

    :param policy: the policy.
    """

    def whole(rules: tuple[Document, ...]) -> list[dict[str, Any]]:
        return [rule.model_dump(mode="json") for rule in rules]

    def as_given(rules: tuple[Document, ...]) -> list[dict[str, Any]]:
        # A report without run_id is a file; one whose run_id is None is missing. So only what was given is written.
        return [rule.model_dump(mode="json", exclude_unset=True) for rule in rules]

    return {
        "thresholds": [str(threshold) for threshold in policy.thresholds],
        "significance": whole(policy.significance),
        "slices": policy.slices.model_dump(mode="json") if policy.slices else None,
        "replay": policy.replay.model_dump(mode="json") if policy.replay else None,
        "benchmarks": whole(policy.benchmarks),
        "coverage": as_given(policy.coverage),
        "findings": as_given(policy.findings),
        "mode": policy.mode,
        "dry_run": policy.dry_run,
    }


def _stored_answer(answer: BenchmarkAnswer) -> StoredAnswer:
    body = answer.body
    if answer.secrets:
        body = masked(body.decode(errors="replace"), answer.secrets).encode()
    return StoredAnswer(
        status=answer.status,
        body=base64.b64encode(body).decode(),
        problem=masked(answer.problem, answer.secrets),
        milliseconds=answer.milliseconds,
        tries=answer.tries,
    )


def _answer(stored: StoredAnswer) -> BenchmarkAnswer:
    return BenchmarkAnswer(
        status=stored.status,
        body=base64.b64decode(stored.body),
        problem=stored.problem,
        milliseconds=stored.milliseconds,
        tries=stored.tries,
    )


def _stored_file(run_id: str, file: ReportFile, found: FetchedReport) -> StoredFile:
    written = file.model_dump(mode="json", exclude_unset=True)
    if found.content is None:
        return StoredFile(file=written, problem=found.problem, commit=found.commit)
    digest = content_hash(found.content)
    if file.is_artifact and file.run_id:
        return StoredFile(file=written, run_id=file.run_id, path=file.path, hash=digest, commit=found.commit)
    # Files and objects may be gone later, so the gate keeps their content with its report.
    path = f"{ARTIFACT_GATE_REPORTS_DIR}/{digest.removeprefix('sha256:')}"
    return StoredFile(file=written, run_id=run_id, path=path, hash=digest, commit=found.commit)


def _fetched(stored: StoredFile, contents: Mapping[str, bytes]) -> FetchedReport:
    if not stored.hash:
        return FetchedReport(None, stored.problem, stored.commit)
    content = contents.get(stored.hash)
    if content is None:
        raise EvidenceError(f"{stored.path} of MLflow run {stored.run_id} with {stored.hash} is missing")
    return FetchedReport(content, stored.problem, stored.commit)
