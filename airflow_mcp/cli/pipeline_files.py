"""Pipeline files for the commands: found, read and planned without Airflow, cluster or network."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from airflow_mcp.core.pipeline.file.document import find, read_document
from airflow_mcp.core.pipeline.file.pipeline import ENVIRONMENTS
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.dag_rendering.loader import (
    BrokenPipeline,
    LoadedPipeline,
    load_pipeline_file,
    load_pipeline_folder,
)
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError, SpecProblem


class FoundProblem(NamedTuple):
    """A problem, with its file relative to the working folder, and the environments that have it."""

    problem: SpecProblem
    environments: tuple[str, ...]


def add_environment(command: argparse.ArgumentParser, default: str | None = "dev") -> None:
    """Add ``--env``.

    :param default: environment when none is given; None for every environment that the file mentions.
    """
    what = "dev" if default else "dev, and every environment that the file has an overlay for"
    command.add_argument("--env", "--environment", choices=ENVIRONMENTS, default=default, help=f"default: {what}")


def add_root(command: argparse.ArgumentParser) -> None:
    """Add ``--root``."""
    command.add_argument("--root", help="folder of all pipelines, with defaults.yaml; default: the folder of the file")


def plan_of(path: str, environment: str, root: str | None) -> PipelinePlan:
    """Plan one file.

    :param path: the file.
    :param environment: dev, test or prod.
    :param root: folder of all pipelines; None takes that of the file.
    :raises PipelineSpecError: with every problem of the file, whose path is relative to the working folder.
    """
    if not Path(path).is_file():
        raise InvalidArgumentError(f"there is no file {path}. Name a pipeline file")
    try:
        return plan_pipeline(load_pipeline_file(path, environment, root=root))
    except PipelineSpecError as error:
        folder = Path(root) if root else Path(path).parent
        raise PipelineSpecError([seen_from_here(problem, folder) for problem in error.problems]) from None


def seen_from_here(problem: SpecProblem, root: Path) -> SpecProblem:
    """Return a problem with its file relative to the working folder.

    :param problem: a problem whose file is relative to ``root``.
    """
    return problem._replace(file=os.path.relpath(root / problem.file))


def check_paths(
    paths: Iterable[str], environment: str | None, root: str | None
) -> tuple[dict[str, bool], list[FoundProblem]]:
    """Check files and folders.

    :param paths: pipeline files, and folders of them.
    :param environment: the one to check for; None takes dev and those that a file has an overlay for.
    :param root: for files: folder of all pipelines; None takes that of the file.
    :return: every file with whether it is valid, and all problems in the order of files and lines.
    :raises InvalidArgumentError: when a path does not exist or no pipeline is there.
    """
    files: dict[str, bool] = {}
    found: dict[SpecProblem, list[str]] = {}
    for path in paths:
        for name in ENVIRONMENTS if environment is None else (environment,):
            for file, error, folder in _results(path, name, root):
                if environment is None and name != "dev" and not _speaks_of(file, name):
                    continue
                seen = os.path.relpath(file)
                files[seen] = files.get(seen, True) and error is None
                for problem in error.problems if error else ():
                    found.setdefault(seen_from_here(problem, folder), []).append(name)
    if not files:
        raise InvalidArgumentError(
            f"there is no ModelPipeline in {', '.join(paths)}. Name files, or folders with pipeline files"
        )
    problems = [FoundProblem(problem, tuple(dict.fromkeys(names))) for problem, names in found.items()]
    return dict(sorted(files.items())), sorted(problems)


def _results(path: str, environment: str, root: str | None) -> Iterable[tuple[Path, PipelineSpecError | None, Path]]:
    here = Path(path)
    if here.is_dir():
        for found in load_pipeline_folder(here, environment):
            error = found.error if isinstance(found, BrokenPipeline) else _plan_error(found)
            yield found.path, error, found.root
        return
    if not here.exists():
        raise InvalidArgumentError(f"{path} does not exist. Name pipeline files, or folders with pipeline files")
    folder = Path(root) if root else here.parent
    try:
        loaded = load_pipeline_file(here, environment, root=folder)
        yield here, _plan_error(loaded), folder
    except PipelineSpecError as error:
        yield here, error, folder


def _plan_error(loaded: LoadedPipeline) -> PipelineSpecError | None:
    try:
        plan_pipeline(loaded)
    except PipelineSpecError as error:
        return error
    return None


def _speaks_of(file: Path, environment: str) -> bool:
    """Whether a file has an overlay for an environment; a file that cannot be read has none."""
    try:
        document = read_document(file.read_bytes(), file.name, [])
    except OSError:
        return False
    path = ("spec", "environments", environment)
    return document is not None and len(find(document, path)[1]) == len(path)


def summary(files: Mapping[str, bool]) -> str:
    """Return how many files are valid: ``3 files, 1 not valid``."""
    wrong = sum(not is_valid for is_valid in files.values())
    count = f"{len(files)} file{'' if len(files) == 1 else 's'}"
    return f"{count}, all valid" if not wrong else f"{count}, {wrong} not valid"
