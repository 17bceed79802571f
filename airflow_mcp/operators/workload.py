"""The base of operators that run a workload: backend, environment, and the MLflow run that is the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk.exceptions import TaskDeferred

from airflow_mcp import settings
from airflow_mcp.core import contract
from airflow_mcp.core.code.source import CodeSource
from airflow_mcp.core.data.dataset import repository_data
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.ports import WorkResult
from airflow_mcp.core.workload.connection_values import connection_values
from airflow_mcp.core.workload.definition import Workload, WorkloadFile, WorkloadSource, read_resources
from airflow_mcp.core.workload.pod_options import pod_options
from airflow_mcp.exceptions import (
    ClusterUnreachableError,
    EvidenceError,
    InvalidArgumentError,
    MlflowError,
    MlflowNotFoundError,
    ModelControlPlaneError,
    RefusedError,
    ResultMissingError,
    WorkloadError,
    WorkloadFailedError,
    WorkloadLostError,
    WorkloadTimeoutError,
)
from airflow_mcp.hooks.connection_values import read_connection_values
from airflow_mcp.hooks.git import GitRemote
from airflow_mcp.operators.base import ModelControlOperator, now, require_active
from airflow_mcp.workloads.base import WorkloadBackend
from airflow_mcp.workloads.dispatch import backend_for

if TYPE_CHECKING:
    from airflow.sdk import Context

ResultT = TypeVar("ResultT", bound=WorkResult)
_ERROR_TAG_LIMIT = 4000
"""Characters of an error kept in a run's tag; MLflow allows 8000."""


class WorkloadOperator(ModelControlOperator):
    """Base of operators whose work happens outside Airflow: in a pod or, with ``runtime="local"``, a child process.

    :param runtime: ``local`` or ``kubernetes``; None takes ``[airflow_mcp] runtime``.
    :param image: container image; recorded, and used by the Kubernetes runtime.
    :param workload_resources: what the workload may use: ``cpu`` and ``memory`` (Kubernetes quantities), ``gpu``
        (whole GPUs).
    :param env: further environment variables, name to value. Credentials do not belong here.
    :param connection_env: environment variables whose values are kept in Airflow connections: name to
        ``<connection>.<field>``, with a field of ``login``, ``password``, ``host``, ``port``, ``schema``, ``uri`` or
        ``extra.<key>``.
    :param workload_timeout: time after which the workload is stopped and the task fails; None sets no limit of
        its own (``execution_timeout`` still counts).
    :param python: interpreter for Python steps; None takes the one that runs Airflow (``local``), or ``python`` of the
        image (``kubernetes``).
    :param kubernetes: options of the pod, by the names of ``core.workload.pod_options.PodOptions``; they override
        ``[airflow_mcp] kubernetes_defaults``. Not used by the local runtime (templated).
    """

    refusal_exit_code: int | None = None
    """Exit code by which the workload says that a retry is of no use; None: there is none."""

    owns_run: bool = True
    """Whether the MLflow run is this task's own: created by it, and closed when it fails."""

    run_tells_end: bool = True
    """Whether the MLflow run itself says that the work is done; otherwise work that vanished counts as not done."""

    is_replicable: bool = False
    """Whether the work may run on several pods at once, as the ranks of one training."""

    def __init__(
        self,
        *,
        runtime: str | None = None,
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
            pod=pod_options(settings.kubernetes_defaults(), self.kubernetes),
            mlflow_conn_id=self.hook.mlflow_conn_id,
        )

    def on_kill(self) -> None:
        """Stop the workload with everything it has started; called when the task is killed or times out."""
        self._killed = True
        if "backend" in self.__dict__:
            self.backend.cancel()

    def runtime_command(self, step: str, *arguments: str) -> tuple[str, ...]:
        """Write the command line of a built-in step; ``-P`` keeps a checkout from standing in for a library."""
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
    ) -> Workload:
        """Describe the workload of this task.

        :param command: command line.
        :param run: MLflow run to log into.
        :param identity: name of the piece of work.
        :param model_name: registered model it is for; may be empty.
        :param dataset: pinned data, passed by environment.
        :param files: small files to put beside it.
        :param source: what to fetch before the command starts.
        :param reads: pinned data that a built-in step fetches by itself.
        :param folder: folder of this machine to run in; for the local runtime.
        :param further: further variables of the contract, name to value.
        :raises InvalidArgumentError: when ``env`` or ``connection_env`` names a variable that the contract owns, or a
            value that is to come from a connection is not there.
        """
        plain, secret = self.hook.workload_environment()
        owned = {
            **plain,
            contract.ENV_MLFLOW_RUN_ID: run.run_id,
            contract.ENV_MLFLOW_EXPERIMENT_ID: run.experiment_id,
            contract.ENV_RUN_ID: run.run_id,
            contract.ENV_IDENTITY: identity,
            **_dataset_environment(dataset),
            **(further or {}),
        }
        secret = {**secret, **data_login(*reads)}
        fetch = source.environment("") if source else {}
        return Workload(
            name=self.task_id,
            command=tuple(command),
            env={**self._user_env(owned.keys() | secret.keys() | fetch.keys()), **owned},
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
        """Describe what is to be fetched before the command starts, with the credentials for it.

        :param code: repository and commit; None when the command brings its own code.
        :param script: script that must be in it.
        :param pin: pinned data; it is fetched when it is DVC data.
        :raises InvalidArgumentError: when a connection is not usable for its repository.
        """
        data = repository_data(pin.uri) if pin else None
        if code is None and data is None:
            return None
        secret = _git_login(code.url, code.connection, _CODE_LOGIN) if code else {}
        return WorkloadSource(code, script, data, {**secret, **data_login(pin)})

    def run_workload(
        self, context: Context, run: Run, identity: str, describe: Callable[[], Workload]
    ) -> dict[str, Any]:
        """Run a workload to its end and read its result; its output goes to the task log.

        A run of the task's own is never left open or falsely finished, unless the workload itself may still be at
        work: then a retry attaches to it.

        :param context: context of the task.
        :param run: MLflow run that the workload logs to.
        :param identity: name of the piece of work.
        :param describe: prepares the workload; an error in it closes the run too.
        :return: what :meth:`conclude` returned.
        :raises TaskDeferred: when the workload is under way and needs no worker slot; :meth:`resume_workload` goes on.
        :raises WorkloadError: when the workload did not end well, or what it promised is not there.
        :raises EvidenceError: when it is a built-in step that refused its input.
        """

        def start() -> None:
            workload = describe()
            self.log.info("Workload %s: %s", workload.name, " ".join(workload.command))
            self.backend.run(workload, context=context, log=self.log)

        return self._see_through(context, run, identity, start)

    def resume_workload(self, context: Context, event: dict[str, Any], run_id: str, identity: str) -> dict[str, Any]:
        """Go on after a deferral, in another process.

        :param event: the trigger's event.
        :param run_id: MLflow run of the workload.
        :param identity: name of the piece of work.
        """
        with self.at_the_edge():
            run = self.hook.get_run(run_id)
            self.show_run(run)

            def go_on() -> None:
                workload = self.workload(context, command=(), run=run, identity=identity, model_name="")
                self.backend.resume(workload, event, context=context, log=self.log)

            return self._see_through(context, run, identity, go_on)

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Read the result of a workload that has ended.

        :param run: its MLflow run, as it is now.
        :param identity: name of the piece of work.
        :return: what the task returns.
        """
        raise TypeError(f"{type(self).__name__} does not implement conclude()")

    def _see_through(self, context: Context, run: Run, identity: str, act: Callable[[], None]) -> dict[str, Any]:
        ended_well = False
        try:
            lost = self._act(lambda: self._recorded(run, act))
            ended_well = lost is None
            return self._conclude(context, run, identity, lost)
        except TaskDeferred as deferred:
            raise TaskDeferred(
                trigger=deferred.trigger,
                method_name="resume_workload",
                kwargs={"run_id": run.run_id, "identity": identity},
                timeout=deferred.timeout,
            ) from None
        except ClusterUnreachableError:
            raise  # the pod may be at work: a retry attaches to it and to its run
        except ModelControlPlaneError as error:
            # Work that is done stays done: its result could not be read now, or says something unwelcome.
            if not (ended_well and isinstance(error, (MlflowError, RefusedError))):
                was_stopped = self._killed or isinstance(error, WorkloadTimeoutError)
                self._close_own(run, "KILLED" if was_stopped else "FAILED", str(error))
            raise
        except BaseException as error:
            self._close_own(run, "KILLED", f"{type(error).__name__}: {error}")
            raise

    def _recorded(self, run: Run, act: Callable[[], None]) -> None:
        """Act; record on the task's own run which image the workload ran in, however it ended."""
        try:
            act()
        finally:
            digest = self.backend.image_digest
            if digest and self.owns_run:
                try:
                    self.hook.set_tag(run.run_id, contract.TAG_IMAGE_DIGEST, digest)
                except ModelControlPlaneError as problem:
                    self.log.warning("The image digest %s could not be recorded: %s", digest, problem)

    def _act(self, act: Callable[[], None]) -> WorkloadLostError | None:
        """Act; a workload that vanished may have done its work before."""
        try:
            act()
        except WorkloadLostError as lost:
            self.log.warning("%s; looking whether its work was done before", lost)
            return lost
        except WorkloadFailedError as error:
            if error.exit_code == self.refusal_exit_code and not self._killed:
                raise EvidenceError(
                    f"{error}\nThe same input would be refused again, so the task is not retried."
                ) from error
            raise
        return None

    def _conclude(self, context: Context, run: Run, identity: str, lost: WorkloadLostError | None) -> dict[str, Any]:
        if lost is not None and not self.run_tells_end:
            raise lost
        try:
            return self.conclude(context, self.hook.get_run(run.run_id), identity)
        except (WorkloadError, RefusedError):
            if lost is not None:
                raise lost from None
            raise

    def forget_workload(self, context: Context, identity: str) -> None:
        """Remove what an earlier try left where its work ran, now that its result is found.

        :param context: context of the task.
        :param identity: name of the piece of work.
        """
        if context["ti"].try_number > 1:
            self.backend.forget(identity, context=context, log=self.log)

    def open_run(self, context: Context, experiment_id: str, tags: Mapping[str, str]) -> Run:
        """Take up the run of an earlier try whose work goes on, or create one after closing what a dead try left.

        :param experiment_id: experiment of the run.
        :param tags: provenance; must hold the identity tag.
        """
        identity = tags[contract.TAG_IDENTITY]
        for dead in self.attempts(experiment_id, identity):
            if dead.is_live:
                if self.backend.holds(identity, context=context):
                    self.log.info("The work of an earlier try goes on; its run is taken up")
                    self.show_run(dead)
                    return dead
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

    def finished_attempt(self, context: Context, identity: str, attempts: Iterable[Run]) -> Run | None:
        """Take up the finished run of an earlier try, which died before it could report.

        :param context: context of the task.
        :param identity: name of the piece of work.
        :param attempts: runs of earlier tries whose result will do, newest first.
        :return: the newest that is finished; what it left where its work ran is removed. None when there is none.
        """
        done = next((run for run in attempts if run.status == "FINISHED"), None)
        if done is not None:
            self.log.info("An earlier try of this task finished run %s; taking it as the result", done.run_id)
            self.forget_workload(context, identity)
            self.show_run(done)
        return done

    def show_run(self, run: Run) -> None:
        """Say where the run is, in the log and in the extra link."""
        self.mlflow_run_url = self.hook.run_url(run)
        self.log.info("MLflow run %s: %s", run.run_id, self.mlflow_run_url)

    def end_run(self, run: Run, status: Any, error: str) -> None:
        """Close a run and write down why.

        :param run: the run.
        :param status: ``FAILED`` or ``KILLED``.
        :param error: what happened.
        """
        self.hook.set_tag(run.run_id, contract.TAG_ERROR, error[:_ERROR_TAG_LIMIT])
        self.hook.update_run(run.run_id, status, int(now().timestamp() * 1000))

    def _close_own(self, run: Run, status: str, error: str) -> None:
        """Close the task's own run on the way out of an error; that error matters more than a failure to close."""
        if not self.owns_run:
            return
        try:
            self.end_run(run, status, error)
        except ModelControlPlaneError as problem:
            self.log.warning("Run %s could not be closed as %s: %s", run.run_id, status, problem)

    def require_finished(self, run: Run) -> None:
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
        """Read back what a workload left in an MLflow run, and check that it is about this piece of work.

        :param parse: reads the artifact; its second argument says where the text is from.
        :param what: the kind of work, for messages.
        :raises ResultMissingError: when it is not there, or is about other work.
        """
        source = f"{artifact} of MLflow run {run_id}"
        try:
            text = self.hook.download_artifact(run_id, artifact)
        except MlflowNotFoundError:
            if not self.owns_run:
                require_active(self.hook.get_run(run_id))
            raise ResultMissingError(
                f"the {what} ended without an error, but left no {artifact} in MLflow run {run_id}"
            ) from None
        result = parse(text, source)
        if (result.identity, result.run_id) != (identity, run_id):
            raise ResultMissingError(f"{source} is about another {what} ({result.identity}, expected {identity})")
        return result

    def _user_env(self, owned: set[str]) -> dict[str, str]:
        given = dict(self.env or {})
        from_connections = {value.variable for value in self.connection_env}
        for argument, names in (("env", given.keys()), ("connection_env", from_connections)):
            if taken := ", ".join(sorted(owned & names)):
                raise InvalidArgumentError(f"{argument} sets {taken}, which the operator sets itself; remove them")
        if twice := ", ".join(sorted(given.keys() & from_connections)):
            raise InvalidArgumentError(f"env and connection_env both set {twice}; name each in one of them")
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


def _dataset_environment(pin: DatasetPin | None) -> dict[str, str]:
    if pin is None:
        return {}
    named = {
        contract.ENV_DATA_PATH: pin.uri,
        contract.ENV_DATA_VERSION: pin.version,
        contract.ENV_DATA_HASH: pin.hash,
    }
    return {name: value for name, value in named.items() if value}


_CODE_LOGIN = (contract.ENV_GIT_USERNAME, contract.ENV_GIT_PASSWORD)
_DATA_LOGIN = (contract.ENV_DATA_GIT_USERNAME, contract.ENV_DATA_GIT_PASSWORD)


def data_login(*pins: DatasetPin | None) -> dict[str, str]:
    """Give the credentials that open the repositories of DVC data, by the names of their variables.

    :param pins: pinned data of any kind.
    :raises InvalidArgumentError: when they need more than one connection, or it is not usable for a repository.
    """
    found = [data for pin in pins if pin and (data := repository_data(pin.uri)) and data.connection]
    if len({data.connection for data in found}) > 1:
        names = ", ".join(sorted({data.connection for data in found}))
        raise InvalidArgumentError(f"DVC data of one step needs the connections {names}; allowed: one for all")
    return {name: text for data in found for name, text in _git_login(data.repo, data.connection, _DATA_LOGIN).items()}


def _git_login(url: str, connection: str, names: tuple[str, str]) -> dict[str, str]:
    given = zip(names, GitRemote(url, connection or None).credentials(), strict=True)
    return {name: value for name, value in given if value}
