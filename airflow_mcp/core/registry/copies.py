"""Copies of model versions: request and result, how files are compared, and what is recorded with the copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from airflow_mcp.core import contract
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.document import Document
from airflow_mcp.core.drift.importance import PLACES as IMPORTANCE_PLACES
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.exceptions import EvidenceError

COPY_SCHEMA: Literal["airflow_mcp/copy/1"] = "airflow_mcp/copy/1"
NOT_OF_THE_MODEL = frozenset({"registered_model_meta"})
"""Files that MLflow's client adds when it downloads a registered version."""
CARRIED_ARTIFACTS = (
    contract.ARTIFACT_EVIDENCE,
    contract.ARTIFACT_SLICES,
    contract.ARTIFACT_GATE_REPORT_JSON,
    contract.ARTIFACT_GATE_REPORT_HTML,
    contract.ARTIFACT_GATE_APPROVAL,
    contract.ARTIFACT_GATE_INPUTS,
    contract.ARTIFACT_PROFILE,
    *IMPORTANCE_PLACES,
)
"""Artifacts of the source's run that are copied too; never rows of data."""
_OWN_TO_EACH_REGISTRY = frozenset(
    {
        contract.TAG_GATE_VERDICT,
        contract.TAG_ROLLED_BACK,
        contract.TAG_SUPERSEDED_BY,
        contract.TAG_MODEL_VERSION,
        contract.TAG_COPIED_FROM,
        contract.TAG_COPY_OF,
        contract.TAG_COPY_RUN,
        contract.TAG_COPIED_GATE_VERDICT,
        contract.TAG_MODEL_DIGEST,
    }
)
"""Tags that are true of a version in its own registry only, not of a copy."""
_OWN_PREFIXES = ("airflow_mcp.load_check", contract.TAG_GATE_APPROVAL)
_DEEPEST_CHAIN = 5
"""Copies of copies that a tag records: MLflow's tags hold a few thousand characters."""
_Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class CopyRequest(Document):
    """The request of ``python -m airflow_mcp.work copy-model``."""

    identity: str
    run_id: str
    """MLflow run of the copy, on the target server."""
    model_name: Annotated[str, Field(min_length=1)]
    """Registered model to copy from, on the source server."""
    version: Annotated[str, Field(pattern=r"^[1-9]\d*$")]
    source_run_id: str
    """MLflow run of that version; a different run means that it is another version."""
    expected_digest: _Sha256 | None = None
    """Recorded digest of the version; None when none is recorded."""


class CopiedFile(Document):
    """One file of a model."""

    path: Annotated[str, Field(min_length=1)]
    """Relative to the model's folder, with forward slashes."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CopyResult(Document):
    """Result of a copy, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_COPY` after everything else."""

    schema_: Literal["airflow_mcp/copy/1"] = Field(default=COPY_SCHEMA, alias="schema")
    identity: str
    run_id: str
    model_id: str
    """Logged model that holds the files on the target server."""
    digest: _Sha256
    files: tuple[CopiedFile, ...]


def manifest_digest(files: Iterable[CopiedFile]) -> str:
    """Return the digest of a model: SHA-256 of its sorted manifest, one line ``<sha256>  <path>`` per file.

    The manifest is what ``sha256sum`` prints for the files in the order of their paths (by code point).

    :param files: every file of the model, in any order.
    :return: ``sha256:<hex>``.
    """
    lines = (f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path))
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def differences(expected: Iterable[CopiedFile], found: Iterable[CopiedFile]) -> tuple[str, ...]:
    """Return the paths of the files that differ, sorted."""
    before, after = ({file.path: file.sha256 for file in files} for files in (expected, found))
    return tuple(sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path)))


# --- what is recorded ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CopiedFrom:
    """The origin of a copied version, kept as a tag of the copy."""

    server: str
    """Address of the source's MLflow for browsers."""
    model_name: str
    version: str
    run_id: str
    at: str
    """ISO 8601, UTC."""
    by: str
    digest: str = ""
    """``sha256:<hex>`` of the model's manifest; empty when both share their files."""
    copied_from: Mapping[str, Any] = field(default_factory=dict)
    """The origin of the source, when the source is a copy itself."""

    def to_tag(self) -> str:
        """Return the value of its tag."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, sort_keys=True)

    def __str__(self) -> str:
        """Return it as one line of text."""
        return f"version {self.version} of {self.model_name} at {self.server}" + (
            f", {self.digest}" if self.digest else ", which has the same files"
        )


def read_copied_from(tags: Mapping[str, str]) -> CopiedFrom | None:
    """Return where a version was copied from; None when it is not a copy or the tag was not written by airflow-mcp."""
    try:
        fields = json.loads(tags.get(contract.TAG_COPIED_FROM, "null"))
        return CopiedFrom(**fields) if isinstance(fields, dict) else None
    except (ValueError, TypeError):
        return None


def copy_of(server: str, version: ModelVersion) -> str:
    """Return the name by which copies of a version are found: the same for every copy of it.

    :param server: address of its MLflow for browsers.
    :param version: the version.
    """
    return fingerprint([server, version.name, version.version, version.run_id])[:32]


def run_of(version: ModelVersion) -> str:
    """Return the MLflow run with a version's evidence; for a copy, the run of the copy."""
    return version.tags.get(contract.TAG_COPY_RUN) or version.run_id


def copied_from(server: str, version: ModelVersion, *, at: str, by: Actor, digest: str) -> CopiedFrom:
    """Return where a copy comes from.

    :param server: address of the source's MLflow for browsers.
    :param version: the source.
    :param at: when, ISO 8601.
    :param by: who copied.
    :param digest: digest of the files; empty when no file was moved.
    """
    origin = read_copied_from(version.tags)
    chain = _shortened(asdict(origin)) if origin else {}
    return CopiedFrom(server, version.name, version.version, version.run_id, at, str(by), digest, chain)


def _shortened(link: Mapping[str, Any], depth: int = 1) -> dict[str, Any]:
    """Cut a chain of copies of copies at the depth that a tag can hold."""
    further = link.get("copied_from")
    kept = {name: value for name, value in link.items() if value and name != "copied_from"}
    return {**kept, "copied_from": _shortened(further, depth + 1)} if further and depth < _DEEPEST_CHAIN else kept


def copy_tags(
    source: ModelVersion, origin: CopiedFrom, *, name: str, run: Run, carry_gate_verdict: bool
) -> dict[str, str]:
    """Return the tags of a copy: the source's provenance, and where it comes from.

    The source's gate verdict and load check are not the copy's: the copy needs its own, unless the verdict is
    carried on purpose.

    :param source: the version that was copied.
    :param origin: where it comes from.
    :param name: name by which copies of the source are found, see :func:`copy_of`.
    :param run: MLflow run of the copy, which will hold the evidence of its own gate.
    :param carry_gate_verdict: whether the source's gate verdict counts for the copy.
    """
    provenance = {
        tag: value
        for tag, value in source.tags.items()
        if tag.startswith(contract.TAG_PREFIX)
        and tag not in _OWN_TO_EACH_REGISTRY
        and not tag.startswith(_OWN_PREFIXES)
    }
    verdict = source.tags.get(contract.TAG_GATE_VERDICT, "")
    tags = {
        **provenance,
        contract.TAG_COPIED_FROM: origin.to_tag(),
        contract.TAG_COPY_OF: name,
        contract.TAG_COPY_RUN: run.run_id,
        contract.TAG_MODEL_DIGEST: origin.digest,
        contract.TAG_COPIED_GATE_VERDICT: verdict,
        contract.TAG_GATE_VERDICT: verdict if carry_gate_verdict else "",
    }
    return {tag: value for tag, value in tags.items() if value}


def require_same_model(request: CopyRequest, files: tuple[CopiedFile, ...]) -> None:
    """Check that the source's files have the recorded digest.

    :param request: the request.
    :param files: the files that were downloaded.
    :raises EvidenceError: naming both digests.
    """
    digest = manifest_digest(files)
    if request.expected_digest is not None and digest != request.expected_digest:
        raise EvidenceError(
            f"version {request.version} of {request.model_name!r} was changed: its files have the digest {digest}, but "
            f"{request.expected_digest} is on record. It was not copied"
        )


def require_same_copy(sent: tuple[CopiedFile, ...], found: tuple[CopiedFile, ...]) -> None:
    """Check that the copy has the files that were sent.

    :param sent: the files that were uploaded.
    :param found: the files that were downloaded again.
    :raises EvidenceError: naming the files that differ.
    """
    if other := differences(sent, found):
        raise EvidenceError(
            f"the copy differs from its source in {len(other)} file(s): {', '.join(other[:5])}. The files were "
            "changed on the way to the server's storage or in it; no version was created"
        )
