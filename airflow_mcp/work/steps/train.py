"""Step ``train``: run a training script in the MLflow run that was created for it, and check the result."""

from __future__ import annotations

import logging
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from airflow_mcp.core import contract
from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import write_profile
from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError, RefusedError, ResultMissingError
from airflow_mcp.work.reading.pinned_file import verified_file
from airflow_mcp.work.run.environment import TrainingEnvironment, read_training_environment
from airflow_mcp.work.run.mlflow_run import RunLog
from airflow_mcp.work.run.process import library_versions

_log = logging.getLogger(__name__)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def train(script: Path, arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a script in a child process and set the final status of its MLflow run.

    The child inherits working folder, output and environment; SIGTERM and SIGINT are passed on to it. The run ends
    FINISHED after exit code 0 with a logged model, KILLED after such a signal, and FAILED after another exit code.

    When several replicas train together, rank 0 does this. The others verify the data and run the script without
    ``MLFLOW_RUN_ID``, with which MLflow would resume and end the run; they do not write to it.

    :param script: path of a ``.py`` file.
    :param arguments: its arguments.
    :param environ: environment variables.
    :return: 0, or the exit code of the script; ``128 + n`` when signal ``n`` ended it, as in shells and Kubernetes.
    :raises RefusedError: before the script starts, when script, environment, dataset or run are wrong.
    :raises ResultMissingError: when the script succeeded but logged no model; the run's status is not changed.
    """
    if script.suffix != ".py" or not script.is_file():
        raise InvalidArgumentError(
            f"--script must be an existing .py file; got {str(script)!r} in working folder {str(Path.cwd())!r}. "
            "Nothing was run"
        )
    settings = read_training_environment(environ)
    if settings.rank:
        return _train_along(script, arguments, environ, settings)
    run = RunLog(settings.run_id)
    run.require_active()
    run.set_tags({**_verified_data_tags(settings, run if settings.profiles_data else None), **_version_tags()})
    code, stopped_by = _run_script(script, arguments, {**environ, **_run_variables(settings)})
    if code != 0 or stopped_by:
        _end_unsuccessful(run, "KILLED" if stopped_by else "FAILED")
        return code or 128 + stopped_by
    _finish(run)
    return 0


def _train_along(
    script: Path, arguments: Sequence[str], environ: Mapping[str, str], settings: TrainingEnvironment
) -> int:
    """Run the script as a rank above 0, which leaves the MLflow run to rank 0."""
    _verified_data_tags(settings)
    without_run = {name: value for name, value in environ.items() if name != contract.ENV_MLFLOW_RUN_ID}
    code, stopped_by = _run_script(script, arguments, without_run)
    return code or (128 + stopped_by if stopped_by else 0)


def _verified_data_tags(settings: TrainingEnvironment, profiled: RunLog | None = None) -> dict[str, str]:
    """Verify the pinned data, and store its profile in a run."""
    if settings.dataset is None:
        _log.info("no dataset is pinned")
        return {}
    with verified_file(settings.dataset) as (path, used):
        _log.info("dataset %s: %s", public_uri(used.uri), used.hash)
        tags = {} if settings.dataset.hash else {contract.TAG_DATA_HASH: used.hash}
        if profiled is None:
            return tags
        # The address of the data, not the path to which it was fetched.
        known = used.model_copy(update={"uri": settings.data_source or used.uri})
        return {**tags, **_profile(profiled, path, known)}


def _profile(run: RunLog, path: Path, used: DatasetPin) -> dict[str, str]:
    """Store the profile of the data, for later comparisons. Data that cannot be profiled are not an error."""
    from airflow_mcp.work.drift.profiles import profile_dataset  # noqa: PLC0415  (imports pyarrow and numpy)

    try:
        profile = profile_dataset([DatasetPin(uri=str(path))])
    except RefusedError as error:
        _log.info("the dataset was not profiled: %s", error)
        return {}
    kept = profile.model_copy(update={"sources": (used,)})
    run.log_text(write_profile(kept), contract.ARTIFACT_PROFILE)
    _log.info("profile of %d rows and %d columns: %s", profile.rows, len(profile.columns), contract.ARTIFACT_PROFILE)
    return {contract.TAG_DATA_PROFILE: contract.ARTIFACT_PROFILE}


def _version_tags() -> dict[str, str]:
    versions = library_versions()
    tags = {f"{contract.TAG_PREFIX}python_version": platform.python_version()}
    for library, tag in (("mlflow", "mlflow_version"), ("scikit-learn", "sklearn_version")):
        if library in versions:
            tags[f"{contract.TAG_PREFIX}{tag}"] = versions[library]
    return tags


def _run_variables(settings: TrainingEnvironment) -> dict[str, str]:
    return {contract.ENV_MLFLOW_RUN_ID: settings.run_id, contract.ENV_RUN_ID: settings.run_id}


def _run_script(script: Path, arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[int, int]:
    """Run the child to its end; return its exit code and the number of the signal that was passed on, or 0."""
    received: list[int] = []
    command = [sys.executable, str(script), *arguments]
    _log.info("run %s", " ".join(command))
    # The child writes to the same streams: flush first, so that lines stay in order.
    sys.stdout.flush()
    sys.stderr.flush()
    pending: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        for child in pending:
            child.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in _STOP_SIGNALS}
    try:
        child = subprocess.Popen(command, env=dict(environ))
        pending.append(child)
        if received:  # it arrived while the child was starting
            child.send_signal(received[0])
        code = child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if code < 0:
        _log.info("the script was ended by %s", signal.Signals(-code).name)
        return 128 - code, received[0] if received else 0
    _log.info("the script ended with exit code %d", code)
    return code, received[0] if received else 0


def _end_unsuccessful(run: RunLog, status: str) -> None:
    """Correct the status, which autologging sets to FINISHED even when the script failed.

    An error is only logged, because it must not hide the exit code of the script.
    """
    try:
        if run.require_active().info.status != "KILLED":
            run.end(status)
            _log.info("MLflow run %s is now %s", run.run_id, status)
    except ModelControlPlaneError as error:
        _log.error("error: the status of run %s could not be set to %s: %s", run.run_id, status, error)


def _finish(run: RunLog) -> None:
    models = run.link_models()
    if not models:
        raise ResultMissingError(
            f"the script succeeded but logged no model to run {run.run_id}. Log one within mlflow.start_run() with "
            "mlflow.<flavor>.log_model(…, name='model'), because outside a run MLflow links a model to none; or use "
            f"MlflowClient with the run id in {contract.ENV_RUN_ID}"
        )
    if run.require_active().info.status != "FINISHED":
        run.end("FINISHED")
    _log.info("MLflow run %s is FINISHED with model %s", run.run_id, ", ".join(models))
