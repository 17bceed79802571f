"""The base of operators that run a workload: its description, the backend, and the MLflow run that is the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import TaskDeferred

from airflow_mcp import settings
from airflow_mcp.core import contract
from airflow_mcp.core.code.source import CodeSource
from airflow_mcp.core.data.dataset import repository_data
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.trace import trace_id_of
from airflow_mcp.core.workload.connection_values import connection_values
from airflow_mcp.core.workload.definition import Workload, WorkloadFile, WorkloadSource, read_resources
from airflow_mcp.core.workload.pod_options import pod_options
from airflow_mcp.exceptions import (
    EvidenceError,
    InvalidArgumentError,
    RefusedError,
    WorkloadError,
    WorkloadFailedError,
    WorkloadLostError,
)
from airflow_mcp.hooks.connection_values import read_connection_values
from airflow_mcp.metrics.stats import reported
from airflow_mcp.metrics.tasks import Sample, workload_sample
from airflow_mcp.metrics.traces import trace_environment, traceparent
from airflow_mcp.operators.base import now
from airflow_mcp.operators.tracked_run import OwnRun, TrackedOperator
from airflow_mcp.operators.workload_environment import code_login, data_login, dataset_environment, user_environment
from airflow_mcp.workloads.base import WorkloadBackend
from airflow_mcp.workloads.dispatch import backend_for

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.metrics.catalogue import Outcome


WORK_PLANE = ("mlflow", "airflow_mcp")
"""What every built-in step imports."""


class WorkloadOperator(TrackedOperator):
    """Base of operators whose work happens outside Airflow: in a pod or, with ``runtime="local"``, a child process.

    :param runtime: ``local`` or ``kubernetes``; None takes ``[airflow_mcp] runtime``.
    :param image: container image; recorded on the run, and used by the Kubernetes runtime.
    :param workload_resources: resources of the workload: ``cpu`` and ``memory`` (Kubernetes quantities), ``gpu``
        (whole GPUs).
    :param env: further environment variables, name to value; not for credentials.
    :param connection_env: environment variables with values from Airflow connections: name to
        ``<connection>.<field>``, with a field of ``login``, ``password``, ``host``, ``port``, ``schema``, ``uri`` or
        ``extra.<key>``.
    :param workload_timeout: time after which the workload is stopped and the task fails; None sets no limit
        (``execution_timeout`` still applies).
    :param python: interpreter for Python steps, with mlflow and airflow-mcp; None takes ``[airflow_mcp] python``, else
        that of Airflow (``local``), or ``python`` of the image (``kubernetes``).
    :param kubernetes: options of the pod, with the names of ``core.workload.pod_options.PodOptions``; they override
        ``[airflow_mcp] kubernetes_defaults``. Not used by the local runtime (templated).
    """

    template_fields: Sequence[str] = ("image", "env", "kubernetes")
    """Subclasses add their own to these."""
    refusal_exit_code: int | None = None
    """Exit code of a workload that a retry cannot help; None when it has no such code."""

    run_tells_end: bool = True
    """Whether the MLflow run shows that the work is done; if not, a workload that vanished counts as failed."""

    needs_work_plane: bool = True
    """Whether the command runs in an interpreter with mlflow and airflow-mcp, which is checked before a run exists."""

    is_replicable: bool = False
    """Whether the work may run on several pods, as the ranks of one training."""

    def __init__(
        self,
        *,
        runtime: settings.Runtime | None = None,
        image: str | None = None,
        workload_resources: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        connection_env: Mapping[str, str] | None = None,
        workload_timeout: timedelta | None = None,
        python: str | None = None,
        kubernetes: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.runtime = runtime
        self.image = image
        self.workload_resources = read_resources(workload_resources)
        self.env = env
        self.connection_env = connection_values(connection_env)
        self.workload_timeout = workload_timeout
        self.python = python
        self.kubernetes = kubernetes
        if workload_timeout is not None and workload_timeout <= timedelta(0):
            raise InvalidArgumentError(f"workload_timeout must be longer than zero; got {workload_timeout!r}")

    @cached_property
    def backend(self) -> WorkloadBackend:
        """Where the workload runs."""
        runtime = self.runtime or settings.default_runtime()
        return backend_for(
            runtime,
            log_limit_bytes=settings.workload_log_limit_bytes(),
            kill_grace_seconds=settings.kill_grace_seconds(),
            pod=pod_options(settings.kubernetes_defaults(), self.kubernetes),
            mlflow_conn_id=self.hook.mlflow_conn_id,
            python=self.python or (settings.workload_python() if runtime == "local" else ""),
        )

    def on_kill(self) -> None:
        """Stop the workload and everything it started; called when the task is killed or times out."""
        self.was_killed = True
        if "backend" in self.__dict__:
            self.backend.cancel()

    def runtime_command(self, step: str, *arguments: str) -> tuple[str, ...]:
        """Return the command line of a built-in step; ``-P`` keeps files of a checkout from shadowing libraries."""
        self.backend.require_modules(*WORK_PLANE)
        return (self.python or self.backend.python, "-P", "-m", "airflow_mcp.work", step, *arguments)

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
        source: WorkloadSource | None = None,
        reads: Sequence[DatasetPin | None] = (),
        folder: str = "",
        further: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Workload:
        """Describe the workload of this task.

        :param command: command line.
        :param run: MLflow run to log into.
        :param identity: fingerprint of the work.
        :param model_name: registered model it is for; may be empty.
        :param dataset: pinned data, passed in environment variables.
        :param files: small files that it needs.
        :param source: code and data to fetch before the command starts.
        :param reads: pinned data that a built-in step fetches itself.
        :param folder: working folder on this machine; for the local runtime only.
        :param further: further variables of the contract, name to value.
        :param secrets: further credentials of the contract, name to value.
        :raises InvalidArgumentError: when ``env`` or ``connection_env`` names a variable that the operator sets, or a
            connection lacks a value.
        """
        plain, secret = self.hook.workload_environment()
        traced, traced_secret = self._trace_environment()
        owned = {
            **plain,
            **traced,
            contract.ENV_MLFLOW_RUN_ID: run.run_id,
            contract.ENV_MLFLOW_EXPERIMENT_ID: run.experiment_id,
            contract.ENV_RUN_ID: run.run_id,
            contract.ENV_IDENTITY: identity,
            **dataset_environment(dataset),
            **(further or {}),
        }
        secret = {**secret, **traced_secret, **data_login(*reads), **(secrets or {})}
        taken = owned.keys() | secret.keys() | (source.environment("") if source else {}).keys()
        return Workload(
            name=self.task_id,
            command=tuple(command),
            env={**user_environment(self.env, self.connection_env, taken), **owned},
            secret_env={**read_connection_values(self.connection_env), **secret},
            files=files,
            source=source,
            folder=folder,
            image=self.image,
            resources=self.workload_resources,
            timeout=self.workload_timeout.total_seconds() if self.workload_timeout else None,
            owns_run=self.owns_run,
            is_replicable=self.is_replicable,
            labels=self._labels(context, identity, model_name),
        )

    def source_of(
        self, code: CodeSource | None, script: str = "", pin: DatasetPin | None = None
    ) -> WorkloadSource | None:
        """Describe what is fetched before the command starts, with the credentials for it.

        :param code: repository and commit; None when the command brings its own code.
        :param script: script that must be in it.
        :param pin: pinned data; fetched if it is in a DVC repository.
        :raises InvalidArgumentError: when a connection is not usable for its repository.
        """
        data = repository_data(pin.uri) if pin else None
        if code is None and data is None:
            return None
        secret = code_login(code) if code else {}
        return WorkloadSource(code, script, data, {**secret, **data_login(pin)})

    def run_workload(
        self, context: Context, run: Run, identity: str, describe: Callable[[], Workload]
    ) -> dict[str, Any]:
        """Run a workload to its end and read its result; its output goes to the task log.

        A failed task closes its own MLflow run, unless the workload may still be running: then a retry attaches to
        both.

        :param context: context of the task.
        :param run: MLflow run that the workload logs to.
        :param identity: fingerprint of the work.
        :param describe: describes the workload; an error in it closes the run too.
        :return: what :meth:`conclude` returned.
        :raises TaskDeferred: when the workload runs and needs no worker slot; :meth:`resume_workload` continues.
        :raises WorkloadError: when the workload failed, or its result is missing.
        :raises EvidenceError: when it is a built-in step that refused its input.
        """
        with self._resumable(run, identity), self.own_run(run) as own:
            workload = describe()
            self.log.info("Workload %s: %s", workload.name, " ".join(workload.command))
            with self._work(own), reported(partial(self._duration, context)):
                self.backend.run(workload, context=context, log=self.log)
            return self._conclude(context, own, identity)

    def resume_workload(self, context: Context, event: dict[str, Any], run_id: str, identity: str) -> dict[str, Any]:
        """Continue after a deferral, in another process.

        :param event: the trigger's event.
        :param run_id: MLflow run of the workload.
        :param identity: fingerprint of the work.
        """
        with self.at_the_edge():
            run = self.hook.get_run(run_id)
            self.show_run(run)
            with self._resumable(run, identity), self.own_run(run) as own:
                workload = self.workload(context, command=(), run=run, identity=identity, model_name="")
                with self._work(own), reported(partial(self._duration, context)):
                    self.backend.resume(workload, event, context=context, log=self.log)
                return self.finish(self._conclude(context, own, identity))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Read the result of a workload that has ended.

        :param run: its MLflow run, as it is now.
        :param identity: fingerprint of the work.
        :return: what the task returns.
        """
        raise TypeError(f"{type(self).__name__} does not implement conclude()")

    @contextmanager
    def _resumable(self, run: Run, identity: str) -> Iterator[None]:
        """Send a deferral of the backend to :meth:`resume_workload`, with the run of the workload."""
        try:
            yield
        except TaskDeferred as deferred:
            raise TaskDeferred(
                trigger=deferred.trigger,
                method_name="resume_workload",
                kwargs={"run_id": run.run_id, "identity": identity},
                timeout=deferred.timeout,
            ) from None

    @contextmanager
    def _work(self, own: OwnRun) -> Iterator[None]:
        """Note how the workload ended, and on the task's own run the image that it ran in.

        :raises EvidenceError: when the workload refused its input, so that a retry is of no use.
        """
        try:
            yield
            own.work_is_done = True
        except WorkloadLostError as lost:
            self.log.warning("%s; checking whether its work was done before that", lost)
            own.lost = lost
        except WorkloadFailedError as error:
            if error.exit_code != self.refusal_exit_code or self.was_killed:
                raise
            raise EvidenceError(
                f"{error}\nThe same input would be refused again, so the task is not retried"
            ) from error
        finally:
            own.record_image(self.backend.image_digest)

    def _duration(self, context: Context, ended: Outcome) -> list[Sample]:
        seconds = (now() - context["ti"].start_date).total_seconds()  # Airflow keeps it over a deferral
        return [workload_sample(self.ended_task(ended), self.runtime or settings.default_runtime(), seconds * 1000)]

    def _conclude(self, context: Context, own: OwnRun, identity: str) -> dict[str, Any]:
        """Read the result; a workload that was lost failed unless its work was done before."""
        if own.lost is not None and not self.run_tells_end:
            raise own.lost
        try:
            return self.conclude(context, self.hook.get_run(own.run.run_id), identity)
        except (WorkloadError, RefusedError):
            if own.lost is not None:
                raise own.lost from None
            raise

    def forget_workload(self, context: Context, identity: str) -> None:
        """Remove what an earlier try left where its workload ran, once its result is found.

        :param context: context of the task.
        :param identity: fingerprint of the work.
        """
        if context["ti"].try_number > 1:
            self.backend.forget(identity, context=context, log=self.log)

    def open_run(self, context: Context, experiment_id: str, tags: Mapping[str, str]) -> Run:
        """Return the run of an earlier try whose workload still runs; otherwise close open runs and create one.

        :param experiment_id: experiment of the run.
        :param tags: provenance; must contain the identity tag.
        :raises InvalidArgumentError: when the interpreter lacks mlflow or airflow-mcp; no run is created then.
        """
        if self.needs_work_plane:
            self.backend.require_modules(*WORK_PLANE)
        identity = tags[contract.TAG_IDENTITY]
        for dead in self.attempts(experiment_id, identity):
            if dead.is_live:
                if self.backend.holds(identity, context=context):
                    self.log.info("The workload of an earlier try still runs; attaching to its run")
                    self.show_run(dead)
                    return dead
                self.log.warning("Run %s of an earlier try is still open; closing it as KILLED", dead.run_id)
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

    def finished_attempt(self, context: Context, identity: str, attempts: Iterable[Run]) -> Run | None:
        """Return the finished run of an earlier try that died before it could report it.

        :param context: context of the task.
        :param identity: fingerprint of the work.
        :param attempts: usable runs of earlier tries, newest first.
        :return: the newest finished run, after its pod was removed; None when there is none.
        """
        done = next((run for run in attempts if run.status == "FINISHED"), None)
        if done is not None:
            self.log.info("An earlier try of this task finished run %s; using it as the result", done.run_id)
            self.forget_workload(context, identity)
            self.show_run(done)
        return done

    def _trace_environment(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return what continues the trace, without what the user sets."""
        given = {*(self.env or {}), *(self.connection_env or {})}
        plain, secret = trace_environment()
        return {n: v for n, v in plain.items() if n not in given}, {n: v for n, v in secret.items() if n not in given}

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
            contract.TAG_TRACE_ID: trace_id_of(traceparent()),
            contract.TAG_IMAGE: self.image or "",
            contract.TAG_ENVIRONMENT: settings.environment(),
        }
