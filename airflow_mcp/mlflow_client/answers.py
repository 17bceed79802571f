"""MLflow's JSON answers as entities; an answer without a field that MLflow always sends is a protocol error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast, get_args

from airflow_mcp.core.mlflow_entities import (
    Experiment,
    FileInfo,
    LoggedModel,
    ModelVersion,
    RegisteredModel,
    Run,
    RunStatus,
)
from airflow_mcp.exceptions import MlflowProtocolError
from airflow_mcp.mlflow_client.wire import MlflowResponse, T

NOT_MLFLOW = "this is not MLflow's API: check the host and the path of its address"
_LOGGED_MODEL_SOURCE = re.compile(r"models:/(m-[^/@]+)\Z")


class Fields:
    """Typed access to a JSON object of an answer.

    :param data: the object.
    :param asked: short text of the request and the server, for messages.
    """

    def __init__(self, data: Mapping[str, Any], asked: str) -> None:
        self._data = data
        self._asked = asked

    def problem(self, name: str, what: str) -> MlflowProtocolError:
        """Return the error that says what is wrong with a field."""
        return MlflowProtocolError(f"{self._asked}: the answer's field {name!r} {what}; {NOT_MLFLOW}")

    def text(self, name: str) -> str:
        """Return a text that must exist and not be empty."""
        value = self.optional_text(name)
        if not value:
            raise self.problem(name, "is missing")
        return value

    def optional_text(self, name: str, default: str = "") -> str:
        """Return a text, or the default when MLflow left it out (as it does with empty ones)."""
        value = self._data.get(name)
        if type(value) is str:  # first, because nearly every one is
            return value
        if value is None:
            return default
        if isinstance(value, bool | dict | list):
            raise self.problem(name, f"is a {type(value).__name__}, not a text")
        return str(value)

    def whole(self, name: str) -> int | None:
        """Return a whole number (64-bit ones may come as text), or None when it is absent."""
        value = self._data.get(name)
        if value is None or value == "":
            return None
        try:
            return int(value)
        except (TypeError, ValueError):
            raise self.problem(name, "is not a whole number") from None

    def flag(self, name: str) -> bool:
        """Return a boolean; absent means false, as in every protocol buffer."""
        value = self._data.get(name, False)
        if not isinstance(value, bool):
            raise self.problem(name, "is not true or false")
        return value

    def child(self, name: str) -> Fields:
        """Return an object that must exist."""
        value = self._data.get(name)
        if not isinstance(value, dict):
            raise self.problem(name, "is missing")
        return Fields(value, self._asked)

    def optional_child(self, name: str) -> Fields:
        """Return an object, or an empty one when it is absent."""
        return self.child(name) if self._data.get(name) is not None else Fields({}, self._asked)

    def children(self, name: str) -> list[Fields]:
        """Return the objects of a list; MLflow leaves empty lists out."""
        return [Fields(item, self._asked) for item in self._objects(name)]

    def _objects(self, name: str) -> list[dict[str, Any]]:
        value = self._data.get(name) or []
        if not isinstance(value, list) or set(map(type, value)) - {dict}:
            raise self.problem(name, "is not a list of objects")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of a list."""
        value = self._data.get(name) or []
        if not isinstance(value, list):
            raise self.problem(name, "is not a list")
        return tuple(str(item) for item in value)

    def pairs(self, name: str) -> dict[str, str]:
        """Return a list of ``{"key": ..., "value": ...}`` as a dict."""
        return self._by_key(name, str, lambda fields: fields.optional_text("value"))

    def metrics(self, name: str) -> dict[str, float]:
        """Return the metrics; ``"NaN"`` and ``"Infinity"`` come as texts."""
        return self._by_key(name, float, lambda fields: fields.number("value"))

    def _by_key(self, name: str, kind: type[T], read: Callable[[Fields], T]) -> dict[str, T]:
        """Return values by key. An item of another form is read field by field, which raises an error that names it."""
        found: dict[str, T] = {}
        items = self._objects(name)
        with suppress(KeyError, TypeError):  # a key that is missing, or a list
            found = {item["key"]: item["value"] for item in items}
            if set(map(type, found)) <= {str} and set(map(type, found.values())) <= {kind} and "" not in found:
                return found
        found = {}
        for item in items:
            key, value = item.get("key"), item.get("value")
            if not (key and isinstance(key, str) and isinstance(value, kind)):
                fields = Fields(item, self._asked)
                key, value = fields.text("key"), read(fields)
            found[key] = value
        return found

    def number(self, name: str) -> float:
        """Return a number; absent means zero, as in every protocol buffer."""
        value = self._data.get(name, 0.0)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise self.problem(name, "is not a number") from None


def not_mlflow(response: MlflowResponse, problem: str) -> MlflowProtocolError:
    """Return the error that says why an answer cannot be MLflow's."""
    return MlflowProtocolError(f"{response.asked}: {problem}; {NOT_MLFLOW}")


def read(response: MlflowResponse, name: str, make: Callable[[Fields], T]) -> T:
    """Return the entity in a field of the answer, which must exist."""
    return make(Fields(response.data, response.asked).child(name))


def read_all(response: MlflowResponse, name: str, make: Callable[[Fields], T]) -> list[T]:
    """Return the entities of a list field of the answer."""
    return [make(item) for item in Fields(response.data, response.asked).children(name)]


def next_page_token(response: MlflowResponse) -> str:
    """Return the token of the next page, or an empty text on the last one."""
    return Fields(response.data, response.asked).optional_text("next_page_token")


def experiment(fields: Fields) -> Experiment:
    """Return MLflow's ``Experiment``."""
    return Experiment(
        experiment_id=fields.text("experiment_id"),
        name=fields.text("name"),
        artifact_location=fields.optional_text("artifact_location"),
        lifecycle_stage=fields.optional_text("lifecycle_stage", "active"),
        tags=fields.pairs("tags"),
    )


def run(fields: Fields) -> Run:
    """Return MLflow's ``Run``."""
    info, data = fields.child("info"), fields.optional_child("data")
    outputs = fields.optional_child("outputs").children("model_outputs")
    outputs.sort(key=lambda item: item.whole("step") or 0)
    return Run(
        run_id=info.text("run_id"),
        experiment_id=info.text("experiment_id"),
        status=_run_status(info),
        artifact_uri=info.optional_text("artifact_uri"),
        lifecycle_stage=info.optional_text("lifecycle_stage", "active"),
        run_name=info.optional_text("run_name"),
        start_time=info.whole("start_time"),
        end_time=info.whole("end_time"),
        metrics=data.metrics("metrics"),
        params=data.pairs("params"),
        tags=data.pairs("tags"),
        model_ids=tuple(item.text("model_id") for item in outputs),
    )


def _run_status(info: Fields) -> RunStatus:
    status = info.text("status")
    if status not in get_args(RunStatus):
        raise info.problem("status", f"is {status!r}, not one of {', '.join(get_args(RunStatus))}")
    return cast(RunStatus, status)


def logged_model(fields: Fields) -> LoggedModel:
    """Return MLflow's ``LoggedModel``."""
    info = fields.child("info")
    return LoggedModel(
        model_id=info.text("model_id"),
        name=info.optional_text("name"),
        status=info.text("status").removeprefix("LOGGED_MODEL_"),
        source_run_id=info.optional_text("source_run_id"),
        artifact_uri=info.optional_text("artifact_uri"),
    )


def file_info(fields: Fields) -> FileInfo:
    """Return MLflow's ``FileInfo``."""
    is_dir = fields.flag("is_dir")
    return FileInfo(path=fields.text("path"), is_dir=is_dir, file_size=None if is_dir else fields.whole("file_size"))


def registered_model(fields: Fields) -> RegisteredModel:
    """Return MLflow's ``RegisteredModel``."""
    return RegisteredModel(
        name=fields.text("name"),
        description=fields.optional_text("description"),
        tags=fields.pairs("tags"),
        aliases={item.text("alias"): item.text("version") for item in fields.children("aliases")},
        creation_timestamp=fields.whole("creation_timestamp") or 0,
        latest_versions=tuple(model_version(item) for item in fields.children("latest_versions")),
    )


def logged_model_id(source: str) -> str:
    """Return the id in a source ``models:/<model_id>``, or an empty text for any other source."""
    match = _LOGGED_MODEL_SOURCE.match(source)
    return match.group(1) if match else ""


def model_version(fields: Fields) -> ModelVersion:
    """Return MLflow's ``ModelVersion``.

    The server leaves ``model_id`` out of its answers; then it is taken from a source ``models:/<model_id>``.
    """
    source = fields.optional_text("source")
    return ModelVersion(
        name=fields.text("name"),
        version=fields.text("version"),
        status=fields.text("status"),
        source=source,
        run_id=fields.optional_text("run_id"),
        model_id=fields.optional_text("model_id") or logged_model_id(source),
        status_message=fields.optional_text("status_message"),
        creation_timestamp=fields.whole("creation_timestamp") or 0,
        current_stage=fields.optional_text("current_stage") or "None",
        tags=fields.pairs("tags"),
        aliases=fields.texts("aliases"),
    )
