"""Issues the passport of a model version, and finds everything that is recorded about one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mcp import __version__
from airflow_mcp.core import contract
from airflow_mcp.core.audit.decisions import Decided, decision
from airflow_mcp.core.credential_shapes import has_credential_shape
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.gate.approval import as_decided
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.passport.build import GateRecord, VersionRecord, build_statement, differences, is_copy
from airflow_mcp.core.passport.dsse import read_envelope, sign
from airflow_mcp.core.passport.statement import Statement, read_statement
from airflow_mcp.core.passport.verify import verify_tagged
from airflow_mcp.core.registry.copies import run_of
from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import MlflowNotFoundError, PassportError
from airflow_mcp.registry.recording import record as append

if TYPE_CHECKING:
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.audit.event import AuditEvent
    from airflow_mcp.core.mlflow_entities import ModelVersion, Run
    from airflow_mcp.core.ports import Signer
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.governance import Governance


@dataclass(frozen=True)
class Issued:
    """The passport of a version."""

    statement: Statement
    is_new: bool
    """False when the version had a passport that still fits."""


def issue_passport(
    mlflow: MlflowOperations, version: ModelVersion, *, signer: Signer, governance: Governance, by: Actor
) -> Issued:
    """Issue the passport of a version, unless it has one that fits what is recorded about it now.

    The artifact comes first, then the event in the audit log, then the tags that others read. So a try that dies in
    between leaves no passport that the log does not know, and its retry adds nothing twice.

    :param mlflow: the MLflow server.
    :param version: the version, which has passed its load check.
    :param signer: what signs.
    :param governance: in which audit log it is recorded.
    :param by: who acts.
    :raises PassportError: when the records about the version are missing or contradict each other.
    :raises AuditUnavailableError: when the log does not answer; the version has no new passport.
    """
    record = read_version_record(mlflow, version)
    statement = build_statement(record, __version__)
    if (kept := _fitting(version, statement, signer)) is not None:
        if is_copy(version):  # the log of the source may be another one, and the guard asks the one here
            signed = read_envelope(version.tags[contract.TAG_PASSPORT_ENVELOPE]).signatures
            named = ",".join(key_id for key_id, _ in signed)
            append(governance, lambda environment: _issued(kept, version, named, environment, by))
        return Issued(kept, is_new=False)
    _require_no_credentials(mlflow, record.run)
    envelope = sign(statement.payload, signer)
    if record.run is not None:
        mlflow.upload_artifact(
            record.run.run_id, contract.ARTIFACT_PASSPORT, envelope.encode(), content_type="application/json"
        )
    key_id = VerificationKey(signer.public_pem).key_id
    append(governance, lambda environment: _issued(statement, version, key_id, environment, by))
    mlflow.set_model_version_tag(version.name, version.version, contract.TAG_PASSPORT_ENVELOPE, envelope)
    mlflow.set_model_version_tag(version.name, version.version, contract.TAG_PASSPORT, statement.digest)
    return Issued(statement, is_new=True)


def read_version_record(mlflow: MlflowOperations, version: ModelVersion) -> VersionRecord:
    """Read everything that is recorded about a version.

    :param mlflow: the MLflow server.
    :param version: the version, as it is now.
    :raises EvidenceError: when the report of its gate cannot be read.
    """
    run = _run(mlflow, run_of(version))
    gate = _gate(mlflow, run) if run is not None else None
    champion = gate.report.champion_version if gate is not None and not is_copy(version) else None
    return VersionRecord(version, run, gate, _passport_of(mlflow, version.name, champion) if champion else "")


def require_unchanged(mlflow: MlflowOperations, version: ModelVersion, issued: Statement) -> None:
    """Check that a passport still says what is recorded about its version.

    :param mlflow: the MLflow server.
    :param version: the version, as it is now.
    :param issued: its passport, whose signature was verified.
    :raises PassportError: naming every field that differs.
    """
    now = build_statement(read_version_record(mlflow, version), __version__)
    if differing := differences(issued, now, is_copy=is_copy(version)):
        raise PassportError(
            f"the passport of version {version.version} of {version.name!r} does not fit the version any more: "
            f"{'; '.join(differing)}"
        )


def passport_subject(digest: str) -> str:
    """Return the subject of events about a passport.

    :param digest: its digest, ``sha256:<hex>``.
    """
    return f"passport:{digest.removeprefix('sha256:')}"


def _fitting(version: ModelVersion, now: Statement, signer: Signer) -> Statement | None:
    """Return the passport that the version has, if it fits. That of a copy may be signed by the key of its source."""
    envelope = version.tags.get(contract.TAG_PASSPORT_ENVELOPE, "")
    if not envelope:
        return None
    try:
        if is_copy(version):
            known = read_statement(read_envelope(envelope).payload)
        else:
            known = verify_tagged(version.tags, [VerificationKey(signer.public_pem)], model_name=version.name)
    except PassportError:
        return None
    return known if not differences(known, now, is_copy=is_copy(version)) else None


def _issued(statement: Statement, version: ModelVersion, key_id: str, environment: str, by: Actor) -> AuditEvent:
    new = {
        "passport": statement.digest,
        "model": version.name,
        "version": version.version,
        "files": statement.files,
        "key": key_id,
    }
    decided = Decided(key=tuple(new.values()), new=new)
    return decision("passport.issued", passport_subject(statement.digest), environment, by, decided)


def _run(mlflow: MlflowOperations, run_id: str) -> Run | None:
    if not run_id:
        return None
    try:
        run = mlflow.get_run(run_id)
    except MlflowNotFoundError:
        return None
    return run if run.lifecycle_stage == "active" else None


def _gate(mlflow: MlflowOperations, run: Run) -> GateRecord | None:
    """Return the report of a run's own gate; for a copy without one, the report that came along."""
    folders = ("", f"{contract.ARTIFACT_COPIED_DIR}/")
    places = [folder + contract.ARTIFACT_GATE_REPORT_JSON for folder in folders]
    there = mlflow.existing_artifacts(run.run_id, places)
    folder, place = next(((one, path) for one, path in zip(folders, places, strict=True) if path in there), ("", ""))
    if not place:
        return None
    text = mlflow.download_artifact(run.run_id, place)
    report = parse_document(GateReport, text, f"{place} of MLflow run {run.run_id}")
    inputs = mlflow.find_artifact(run.run_id, f"{folder}{contract.ARTIFACT_GATE_INPUTS}")
    stored = content_hash(text)
    return GateRecord(as_decided(report, stored, run.tags), stored, content_hash(inputs) if inputs is not None else "")


def _passport_of(mlflow: MlflowOperations, model_name: str, version: str) -> str | None:
    try:
        tags = mlflow.get_model_version(model_name, version).tags
    except MlflowNotFoundError:
        return None
    return tags.get(contract.TAG_PASSPORT) or None


def _require_no_credentials(mlflow: MlflowOperations, run: Run | None) -> None:
    """Check that the config in the run holds no credential: a passport invites others to read it.

    :raises PassportError: naming the file.
    """
    if run is None:
        return
    for file in mlflow.list_artifacts(run.run_id, contract.ARTIFACT_CONFIG_DIR):
        text = "" if file.is_dir else mlflow.download_artifact(run.run_id, file.path).decode(errors="replace")
        if has_credential_shape(text):
            raise PassportError(
                f"{file.path} of MLflow run {run.run_id} holds something with the shape of a credential. No passport "
                "was issued; revoke the credential, and train again with connection_env"
            )
