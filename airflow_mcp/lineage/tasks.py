"""What each task reads and writes, as plain data for OpenLineage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow_mcp.core.argument import NO_CHAMPION
from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.data.dataset import public_uri, repository_data
from airflow_mcp.exceptions import InvalidArgumentError


@dataclass(frozen=True)
class LineageDataset:
    """One thing that a task read or wrote.

    :param namespace: where it is, such as ``s3://bucket``, ``file`` or ``mlflow://mlflow_default``.
    :param name: its name there, such as ``churn/train.csv`` or ``models/churn``.
    :param version: which version of it; empty when it has none.
    :param model: ``modelName``, ``modelVersion`` and ``aliases`` of a registered version; empty for anything else.
    """

    namespace: str
    name: str
    version: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    """What one task read, wrote and found out.

    :param facts: fields of run facets, by the name of the facet: ``gate``, ``drift``, ``loadCheck``, ``rollout``,
        ``mlflow``.
    """

    inputs: tuple[LineageDataset, ...] = ()
    outputs: tuple[LineageDataset, ...] = ()
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class FinishedTask:
    """A task that has ended, and whose lineage is wanted.

    :param arguments: rendered arguments of its operator, by name.
    :param outcome: the values that it pushed to XCom.
    :param mlflow_conn_id: names the registry.
    """

    arguments: Mapping[str, Any]
    outcome: Mapping[str, Any]
    mlflow_conn_id: str

    def logged_model(self, uri: object) -> tuple[LineageDataset, ...]:
        """Return a model that a run has logged; empty when it has none."""
        text = str(uri or "")
        return (self._in_registry(text.replace("models:/", "logged-models/", 1)),) if text else ()

    def version(self, name: object, version: object, *aliases: str) -> tuple[LineageDataset, ...]:
        """Return a registered version; empty when there is none."""
        if not name or not version or version == NO_CHAMPION:
            return ()
        return (self._in_registry(f"models/{name}", str(name), str(version), aliases),)

    def alias(self, name: object, alias: str, version: object) -> tuple[LineageDataset, ...]:
        """Return an alias as a dataset, whose version is the version that it points at."""
        if not name or not version or version == NO_CHAMPION:
            return ()
        return (self._in_registry(f"models/{name}@{alias}", str(name), str(version), (alias,)),)

    def data(self, *names: str) -> tuple[LineageDataset, ...]:
        """Return the pinned data among the named arguments; what is not pinned data is left out."""
        return tuple(found for name in names for found in _datasets(self.arguments.get(name)))

    def fact(self, name: str, *keys: str) -> dict[str, Mapping[str, Any]]:
        """Return a run facet with the named values of the outcome, without those that are missing."""
        values = {key: self.outcome[key] for key in keys if self.outcome.get(key) not in (None, "")}
        return {name: {_camel(key): value for key, value in values.items()}} if values else {}

    @property
    def run(self) -> dict[str, Mapping[str, Any]]:
        """The facet that names the MLflow run."""
        return self.fact("mlflow", "run_id")

    def _in_registry(self, path: str, name: str = "", version: str = "", aliases: Iterable[str] = ()) -> LineageDataset:
        model = {"modelName": name, "modelVersion": version, "aliases": list(aliases)} if name else {}
        return LineageDataset(f"mlflow://{self.mlflow_conn_id}", path, version, model)


def lineage_of(classes: Iterable[str], task: FinishedTask) -> Lineage | None:
    """Return what a task read and wrote.

    :param classes: name of its operator class, and of the classes that this one inherits from.
    :param task: its arguments and outcome.
    :return: None for an operator that touches neither data nor models.
    """
    build = next((LINEAGE[name] for name in classes if name in LINEAGE), None)
    return build(task) if build is not None else None


def _train(task: FinishedTask) -> Lineage:
    return Lineage(task.data("dataset"), task.logged_model(task.outcome.get("model_uri")), task.run)


def _pin(task: FinishedTask) -> Lineage:
    return Lineage(outputs=tuple(found for value in task.outcome.values() for found in _datasets(value)))


def _evaluate(task: FinishedTask) -> Lineage:
    return Lineage((*task.data("dataset"), *task.logged_model(task.outcome.get("model_uri"))), facts=task.run)


def _gate(task: FinishedTask) -> Lineage:
    verdict = task.fact("gate", "verdict", "decision", "mode", "dry_run", "report")
    return Lineage(task.logged_model(task.outcome.get("model_uri")), facts={**verdict, **task.run})


def _register(task: FinishedTask) -> Lineage:
    found = task.outcome
    model = task.logged_model(task.arguments.get("model_uri"))
    return Lineage(model, task.version(found.get("model_name"), found.get("version")), task.run)


def _copy(task: FinishedTask) -> Lineage:
    found = task.outcome
    return Lineage(outputs=task.version(found.get("model_name"), found.get("version")), facts=task.run)


def _move(task: FinishedTask) -> Lineage:
    name, version = task.outcome.get("model_name"), task.outcome.get("version")
    return Lineage(task.version(name, version), task.alias(name, ALIAS_CHAMPION, version))


def _rollout(task: FinishedTask) -> Lineage:
    moved = _move(task)
    succeeded = task.outcome.get("phase") == "SUCCEEDED"
    facts = {**task.fact("rollout", "phase", "cause", "previous_version"), **task.run}
    return Lineage(moved.inputs, moved.outputs if succeeded else (), facts)


def _stage(task: FinishedTask) -> Lineage:
    name, version, stage = (task.outcome.get(key) for key in ("model_name", "version", "current_stage"))
    return Lineage(task.version(name, version), task.alias(name, str(stage).lower(), version) if stage else ())


def _drift(task: FinishedTask) -> Lineage:
    facts = {**task.fact("drift", "verdict", "drift_share", "drifted_columns", "report"), **task.run}
    return Lineage(task.data("reference", "current"), facts=facts)


def _features(task: FinishedTask) -> Lineage:
    facts = {**task.fact("features", "verdict", "rows", "report"), **task.run}
    return Lineage(task.data("entities"), tuple(_datasets(task.outcome.get("dataset"))), facts)


def _quality(task: FinishedTask) -> Lineage:
    log = task.arguments.get("requests")
    logged = (_dataset(log, ""),) if isinstance(log, str) and log else ()
    facts = {**task.fact("quality", "verdict", "labelled_share", "report"), **task.run}
    return Lineage((*logged, *task.data("labels")), facts=facts)


def _load_check(task: FinishedTask) -> Lineage:
    facts = {**task.fact("loadCheck", "verdict", "load_seconds", "memory_peak_bytes"), **task.run}
    return Lineage(task.version(task.outcome.get("model_name"), task.outcome.get("version")), facts=facts)


def _publish(task: FinishedTask) -> Lineage:
    return Lineage(outputs=task.logged_model(task.outcome.get("model_uri")), facts=task.run)


def _passport(task: FinishedTask) -> Lineage:
    return Lineage(task.version(task.outcome.get("model_name"), task.outcome.get("version")))


LINEAGE: Mapping[str, Callable[[FinishedTask], Lineage]] = {
    "PinDatasetOperator": _pin,
    "TrainModelOperator": _train,
    "EvaluateModelOperator": _evaluate,
    "ReplayModelOperator": _evaluate,
    "EvaluationGateOperator": _gate,
    "PublishModelOperator": _publish,
    "RegisterModelOperator": _register,
    "CopyModelVersionOperator": _copy,
    "PromoteModelOperator": _move,
    "RollbackModelOperator": _move,
    "TransitionModelStageOperator": _stage,
    "RolloutModelOperator": _rollout,
    "DriftCheckOperator": _drift,
    "GetHistoricalFeaturesOperator": _features,
    "FeatureSkewCheckOperator": _features,
    "CheckQualityOperator": _quality,
    "LoadCheckOperator": _load_check,
    "IssuePassportOperator": _passport,
}
"""How the lineage of each operator follows from what it was told and what it pushed."""


def _datasets(value: object) -> list[LineageDataset]:
    if isinstance(value, Mapping) and isinstance(value.get("uri"), str):
        return [_dataset(value["uri"], str(value.get("hash") or value.get("version") or ""))]
    return [found for item in value for found in _datasets(item)] if isinstance(value, list | tuple) else []


def _dataset(uri: str, version: str) -> LineageDataset:
    """Return pinned data, named as OpenLineage names files and objects; without credentials."""
    try:
        tracked = repository_data(uri)
    except InvalidArgumentError:
        tracked = None
    if tracked is not None:
        return LineageDataset(public_uri(tracked.repo), tracked.path, version)
    parts = urlsplit(public_uri(uri))
    if parts.scheme in ("", "file"):
        return LineageDataset("file", parts.path, version)
    return LineageDataset(f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/"), version)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
