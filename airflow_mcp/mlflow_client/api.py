"""MLflow's REST API for experiments, runs, logged models and artifacts, as descriptions without any I/O.

Every function returns an operation (see :mod:`airflow_mcp.mlflow_client.wire`) that a driver performs; on
:class:`~airflow_mcp.hooks.mlflow.MlflowHook` each is a method with the same arguments. In addition to the
errors named here, every operation may raise the errors under :class:`~airflow_mcp.exceptions.MlflowError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args
from urllib.parse import quote

from airflow_mcp.core.mlflow_entities import Experiment, FileInfo, LoggedModel, Run, RunStatus
from airflow_mcp.exceptions import InvalidArgumentError, MlflowConflictError, MlflowError, MlflowNotFoundError
from airflow_mcp.mlflow_client import answers
from airflow_mcp.mlflow_client.artifact_place import proxy_root
from airflow_mcp.mlflow_client.paging import paged
from airflow_mcp.mlflow_client.wire import (
    MAX_ANSWER_BYTES,
    MlflowRequest,
    MlflowResponse,
    Operation,
)

API = "api/2.0/mlflow"
ARTIFACT_PROXY = "api/2.0/mlflow-artifacts/artifacts"
MAX_METRICS_PER_BATCH = 1000
MAX_PARAMS_PER_BATCH = 100
MAX_TAGS_PER_BATCH = 100
MAX_ENTITIES_TOGETHER = 100
"""Up to this many metrics, params and tags share one request: within its limit of 1 MB even at 8000 characters each."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


def get_or_create_experiment(name: str) -> Operation[str]:
    """Return the id of an experiment, creating it when there is none.

    :param name: name of the experiment.
    :return: its id, also when another client creates it at the same time.
    :raises InvalidArgumentError: for an empty name, or when the experiment is deleted.
    """
    found = yield from get_experiment_by_name(name)
    if found is None:
        what = f"create experiment {name!r}"
        request = MlflowRequest(what, "POST", f"{API}/experiments/create", json={"name": name})
        try:
            response = yield request
        except MlflowConflictError:
            found = yield from get_experiment_by_name(name)
            if found is None:
                raise
        else:
            return answers.Fields(response.data, response.asked).text("experiment_id")
    if found.lifecycle_stage != "active":
        raise InvalidArgumentError(
            f"experiment {name!r} (id {found.experiment_id}) is {found.lifecycle_stage} on the MLflow server; "
            f"restore it or choose another name. Nothing was created"
        )
    return found.experiment_id


def get_experiment_by_name(name: str) -> Operation[Experiment | None]:
    """Return an experiment, or None when there is none of that name; a deleted one is returned too.

    :param name: name of the experiment.
    :return: the experiment, whose ``lifecycle_stage`` is ``active`` or ``deleted``, or None.
    :raises InvalidArgumentError: for an empty name.
    """
    require("experiment name", name)
    params = (("experiment_name", name),)
    try:
        response = yield MlflowRequest(
            f"get experiment {name!r}", "GET", f"{API}/experiments/get-by-name", params=params
        )
    except MlflowNotFoundError:
        return None
    return answers.read(response, "experiment", answers.experiment)


def search_experiments() -> Operation[list[Experiment]]:
    """Return every active experiment, paging through the answers.

    :return: the experiments in the server's order.
    """

    def page(size: int, token: str) -> MlflowRequest:
        params = (("max_results", str(size)), *((("page_token", token),) if token else ()))
        return MlflowRequest("search experiments", "GET", f"{API}/experiments/search", params=params)

    return (yield from paged(page, lambda answer: answers.read_all(answer, "experiments", answers.experiment), None))


def create_run(experiment_id: str, run_name: str, tags: Mapping[str, str], start_time_ms: int) -> Operation[Run]:
    """Create a run in state RUNNING. It is never repeated automatically: a lost answer may have created a run.

    :param experiment_id: experiment to create it in.
    :param run_name: name for people; need not be unique.
    :param tags: tags to create it with.
    :param start_time_ms: start of the run, milliseconds since the epoch.
    :return: the run.
    """
    require("experiment_id", experiment_id)
    body = {
        "experiment_id": experiment_id,
        "run_name": run_name,
        "start_time": start_time_ms,
        "tags": key_values(tags),
    }
    what = f"create run {run_name!r} in experiment {experiment_id}"
    response = yield MlflowRequest(what, "POST", f"{API}/runs/create", json=body, repeatable=False)
    return answers.read(response, "run", answers.run)


def get_run(run_id: str) -> Operation[Run]:
    """Return a run with the latest value of each metric; a deleted run is returned too.

    :param run_id: id of the run.
    :return: the run. MLflow's SQL stores keep an infinite metric as the largest float.
    :raises MlflowNotFoundError: when there is no such run.
    """
    require("run_id", run_id)
    response = yield MlflowRequest(f"get run {run_id!r}", "GET", f"{API}/runs/get", params=(("run_id", run_id),))
    return answers.read(response, "run", answers.run)


def update_run(run_id: str, status: RunStatus, end_time_ms: int | None) -> Operation[None]:
    """Set the status of a run.

    :param run_id: id of the run.
    :param status: the new status.
    :param end_time_ms: end of the run, milliseconds since the epoch; None leaves it unset.
    :raises InvalidArgumentError: for an unknown status, which the server would silently ignore.
    """
    require("run_id", run_id)
    if status not in get_args(RunStatus):
        allowed = ", ".join(get_args(RunStatus))
        raise InvalidArgumentError(
            f"status of run {run_id!r} must be one of {allowed}; got {status!r}. Nothing was sent"
        )
    body: dict[str, Any] = {"run_id": run_id, "status": status}
    if end_time_ms is not None:
        body["end_time"] = end_time_ms
    yield MlflowRequest(f"set run {run_id!r} to {status}", "POST", f"{API}/runs/update", json=body)


def set_tag(run_id: str, key: str, value: str) -> Operation[None]:
    """Set one tag of a run, replacing its value.

    :param run_id: id of the run.
    :param key: name of the tag.
    :param value: its value; the server truncates it after 8000 characters.
    """
    require("run_id", run_id)
    require("tag key", key)
    body = {"run_id": run_id, "key": key, "value": value}
    yield MlflowRequest(f"set tag {key!r} of run {run_id!r}", "POST", f"{API}/runs/set-tag", json=body)


def set_tags(run_id: str, tags: Mapping[str, str]) -> Operation[None]:
    """Set several tags of a run, replacing their values.

    :param run_id: id of the run.
    :param tags: the tags; none at all sends nothing. More than 100 go in several requests.
    """
    yield from log_batch(run_id, tags=tags)


def log_batch(
    run_id: str,
    metrics: Mapping[str, float] = NOTHING,
    params: Mapping[str, str] = NOTHING,
    tags: Mapping[str, str] = NOTHING,
    timestamp_ms: int | None = None,
) -> Operation[None]:
    """Log metrics, params and tags, in as few requests as MLflow's limits allow (1000 metrics, 100 params, 100 tags).

    Values are sent whole; the server truncates params after 6000 characters and tags after 8000 (or refuses them, when
    it runs with ``MLFLOW_TRUNCATE_LONG_VALUES=false``). Several requests are not atomic, and may be sent again:
    logging the same values twice changes nothing.

    :param run_id: id of the run.
    :param metrics: metric values at step 0; NaN and infinities are allowed.
    :param params: params; the server refuses to change the value of a param.
    :param tags: tags, replaced when they exist.
    :param timestamp_ms: time of the metrics, milliseconds since the epoch.
    :raises InvalidArgumentError: when metrics come without a timestamp.
    """
    require("run_id", run_id)
    if metrics and timestamp_ms is None:
        raise InvalidArgumentError(
            f"timestamp_ms must be set for {len(metrics)} metrics of run {run_id!r}; got None. Nothing was sent"
        )
    points = [
        {"key": key, "value": wire_number(value), "timestamp": timestamp_ms, "step": 0}
        for key, value in metrics.items()
    ]
    groups = (
        ("params", key_values(params), MAX_PARAMS_PER_BATCH),
        ("tags", key_values(tags), MAX_TAGS_PER_BATCH),
        ("metrics", points, MAX_METRICS_PER_BATCH),
    )
    for body in _batches(groups):
        what = f"log {', '.join(f'{len(items)} {name}' for name, items in body.items())} to run {run_id!r}"
        yield MlflowRequest(what, "POST", f"{API}/runs/log-batch", json={"run_id": run_id, **body})


def search_runs(
    experiment_ids: Sequence[str],
    filter: str = "",
    order_by: Sequence[str] = (),
    max_results: int = 1000,
    enough: Callable[[list[Run]], bool] | None = None,
    page_size: int | None = None,
) -> Operation[list[Run]]:
    """Return active runs, paging through the answers.

    :param experiment_ids: experiments to search; at least one.
    :param filter: MLflow's filter; put values into it with :func:`filter_value`.
    :param order_by: for example ``("attributes.start_time DESC",)``.
    :param max_results: number of runs after which to stop, at least 1.
    :param enough: asked after each page with all runs so far; true stops before that number.
    :param page_size: runs in one answer, 1000 by default; smaller answers are parsed in shorter steps.
    :return: at most ``max_results`` runs.
    :raises InvalidArgumentError: without an experiment, or for ``max_results`` below 1.
    """
    if isinstance(experiment_ids, str) or not experiment_ids:
        raise InvalidArgumentError(
            f"experiment_ids must be a list of at least one id; got {experiment_ids!r}. Nothing was searched"
        )

    def page(size: int, token: str) -> MlflowRequest:
        body: dict[str, Any] = {"experiment_ids": list(experiment_ids), "max_results": size}
        optional = {"filter": filter, "order_by": list(order_by), "page_token": token}
        body |= {name: value for name, value in optional.items() if value}
        what = f"search runs of experiments {', '.join(experiment_ids)} with filter {filter!r}"
        return MlflowRequest(what, "POST", f"{API}/runs/search", json=body)

    def read(answer: MlflowResponse) -> list[Run]:
        return answers.read_all(answer, "runs", answers.run)

    return (yield from paged(page, read, max_results, enough, page_size=page_size))


def delete_run(run_id: str) -> Operation[None]:
    """Mark a run as deleted; MLflow keeps it until its garbage collection.

    :param run_id: id of the run.
    :raises MlflowNotFoundError: when there is no such run.
    """
    require("run_id", run_id)
    yield MlflowRequest(f"delete run {run_id!r}", "POST", f"{API}/runs/delete", json={"run_id": run_id})


def get_logged_model(model_id: str) -> Operation[LoggedModel]:
    """Return a logged model (MLflow 3).

    :param model_id: its id, ``m-...``.
    :return: the logged model.
    :raises MlflowNotFoundError: when there is no such model.
    """
    require("model_id", model_id)
    path = f"{API}/logged-models/{quote(model_id, safe='')}"
    response = yield MlflowRequest(f"get logged model {model_id!r}", "GET", path)
    return answers.read(response, "model", answers.logged_model)


def list_artifacts(run_id: str, path: str = "") -> Operation[list[FileInfo]]:
    """Return the entries of one artifact folder of a run, not of its subfolders.

    :param run_id: id of the run.
    :param path: folder relative to the run's artifact root; empty is the root.
    :return: files and folders; empty too when there is no such folder, because the server does not distinguish the two.
    :raises InvalidArgumentError: for a path that leaves the artifact root.
    """
    require("run_id", run_id)
    route = f"{API}/artifacts/list"
    return (yield from _entries(f"run {run_id!r}", route, "path", path, (("run_id", run_id),)))


def list_model_artifacts(model_id: str, path: str = "") -> Operation[list[FileInfo]]:
    """Return the entries of one artifact folder of a logged model (MLflow 3), not of its subfolders.

    :param model_id: id of the logged model.
    :param path: folder relative to the model's artifact root; empty is the root.
    :return: files and folders; empty too when there is no such folder.
    :raises InvalidArgumentError: for a path that leaves the artifact root.
    """
    require("model_id", model_id)
    route = f"{API}/logged-models/{quote(model_id, safe='')}/artifacts/directories"
    return (yield from _entries(f"model {model_id!r}", route, "artifact_directory_path", path))


def _entries(
    owner: str, route: str, folder_parameter: str, path: str, further: tuple[tuple[str, str], ...] = ()
) -> Operation[list[FileInfo]]:
    folder = artifact_path(path) if path else ""

    def page(_: int, token: str) -> MlflowRequest:
        optional = ((folder_parameter, folder), ("page_token", token))
        params = (*further, *((name, value) for name, value in optional if value))
        return MlflowRequest(f"list artifacts {folder!r} of {owner}", "GET", route, params=params)

    def read(answer: MlflowResponse) -> list[FileInfo]:
        return answers.read_all(answer, "files", answers.file_info)

    return (yield from paged(page, read, None, is_sizable=False))


def download_artifact(run_id: str, path: str, *, max_bytes: int = MAX_ANSWER_BYTES) -> Operation[bytes]:
    """Return the content of one artifact of a run.

    :param run_id: id of the run.
    :param path: file relative to the run's artifact root.
    :param max_bytes: a larger file is refused; bytes.
    :return: its bytes.
    :raises InvalidArgumentError: for a path that leaves the artifact root, or a file larger than ``max_bytes``.
    :raises MlflowNotFoundError: when there is no such run, or no such file in a local folder. Other stores answer 500
        for a missing file; use :func:`find_artifact` for a file that may be missing.
    """
    require("run_id", run_id)
    response = yield MlflowRequest(
        f"download artifact {path!r} of run {run_id!r}",
        "GET",
        "get-artifact",
        params=(("run_id", run_id), ("path", artifact_path(path))),
        expects="attachment",
        max_bytes=max_bytes,
    )
    return response.content


def find_artifact(run_id: str, path: str, *, max_bytes: int = MAX_ANSWER_BYTES) -> Operation[bytes | None]:
    """Return the content of one artifact of a run, or None when there is no such run or file.

    The listing says whether the file exists. A download does not: for a missing file, MLflow answers 500 when artifacts
    are in S3 or Azure, and before 3.12 for a local folder as well.

    :param run_id: id of the run.
    :param path: file relative to the run's artifact root.
    :param max_bytes: a larger file is refused; bytes.
    :raises InvalidArgumentError: for a path that leaves the artifact root, or a file larger than ``max_bytes``.
    """
    folder = artifact_path(path).rpartition("/")[0]
    try:
        files = yield from list_artifacts(run_id, folder)
        if not any(file.path == path and not file.is_dir for file in files):
            return None
        return (yield from download_artifact(run_id, path, max_bytes=max_bytes))
    except MlflowNotFoundError:
        return None


def existing_artifacts(run_id: str, paths: Sequence[str]) -> Operation[list[str]]:
    """Return those of some files that a run has; each folder is listed once, and only if its parent has it.

    :param run_id: id of the run; when there is no such run, the result is empty.
    :param paths: files relative to the run's artifact root.
    :raises InvalidArgumentError: for a path that leaves the artifact root.
    """
    listed: dict[str, dict[str, bool]] = {}
    found = []
    for path in paths:
        parts = artifact_path(path).split("/")
        for depth in range(len(parts)):
            folder, entry = "/".join(parts[:depth]), "/".join(parts[: depth + 1])
            if folder not in listed:
                try:
                    files = yield from list_artifacts(run_id, folder)
                except MlflowNotFoundError:
                    return []
                listed[folder] = {file.path: file.is_dir for file in files}
            if listed[folder].get(entry) is not (entry != path):
                break
        else:
            found.append(path)
    return found


def upload_artifact(
    run: str | Run, path: str, data: bytes, content_type: str = "application/octet-stream"
) -> Operation[None]:
    """Store one artifact of a run through the server's artifact proxy, replacing an existing one.

    :param run: id of the run; or the run as it was read, which saves the request that finds its artifacts.
    :param path: file relative to the run's artifact root.
    :param data: its content.
    :param content_type: media type sent along.
    :raises InvalidArgumentError: for a path that leaves the artifact root, or when the run keeps its artifacts
        where only a client with storage credentials can write.
    """
    target = artifact_path(path)
    found = run if isinstance(run, Run) else (yield from get_run(run))
    root = proxy_root(found, path)
    response = yield MlflowRequest(
        f"upload artifact {path!r} of run {found.run_id!r}",
        "PUT",
        f"{ARTIFACT_PROXY}/{quote(root)}/{quote(target)}",
        content=data,
        content_type=content_type,
        expects="bytes",
    )
    if response.content.strip() not in (b"", b"{}"):
        raise answers.not_mlflow(response, "the answer to the upload is not empty")


def server_version() -> Operation[str]:
    """Return the version of the MLflow server, or an empty text when it reports none (before 2.0, some proxies)."""
    try:
        response = yield MlflowRequest("get the version", "GET", "version", expects="bytes", max_bytes=1000)
    except MlflowError:
        return ""
    version = response.content.decode("ascii", "replace").strip()
    return version if version[:1].isdigit() and len(version) < 50 else ""


def check_server() -> Operation[str]:
    """Check that MLflow answers and permits reading.

    :return: its version, or an empty text when it does not report one; it may be too old
        (:func:`airflow_mcp.core.mlflow_versions.why_too_old`).
    """
    yield MlflowRequest("check the health", "GET", "health", expects="bytes", max_bytes=100_000)
    params = (("max_results", "1"),)
    yield MlflowRequest("search experiments", "GET", f"{API}/experiments/search", params=params)
    return (yield from server_version())


# --- shared by the descriptions -------------------------------------------------------------------------------


def filter_value(value: str) -> str:
    """Return a text quoted for MLflow's filter language, which has quotes but no escapes.

    :param value: the text to compare with.
    :return: the text in the kind of quotes that it does not contain.
    :raises InvalidArgumentError: when it contains both kinds of quotes or ends with a backslash.
    """
    if value.endswith("\\") or ("'" in value and '"' in value):
        raise InvalidArgumentError(
            f"{value!r} cannot be used in an MLflow filter: it ends with a backslash or has both kinds of quotes, and "
            "the filter language has no escapes. Nothing was searched"
        )
    return f'"{value}"' if "'" in value else f"'{value}'"


def artifact_path(path: str) -> str:
    """Return a relative artifact path, checked.

    :param path: path with forward slashes.
    :return: the same path.
    :raises InvalidArgumentError: when it is empty, absolute, or has ``..``, ``%``, ``#``, ``\\`` or a control
        character.
    """
    parts = path.split("/")
    unsafe = any(character in "%#\\" or not character.isprintable() for character in path)
    if unsafe or any(part in ("", ".", "..") for part in parts):
        raise InvalidArgumentError(
            "artifact path must be a relative path such as 'gate/report.json', without empty parts, '.', '..', '%', "
            f"'#' and backslashes; got {path!r}. Nothing was sent"
        )
    return path


def require(name: str, value: str) -> None:
    """Check that an argument is a non-empty text.

    :raises InvalidArgumentError: naming the argument.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgumentError(f"{name} must be a non-empty text; got {value!r}. Nothing was sent")


def key_values(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a mapping as MLflow's list of ``{"key": ..., "value": ...}``."""
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def wire_number(value: float) -> float | str:
    """Return a float as protocol buffers write it in JSON: NaN and infinities as texts."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _batches(groups: Sequence[tuple[str, list[dict[str, Any]], int]]) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Yield request bodies: all groups together when they are few, else chunk by chunk, one group after the other."""
    together = {name: items for name, items, _ in groups if items}
    if together and sum(map(len, together.values())) <= MAX_ENTITIES_TOGETHER:
        yield together
        return
    for name, items, size in groups:
        for start in range(0, len(items), size):
            yield {name: items[start : start + size]}
