"""What every operator of the package shares: its MLflow connection, its errors and its results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.bases.skipmixin import SkipMixin
from airflow.sdk.exceptions import AirflowFailException

from airflow_mcp import settings
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import EvidenceError, RefusedError
from airflow_mcp.hooks.mlflow import MlflowHook

if TYPE_CHECKING:
    from airflow.sdk import Context


class ModelControlOperator(BaseOperator, SkipMixin):
    """Base of all operators: subclasses implement :meth:`act`.

    A refusal (:class:`~airflow_mcp.exceptions.RefusedError`) fails the task at once, because a retry would be
    refused again; every other error leaves the retries to Airflow.

    :param mlflow_conn_id: Airflow connection of type ``mlflow``; None takes ``[airflow_mcp] mlflow_conn_id``.
    """

    inherits_from_skipmixin = True
    """Tells Airflow that tasks which were skipped by this one stay skipped when they are cleared."""
    dry_run: bool | str = False  # type: ignore[assignment]
    """Argument of the operators that change something. It hides Airflow's method of this name, which nothing calls."""
    mlflow_run_url: str = ""
    """Address of the MLflow run for the extra link, set while the task runs."""
    mlflow_model_version_url: str = ""
    """Address of the model version for the extra link, set while the task runs."""

    def __init__(self, *, mlflow_conn_id: str | None = None, multiple_outputs: bool = True, **kwargs: Any) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def hook(self) -> MlflowHook:
        """The hook of this task's connection."""
        return MlflowHook(self.mlflow_conn_id or settings.default_mlflow_conn_id())

    def execute(self, context: Context) -> dict[str, Any]:
        """Do the work; a refusal is final.

        :return: plain JSON values; each one is an XCom of its own too.
        """
        with self.at_the_edge():
            return self.act(context)

    @contextmanager
    def at_the_edge(self) -> Iterator[None]:
        """Make refusals final for Airflow, and close the connection at the end."""
        try:
            yield
        except RefusedError as error:
            raise AirflowFailException(str(error)) from error
        finally:
            if "hook" in self.__dict__:
                self.hook.close()

    def act(self, context: Context) -> dict[str, Any]:
        """Do what the operator is for.

        :return: plain JSON values for XCom: ids, verdicts and addresses only.
        """
        raise TypeError(f"{type(self).__name__} does not implement act()")

    def task_key(self, context: Context) -> TaskKey:
        """Name the task instance without its try number."""
        instance = context["ti"]
        return TaskKey(
            instance.dag_id, instance.run_id, instance.task_id, -1 if instance.map_index is None else instance.map_index
        )

    def actor(self, context: Context) -> Actor:
        """Return the actor that records and claims name: Dag, task and Dag run."""
        return Actor.of_task(self.task_key(context))

    def push(self, context: Context, result: Mapping[str, Any]) -> None:
        """Push a result before an exception ends the task, as returning it would have."""
        for key, value in result.items():
            context["ti"].xcom_push(key, value)
        context["ti"].xcom_push("return_value", dict(result))

    @contextmanager
    def pushed_when_raising(self, context: Context, result: Mapping[str, Any]) -> Iterator[None]:
        """Push a result if an exception ends the task, as skipping others does; returning it pushes it otherwise."""
        try:
            yield
        except Exception:
            self.push(context, result)
            raise

    def skip_downstream(self, context: Context) -> None:
        """End this task as a success and skip the tasks that follow it directly; a teardown is never skipped."""
        followers = [task for task in self.get_direct_relatives(upstream=False) if not task.is_teardown]
        self.skip(context["ti"], followers)

    def follow_only(self, context: Context, task_ids: Set[str]) -> None:
        """End this task as a success and skip the tasks that follow it directly, but these and what they lead to.

        :param task_ids: tasks to follow; a teardown is followed in any case.
        """
        teardowns = {task.task_id for task in self.get_direct_relatives(upstream=False) if task.is_teardown}
        self.skip_all_except(context["ti"], sorted(task_ids | teardowns))


def now() -> datetime:
    """Give the present time in UTC."""
    return datetime.now(UTC)


def require_active(run: Run) -> None:
    """Refuse a run that has been deleted: MLflow would take files for it, but no tags and metrics.

    :param run: the candidate's run.
    :raises EvidenceError: when it is deleted.
    """
    if run.lifecycle_stage != "active":
        raise EvidenceError(
            f"MLflow run {run.run_id} of the candidate is {run.lifecycle_stage}; nothing was decided or changed. "
            "Restore it, or train again"
        )
