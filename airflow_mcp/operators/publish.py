"""Make an uploaded file a logged model, so that it can be registered like one that was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_mcp.core import contract
from airflow_mcp.core.argument import required_text
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.gate.rules.verdicts import OPENING
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.registry.publishing import (
    EXPERIMENT_SUFFIX,
    ModelSource,
    PublishRequest,
    PublishResult,
    Upload,
    parse_source,
    publish_identity,
)
from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.exceptions import EvidenceError, GateRejectedError, InvalidArgumentError
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.workload import WorkloadOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

DEFAULT_MAX_BYTES = 8 << 30
PROVENANCE = ("code_url", "code_commit", "data_uri", "data_version", "data_hash")
"""What whoever uploads a model may report about its origin; nobody has checked it, so it has tags of its own."""


class PublishModelOperator(WorkloadOperator):
    """Make an uploaded model a logged model; a model that was logged already is passed on.

    The workload downloads the upload, compares it with the announced digest, and logs it: an ONNX file is wrapped in
    MLflow's format, with a signature from its graph; an archive of an MLflow model is unpacked, and only regular files
    below its folder are accepted. Nothing in it is loaded: that is the work of
    :class:`~airflow_mcp.operators.load_check.LoadCheckOperator`, after the registration.

    One upload makes one logged model, however many tasks, tries and Dag runs ask for it.

    XCom: ``model_name``, ``model_uri`` (``models:/<model id>``, or the source as it was given), ``run_id`` (empty for
    a model that was logged already).

    :param model_name: registered model that it is for (templated).
    :param source: ``uploads:/<upload>``, ``models:/<model id>`` or ``runs:/<run id>/<name of the logged model>``
        (templated).
    :param input_example: for ONNX: the values that the load check lets the model predict, by the names of its inputs,
        as a mapping or JSON text; empty takes zeros (templated).
    :param provenance: what is known of the origin, as a mapping or JSON text: ``code_url``, ``code_commit``,
        ``data_uri``, ``data_version``, ``data_hash``. Nobody checks it, so it is kept in the tags
        ``airflow_mcp.reported.*`` and not in the passport (templated).
    :param request_id: ID of the request that the task follows from; recorded (templated).
    :param max_bytes: bytes that an archive may have when it is unpacked.
    """

    template_fields: Sequence[str] = (
        *WorkloadOperator.template_fields,
        "model_name",
        "source",
        "input_example",
        "provenance",
        "request_id",
    )
    operator_extra_links = (MlflowRunLink(),)
    refusal_exit_code = contract.EXIT_REFUSED
    ui_color = "#dceefb"

    def __init__(
        self,
        *,
        model_name: str,
        source: str,
        input_example: Mapping[str, Any] | str = "",
        provenance: Mapping[str, str] | str = "",
        request_id: str = "",
        max_bytes: int = DEFAULT_MAX_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.source = source
        self.input_example = input_example
        self.provenance = provenance
        self.request_id = request_id
        self.max_bytes = max_bytes
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise InvalidArgumentError(f"max_bytes must be a whole number from 1; got {max_bytes!r}")

    def act(self, context: Context) -> dict[str, Any]:
        """Log the upload as a model, unless an earlier task has done so.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises GateRejectedError: when a gate refused the model that was logged already.
        :raises EvidenceError: when the upload is not complete, not what was announced, or not a model.
        :raises WorkloadError: when the workload fails; a retry helps.
        """
        name = required_text("model_name", self.model_name)
        source = parse_source("source", required_text("source", self.source))
        if source.kind != "upload":
            self._require_not_rejected(source)
            return {"model_name": name, "model_uri": self.source, "run_id": ""}
        upload_run = self.hook.get_run(source.id)
        upload = Upload.of(upload_run, name)
        if upload_run.status != "FINISHED":
            raise EvidenceError(
                f"upload {source.id} of {name!r} is not complete: its bytes have not arrived. Nothing was registered"
            )
        key = publish_identity(source.id, name, self._example())
        experiment_id = self.hook.get_or_create_experiment(f"{name}{EXPERIMENT_SUFFIX}")
        if done := self.finished_attempt(context, key, self.attempts(experiment_id, key)):
            return self.conclude(context, done, key)
        run = self.open_run(context, experiment_id, self._tags(key, upload))
        return self.run_workload(context, run, key, lambda: self._describe(context, run, key, source, upload))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Read the result of the workload.

        :raises ResultMissingError: when the run is not finished, or its result is missing.
        """
        self.require_finished(run)
        result = self.read_result(
            run.run_id, identity, contract.ARTIFACT_PUBLISH, partial(parse_document, PublishResult), "publication"
        )
        return {"model_name": self.model_name, "model_uri": f"models:/{result.model_id}", "run_id": run.run_id}

    def _require_not_rejected(self, source: ModelSource) -> None:
        """Check that no gate has refused a model; one that no gate has judged may be registered, but not promoted."""
        run_id = source.id if source.kind == "run" else self.hook.get_logged_model(source.id).source_run_id
        verdict = self.hook.get_run(run_id).tags.get(contract.TAG_GATE_VERDICT, "")
        if verdict and verdict not in OPENING:
            raise GateRejectedError(f"the gate's decision on MLflow run {run_id} is {verdict}. Nothing was registered")

    def _example(self) -> dict[str, Any] | None:
        return _mapping("input_example", self.input_example) or None

    def _tags(self, key: str, upload: Upload) -> dict[str, str]:
        given = _mapping("provenance", self.provenance)
        unknown = sorted(given.keys() - set(PROVENANCE))
        if unknown or not all(isinstance(value, str) for value in given.values()):
            raise InvalidArgumentError(
                f"provenance must map some of {', '.join(PROVENANCE)} to text; got {given!r}. Nothing was registered"
            )
        reported = {f"{contract.TAG_REPORTED_PREFIX}{name}": value for name, value in given.items() if value}
        return {
            contract.TAG_KIND: contract.KIND_PUBLISH,
            contract.TAG_IDENTITY: key,
            contract.TAG_MODEL_NAME: self.model_name,
            contract.TAG_UPLOAD: dump_document(upload, indent=None),
            **reported,
            **({contract.TAG_REQUEST_ID: self.request_id} if self.request_id else {}),
        }

    def _describe(self, context: Context, run: Run, key: str, source: ModelSource, upload: Upload) -> Workload:
        request = PublishRequest(
            identity=key,
            run_id=run.run_id,
            upload_run_id=source.id,
            upload=upload,
            input_example=self._example(),
            max_bytes=self.max_bytes,
        )
        return self.workload(
            context,
            command=self.runtime_command("publish-model"),
            run=run,
            identity=key,
            model_name=self.model_name,
            files=(WorkloadFile(contract.ENV_REQUEST_PATH, "request.json", dump_document(request)),),
        )


def _mapping(name: str, value: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return an argument that is a mapping or its JSON text; an empty one for nothing."""
    found: Any = value
    if isinstance(value, str):
        try:
            found = json.loads(value) if value.strip() not in ("", "null", "None") else {}
        except ValueError:
            found = value
    if not isinstance(found, Mapping):
        raise InvalidArgumentError(f"{name} must be a mapping or its JSON text; got {value!r}. Nothing was registered")
    return dict(found)
