"""The statement of a passport: what a version was made from, judged by and checked with, as in-toto Statement v1.

It has no time, no number of the version and no server. So equal facts give an equal digest, and a copy of the version
under the same name has the same passport.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from airflow_mcp.core.document import Document, parse_document, plain
from airflow_mcp.core.identity import canonical_json, content_hash
from airflow_mcp.exceptions import EvidenceError, PassportError

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PASSPORT_TYPE: Literal["https://mcp.example.com/passport/v1"] = "https://mcp.example.com/passport/v1"
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ModelFacts(Document):
    """The model."""

    name: str
    """Registered model."""
    id: str = ""
    """MLflow's ID of the logged model."""


class RunFacts(Document):
    """The MLflow run that made the model."""

    id: str = ""
    experiment: str = ""


class CodeFacts(Document):
    """The code that trained it."""

    url: str = ""
    """Git repository, without credentials."""
    ref: str = ""
    """Branch or tag that was asked for."""
    commit: str = ""
    hash: str = ""
    """Hash of the files that ran."""


class DataFacts(Document):
    """One dataset."""

    role: Literal["training", "evaluation"]
    uri: str = ""
    version: str = ""
    digest: str = ""


class ConfigFacts(Document):
    """The training's config."""

    digest: str = ""


class ImageFacts(Document):
    """The container image that trained it; empty for a local process."""

    name: str = ""
    digest: str = ""


class GateFacts(Document):
    """The gate's judgement."""

    verdict: str
    decision: str
    mode: str
    report: Sha256
    """Hash of the report."""
    inputs: str = ""
    """Hash of the policy's arguments and of what was fetched; empty for a gate that did not store them."""
    evidence: str = ""
    """Identity of the evaluation."""


class LoadCheckFacts(Document):
    """The load check with which the passport was issued."""

    verdict: str
    image: str = ""
    libraries: dict[str, str] = Field(default_factory=dict)


class BuilderFacts(Document):
    """What made the passport."""

    package: str = "airflow-mcp"
    version: str


class Passport(Document):
    """The predicate of the statement."""

    model: ModelFacts
    run: RunFacts
    code: CodeFacts
    data: tuple[DataFacts, ...]
    config: ConfigFacts
    image: ImageFacts
    gate: GateFacts | None
    compared_with: str
    """Digest of the passport of the champion that the gate compared with; empty when there was none."""
    load_check: LoadCheckFacts
    environment: str
    """Where it was made: ``dev``, ``test`` or ``prod``; empty when that was not recorded."""
    builder: BuilderFacts
    unknown: tuple[str, ...] = ()
    """Fields that nobody knows, sorted: ``image.digest``."""


class _Subject(Document):
    name: str
    digest: dict[Literal["sha256"], Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


class _Statement(Document):
    type_: Literal["https://in-toto.io/Statement/v1"] = Field(default=STATEMENT_TYPE, alias="_type")
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Literal["https://mcp.example.com/passport/v1"] = Field(default=PASSPORT_TYPE, alias="predicateType")
    predicate: Passport


class Statement:
    """A passport with the files that it is about.

    :param files: digest of the model's files, ``sha256:<hex>``, as the load check records it.
    :param passport: what is known about the version.
    """

    def __init__(self, files: str, passport: Passport) -> None:
        self.files, self.passport = files, passport

    @property
    def payload(self) -> bytes:
        """The bytes that are signed: canonical JSON."""
        subject = {"name": self.passport.model.name, "digest": {"sha256": self.files.removeprefix("sha256:")}}
        return statement_bytes(PASSPORT_TYPE, subject, plain(self.passport))

    @property
    def digest(self) -> str:
        """Name of the passport: ``sha256:`` of the payload."""
        return content_hash(self.payload)


def statement_bytes(predicate_type: str, subject: dict[str, Any], predicate: dict[str, Any]) -> bytes:
    """Return an in-toto statement about one subject as canonical JSON.

    :param predicate_type: type of the predicate, a URI.
    :param subject: name and digest of what it is about.
    :param predicate: JSON values.
    """
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": [subject], "predicateType": predicate_type, "predicate": predicate}
    ).encode()


def read_statement(payload: bytes) -> Statement:
    """Read the payload of an envelope whose signature was verified.

    :param payload: the bytes that were signed.
    :raises PassportError: when it is not the statement of a passport.
    """
    try:
        found = parse_document(_Statement, payload, "the statement")
    except EvidenceError as error:
        raise PassportError(f"the statement is not a passport: {error}") from None
    (subject,) = found.subject
    statement = Statement(f"sha256:{subject.digest['sha256']}", found.predicate)
    if subject.name != found.predicate.model.name or statement.payload != payload:
        raise PassportError(
            "the statement is not a passport in canonical form: it has another subject, order or spelling"
        )
    return statement
