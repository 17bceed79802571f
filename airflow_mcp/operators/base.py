"""The base of every operator: its MLflow connection, its errors and its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg, conf
from airflow.sdk.bases.skipmixin import SkipMixin
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mcp import settings
from airflow_mcp.core.access.requester import requester_of_actor
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import EvidenceError, FailedError, MlflowError, RefusedError
from airflow_mcp.hooks.airflow_people import AirflowApiHook
from airflow_mcp.hooks.audit import AuditLogHook
from airflow_mcp.hooks.git import GitRepositories
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.hooks.signing import SigningKeyHook
from airflow_mcp.lineage.tasks import FinishedTask
from airflow_mcp.metrics.stats import reported
from airflow_mcp.metrics.tasks import EndedTask, Sample, samples_of
from airflow_mcp.registry.approvals import ReleaseApprovals
from airflow_mcp.registry.governance import Governance
from airflow_mcp.registry.guard import strictest
from airflow_mcp.registry.recording import record

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors.base import OperatorLineage
    from airflow.sdk import Context

    from airflow_mcp.core.audit.event import AuditEvent
    from airflow_mcp.core.ports import Signer
    from airflow_mcp.metrics.catalogue import Outcome


class ModelControlOperator(BaseOperator, SkipMixin):
    """Base class of all operators; subclasses implement :meth:`act`.

    A :class:`~airflow_mcp.exceptions.RefusedError` fails the task without a retry, because a retry would be refused
    again. After any other error Airflow retries as usual.

    :param mlflow_conn_id: Airflow connection of type ``mlflow``; None takes ``[airflow_mcp] mlflow_conn_id``.
    """

    inherits_from_skipmixin = True
    """Makes Airflow keep tasks skipped that this task skipped, also when they are cleared."""
    dry_run: bool | str = False  # type: ignore[assignment]
    """Argument of the operators that change something. It hides Airflow's method of this name, which nothing calls."""
    signing_conn_id: str | None = None
    """Argument of the operator that issues passports; None takes ``[airflow_mcp] signing_conn_id``."""
    mlflow_run_url: str = ""
    """Address of the MLflow run for the extra link, set while the task runs."""
    mlflow_model_version_url: str = ""
    """Address of the model version for the extra link, set while the task runs."""
    outcome: Mapping[str, Any] = MappingProxyType({})
    """What the task has pushed to XCom, for OpenLineage and metrics; empty until then."""

    def __init__(self, *, mlflow_conn_id: str | None = None, multiple_outputs: bool = True, **kwargs: Any) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def hook(self) -> MlflowHook:
        """The hook for this task's MLflow connection."""
        return MlflowHook(self.mlflow_conn_id or settings.default_mlflow_conn_id())

    def execute(self, context: Context) -> dict[str, Any]:
        """Run :meth:`act`; a refusal fails the task without a retry.

        :return: plain JSON values, each of which is also pushed as an XCom of its own.
        """
        with self.at_the_edge():
            return self.finish(self.act(context))

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Keep the result of the task for OpenLineage and metrics, and return it."""
        self.outcome = result
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return what the task has read and written; Airflow's OpenLineage provider calls this, also after a failure.

        :param task_instance: not used: the operator has what is needed.
        """
        from airflow_mcp.lineage.facets import operator_lineage  # noqa: PLC0415 - needs the provider, which may be missing

        arguments = {name: getattr(self, name, None) for name in self.template_fields}
        conn_id = self.mlflow_conn_id or settings.default_mlflow_conn_id()
        names = [each.__name__ for each in type(self).__mro__]
        return operator_lineage(names, FinishedTask(arguments, self.outcome, conn_id))

    def ended_task(self, ended: Outcome) -> EndedTask:
        """Return what metrics are made from.

        :param ended: how this try of the task ended.
        """
        model = self.outcome.get("model_name") or getattr(self, "model_name", "")
        return EndedTask(type(self).__name__, str(model or ""), ended, self.outcome)

    def _samples(self, ended: Outcome) -> list[Sample]:
        return samples_of([each.__name__ for each in type(self).__mro__], self.ended_task(ended))

    @contextmanager
    def at_the_edge(self) -> Iterator[None]:
        """Turn refusals into failures without a retry, log the reason of a skip, and close the connection.

        Airflow's metrics get what the task has done, in each try.
        """
        try:
            with reported(self._samples):
                yield
        except RefusedError as error:
            raise AirflowFailException(str(error)) from error
        except AirflowSkipException as skipped:  # Airflow itself shows the reason only in a folded group of the log
            self.log.info("Skipped: %s", skipped)
            raise
        except MlflowError as error:
            if not error.is_final:
                raise
            raise AirflowFailException(f"{error}. A retry would send the same request, so there is none") from error
        finally:
            if "hook" in self.__dict__:
                self.hook.close()

    def act(self, context: Context) -> dict[str, Any]:
        """Do the operator's work.

        :return: plain JSON values for XCom: ids, verdicts and addresses only.
        """
        raise TypeError(f"{type(self).__name__} does not implement act()")

    def task_key(self, context: Context) -> TaskKey:
        """Identify the task instance, without its try number."""
        instance = context["ti"]
        return TaskKey(
            instance.dag_id, instance.run_id, instance.task_id, -1 if instance.map_index is None else instance.map_index
        )

    def actor(self, context: Context) -> Actor:
        """Return the actor that records and claims name: Dag, task and Dag run."""
        run = context.get("dag_run")
        run_type = getattr(run, "run_type", "") or ""
        return Actor.of_task(
            self.task_key(context),
            requested_by=getattr(run, "triggering_user_name", None) or "",
            run_type=str(getattr(run_type, "value", run_type)),
        )

    @cached_property
    def governance(self) -> Governance:
        """Whether and where this task's moves in the registry are recorded: option ``audit_conn_id``."""
        conn_id, api_conn_id = settings.audit_conn_id(), settings.airflow_api_conn_id()
        people = AirflowApiHook(api_conn_id) if api_conn_id else None
        return Governance(
            environment=strictest(settings.environment(), self.hook.settings.environment),
            open_log=AuditLogHook(conn_id).get_conn if conn_id else None,
            rollback_without_log=settings.rollback_without_audit(),
            off_reason=settings.governance_off(),
            requester=people.requester_of if people else requester_of_actor,
            approvals=ReleaseApprovals(people.people) if people else None,
            repositories=GitRepositories(settings.git_conn_id()),
            open_signer=(lambda: SigningKeyHook(key).get_conn()) if (key := settings.signing_conn_id()) else None,
        )

    def record(self, context: Context, make: Callable[[str, Actor], AuditEvent]) -> None:
        """Record a decision of this task in the audit log, if there is one; recording it again adds nothing.

        :param make: makes the event from the environment and the actor, of what is stored by now.
        :raises AuditUnavailableError: when the log does not answer; a retry records the decision.
        """
        record(self.governance, lambda environment: make(environment, self.actor(context)))

    @cached_property
    def signer(self) -> Signer | None:
        """What signs passports: argument or option ``signing_conn_id``; None when no key is configured."""
        conn_id = self.signing_conn_id or settings.signing_conn_id()
        return SigningKeyHook(conn_id).get_conn() if conn_id else None

    def push(self, context: Context, result: Mapping[str, Any]) -> None:
        """Push a result as returning it would, before an exception ends the task."""
        self.finish(dict(result))
        for key, value in result.items():
            context["ti"].xcom_push(key, value)
        context["ti"].xcom_push("return_value", dict(result))

    @contextmanager
    def pushed_when_raising(self, context: Context, result: Mapping[str, Any]) -> Iterator[None]:
        """Push the result even when the task raises; without an exception, returning it pushes it."""
        try:
            yield
        except Exception:
            self.push(context, result)
            raise

    def skip_downstream(self, context: Context) -> None:
        """Skip the tasks directly downstream of this one, except teardowns."""
        followers = [task for task in self.get_direct_relatives(upstream=False) if not task.is_teardown]
        self.skip(context["ti"], followers)

    def follow_only(self, context: Context, task_ids: Set[str]) -> None:
        """Skip the tasks directly downstream of this one, except the named ones, what they lead to, and teardowns.

        :param task_ids: tasks that must run.
        """
        teardowns = {task.task_id for task in self.get_direct_relatives(upstream=False) if task.is_teardown}
        self.skip_all_except(context["ti"], sorted(task_ids | teardowns))


def has_template(value: Any) -> bool:
    """Return whether a value is known only when the task runs: it holds a template or an XCom."""
    if isinstance(value, Mapping):
        return any(map(has_template, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_template, value))
    return isinstance(value, XComArg) or (isinstance(value, str) and ("{{" in value or "{%" in value))


def is_deferrable(deferrable: bool | None) -> bool:
    """Return the argument ``deferrable``; None takes ``[operators] default_deferrable``."""
    return conf.getboolean("operators", "default_deferrable", fallback=False) if deferrable is None else deferrable


def no_result(event: Mapping[str, Any] | None) -> FailedError:
    """Return the error for a trigger that failed or ended without a result.

    :param event: the trigger's event; None when there was none.
    """
    return FailedError(str((event or {}).get("message") or f"the trigger ended without a result: {event!r}"))


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def require_active(run: Run) -> None:
    """Check that a run is not deleted: MLflow accepts files for a deleted run, but neither tags nor metrics.

    :param run: the candidate's run.
    :raises EvidenceError: when it is deleted.
    """
    if run.lifecycle_stage != "active":
        raise EvidenceError(
            f"the candidate's MLflow run {run.run_id} is {run.lifecycle_stage}. Nothing was decided or changed. "
            "Restore the run, or train again"
        )
