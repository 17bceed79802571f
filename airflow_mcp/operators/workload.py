"""The base of operators that run a workload: backend, environment, and the MLflow run that is the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk.exceptions import TaskDeferred

from airflow_mcp import settings
from airflow_mcp.core import contract
from airflow_mcp.core.evidence import DatasetPin
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload import Resources, Workload, WorkloadFile
from airflow_mcp.exceptions import (
    EvidenceError,
    InvalidArgumentError,
    MlflowError,
    ModelControlPlaneError,
    ResultMissingError,
    WorkloadFailedError,
)
from airflow_mcp.operators.base import ModelControlOperator, now
from airflow_mcp.workloads.base import WorkloadBackend
from airflow_mcp.workloads.dispatch import backend_for

if TYPE_CHECKING:
    from airflow.sdk import Context

ResultT = TypeVar("ResultT")

_ERROR_TAG_LIMIT = 4000
"""Characters of an error kept in a run's tag; MLflow allows 8000."""


class WorkloadOperator(ModelControlOperator):
    """Base of operators whose work happens outside Airflow: in a pod or, with ``runtime="local"``, a child process.

    :param runtime: ``local`` or ``kubernetes``; None takes ``[airflow_mcp] runtime``.
    :param image: container image; recorded, and used by the Kubernetes runtime.
    :param workload_resources: what the workload may use: ``cpu`` and ``memory`` (Kubernetes quantities), ``gpu``
        (whole GPUs).
    :param env: further environment variables, name to value. Credentials do not belong here.
    :param workload_timeout: time after which the workload is stopped and the task fails; None sets no limit of
        its own (``execution_timeout`` still counts).
    :param python: interpreter of the local runtime for Python steps; None takes the one that runs Airflow.
    """

    refusal_exit_code: int | None = None
    """Exit code by which the workload says that a retry is of no use; None: there is none."""

    def __init__(
        self,
        *,
        runtime: str | None = None,
        image: str | None = None,
        workload_resources: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        workload_timeout: timedelta | None = None,
        python: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.runtime = runtime
        self.image = image
        self.workload_resources = _resources(workload_resources)
        self.env = env
        self.workload_timeout = workload_timeout
        self.python = python
        self._killed = False
        if workload_timeout is not None and workload_timeout <= timedelta(0):
            raise InvalidArgumentError(f"workload_timeout is {workload_timeout!r}; allowed: a time above zero")

    @cached_property
    def backend(self) -> WorkloadBackend:
        """Where the workload runs."""
        return backend_for(
            self.runtime or settings.default_runtime(),
            log_limit_bytes=settings.workload_log_limit_bytes(),
            kill_grace_seconds=settings.kill_grace_seconds(),
        )

    def on_kill(self) -> None:
        """Stop the workload with everything it has started; called when the task is killed or times out."""
        self._killed = True
        if "backend" in self.__dict__:
            self.backend.cancel()

    def runtime_command(self, step: str, *arguments: str) -> tuple[str, ...]:
        """Write the command line of a built-in step."""
        return (self.python or sys.executable, "-m", "airflow_mcp.runtime", step, *arguments)

    def workload(
        self,
        context: Context,
        *,
        command: Sequence[str],
        run: Run,
        identity: str,
        model_name: str,
        dataset: DatasetPin | None = None,
        files: tuple[WorkloadFile, ...] = (),
    ) -> Workload:
        """Describe the workload of this task.

        :param command: command line.
        :param run: MLflow run to log into.
        :param identity: name of the piece of work.
        :param model_name: registered model it is for; may be empty.
        :param dataset: pinned data, passed by environment.
        :param files: small files to put beside it.
        :raises InvalidArgumentError: when ``env`` names a variable that the contract owns.
        """
        plain, secret = self.hook.workload_environment()
        owned = {
            **plain,
            contract.ENV_MLFLOW_RUN_ID: run.run_id,
            contract.ENV_MLFLOW_EXPERIMENT_ID: run.experiment_id,
            contract.ENV_RUN_ID: run.run_id,
            contract.ENV_IDENTITY: identity,
            **_dataset_environment(dataset),
        }
        return Workload(
            name=self.task_id,
            command=tuple(command),
            env={**self._user_env(owned.keys() | secret.keys()), **owned},
            secret_env=secret,
            files=files,
            image=self.image,
            resources=self.workload_resources,
            timeout=self.workload_timeout.total_seconds() if self.workload_timeout else None,
            labels=self._labels(context, identity, model_name),
        )

    def run_workload(self, workload: Workload) -> None:
        """Run a workload to its end; its output goes to the task log.

        :raises WorkloadError: when it did not end well.
        :raises EvidenceError: when it is a built-in step that refused its input.
        """
        self.log.info("Workload %s: %s", workload.name, " ".join(workload.command))
        try:
            self.backend.run(workload, log=self.log)
        except WorkloadFailedError as error:
            if error.exit_code == self.refusal_exit_code and not self._killed:
                raise EvidenceError(
                    f"{error}\nThe same input would be refused again, so the task is not retried."
                ) from error
            raise

    def create_run(self, context: Context, experiment_id: str, tags: Mapping[str, str]) -> Run:
        """Create the MLflow run that will be the result, after ending what a dead attempt left behind.

        :param experiment_id: experiment of the run.
        :param tags: provenance; must hold the identity tag.
        """
        for dead in self.attempts(experiment_id, tags[contract.TAG_IDENTITY]):
            if dead.is_live:
                self.log.warning("Run %s of an earlier attempt is still open; closing it as KILLED", dead.run_id)
                self.end_run(dead, "KILLED", f"superseded by try {context['ti'].try_number} of the same task")
        instance = context["ti"]
        run = self.hook.create_run(
            experiment_id,
            f"{instance.task_id} {instance.run_id}",
            {**self._provenance(context), **tags},
            int(now().timestamp() * 1000),
        )
        self.show_run(run)
        return run

    def attempts(self, experiment_id: str, identity: str) -> list[Run]:
        """Find the runs that earlier attempts at the same piece of work created, newest first."""
        return self.hook.search_runs(
            [experiment_id], f"tags.`{contract.TAG_IDENTITY}` = '{identity}'", ["attributes.start_time DESC"]
        )

    def show_run(self, run: Run) -> None:
        """Say where the run is, in the log and in the extra link."""
        self.mlflow_run_url = self.hook.run_url(run)
        self.log.info("MLflow run %s: %s", run.run_id, self.mlflow_run_url)

    def run_tracked(
        self,
        run: Run,
        describe: Callable[[], Workload],
        collect: Callable[[Run], ResultT],
    ) -> ResultT:
        """Run a workload whose result is an MLflow run, and never leave that run open or falsely finished.

        :param run: the run it logs into, just created.
        :param describe: prepares the workload; an error in it closes the run too.
        :param collect: reads the result from the finished run; an error in it marks the run FAILED.
        :return: what ``collect`` returned.
        :raises WorkloadError: when the workload did not end well, or what it promised is not in its run.
        """
        ended_well = False
        try:
            self.run_workload(describe())
            ended_well = True
            finished = self.hook.get_run(run.run_id)
            self._require_finished(finished)
            result = collect(finished)
        except TaskDeferred:
            raise
        except ModelControlPlaneError as error:
            if ended_well and isinstance(error, MlflowError):
                raise  # the work is done and only its result could not be read: a retry finds the run
            self._close_quietly(run, "KILLED" if self._killed else "FAILED", str(error))
            raise
        except BaseException as error:
            self._close_quietly(run, "KILLED", f"{type(error).__name__}: {error}")
            raise
        return result

    def end_run(self, run: Run, status: Any, error: str) -> None:
        """Close a run and write down why.

        :param run: the run.
        :param status: ``FAILED`` or ``KILLED``.
        :param error: what happened.
        """
        self.hook.set_tag(run.run_id, contract.TAG_ERROR, error[:_ERROR_TAG_LIMIT])
        self.hook.update_run(run.run_id, status, int(now().timestamp() * 1000))

    def _close_quietly(self, run: Run, status: str, error: str) -> None:
        """Close a run on the way out of an error; that error matters more than a failure to close."""
        try:
            self.end_run(run, status, error)
        except ModelControlPlaneError as problem:
            self.log.warning("Run %s could not be closed as %s: %s", run.run_id, status, problem)

    def _require_finished(self, run: Run) -> None:
        if run.lifecycle_stage != "active":
            raise ResultMissingError(f"MLflow run {run.run_id} was deleted while the workload ran; its result is lost")
        if run.status != "FINISHED":
            raise ResultMissingError(
                f"the workload of task {self.task_id!r} ended without an error, but its MLflow run {run.run_id} is "
                f"{run.status}, not FINISHED: nothing was logged to it through {contract.ENV_MLFLOW_RUN_ID}, or it was "
                "ended as failed"
            )

    def _user_env(self, owned: set[str]) -> dict[str, str]:
        given = dict(self.env or {})
        taken = sorted(owned & given.keys())
        if taken:
            raise InvalidArgumentError(f"env sets {', '.join(taken)}, which the operator sets itself; remove them")
        wrong = sorted(name for name, value in given.items() if not isinstance(value, str))
        if wrong:
            raise InvalidArgumentError(f"env has values that are not text: {', '.join(wrong)}; write them as text")
        return given

    def _labels(self, context: Context, identity: str, model_name: str) -> dict[str, str]:
        instance = context["ti"]
        return {
            "dag_id": instance.dag_id,
            "task_id": instance.task_id,
            "run_id": instance.run_id,
            "try_number": str(instance.try_number),
            "model_name": model_name,
            "identity": identity,
        }

    def _provenance(self, context: Context) -> dict[str, str]:
        instance = context["ti"]
        return {
            "mlflow.source.type": "JOB",
            "mlflow.source.name": f"{instance.dag_id}.{instance.task_id}",
            "mlflow.user": "airflow",
            contract.TAG_DAG_ID: instance.dag_id,
            contract.TAG_DAG_RUN_ID: instance.run_id,
            contract.TAG_TASK_ID: instance.task_id,
            contract.TAG_TRY_NUMBER: str(instance.try_number),
            contract.TAG_IMAGE: self.image or "",
        }


def dataset_pin(name: str, value: Any, *, hash_or_version: bool = True) -> DatasetPin:
    """Read a dataset argument.

    :param name: name of the argument, for the message.
    :param value: a mapping with ``uri`` and ``version`` or ``hash``, as ``PinDatasetOperator`` returns it.
    :param hash_or_version: whether one of the two must be given.
    :raises InvalidArgumentError: when it is not such a mapping.
    """
    if not isinstance(value, Mapping) or not value.get("uri"):
        raise InvalidArgumentError(
            f"{name} is {value!r}; allowed: a mapping with uri and version or hash, for example "
            "{'uri': '/data/v1/train.csv', 'version': 'v1'}. If it comes from another task, that task pushed nothing."
        )
    unknown = sorted(value.keys() - DatasetPin.model_fields.keys())
    if unknown:
        raise InvalidArgumentError(f"{name} has unknown keys {', '.join(unknown)}; allowed: uri, version, hash")
    pin = DatasetPin(**{key: str(item) for key, item in value.items()})
    if hash_or_version and not (pin.hash or pin.version):
        raise InvalidArgumentError(f"{name} {pin.uri!r} is not pinned: give its version, its hash (sha256:…), or both")
    return pin


def data_name(pin: DatasetPin | None) -> str:
    """Name data for an identity: by hash, or by version when the hash is not known yet."""
    if pin is None:
        return ""
    return pin.hash or f"version:{pin.version}:{pin.uri}"


def _dataset_environment(pin: DatasetPin | None) -> dict[str, str]:
    if pin is None:
        return {}
    named = {
        contract.ENV_DATA_PATH: pin.uri,
        contract.ENV_DATA_VERSION: pin.version,
        contract.ENV_DATA_HASH: pin.hash,
    }
    return {name: value for name, value in named.items() if value}


def _resources(given: Mapping[str, Any] | None) -> Resources:
    try:
        resources = Resources(**(given or {}))
    except TypeError:
        raise InvalidArgumentError(f"workload_resources is {given!r}; allowed keys: cpu, memory, gpu") from None
    if not isinstance(resources.gpu, int) or resources.gpu < 0:
        raise InvalidArgumentError(f"workload_resources: gpu is {resources.gpu!r}; allowed: a whole number, 0 or more")
    return resources


def file_name(path: str) -> str:
    """Give the last part of a path."""
    return PurePath(path).name
