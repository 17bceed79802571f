"""Dags of pipeline files for the Dag processor and the workers; a broken file does not affect the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow.exceptions import SerializationError
from airflow.sdk import DAG, get_parsing_context

from airflow_mcp import settings
from airflow_mcp.airflow_private import calling_folder
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.pipeline.plan.releasing import RELEASE_SUFFIX
from airflow_mcp.dag_rendering.loader import (
    BrokenPipeline,
    LoadedPipeline,
    load_pipeline_file,
    load_pipeline_folder,
    pipeline_files,
)
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import render_all
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError, SpecProblem


class BrokenPipelineDag(DAG):
    """A Dag in place of a broken file, so that Airflow shows an import error of that file alone.

    A Dag that cannot be serialized becomes an import error under its own file name; Dags of other files are kept. An
    exception instead would remove every Dag of the Python file that loads them.

    :param path: the file.
    :param error: what is wrong with it.
    """

    def __init__(self, path: Path, error: Exception) -> None:
        self._path = path
        self._error = error
        super().__init__(dag_id=f"broken-{fingerprint(str(path))[:32]}", schedule=None)

    def get_serialized_fields(self) -> Any:  # type: ignore[override]
        """Refuse to be serialized.

        :raises SerializationError: always, with what is wrong with the file.
        """
        raise SerializationError(str(self._error)) from None

    @property
    def fileloc(self) -> str:
        """The pipeline file. Airflow sets the Python file that loads it, which is ignored."""
        return str(self._path)

    @fileloc.setter
    def fileloc(self, value: str) -> None:
        pass


def load_model_pipeline(
    path: str | Path, environment: str | None = None, *, root: str | Path | None = None, name: str | None = None
) -> DAG:
    """Render the Dag of one pipeline file; a broken file becomes an import error of the Python file.

    Its release Dag, which it has when people are asked before a release, is discovered automatically.

    :param path: the YAML file; a relative path starts at the folder of the calling Python file.
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :param root: folder of all pipelines, where the search for ``defaults.yaml`` ends. Default: the nearest folder above
        the file with a ``defaults.yaml``, up to the top of its Git repository.
    :param name: name that the pipeline must have, so that two files never take turns as one Dag; None allows any.
    :return: the Dag that trains.
    :raises PipelineSpecError: with every problem of the file, or when the pipeline has another name.
    """
    here = calling_folder()
    folder = None if root is None else here / root
    loaded = _load_named(here / path, environment or settings.environment(), folder, name)
    dag, *released = render_all(plan_pipeline(loaded))
    _register(released)
    return dag


def load_pipeline_group(
    files: Mapping[str, str | Path], environment: str | None = None, *, root: str | Path
) -> dict[str, DAG]:
    """Render the Dags of some pipeline files; Airflow discovers them automatically.

    A broken file becomes an import error of its own and does not affect the others. A worker renders only the Dag that
    it runs, and reads no other file.

    :param files: the YAML files by the name that their pipeline must have; a relative path starts at the folder of the
        calling Python file.
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :param root: folder of all pipelines, where the search for ``defaults.yaml`` ends.
    :return: the usable Dags by their ids.
    :raises PipelineSpecError: in a worker, when the file of its Dag is broken.
    :raises InvalidArgumentError: in a worker, when no file has its Dag; and when there is no such environment.
    """
    here, env = calling_folder(), environment or settings.environment()
    wanted = get_parsing_context().dag_id
    if wanted is not None:
        name = wanted.removesuffix(RELEASE_SUFFIX)
        if name not in files:
            raise InvalidArgumentError(
                f"files must have pipeline {name!r}; got {len(files)} others. Run airflow-mcp render again"
            )
        return _registered(render_all(plan_pipeline(_load_named(here / files[name], env, here / root, name))))
    found = (_loaded_or_broken(here / file, env, here / root, name) for name, file in files.items())
    return _registered(dag for each in found for dag in _dags_of(each))


def load_model_pipelines(folder: str | Path, environment: str | None = None) -> dict[str, DAG]:
    """Render the Dags of all pipeline files in a folder; Airflow discovers them automatically.

    A broken file becomes an import error of its own and does not affect the others. A worker renders only the Dag that
    it runs.

    :param folder: folder of YAML files; a relative path starts at the folder of the calling Python file.
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :return: the usable Dags by their ids.
    :raises PipelineSpecError: in a worker, when the file of its Dag is broken.
    :raises InvalidArgumentError: when there is no such folder or environment.
    """
    root = calling_folder() / folder
    name = environment or settings.environment()
    wanted = get_parsing_context().dag_id
    if wanted is not None:
        pipeline = wanted.removesuffix(RELEASE_SUFFIX)
        dags = [dag for loaded in _named(pipeline, root, name) for dag in render_all(plan_pipeline(loaded))]
    else:
        dags = [dag for found in load_pipeline_folder(root, name) for dag in _dags_of(found)]
    return _registered(dags)


def _registered(dags: Iterable[DAG]) -> dict[str, DAG]:
    """Register Dags and return the usable ones by their ids."""
    found = list(dags)
    _register(found)
    return {dag.dag_id: dag for dag in found if not isinstance(dag, BrokenPipelineDag)}


def _load_named(path: Path, environment: str, root: Path | None, name: str | None) -> LoadedPipeline:
    """Read and check a file.

    :raises PipelineSpecError: with every problem of the file, or when the pipeline has another name than ``name``.
    """
    loaded = load_pipeline_file(path, environment, root=root)
    found = loaded.pipeline.metadata.name
    if name is not None and found != name:
        message = f"the Dag file was written for pipeline {name!r}; got {found!r}. Run airflow-mcp render again"
        raise PipelineSpecError([SpecProblem(*loaded.place("metadata", "name"), "metadata.name", message)])
    return loaded


def _loaded_or_broken(path: Path, environment: str, root: Path, name: str) -> LoadedPipeline | BrokenPipeline:
    try:
        return _load_named(path, environment, root, name)
    except PipelineSpecError as error:
        return BrokenPipeline(path, root, error)


def _register(dags: Iterable[DAG]) -> None:
    for dag in dags:
        with dag:  # Airflow registers a Dag when its context is left
            pass


def _dags_of(found: LoadedPipeline | BrokenPipeline) -> tuple[DAG, ...]:
    if isinstance(found, BrokenPipeline):
        return (BrokenPipelineDag(found.path, found.error),)
    try:
        return render_all(plan_pipeline(found))
    except Exception as error:  # any error: it must not affect the other Dags
        return (BrokenPipelineDag(found.path, _placed(found, error)),)


def _placed(loaded: LoadedPipeline, error: Exception) -> Exception:
    if isinstance(error, PipelineSpecError):
        return error
    place = loaded.place()
    return PipelineSpecError([SpecProblem(*place, "", f"the Dag could not be built: {error}")])


def _named(dag_id: str, root: Path, environment: str) -> Iterator[LoadedPipeline]:
    """Find the pipeline of a Dag id; files that do not contain the id are not parsed."""
    broken: PipelineSpecError | None = None
    for path in pipeline_files(root):
        if dag_id.encode() not in path.read_bytes():
            continue
        try:
            loaded = load_pipeline_file(path, environment, root=root)
        except PipelineSpecError as error:
            broken = error
            continue
        if loaded.pipeline.metadata.name == dag_id:
            yield loaded
            return
    if broken is not None:
        raise broken
