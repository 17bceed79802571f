"""Models that come from outside a pipeline: what was uploaded, where a version may come from, request and result."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from airflow_mcp.core import contract
from airflow_mcp.core.document import Document, parse_document
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError

PUBLISH_SCHEMA: Literal["airflow_mcp/publish/1"] = "airflow_mcp/publish/1"
ModelFormat = Literal["onnx", "mlflow"]
FILES: dict[ModelFormat, str] = {"onnx": "upload/model.onnx", "mlflow": "upload/model.zip"}
"""Artifact of the upload's run that holds the bytes, by format."""
MAX_FILES = 10_000
"""Files in an archive; a model has a few dozen."""
EXPERIMENT_SUFFIX = "-uploads"
"""Added to the name of a model: the experiment of its uploads, and of what was made from them."""
SOURCE_FORMS = "uploads:/<upload>, models:/<model id> or runs:/<run id>/<name of the logged model>"
_SOURCES = {
    "upload": re.compile(r"uploads:/(?P<id>[0-9a-f]{32})"),
    "run": re.compile(r"runs:/(?P<id>[0-9a-f]{32})/(?P<path>[^/].*)"),
    "model": re.compile(r"models:/(?P<id>m-[0-9a-f]{32})"),
}
_Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ModelSource(NamedTuple):
    """Where a version comes from."""

    kind: Literal["upload", "run", "model"]
    id: str
    """MLflow run of an upload, MLflow run, or logged model."""
    path: str = ""
    """Name of the logged model of a run."""


def parse_source(name: str, value: str, forms: str = SOURCE_FORMS) -> ModelSource:
    """Return the parts of an address; nothing else names a model, because what it points at could change.

    :param name: argument, for the message.
    :param value: the address.
    :param forms: forms that the message names.
    :raises InvalidArgumentError: when it has none of the accepted forms.
    """
    for kind, pattern in _SOURCES.items():
        if match := pattern.fullmatch(value):
            return ModelSource(kind, match["id"], match.groupdict().get("path") or "")  # type: ignore[arg-type]
    raise InvalidArgumentError(
        f"{name} must be {forms}; got {value!r}. Paths and other addresses are refused, because what they point at "
        "can change"
    )


class Upload(Document):
    """What somebody announced to upload, kept as a tag of its MLflow run; the run is FINISHED when the bytes are there.

    The digest was compared while the bytes arrived, and is compared again before they are used.
    """

    format: ModelFormat
    size: Annotated[int, Field(ge=1)]
    """Bytes."""
    sha256: _Sha256
    by: str
    """Account that announced it."""

    @property
    def artifact(self) -> str:
        """Path of the bytes in the artifacts of the run."""
        return FILES[self.format]

    def to_tags(self, model_name: str, key: str) -> dict[str, str]:
        """Return the tags of the run.

        :param model_name: registered model that it is for.
        :param key: names the announcement, so that a repeated one finds this run.
        """
        return {
            contract.TAG_KIND: contract.KIND_UPLOAD,
            contract.TAG_MODEL_NAME: model_name,
            contract.TAG_IDENTITY: key,
            contract.TAG_UPLOAD: self.model_dump_json(),
        }

    @classmethod
    def of(cls, run: Run, model_name: str) -> Upload:
        """Return what an MLflow run says about an upload.

        :param run: the run.
        :param model_name: registered model that it must be for.
        :raises EvidenceError: when it is not an upload for this model, or was deleted.
        """
        text = run.tags.get(contract.TAG_UPLOAD)
        if text is None or run.tags.get(contract.TAG_MODEL_NAME) != model_name or run.lifecycle_stage != "active":
            raise EvidenceError(f"MLflow run {run.run_id} holds no upload for {model_name!r}. Upload the model again")
        return parse_document(cls, text, f"tag {contract.TAG_UPLOAD} of MLflow run {run.run_id}")


class PublishRequest(Document):
    """The request of ``python -m airflow_mcp.work publish-model``."""

    identity: str
    run_id: str
    """MLflow run that the model is logged to."""
    upload_run_id: str
    upload: Upload
    input_example: dict[str, Any] | None = None
    """For ONNX: values by the names of the model's inputs; None makes an example of zeros."""
    max_bytes: Annotated[int, Field(ge=1)]
    """Bytes that an archive may have when it is unpacked."""


class PublishResult(Document):
    """Result of the step, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_PUBLISH` after everything else."""

    schema_: Literal["airflow_mcp/publish/1"] = Field(default=PUBLISH_SCHEMA, alias="schema")
    identity: str
    run_id: str
    model_id: str
    """Logged model that holds the files."""
    digest: _Sha256
    """Digest of the manifest of the model's files."""


def publish_identity(upload_run_id: str, model_name: str, input_example: Any) -> str:
    """Return what names the work: one upload makes one logged model, however many Dag runs are asked for it.

    :param upload_run_id: MLflow run of the upload.
    :param model_name: registered model.
    :param input_example: example that the caller gave; None when none.
    """
    return fingerprint({"publish": upload_run_id, "model_name": model_name, "input_example": input_example})
