"""Passports for the tests: versions with the tags of a pipeline, and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.passport.build import GateRecord, VersionRecord
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.signing.keys import PrivateKey, VerificationKey
from tests.support.audit_log import new_key

FILES = "sha256:" + "f" * 64
REPORT_HASH = "sha256:" + "e" * 64
PROVENANCE = {
    contract.TAG_CODE_URL: "https://git.example/models.git",
    contract.TAG_CODE_REF: "refs/tags/v1.2",
    contract.TAG_CODE_COMMIT: "c" * 40,
    contract.TAG_CODE_HASH: "sha256:" + "1" * 64,
    contract.TAG_CONFIG_HASH: "sha256:" + "2" * 64,
    contract.TAG_DATA_URI: "s3://data/train.parquet",
    contract.TAG_DATA_VERSION: "2026-11-28",
    contract.TAG_DATA_HASH: "sha256:" + "3" * 64,
    contract.TAG_IMAGE: "registry.example/train:1",
    contract.TAG_IMAGE_DIGEST: "sha256:" + "4" * 64,
    contract.TAG_ENVIRONMENT: "prod",
}
CHECK = LoadCheck("passed", "it loads", "2026-11-29T00:00:00+00:00", "r2", "img", {"python": "3.11.7"}, FILES)
REPORT = GateReport(
    verdict=Verdict.PASSED,
    reason="all rules hold (1)",
    run_id="r1",
    model_name="fraud",
    champion_version=None,
    evidence_identity="e1",
    dataset=DatasetPin(uri="s3://data/test.parquet", hash="sha256:" + "5" * 64),
    rows=500,
    rules=(),
    created_at="2026-11-29T00:00:00+00:00",
)


def key_pair() -> tuple[PrivateKey, VerificationKey]:
    """Return a new key: what signs, and what verifies."""
    private, public = new_key()
    return PrivateKey(private), VerificationKey(public.decode())


def record_of(
    tags: Mapping[str, str] = PROVENANCE,
    run_tags: Mapping[str, str] | None = PROVENANCE,
    *,
    check: LoadCheck | None = CHECK,
    report: GateReport | None = REPORT,
    **version: Any,
) -> VersionRecord:
    """Return what is recorded about a version.

    :param tags: tags of the version, besides those of its load check.
    :param run_tags: tags of its run; None: it does not exist.
    :param check: its load check.
    :param report: the report of its gate.
    :param version: further fields of the version.
    """
    fields = {"name": "fraud", "version": "7", "status": "READY", "run_id": "r1", "model_id": "m-1", **version}
    run = None if run_tags is None else Run("r1", "12", "FINISHED", tags=run_tags)
    return VersionRecord(
        version=ModelVersion(**fields, tags={**tags, **(check.to_tags() if check else {})}),
        run=run,
        gate=GateRecord(report, REPORT_HASH) if report is not None else None,
    )
