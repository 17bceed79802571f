"""What callers send and get, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from airflow_mcp.core.mlflow_entities import Stage
from airflow_mcp.core.panel.actions import REASON_LENGTH
from airflow_mcp.core.registry.publishing import ModelFormat

Version = Annotated[str, Field(pattern=r"^[1-9]\d{0,9}$", examples=["7"])]
ExpectedChampion = Annotated[
    str,
    Field(
        pattern=r"^([1-9]\d{0,9}|none)$",
        description="Version that is champion as far as the caller knows, or `none`; another one is a conflict.",
        examples=["6", "none"],
    ),
]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=REASON_LENGTH, strip_whitespace=True)]
Text = Annotated[str, StringConstraints(max_length=5000)]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Sent(BaseModel):
    """The base of everything that is sent: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Answer(BaseModel):
    """The base of everything that is answered."""

    model_config = ConfigDict(protected_namespaces=())


# --- sent ------------------------------------------------------------------------------------------------------------


SOURCE_PATTERN = "^(uploads:/[0-9a-f]{32}|models:/m-[0-9a-f]{32}|runs:/[0-9a-f]{32}/[^/].*)$"
"""For clients; a source that does not match is refused with a sentence that names the forms."""


class UploadRequest(Sent):
    """Announces a model that is about to be uploaded."""

    format: Annotated[
        ModelFormat,
        Field(description="`onnx`: one ONNX file. `mlflow`: a ZIP archive of a folder with a file MLmodel."),
    ]
    size: Annotated[int, Field(ge=1, description="Bytes of the file.", json_schema_extra={"format": "int64"})]
    sha256: Annotated[Sha256, Field(description="SHA-256 of the file, `sha256:` and 64 hexadecimal digits.")]


class Provenance(Sent):
    """What the caller reports about the origin of a model. Nobody checks it, and it is marked as reported."""

    code_url: Text = ""
    code_commit: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{7,64})?$")] = ""
    data_uri: Text = ""
    data_version: Annotated[str, StringConstraints(max_length=200)] = ""
    data_hash: Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""


class VersionRequest(Sent):
    """Asks for a new version of a model."""

    source: Annotated[
        str,
        Field(
            max_length=600,
            description="`uploads:/<upload>`, `models:/<model id>` or `runs:/<run id>/<name of the logged model>`.",
            examples=["uploads:/0f2a5c7b9d1e4a6f8b3c5d7e9f1a2b4c"],
            json_schema_extra={"pattern": SOURCE_PATTERN},
        ),
    ]
    description: Text = ""
    input_example: Annotated[
        dict[str, Any] | None,
        Field(
            description="For an uploaded ONNX file: values by the names of its inputs, which the load check lets it "
            "predict. Without it, zeros are used."
        ),
    ] = None
    provenance: Provenance | None = None
    reason: Annotated[str, StringConstraints(max_length=REASON_LENGTH)] = ""


class MoveRequest(Sent):
    """Asks for another champion: a promotion or a rollback."""

    version: Version
    expected_champion: ExpectedChampion
    reason: Reason


class StageRequest(Sent):
    """Asks for another stage of a version."""

    version: Version
    stage: Stage
    archive_existing: Annotated[
        bool | None,
        Field(description="Archive the other versions of the stage. By default only for Production, which has one."),
    ] = None
    expected_champion: Annotated[
        ExpectedChampion | None, Field(description="For Production. By default the champion at the request.")
    ] = None
    reason: Annotated[str, StringConstraints(max_length=REASON_LENGTH)] = ""


class RetrainingRequest(Sent):
    """Asks for a training, or holds up or resumes retraining."""

    action: Literal["train", "pause", "resume"]
    reason: Reason


# --- answered --------------------------------------------------------------------------------------------------------


class State(Answer):
    """The state of a model in one word: the worst thing that is known about it."""

    kind: Annotated[str, Field(description="A fixed name, such as `healthy`, for programs.")]
    word: Annotated[str, Field(description="The same in words.")]
    next_step: Annotated[str, Field(description="What a person does next; empty when nothing has to be done.")]


class ModelSummary(Answer):
    """One model of the list."""

    name: str
    owner: str
    state: State
    champion: Annotated[str | None, Field(description="Version in production.")]
    champion_since: str | None
    previous_champion: Annotated[str | None, Field(description="Version that a rollback goes to.")]
    newest_version: str | None
    gate_verdict: Annotated[str | None, Field(description="The gate's decision on the newest version.")]


class ModelList(Answer):
    """A page of the models that the caller may see, by name."""

    models: list[ModelSummary]
    total: Annotated[int, Field(description="Models that match, on all pages.")]
    page: int
    complete: Annotated[bool, Field(description="False while this server reads the models for the first time.")]
    read_at: Annotated[str | None, Field(description="When they were read; up to a minute ago.")]


class Champion(Answer):
    """The version of one model that is in production."""

    model: str
    version: str
    since: str | None


class ChampionList(Answer):
    """The versions in production that the caller may see, by the names of their models."""

    champions: list[Champion]
    complete: bool
    read_at: str | None


class ChampionAtTime(Answer):
    """Which version was in production at a time."""

    time: str
    versions: Annotated[
        list[str | None], Field(description="Several when a move outside airflow-mcp makes it uncertain.")
    ]
    is_certain: bool


class Change(Answer):
    """One change of the champion."""

    action: Annotated[str, Field(description="`unrecorded`: it was made outside airflow-mcp.")]
    before: str | None
    after: str | None
    earliest: str | None
    latest: str
    by: str | None
    reason: str | None


class History(Answer):
    """Every known change of a model's champion, the newest first."""

    model: str
    champion: str | None
    changes: list[Change]


class LoadCheckAnswer(Answer):
    """Whether a version loads and answers."""

    verdict: str
    reason: str
    at: str


class VersionSummary(Answer):
    """One version of a model."""

    model: str
    version: str
    status: Annotated[str, Field(description="`READY` when MLflow has registered it.")]
    registered_at: str
    aliases: list[str]
    gate_verdict: str | None
    load_check: LoadCheckAnswer | None
    unusable: Annotated[str, Field(description="Why it cannot be used; empty when nothing speaks against it.")]
    can_be_promoted: Annotated[
        bool, Field(description="Whether neither its gate nor its load check speaks against a promotion.")
    ]


class VersionDetail(VersionSummary):
    """One version of a model, with its origin."""

    run_id: str
    provenance: Annotated[dict[str, str], Field(description="What airflow-mcp recorded.")]
    reported: Annotated[dict[str, str], Field(description="What whoever uploaded it reported; nobody checked it.")]
    metrics: dict[str, float]


class VersionList(Answer):
    """The newest versions of a model and those that aliases name, the newest first."""

    versions: list[VersionSummary]


class Possible(Answer):
    """Whether the caller can do something with a model now."""

    possible: bool
    why_not: str


class ModelDetail(ModelSummary):
    """One model."""

    description: str
    aliases: dict[str, str]
    dag_id: Annotated[str, Field(description="Dag that trains or publishes it; decides who may see it.")]
    actions: Annotated[dict[str, Possible], Field(description="What the caller can do now, by action.")]
    notes: Annotated[dict[str, str], Field(description="What could not be read just now, and so is missing here.")]


class Upload(Answer):
    """An announced upload."""

    id: str
    source: Annotated[str, Field(description="To be named as `source` when the version is asked for.")]
    model: str
    format: ModelFormat
    size: Annotated[int, Field(json_schema_extra={"format": "int64"})]
    sha256: str
    state: Literal["waiting", "complete"]
    content: Annotated[str, Field(description="Path on this server to `PUT` the bytes to.")]


class Step(Answer):
    """One task of an operation."""

    name: str
    state: Annotated[str, Field(description="As Airflow names it; empty before it begins.")]


class Operation(Answer):
    """Something that takes longer than a request: a Dag run of Airflow."""

    id: str
    action: str
    model: str
    status: Literal["queued", "running", "succeeded", "failed"]
    by: str
    dag_id: str
    dag_run_id: str
    requested_at: str | None
    ended_at: str | None
    steps: list[Step]
    result: Annotated[
        dict[str, str | int | float | bool | None], Field(description="What it led to, such as `version`.")
    ]
    failure: Annotated[str, Field(description="Why it failed, and what to do; empty when it did not fail.")]


class Accepted(Answer):
    """An operation that was begun; follow it at `Location`."""

    id: str
    action: str
    model: str
    status: Literal["accepted"] = "accepted"
    href: Annotated[str, Field(description="Path on this server to follow it at.")]


class OperationList(Answer):
    """Operations on models that the caller may see, the newest first."""

    operations: list[Accepted]


class Steered(Answer):
    """A training that was begun, or a pause or resume of retraining that is done already."""

    model: str
    action: str
    status: Literal["accepted", "done"]
    id: Annotated[str | None, Field(description="Of the operation; null when it is done.")] = None
    href: Annotated[str | None, Field(description="Path on this server to follow it at; null when it is done.")] = None


class ProblemDetails(Answer):
    """An error, as RFC 9457 describes it."""

    type: Annotated[str, Field(examples=["urn:airflow-mcp:problem:champion-moved"])]
    title: str
    status: int
    detail: Annotated[str, Field(description="What is wrong, whether anything was changed, what to do next.")]
    errors: list[InvalidField] | None = None
    champion: Annotated[str | None, Field(description="With `champion-moved`: the champion now.")] = None
    upstream_status: Annotated[int | None, Field(description="With `mlflow-refused`: MLflow's own status.")] = None


class InvalidField(Answer):
    """One member of a request that is not valid."""

    where: Annotated[str, Field(examples=["body.version"])]
    what: Annotated[str, Field(description="What is allowed.")]
    got: Annotated[str | None, Field(description="What was sent; left out when it may be secret.")] = None


ProblemDetails.model_rebuild()
