"""What every operator of the package shares: its MLflow connection, its errors and its results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator
from airflow.sdk.bases.skipmixin import SkipMixin
from airflow.sdk.exceptions import AirflowFailException

from airflow_mcp import settings
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, RefusedError
from airflow_mcp.hooks.mlflow import MlflowHook

if TYPE_CHECKING:
    from airflow.sdk import Context

NO_CHAMPION = "none"
"""What XCom says instead of a version when there is no champion: a missing value must not read as "no champion"."""


MAX_DRAWN_ROWS = 1_000_000
_VERSION = re.compile(r"[1-9]\d*")


class ModelControlOperator(BaseOperator, SkipMixin):
    """Base of all operators: subclasses implement :meth:`act`.

    A refusal (:class:`~airflow_mcp.exceptions.RefusedError`) fails the task at once, because a retry would be
    refused again; every other error leaves the retries to Airflow.

    :param mlflow_conn_id: Airflow connection of type ``mlflow``; None takes ``[airflow_mcp] mlflow_conn_id``.
    """

    inherits_from_skipmixin = True
    """Tells Airflow that tasks which were skipped by this one stay skipped when they are cleared."""
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

    def holder(self, context: Context) -> str:
        """Name the task for those who read who moved an alias or wrote something down: Dag, task and Dag run."""
        task = self.task_key(context)
        return f"{task.dag_id}.{task.task_id} {task.dag_run_id}"

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


def required_text(name: str, value: Any) -> str:
    """Check a templated argument that must be a text with something in it.

    :param name: name of the argument, for the message.
    :param value: its value after rendering.
    :raises InvalidArgumentError: when it is missing, empty, or not a text.
    """
    if not isinstance(value, str) or not value.strip() or value == "None":
        raise InvalidArgumentError(
            f"{name} is {value!r}; a non-empty text is needed. If it comes from another task, that task pushed nothing."
        )
    return value


def flag(name: str, value: Any) -> bool:
    """Read a templated argument that must be true or false.

    :param name: name of the argument, for the message.
    :param value: a bool, or the text that a template rendered one to.
    :raises InvalidArgumentError: when it is anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise InvalidArgumentError(f"{name} is {value!r}; allowed: true or false")


def whole_number(name: str, value: Any) -> int:
    """Read a templated argument that must be a whole number.

    :param name: name of the argument, for the message.
    :param value: a number, or the text that a template rendered one to.
    :raises InvalidArgumentError: when it is anything else.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.removeprefix("-").isdecimal():
        return int(text)
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    raise InvalidArgumentError(f"{name} is {value!r}; allowed: a whole number")


def rows_to_draw(name: str, value: Any) -> int:
    """Check how many rows are drawn for something that costs time by the row.

    :param name: name of the argument, for the message.
    :param value: 0 for none.
    :raises InvalidArgumentError: when it is no whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DRAWN_ROWS:
        raise InvalidArgumentError(f"{name} is {value!r}; allowed: a number from 0 to {MAX_DRAWN_ROWS}")
    return value


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Check a templated argument that must be one of a few words.

    :param name: name of the argument, for the message.
    :param value: its value after rendering.
    :param allowed: the words.
    :raises InvalidArgumentError: when it is none of them.
    """
    if value not in allowed:
        raise InvalidArgumentError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
    return str(value)


def version_number(name: str, value: Any, *, none_allowed: bool = False) -> str:
    """Check a templated argument that must be the number of a version.

    :param name: name of the argument, for the message.
    :param value: its value after rendering.
    :param none_allowed: whether ``none`` may be said instead, for no version.
    :raises InvalidArgumentError: when it is anything else; a missing value does not mean that there is none.
    """
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if _VERSION.fullmatch(text) or (none_allowed and text == NO_CHAMPION):
        return text
    allowed = "a version number" + (f" or {NO_CHAMPION!r}" if none_allowed else "")
    raise InvalidArgumentError(
        f"{name} is {value!r}; allowed: {allowed}. If it comes from another task, that task pushed nothing."
    )


OnRefusal = Literal["fail", "skip"]
ON_REFUSAL: tuple[str, ...] = ("fail", "skip")
