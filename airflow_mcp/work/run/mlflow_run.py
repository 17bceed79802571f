"""The MLflow run of a step, and the errors of MLflow's client.

Runs are written through ``MlflowClient`` only: unlike the fluent functions, it changes the status of a run only on
request.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.exceptions import (
    MlflowAuthError,
    MlflowError,
    MlflowNotFoundError,
    MlflowUnreachableError,
    RefusedError,
)

_log = logging.getLogger(__name__)
_METRICS_PER_CALL = 500  # the server accepts at most 1000
_CREDENTIALS = re.compile(r"//[^/@\s]+@")


class RunLog:
    """One MLflow run to write into.

    :param run_id: id of the run; no request is made before a method is called.
    """

    def __init__(self, run_id: str) -> None:
        from mlflow.tracking import MlflowClient  # noqa: PLC0415

        self.run_id = run_id
        with mlflow_errors("open the MLflow client"):
            self._client = MlflowClient()

    def require_active(self) -> Any:
        """Return MLflow's run.

        :raises RefusedError: when it has been deleted.
        :raises MlflowError: when it does not exist or the server does not answer.
        """
        with mlflow_errors(f"read run {self.run_id}"):
            run = self._client.get_run(self.run_id)
        if run.info.lifecycle_stage != "active":
            raise RefusedError(
                f"MLflow run {self.run_id} is {run.info.lifecycle_stage}: nothing can be recorded in it. "
                "Restore it, or run the training again"
            )
        return run

    def require_version(self, model_name: str, version: str) -> None:
        """Check that a version is in the registry.

        :param model_name: registered model.
        :param version: its version.
        :raises MlflowError: when it is not, or the server does not answer.
        """
        with mlflow_errors(f"read version {version} of model {model_name!r}"):
            self._client.get_model_version(model_name, version)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log finite metrics at step 0."""
        from mlflow.entities import Metric  # noqa: PLC0415

        now = int(time.time() * 1000)
        items = [Metric(name, value, now, 0) for name, value in metrics.items()]
        with mlflow_errors(f"log {len(items)} metrics to run {self.run_id}"):
            for start in range(0, len(items), _METRICS_PER_CALL):
                self._client.log_batch(self.run_id, metrics=items[start : start + _METRICS_PER_CALL])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        with mlflow_errors(f"tag run {self.run_id}"):
            for name, value in tags.items():
                self._client.set_tag(self.run_id, name, value)

    def log_text(self, text: str, artifact: str) -> None:
        """Store a text as an artifact.

        :param artifact: path relative to the run's artifact root.
        """
        with mlflow_errors(f"store {artifact} in run {self.run_id}"):
            self._client.log_text(self.run_id, text, artifact)

    def log_file(self, file: Path, artifact: str) -> None:
        """Store a file as an artifact of the same name.

        :param file: local file.
        :param artifact: path relative to the run's artifact root; its last part is the name of the file.
        """
        with mlflow_errors(f"store {artifact} in run {self.run_id}"):
            self._client.log_artifact(self.run_id, str(file), str(Path(artifact).parent))

    def log_dataset(self, dataset: Any, context: str) -> None:
        """Record an ``mlflow.data`` dataset as an input of the run.

        :param dataset: the dataset.
        :param context: purpose of the dataset, for example ``evaluation``.
        """
        from mlflow.entities import DatasetInput, InputTag  # noqa: PLC0415
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT  # noqa: PLC0415

        item = DatasetInput(dataset._to_mlflow_entity(), [InputTag(MLFLOW_DATASET_CONTEXT, context)])
        with mlflow_errors(f"record the dataset of run {self.run_id}"):
            self._client.log_inputs(self.run_id, [item])

    def end(self, status: str) -> None:
        """End the run.

        :param status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        with mlflow_errors(f"set run {self.run_id} to {status}"):
            self._client.set_terminated(self.run_id, status)

    def log_model_folder(self, name: str, folder: Path) -> str:
        """Log the files of a model as they are, and return the ID of the logged model.

        :param name: name of the logged model.
        :param folder: folder with the MLmodel.
        """
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus  # noqa: PLC0415

        with mlflow_errors(f"upload the model to run {self.run_id}"):
            experiment_id = self._client.get_run(self.run_id).info.experiment_id
            model = self._client.create_logged_model(experiment_id, name=name, source_run_id=self.run_id)
            self._client.log_model_artifacts(model.model_id, str(folder))
            self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
            self._client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, 0)])
        return str(model.model_id)

    def link_models(self) -> list[str]:
        """Return the ids of the run's ready models, and link those to the run that only name it as their source.

        ``mlflow.<flavor>.log_model`` makes this link, ``MlflowClient.create_logged_model`` does not.
        """
        from mlflow.entities import LoggedModelOutput  # noqa: PLC0415

        run = self.require_active()
        linked = [item.model_id for item in (run.outputs.model_outputs if run.outputs else [])]
        with mlflow_errors(f"list the models of run {self.run_id}"):
            found = self._client.search_logged_models(
                [run.info.experiment_id], filter_string=f"source_run_id = '{self.run_id}'"
            )
            ready = [model.model_id for model in found if str(model.status).upper().endswith("READY")]
            unlinked = [model_id for model_id in ready if model_id not in linked]
            if unlinked:
                self._client.log_outputs(self.run_id, [LoggedModelOutput(item, 0) for item in unlinked])
        return [*linked, *unlinked]


def read_run_artifact(run_id: str, path: str) -> bytes:
    """Read an artifact of any run.

    :param run_id: the run.
    :param path: path relative to the run's artifact root.
    :raises MlflowNotFoundError: when run or artifact does not exist.
    :raises MlflowError: when the server does not answer.
    """
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    client, parent = MlflowClient(), path.rpartition("/")[0]
    with TemporaryDirectory(prefix="airflow-mcp-") as folder, mlflow_errors(f"read {path} of run {run_id}"):
        # A download does not tell a missing file from an error: S3 and Azure answer 500 for both.
        if not any(file.path == path for file in client.list_artifacts(run_id, parent or None)):
            raise MlflowNotFoundError(f"MLflow run {run_id} has no artifact {path}")
        return Path(client.download_artifacts(run_id, path, folder)).read_bytes()


@contextlib.contextmanager
def mlflow_errors(doing: str) -> Iterator[None]:
    """Turn errors of MLflow into this package's errors, without credentials.

    :param doing: the attempted action, in the infinitive, for the message: ``MLflow could not {doing}``.
    :raises MlflowError: or a subclass, in place of MLflow's error.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415
    from requests.exceptions import RequestException  # noqa: PLC0415

    try:
        yield
    except MlflowException as error:
        raise _translated(doing, error) from None
    except RequestException as error:
        raise MlflowUnreachableError(f"MLflow could not {doing}: {redacted(error)}") from None


def redacted(error: object, limit: int = 600, uri: str = "") -> str:
    """Return an error as one short line, without credentials.

    :param error: any error; user and password of URLs are removed from its text.
    :param limit: largest number of characters.
    :param uri: address that may have credentials in its query as well; its public form is shown instead.
    """
    text = str(error).replace(uri, public_uri(uri)) if uri else str(error)
    text = _CREDENTIALS.sub("//***@", " ".join(text.split()))
    return text if len(text) <= limit else text[:limit] + " …"


def _translated(doing: str, error: Any) -> MlflowError:
    code = str(getattr(error, "error_code", "") or "")
    message = f"MLflow could not {doing}: {redacted(error)}"
    if code == "RESOURCE_DOES_NOT_EXIST":
        return MlflowNotFoundError(message, error_code=code)
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or "error code 401" in str(error):
        return MlflowAuthError(message, error_code=code)
    if "Max retries exceeded" in str(error) or "failed to connect" in str(error).lower():
        return MlflowUnreachableError(message, error_code=code)
    return MlflowError(message, error_code=code)
