"""Run any command as a pipeline step: a build, a test, a data conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mcp.core import contract
from airflow_mcp.core.argument import flag, required_text
from airflow_mcp.core.code.source import CodeSource, code_source
from airflow_mcp.core.identity import WorkloadInputs, identity
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload.definition import WorkloadFile
from airflow_mcp.exceptions import InvalidArgumentError, ResultMissingError
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.base import now
from airflow_mcp.operators.workload import WorkloadOperator
from airflow_mcp.workloads import keep_reports

if TYPE_CHECKING:
    from airflow.sdk import Context

_START_KEEPER = (
    f"import os, runpy, sys; sys.argv[0] = os.environ['{contract.ENV_KEEPER_PATH}']; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
_SKIPPED: Mapping[str, Any] = {"run_id": "", "identity": "", "image_digest": "", "skipped": True}


class RunStepOperator(WorkloadOperator):
    """Run a command in an image, with code from Git, and require exit code 0.

    The step has an MLflow run: FINISHED after exit code 0, otherwise FAILED or KILLED with the reason as a tag. The
    command may log to that run, but need not use MLflow. A retry takes up the runs of earlier tries, as
    :class:`~airflow_mcp.operators.training.TrainModelOperator` does.

    XCom: ``run_id``, ``identity``, ``image_digest`` (of the image that ran; empty if unknown) and ``skipped``.

    :param experiment_name: MLflow experiment of the step's run; created if it does not exist (templated).
    :param command: program and arguments; no shell interprets them (templated).
    :param code: Git repository that holds the code, ``{repo_url, revision, path, git_conn_id}``; the command runs in
        the folder ``path`` of ``revision``, a full commit id. None starts in an empty folder (templated).
    :param folder: instead of ``code``: folder on the worker that the command runs in; local runtime only
        (templated).
    :param model_name: registered model that the step is for; recorded as a tag (templated).
    :param reports: files that the command writes, such as ``coverage.xml``, relative to its folder; patterns are
        allowed. They are stored in the step's run below ``reports/``, also when the command fails. If the command
        succeeds without one of them, the step fails. The image needs ``python`` 3.9 or newer, but not this package
        (templated).
    :param dry_run: true ends the task as a success without running anything; downstream tasks run (templated).
    """

    needs_work_plane = False
    template_fields: Sequence[str] = (
        *WorkloadOperator.template_fields,
        "experiment_name",
        "command",
        "code",
        "folder",
        "model_name",
        "reports",
        "dry_run",
    )
    operator_extra_links = (MlflowRunLink(),)
    ui_color = "#eceff1"
    run_tells_end = False  # the command need not use MLflow, so its run may still be RUNNING when it ends

    def __init__(
        self,
        *,
        experiment_name: str,
        command: Sequence[str],
        code: Mapping[str, str] | None = None,
        folder: str = "",
        model_name: str = "",
        reports: Sequence[str] = (),
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment_name = experiment_name
        self.command = command
        self.code = code
        self.folder = folder
        if code is not None and folder:
            raise InvalidArgumentError(f"code and folder must not both be given; got {code!r} and {folder!r}")
        self.model_name = model_name
        self.reports = reports
        self.dry_run = dry_run

    def act(self, context: Context) -> dict[str, Any]:
        """Find the run of an earlier try, or run the command.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises WorkloadError: when the command does not end with exit code 0.
        """
        if flag("dry_run", self.dry_run):
            self.log.info("dry run: the command of step %s was not run", self.task_id)
            return dict(_SKIPPED)
        experiment_name = required_text("experiment_name", self.experiment_name)
        command, files = self._keeping(self._command())
        source = None if self.code is None else code_source("code", self.code)
        inputs = WorkloadInputs(command, code_commit=source.pinned if source else "", image=self.image or "")
        work = identity(self.task_key(context), {"experiment_name": experiment_name, "inputs": inputs.fingerprint})
        folder = self._folder()
        experiment_id = self.hook.get_or_create_experiment(experiment_name)
        if done := self.finished_attempt(context, work, self.attempts(experiment_id, work)):
            return self._result(done, work)
        run = self.open_run(context, experiment_id, self._tags(source, work, inputs.fingerprint))
        return self.run_workload(
            context,
            run,
            work,
            lambda: self.workload(
                context,
                command=command,
                run=run,
                identity=work,
                model_name=self.model_name,
                files=files,
                source=self.source_of(source),
                folder=folder,
            ),
        )

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Close the step's run as FINISHED after exit code 0.

        :raises ResultMissingError: when the run was deleted, or the command itself ended it as failed.
        """
        if run.lifecycle_stage == "active" and run.is_live:
            self.hook.update_run(run.run_id, "FINISHED", int(now().timestamp() * 1000))
            run = self.hook.get_run(run.run_id)
        if run.status != "FINISHED" or run.lifecycle_stage != "active":
            raise ResultMissingError(
                f"the command of step {self.task_id!r} ended with exit code 0, but its MLflow run {run.run_id} is "
                f"{run.status} ({run.lifecycle_stage}), not FINISHED: it was ended or deleted meanwhile. A retry runs "
                "the command again"
            )
        return self._result(run, identity)

    def _command(self) -> tuple[str, ...]:
        command = self.command
        if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
            raise InvalidArgumentError(
                f"command must be a list of strings, the program first, for example ['pytest', '-q']; got {command!r}. "
                "For a shell line write ['sh', '-c', '…']. Nothing was started"
            )
        return tuple(command)

    def _keeping(self, command: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[WorkloadFile, ...]]:
        """Wrap the command in the program that stores its reports, and ship that program with it."""
        patterns = self.reports
        is_list = isinstance(patterns, Sequence) and not isinstance(patterns, str)
        if not is_list or not all(isinstance(pattern, str) and _is_inside(pattern) for pattern in patterns):
            raise InvalidArgumentError(
                "reports must be a list of files or patterns inside the command's folder, for example ['coverage.xml', "
                f"'lint/*.sarif']; got {patterns!r}. Nothing was started"
            )
        if not patterns:
            return command, ()
        program = Path(keep_reports.__file__).read_text(encoding="utf-8")
        python = self.python or self.backend.python
        wrapped = (python, "-I", "-c", _START_KEEPER, *patterns, "--", *command)
        return wrapped, (WorkloadFile(contract.ENV_KEEPER_PATH, "keep_reports.py", program),)

    def _folder(self) -> str:
        if self.folder and self.backend.ships_files:
            raise InvalidArgumentError(
                f"folder must be empty with runtime='kubernetes', because a pod cannot see it; got {self.folder!r}. "
                "Pass code (a Git repository), or use runtime='local'. Nothing was started"
            )
        if self.folder and not Path(self.folder).is_dir():
            raise InvalidArgumentError(
                f"folder must be an existing folder on this worker; got {self.folder!r}. Nothing was started"
            )
        return self.folder

    def _tags(self, source: CodeSource | None, work: str, fingerprint: str) -> dict[str, str]:
        tags = {
            contract.TAG_KIND: contract.KIND_STEP,
            contract.TAG_MODEL_NAME: self.model_name,
            contract.TAG_CODE_COMMIT: source.commit if source else "",
            contract.TAG_CODE_URL: source.url if source else "",
            contract.TAG_CODE_REF: source.ref if source else "",
            contract.TAG_IDENTITY: work,
            contract.TAG_INPUTS: fingerprint,
        }
        return {name: value for name, value in tags.items() if value}

    def _result(self, run: Run, work: str) -> dict[str, Any]:
        digest = run.tags.get(contract.TAG_IMAGE_DIGEST, "")
        return {"run_id": run.run_id, "identity": work, "image_digest": digest, "skipped": False}


def _is_inside(pattern: str) -> bool:
    parts = pattern.split("/")
    return bool(pattern) and pattern != "--" and not pattern.startswith("/") and ".." not in parts and "" not in parts
