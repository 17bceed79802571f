"""Dags of pipeline files for the Dag processor and the workers; a broken file stays alone with its error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow.exceptions import SerializationError
from airflow.sdk import DAG, get_parsing_context

from airflow_mcp import settings
from airflow_mcp.airflow_private import calling_folder
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.dag_rendering.loader import (
    BrokenPipeline,
    LoadedPipeline,
    load_pipeline_file,
    load_pipeline_folder,
    pipeline_files,
)
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import render
from airflow_mcp.exceptions import PipelineSpecError, SpecProblem


class BrokenPipelineDag(DAG):
    """Stands for a file that cannot be used, so that Airflow shows an import error of that file alone.

    A Dag that cannot be serialized becomes an import error under its own file name; Dags of other files are kept. An
    exception instead would take down every Dag of the Python file that asked for them.

    :param path: the file.
    :param error: what is wrong with it.
    """

    def __init__(self, path: Path, error: Exception) -> None:
        self._path = path
        self._error = error
        super().__init__(dag_id=f"broken-{fingerprint(str(path))[:32]}", schedule=None)

    def get_serialized_fields(self) -> Any:  # type: ignore[override]
        """Refuse to be stored.

        :raises SerializationError: with what is wrong with the file.
        """
        raise SerializationError(str(self._error)) from None

    @property
    def fileloc(self) -> str:
        """The file; what Airflow sets, the Python file that asked for it, is not taken."""
        return str(self._path)

    @fileloc.setter
    def fileloc(self, value: str) -> None:
        pass


def load_model_pipeline(path: str | Path, environment: str | None = None, *, root: str | Path | None = None) -> DAG:
    """Render the Dag of one pipeline file; a file that cannot be used is an import error of the Python file.

    :param path: the YAML file; relative paths begin at the Python file that calls.
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :param root: folder of all pipelines, up to which ``defaults.yaml`` is looked for. Default: the file's folder.
    :raises PipelineSpecError: with every problem of the file.
    """
    here = calling_folder()
    folder = None if root is None else here / root
    loaded = load_pipeline_file(here / path, environment or settings.environment(), root=folder)
    return render(plan_pipeline(loaded))


def load_model_pipelines(folder: str | Path, environment: str | None = None) -> dict[str, DAG]:
    """Render the Dags of every pipeline file in a folder; Airflow finds them without further ado.

    A file that cannot be used becomes an import error of its own and does nothing to the others. In a worker only the
    Dag that is to run is rendered.

    :param folder: folder of YAML files; relative paths begin at the Python file that calls.
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :return: the usable Dags by their ids.
    :raises PipelineSpecError: in a worker, when the file of its Dag cannot be used.
    :raises InvalidArgumentError: when there is no such folder or environment.
    """
    root = calling_folder() / folder
    name = environment or settings.environment()
    wanted = get_parsing_context().dag_id
    if wanted is not None:
        dags = [render(plan_pipeline(loaded)) for loaded in _named(wanted, root, name)]
    else:
        dags = [_dag_of(found) for found in load_pipeline_folder(root, name)]
    for dag in dags:
        with dag:  # this is how Airflow takes notice of a Dag
            pass
    return {dag.dag_id: dag for dag in dags if not isinstance(dag, BrokenPipelineDag)}


def _dag_of(found: LoadedPipeline | BrokenPipeline) -> DAG:
    if isinstance(found, BrokenPipeline):
        return BrokenPipelineDag(found.path, found.error)
    try:
        return render(plan_pipeline(found))
    except Exception as error:  # whatever it is, it must not reach the other Dags
        return BrokenPipelineDag(found.path, _placed(found, error))


def _placed(loaded: LoadedPipeline, error: Exception) -> Exception:
    if isinstance(error, PipelineSpecError):
        return error
    place = loaded.place()
    return PipelineSpecError([SpecProblem(*place, "", f"no Dag can be made of it: {error}")])


def _named(dag_id: str, root: Path, environment: str) -> Iterator[LoadedPipeline]:
    """Find the pipeline of a name, reading no more files than those that hold the name."""
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
