"""Train a model in a workload; the result is an MLflow run with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.core import contract
from airflow_mcp.core.argument import choice, required_text
from airflow_mcp.core.code.source import CodeSource, code_source, path_inside
from airflow_mcp.core.data.dataset import data_name, data_tags, dataset_pin
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.core.identity import WorkloadInputs, identity
from airflow_mcp.core.mlflow_entities import LoggedModel, Run
from airflow_mcp.core.pipeline.reuse import require_reusable
from airflow_mcp.core.workload.config import (
    CONFIG_SUFFIXES,
    ConfigFile,
    config_from_text,
    inline_config,
    override_config,
)
from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.exceptions import InvalidArgumentError, ResultMissingError
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.workload import WorkloadOperator
from airflow_mcp.workloads.source import CodeVersion, code_version

if TYPE_CHECKING:
    from airflow.sdk import Context

OnUnchanged = Literal["train", "reuse"]
_DEFAULT_MODEL_ARTIFACT = "model"


class TrainModelOperator(WorkloadOperator):
    """Train a model on pinned code, data and config; the result is an MLflow run.

    The run is created before the work starts and records code, config and data as tags. The task succeeds only if the
    run is FINISHED and has a model. A retry looks for runs of earlier tries: it takes a finished run as its result,
    and closes a run that a dead try left open as KILLED before it creates a new one.

    XCom: ``run_id``, ``experiment_id``, ``model_uri`` (``models:/<model id>``), ``model_id``, ``identity``,
    ``inputs`` (fingerprint of code, config, data and image) and ``reused``.

    :param experiment_name: MLflow experiment; created if it does not exist (templated).
    :param model_name: registered model that the training is for; recorded as a tag (templated).
    :param script: Python training script; runs under ``python -m airflow_mcp.work train`` (templated).
    :param code: Git repository that holds the code, ``{repo_url, revision, path, git_conn_id}``. The workload fetches
        ``revision``, a full commit id, and runs in the folder ``path`` of it; ``script`` is relative to that folder.
        With an ``image`` of your own the script runs under plain ``python``, and the image need not contain this
        package. None takes ``script`` from the worker's disk (templated).
    :param command: command line to run instead of ``script``, for any language (templated).
    :param arguments: arguments of ``script`` (templated).
    :param config: mapping, or path of a YAML or JSON file; the workload reads it from ``AIRFLOW_MCP_CONFIG_PATH``
        (templated; the text of a file is not).
    :param dataset: pinned data, ``{uri, version, hash}``; the workload reads it from ``AIRFLOW_MCP_DATA_PATH``
        (templated).
    :param checkpoint_root: folder or URI for checkpoints. ``AIRFLOW_MCP_CHECKPOINT_URI`` holds the workload's own place
        below it, ``<root>/<identity>``, which is the same on every retry (templated).
    :param model_artifact: name of the logged model to take when the workload logs several; None takes the only one,
        or the one named ``model``.
    :param on_unchanged: what to do when the experiment has a finished run with exactly the same inputs. ``train``
        trains again. ``reuse`` returns that run if no gate has decided on it yet, and skips this task and its
        downstream tasks if its model was registered or rejected (templated).
    :param reason: why the training runs; recorded as a tag (templated).
    :param config_overrides: values that replace those of ``config``: dotted key to JSON text, for example
        ``{"optimizer.rate": "0.1"}``; a key that ``config`` does not have is refused (templated).
    :param profile_data: whether to store the profile of ``dataset`` in the run before ``script`` starts, so that drift
        checks need no training data. A ``command``, or a script in an image of your own, stores no profile.
    :param reuse_run_id: finished training run of an earlier Dag run to return instead of training; it must belong to
        this model and experiment. Empty trains (templated).
    """

    is_replicable = True
    template_fields: Sequence[str] = (
        *WorkloadOperator.template_fields,
        "experiment_name",
        "model_name",
        "script",
        "code",
        "command",
        "arguments",
        "config",
        "dataset",
        "checkpoint_root",
        "on_unchanged",
        "reason",
        "config_overrides",
        "reuse_run_id",
    )
    operator_extra_links = (MlflowRunLink(),)
    ui_color = "#d9f2e3"

    def __init__(
        self,
        *,
        experiment_name: str,
        model_name: str = "",
        script: str | None = None,
        code: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        arguments: Sequence[str] = (),
        config: Mapping[str, Any] | str | None = None,
        dataset: Mapping[str, str] | None = None,
        checkpoint_root: str | None = None,
        model_artifact: str | None = None,
        on_unchanged: OnUnchanged = "train",
        reason: str = "",
        config_overrides: Mapping[str, str] | None = None,
        profile_data: bool = True,
        reuse_run_id: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment_name = experiment_name
        self.model_name = model_name
        self.script = script
        self.code = code
        self.command = command
        self.arguments = arguments
        self.config = config
        self.dataset = dataset
        self.checkpoint_root = checkpoint_root
        self.model_artifact = model_artifact
        self.on_unchanged = on_unchanged
        self.reason = reason
        self.config_overrides = config_overrides
        self.profile_data = profile_data
        self.reuse_run_id = reuse_run_id
        self.needs_work_plane = script is not None
        if (script is None) == (command is None):
            got = "neither" if script is None else "both"
            raise InvalidArgumentError(f"exactly one of script and command must be given; got {got}")
        if command is not None and arguments:
            raise InvalidArgumentError(
                f"arguments must be empty with command; got {arguments!r}. Write them into command"
            )

    def act(self, context: Context) -> dict[str, Any]:
        """Find the run of an earlier try or Dag run, or train.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises EvidenceError: when ``reuse_run_id`` is not a finished training of this model and experiment.
        :raises WorkloadError: when the workload fails, or its run is not finished or has no model.
        """
        experiment_name = required_text("experiment_name", self.experiment_name)
        if self.reuse_run_id:
            return self._reuse(experiment_name, required_text("reuse_run_id", self.reuse_run_id))
        on_unchanged = choice("on_unchanged", self.on_unchanged, get_args(OnUnchanged))
        config = self._config_file()
        pin = None if self.dataset is None else dataset_pin("dataset", self.dataset)
        source = None if self.code is None else code_source("code", self.code)
        inputs, tags = self._inputs(config, pin, source)
        work = identity(self.task_key(context), {"experiment_name": experiment_name, "inputs": inputs.fingerprint})
        experiment_id = self.hook.get_or_create_experiment(experiment_name)
        with_model = (run for run in self.attempts(experiment_id, work) if run.model_ids)
        existing = self.finished_attempt(context, work, with_model)
        if existing is None and on_unchanged == "reuse":
            existing = self._unchanged(experiment_id, inputs.fingerprint)
        if existing is not None:
            return self._result(existing, work, reused=True)
        tags |= {contract.TAG_IDENTITY: work, contract.TAG_INPUTS: inputs.fingerprint}
        run = self.open_run(context, experiment_id, tags)
        return self.run_workload(context, run, work, lambda: self._describe(context, run, work, config, pin, source))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Check that the run is finished and has a model.

        :raises ResultMissingError: when the run is not finished, or has no usable model.
        """
        self.require_finished(run)
        return self._result(run, identity, reused=False)

    def _describe(
        self,
        context: Context,
        run: Run,
        work: str,
        config: ConfigFile | None,
        pin: DatasetPin | None,
        source: CodeSource | None,
    ) -> Workload:
        """Store the config in the run and describe the workload."""
        files: tuple[WorkloadFile, ...] = ()
        if config is not None:
            path = f"{contract.ARTIFACT_CONFIG_DIR}/{config.name}"
            self.hook.upload_artifact(run.run_id, path, config.text.encode(), content_type="text/plain")
            files = (WorkloadFile(contract.ENV_CONFIG_PATH, config.name, config.text),)
        if self.script is not None and source is None and self.backend.ships_files:
            files += (WorkloadFile(contract.ENV_SCRIPT_PATH, *_script_text(self.script)),)
        return self.workload(
            context,
            command=self._command(source),
            run=run,
            identity=work,
            model_name=self.model_name,
            dataset=pin,
            files=files,
            source=self.source_of(source, self.script or "", pin),
            further={**self._checkpoint(work), **self._profiling()},
        )

    def _checkpoint(self, work: str) -> dict[str, str]:
        """Return the variable with the place of the checkpoints, which is the same for every try."""
        if self.checkpoint_root is None:
            return {}
        root = required_text("checkpoint_root", self.checkpoint_root)
        return {contract.ENV_CHECKPOINT_URI: f"{root.rstrip('/')}/{work}"}

    def _profiling(self) -> dict[str, str]:
        return {} if self.profile_data else {contract.ENV_PROFILE_DATA: "false"}

    def _command(self, source: CodeSource | None) -> tuple[str, ...]:
        if self.script is None:
            return tuple(self.command or ())
        if source is not None and self.image:
            return (self.python or self.backend.python, self.script, *self.arguments)
        # The runtime finds a script that is shipped with the workload by its environment variable.
        is_sent = source is None and self.backend.ships_files
        return self.runtime_command("train", *(() if is_sent else ("--script", self.script)), "--", *self.arguments)

    def _reuse(self, experiment_name: str, run_id: str) -> dict[str, Any]:
        """Return the model of an earlier Dag run."""
        run = self.hook.get_run(run_id)
        known = self.hook.get_experiment_by_name(experiment_name)
        require_reusable(
            run, model_name=self.model_name, experiment_id=known.experiment_id if known else "(there is none)"
        )
        self.show_run(run)
        self.log.info("The earlier training is reused; nothing was trained")
        return self._result(run, run.tags.get(contract.TAG_IDENTITY, ""), reused=True)

    def _config_file(self) -> ConfigFile | None:
        return override_config(self._given_config(), self.config_overrides or {})

    def _given_config(self) -> ConfigFile | None:
        if self.config is None:
            return None
        if isinstance(self.config, Mapping):
            return inline_config(self.config)
        path = Path(required_text("config", self.config))
        if path.suffix not in CONFIG_SUFFIXES:
            raise InvalidArgumentError(
                f"config must be a mapping or a file {', '.join(CONFIG_SUFFIXES)}; got {str(path)!r}"
            )
        try:
            return config_from_text(path.name, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgumentError(f"config file {path} cannot be read: {error}. Nothing was started") from None

    def _inputs(
        self, config: ConfigFile | None, pin: DatasetPin | None, source: CodeSource | None
    ) -> tuple[WorkloadInputs, dict[str, str]]:
        """Collect the inputs that determine the result, and the tags that record them."""
        code = None if self.script is None or source else code_version(Path(self.script))
        command = tuple(self.command or ()) if self.script is None else (self._script_name(source), *self.arguments)
        inputs = WorkloadInputs(
            command=command,
            code_commit=source.pinned if source else (code.folder_commit or "") if code else "",
            code_hash=code.content_hash if code else "",
            config_hash=config.hash if config else "",
            data=data_name(pin),
            image=self.image or "",
        )
        tags = {
            contract.TAG_KIND: contract.KIND_TRAINING,
            contract.TAG_MODEL_NAME: self.model_name,
            contract.TAG_CODE_COMMIT: source.commit if source else _commit_tag(code),
            contract.TAG_CODE_URL: source.url if source else "",
            contract.TAG_CODE_REF: source.ref if source else "",
            contract.TAG_CODE_HASH: inputs.code_hash,
            contract.TAG_CONFIG_HASH: inputs.config_hash,
            contract.TAG_REASON: self.reason,
        }
        if pin is not None:
            tags |= data_tags(pin)
        return inputs, {name: value for name, value in tags.items() if value}

    def _script_name(self, source: CodeSource | None) -> str:
        """Return the script's name for the identity: its path in a repository, else its file name."""
        script = required_text("script", self.script)
        return Path(script).name if source is None else path_inside("script", script)

    def _unchanged(self, experiment_id: str, fingerprint: str) -> Run | None:
        """Find a finished run with the same inputs.

        :raises AirflowSkipException: when its model was registered, or rejected by a gate.
        """
        runs = self.hook.search_runs(
            [experiment_id],
            f"tags.`{contract.TAG_INPUTS}` = '{fingerprint}' and attributes.status = 'FINISHED'",
            ["attributes.start_time DESC"],
        )
        for run in runs:
            if run.tags.get(contract.TAG_KIND) != contract.KIND_TRAINING or not run.model_ids:
                continue
            registered = run.tags.get(contract.TAG_MODEL_VERSION)
            verdict = run.tags.get(contract.TAG_GATE_VERDICT)
            if registered:
                raise AirflowSkipException(
                    f"inputs unchanged: run {run.run_id} trained on the same code, config and data and is registered "
                    f"as {registered}"
                )
            if verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE):
                raise AirflowSkipException(
                    f"inputs unchanged: run {run.run_id} trained on the same code, config and data, and the gate's "
                    f"verdict on it is {verdict}"
                )
            self.log.info(
                "Run %s trained on the same inputs and no gate has decided on it yet; it is reused", run.run_id
            )
            self.show_run(run)
            return run
        return None

    def _model_of(self, run: Run) -> LoggedModel:
        """Return the run's model.

        :raises ResultMissingError: when it has none, has several and none was named, or the model is not READY.
        """
        if not run.model_ids:
            raise ResultMissingError(
                f"the training of task {self.task_id!r} succeeded, but logged no model to MLflow run {run.run_id}. Log "
                "one with mlflow.<flavor>.log_model(..., name='model') or autologging, without starting another run"
            )
        models = [self.hook.get_logged_model(model_id) for model_id in run.model_ids]
        wanted = self.model_artifact or (models[0].name if len(models) == 1 else _DEFAULT_MODEL_ARTIFACT)
        found = [model for model in models if model.name == wanted]
        if not found:
            raise ResultMissingError(
                f"MLflow run {run.run_id} logged {', '.join(sorted(model.name for model in models))}, but no model "
                f"named {wanted!r}. Set model_artifact to the name of the model to take"
            )
        model = found[-1]  # the newest, if the script logged several under one name
        if model.status != "READY":
            raise ResultMissingError(f"model {model.model_id} of MLflow run {run.run_id} is {model.status}, not READY")
        return model

    def _result(self, run: Run, work: str, *, reused: bool) -> dict[str, Any]:
        model = self._model_of(run)
        self.log.info("Trained %s in MLflow run %s", model.uri, run.run_id)
        return {
            "run_id": run.run_id,
            "experiment_id": run.experiment_id,
            "model_uri": model.uri,
            "model_id": model.model_id,
            "identity": work,
            "inputs": run.tags.get(contract.TAG_INPUTS, ""),
            "reused": reused,
        }


def _commit_tag(code: CodeVersion | None) -> str:
    """Return the commit, marked when the script has uncommitted changes."""
    if code is None or code.commit is None:
        return ""
    return f"{code.commit}{'+changes' if code.dirty else ''}"


def _script_text(script: str) -> tuple[str, str]:
    """Read a script that is shipped with its workload."""
    try:
        return Path(script).name, Path(script).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"script {script!r} cannot be read: {error}. Nothing was started") from None
