"""Run any command of a pipeline: a build, a test, a conversion of data."""

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

    The step owns an MLflow run: FINISHED after exit code 0, FAILED or KILLED otherwise, with the reason as a tag. The
    command may log to that run and needs nothing of MLflow. A retry finds what earlier tries left, as with
    :class:`~airflow_mcp.operators.training.TrainModelOperator`.

    XCom: ``run_id``, ``identity``, ``image_digest`` (digest of the image that ran, as far as it is known) and
    ``skipped``.

    :param experiment_name: MLflow experiment of the step's run; created when missing (templated).
    :param command: command line: program and arguments, no shell (templated).
    :param code: Git repository that holds the code, ``{repo_url, revision, path, git_conn_id}``; the command runs in
        the folder ``path`` of ``revision``, a full commit id. None starts in an empty folder (templated).
    :param folder: instead of ``code``: folder of this machine that the command runs in; for the local runtime only
        (templated).
    :param model_name: registered model that the step is for; recorded as a tag (templated).
    :param reports: files that the command leaves, relative to the folder it runs in, such as ``coverage.xml``; patterns
        are allowed. They are kept in the step's run below ``reports/``, also when the command fails. When it ends well
        without one of them, the step fails. The image needs ``python`` 3.9 or newer, and nothing of this package
        (templated).
    :param dry_run: true ends the task as a success without running anything; downstream tasks run (templated).
    """

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
    run_tells_end = False  # the command need not know of it

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
            raise InvalidArgumentError("code and folder are both given; allowed: one of them, or neither")
        self.model_name = model_name
        self.reports = reports
        self.dry_run = dry_run

    def act(self, context: Context) -> dict[str, Any]:
        """Run the command, or find the run of an earlier try that did.

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
        """End the step's run, now that its command has ended well.

        :raises ResultMissingError: when the run was deleted, or the command itself ended it as failed.
        """
        if run.lifecycle_stage == "active" and run.is_live:
            self.hook.update_run(run.run_id, "FINISHED", int(now().timestamp() * 1000))
            run = self.hook.get_run(run.run_id)
        if run.status != "FINISHED" or run.lifecycle_stage != "active":
            raise ResultMissingError(
                f"the command of step {self.task_id!r} ended with exit code 0, but its MLflow run {run.run_id} is "
                f"{run.status} ({run.lifecycle_stage}), not FINISHED: somebody ended or deleted it meanwhile"
            )
        return self._result(run, identity)

    def _command(self) -> tuple[str, ...]:
        command = self.command
        if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
            raise InvalidArgumentError(
                f"command is {command!r}; allowed: a list of texts, the program first, for example ['pytest', '-q']. "
                "For a shell line write ['sh', '-c', '…']. Nothing was started."
            )
        return tuple(command)

    def _keeping(self, command: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[WorkloadFile, ...]]:
        """Wrap the command into the program that keeps its reports, which travels with it."""
        patterns = self.reports
        is_list = isinstance(patterns, Sequence) and not isinstance(patterns, str)
        if not is_list or not all(isinstance(pattern, str) and _is_inside(pattern) for pattern in patterns):
            raise InvalidArgumentError(
                f"reports is {patterns!r}; allowed: a list of files, or patterns, relative to the folder of the "
                "command and inside it, for example ['coverage.xml', 'lint/*.sarif']. Nothing was started."
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
                f"folder is {self.folder!r}, which a pod cannot see; give the code as code (a Git repository), or "
                "take runtime='local'. Nothing was started"
            )
        if self.folder and not Path(self.folder).is_dir():
            raise InvalidArgumentError(f"folder is {self.folder!r}, which is no folder here; nothing was started")
        return self.folder

    def _tags(self, source: CodeSource | None, work: str, fingerprint: str) -> dict[str, str]:
        tags = {
            contract.TAG_KIND: contract.KIND_STEP,
            contract.TAG_MODEL_NAME: self.model_name,
            contract.TAG_CODE_COMMIT: source.commit if source else "",
            contract.TAG_CODE_URL: source.url if source else "",
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
