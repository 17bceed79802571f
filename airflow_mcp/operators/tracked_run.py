"""The base of operators whose work is logged to an MLflow run, and what becomes of a run whose task fails."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeVar

from airflow.sdk.exceptions import TaskDeferred

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.ports import WorkResult
from airflow_mcp.exceptions import (
    ClusterUnreachableError,
    MlflowError,
    ModelControlPlaneError,
    RefusedError,
    ResultMissingError,
    WorkloadLostError,
    WorkloadTimeoutError,
)
from airflow_mcp.operators.base import ModelControlOperator, now, require_active

ResultT = TypeVar("ResultT", bound=WorkResult)
ClosedStatus = Literal["FAILED", "KILLED"]


def closed_status(error: BaseException, *, work_is_done: bool, was_killed: bool) -> ClosedStatus | None:
    """Return the status that a task's own run is closed with after an error; None leaves it as it is.

    :param error: the error that the task ends with.
    :param work_is_done: whether the workload ended well before.
    :param was_killed: whether the task was told to stop.
    """
    if isinstance(error, TaskDeferred | ClusterUnreachableError):
        return None  # the workload may be running: a retry attaches to it and to its run
    if work_is_done and isinstance(error, MlflowError | RefusedError):
        return None  # its result could not be read now, or says something unwelcome; a retry finds the run
    is_stopped = was_killed or isinstance(error, WorkloadTimeoutError) or not isinstance(error, ModelControlPlaneError)
    return "KILLED" if is_stopped else "FAILED"


class TrackedOperator(ModelControlOperator):
    """Base of operators whose work is logged to an MLflow run."""

    owns_run: bool = True
    """Whether the MLflow run is this task's own: created by it, and closed when it fails."""
    was_killed: bool = False
    """Whether the task was told to stop."""

    def own_run(self, run: Run) -> OwnRun:
        """Return a context manager that closes a run when the task fails inside it."""
        return OwnRun(self, run)

    def attempts(self, experiment_id: str, identity: str) -> list[Run]:
        """Find the runs that earlier attempts at the same work created, newest first."""
        return self.hook.search_runs(
            [experiment_id], f"tags.`{contract.TAG_IDENTITY}` = '{identity}'", ["attributes.start_time DESC"]
        )

    def show_run(self, run: Run) -> None:
        """Show where the run is, in the log and in the extra link."""
        self.mlflow_run_url = self.hook.run_url(run)
        self.log.info("MLflow run %s: %s", run.run_id, self.mlflow_run_url)

    def end_run(self, run: Run, status: Any, error: str) -> None:
        """Close a run and record why.

        :param run: the run.
        :param status: ``FAILED`` or ``KILLED``.
        :param error: what happened.
        """
        self.hook.set_tag(run.run_id, contract.TAG_ERROR, error[: contract.MAX_ERROR_TAG])
        self.hook.update_run(run.run_id, status, int(now().timestamp() * 1000))

    def require_finished(self, run: Run) -> None:
        """Check that the workload finished its run.

        :raises ResultMissingError: when it was deleted, or was not logged to, or was ended as failed.
        """
        if run.lifecycle_stage != "active":
            raise ResultMissingError(f"MLflow run {run.run_id} was deleted while the workload ran; its result is lost")
        if run.status != "FINISHED":
            raise ResultMissingError(
                f"the workload of task {self.task_id!r} ended without an error, but its MLflow run {run.run_id} is "
                f"{run.status}, not FINISHED: nothing was logged to it through {contract.ENV_MLFLOW_RUN_ID}, or it was "
                "ended as failed"
            )

    def read_result(
        self, run_id: str, identity: str, artifact: str, parse: Callable[[bytes, str], ResultT], what: str
    ) -> ResultT:
        """Read an artifact that a workload logged to an MLflow run, and check that it is about this work.

        :param parse: parses the artifact; its second argument names where the text is from.
        :param what: the kind of work, for messages.
        :raises ResultMissingError: when it is missing, or is about other work.
        """
        source = f"{artifact} of MLflow run {run_id}"
        text = self.hook.find_artifact(run_id, artifact)
        if text is None:
            if not self.owns_run:
                require_active(self.hook.get_run(run_id))
            raise ResultMissingError(
                f"the {what} ended without an error, but left no {artifact} in MLflow run {run_id}"
            )
        result = parse(text, source)
        if (result.identity, result.run_id) != (identity, run_id):
            raise ResultMissingError(f"{source} is about another {what} ({result.identity}, expected {identity})")
        return result


class OwnRun:
    """The MLflow run of a task while its workload runs: closed on the way out of an error, if the task owns it.

    :param operator: the task.
    :param run: its run.
    """

    work_is_done = False
    """Whether the workload ended well."""
    lost: WorkloadLostError | None = None
    """Set when the workload vanished, so that only its result can tell whether the work was done."""

    def __init__(self, operator: TrackedOperator, run: Run) -> None:
        self.operator, self.run = operator, run

    def __enter__(self) -> OwnRun:
        """Begin; nothing is written."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the run after an error. That error matters more than a failure to close."""
        if error is None or not self.operator.owns_run:
            return
        status = closed_status(error, work_is_done=self.work_is_done, was_killed=self.operator.was_killed)
        if status is None:
            return
        message = str(error) if isinstance(error, ModelControlPlaneError) else f"{type(error).__name__}: {error}"
        try:
            self.operator.end_run(self.run, status, message)
        except ModelControlPlaneError as problem:
            self.operator.log.warning("Run %s could not be closed as %s: %s", self.run.run_id, status, problem)

    def record_image(self, digest: str) -> None:
        """Record which image the workload ran in; empty records nothing."""
        if not digest or not self.operator.owns_run:
            return
        try:
            self.operator.hook.set_tag(self.run.run_id, contract.TAG_IMAGE_DIGEST, digest)
        except ModelControlPlaneError as problem:
            self.operator.log.warning("The image digest %s could not be recorded: %s", digest, problem)
