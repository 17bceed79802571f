"""Pipeline files for the commands: found, read and planned without Airflow, cluster or network."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from airflow_mcp.core.access.policy import read_policy
from airflow_mcp.core.approvals.seats import chain_mistakes
from airflow_mcp.core.argument import ENVIRONMENTS
from airflow_mcp.core.pipeline.file.document import find, read_document
from airflow_mcp.core.pipeline.file.policies import KINDS, read_policy_file
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.dag_rendering.loader import (
    DEFAULTS,
    BrokenPipeline,
    LoadedPipeline,
    load_pipeline_file,
    load_pipeline_folder,
    pipeline_files,
    pipelines_root,
)
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError, SpecProblem

_POLICIES: Mapping[str, Callable[[bytes, str], object]] = {
    **dict.fromkeys(KINDS, read_policy_file),
    "GovernancePolicy": partial(read_policy, checks=(chain_mistakes,)),
}
"""Documents that may lie beside pipelines, by their kind."""
Check = Callable[[LoadedPipeline], Iterable[SpecProblem]]
"""Yields further problems of a valid pipeline."""


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
    command.add_argument(
        "--root",
        help="folder of all pipelines, where the search for defaults.yaml ends; default: the nearest folder above the "
        "file with a defaults.yaml, up to the top of its Git repository",
    )


class PlannedFile(NamedTuple):
    """The plan of one file."""

    plan: PipelinePlan
    defaults: str
    """The ``defaults.yaml`` behind it, relative to the working folder; empty without one."""


def plan_of(path: str, environment: str, root: str | None) -> PlannedFile:
    """Plan one file.

    :param path: the file.
    :param environment: dev, test or prod.
    :param root: folder of all pipelines; None searches for it.
    :raises PipelineSpecError: with every problem of the file, whose path is relative to the working folder.
    """
    if not Path(path).is_file():
        raise InvalidArgumentError(f"there is no file {path}. Name a pipeline file")
    folder = Path(root) if root else pipelines_root(path)
    try:
        loaded = load_pipeline_file(path, environment, root=folder)
        return PlannedFile(plan_pipeline(loaded), os.path.relpath(loaded.defaults) if loaded.defaults else "")
    except PipelineSpecError as error:
        raise PipelineSpecError([seen_from_here(problem, folder) for problem in error.problems]) from None


def seen_from_here(problem: SpecProblem, root: Path) -> SpecProblem:
    """Return a problem with its file relative to the working folder.

    :param problem: a problem whose file is relative to ``root``.
    """
    return problem._replace(file=os.path.relpath(root / problem.file))


def note_unused_defaults(folder: str | Path) -> None:
    """Print a note when a ``defaults.yaml`` above a folder would be used only if a folder further up was named.

    :param folder: the folder of pipelines that was named.
    """
    above = pipelines_root(Path(folder) / DEFAULTS)
    if not above.samefile(folder):
        unused = os.path.relpath(above / DEFAULTS)
        print(
            f"note: {unused} is above {folder} and not used. To use it, name {os.path.relpath(above)}", file=sys.stderr
        )


@dataclass
class Checked:
    """The result of checking files and folders."""

    files: dict[str, bool] = field(default_factory=dict)
    """Every file with whether it is valid."""
    environments: dict[str, set[str]] = field(default_factory=dict)
    """Environments, each with the files that were checked for it."""
    defaults: set[str] = field(default_factory=set)
    """Every ``defaults.yaml`` that a named file was merged with."""
    problems: list[FoundProblem] = field(default_factory=list)
    """All problems in the order of files and lines."""
    warnings: dict[str, set[str]] = field(default_factory=dict)
    """What is valid and probably not meant, by file."""

    def summary(self) -> str:
        """Return how many files are valid, and for what: ``3 files, all valid (checked for: dev, prod)``."""
        wrong = sum(not is_valid for is_valid in self.files.values())
        count = _files(len(self.files))
        names = [
            name if len(files) == len(self.files) else f"{name} ({_files(len(files))})"
            for name, files in self.environments.items()
        ]
        more = f"; with {', '.join(sorted(self.defaults))}" if self.defaults else ""
        return f"{count}, {f'{wrong} not' if wrong else 'all'} valid (checked for: {', '.join(names)}{more})"


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def check_paths(paths: Iterable[str], environment: str | None, root: str | None, check: Check | None = None) -> Checked:
    """Check files and folders.

    :param paths: pipeline files, and folders of them.
    :param environment: the one to check for; None takes dev and those that a file has an overlay for.
    :param root: for files: folder of all pipelines; None searches for it.
    :param check: finds further problems of pipelines that are valid; None: nothing does.
    :raises InvalidArgumentError: when a path does not exist or no pipeline is there.
    """
    checked = Checked()
    found: dict[SpecProblem, list[str]] = {}
    for path in paths:
        for name in ENVIRONMENTS if environment is None else (environment,):
            for result in _results(path, name, root, check):
                if environment is None and name != "dev" and not _speaks_of(result.file, name):
                    continue
                seen = os.path.relpath(result.file)
                checked.files[seen] = checked.files.get(seen, True) and result.error is None
                checked.environments.setdefault(name, set()).add(seen)
                if result.defaults is not None:
                    checked.defaults.add(os.path.relpath(result.defaults))
                if result.plan is not None and (found_here := set(warnings_of(result.plan))):
                    checked.warnings[seen] = checked.warnings.get(seen, set()) | found_here
                for problem in result.error.problems if result.error else ():
                    found.setdefault(seen_from_here(problem, result.root), []).append(name)
    if not checked.files:
        raise InvalidArgumentError(
            f"there is no ModelPipeline in {', '.join(paths)}. Name files, or folders with pipeline files"
        )
    checked.files = dict(sorted(checked.files.items()))
    checked.problems = sorted(FoundProblem(problem, tuple(dict.fromkeys(names))) for problem, names in found.items())
    return checked


class _Result(NamedTuple):
    file: Path
    root: Path
    error: PipelineSpecError | None
    plan: PipelinePlan | None = None
    """Its plan; None with an error."""
    defaults: Path | None = None
    """The defaults of a file that was named itself."""


def _results(path: str, environment: str, root: str | None, check: Check | None) -> Iterator[_Result]:
    here = Path(path)
    if here.is_dir():
        root_of_all = Path(os.path.abspath(here))  # noqa: PTH100 -- resolve() would follow links
        for file in pipeline_files(root_of_all):
            if (document := _read_policy(file, file.relative_to(root_of_all).as_posix())) is not None:
                yield _Result(file, root_of_all, document.error)
        for found in load_pipeline_folder(here, environment):
            if isinstance(found, BrokenPipeline):
                yield _Result(found.path, found.root, found.error)
            else:
                yield _planned(found.path, found.root, found, check)
        return
    if not here.exists():
        raise InvalidArgumentError(f"{path} does not exist. Name pipeline files, or folders with pipeline files")
    folder = Path(root) if root else pipelines_root(here)
    if (document := _read_policy(here, os.path.relpath(here, folder))) is not None:
        yield _Result(here, folder, document.error)
        return
    try:
        loaded = load_pipeline_file(here, environment, root=folder)
        yield _planned(here, folder, loaded, check)._replace(defaults=loaded.defaults)
    except PipelineSpecError as error:
        yield _Result(here, folder, error)


class _PolicyCheck(NamedTuple):
    error: PipelineSpecError | None


def _read_policy(file: Path, name: str) -> _PolicyCheck | None:
    """Check a document that may lie beside pipelines; None when the file is not of such a kind.

    :param file: the file.
    :param name: its name in problems.
    """
    try:
        data = file.read_bytes()
    except OSError:
        return None  # the reader of pipelines reports it
    document = read_document(data, name, [])
    kind = find(document, ("kind",))[0].content if document is not None else None
    read = _POLICIES.get(kind) if isinstance(kind, str) else None
    if read is None:
        return None
    try:
        read(data, name)
    except PipelineSpecError as error:
        return _PolicyCheck(error)
    return _PolicyCheck(None)


def _planned(file: Path, root: Path, loaded: LoadedPipeline, check: Check | None) -> _Result:
    try:
        plan = plan_pipeline(loaded)
        if check is not None and (problems := list(check(loaded))):
            raise PipelineSpecError(problems)
        return _Result(file, root, None, plan)
    except PipelineSpecError as error:
        return _Result(file, root, error)


def warnings_of(plan: PipelinePlan) -> Iterator[str]:
    """Describe what is valid and probably not meant: images without a tag."""
    images = {image for task in plan.every_task if isinstance(image := task.arguments.get("image"), str)}
    for image in sorted(images):
        name = image.rpartition("/")[2]
        if name and not {":", "@", "$"} & set(name):
            yield (
                f"image {image!r} has no tag, which means 'latest': a retry may run another image than the first try. "
                f"Write a version, such as {image}:1.2, or a digest"
            )


def _speaks_of(file: Path, environment: str) -> bool:
    """Whether a file has an overlay for an environment; a file that cannot be read has none."""
    try:
        document = read_document(file.read_bytes(), file.name, [])
    except OSError:
        return False
    path = ("spec", "environments", environment)
    return document is not None and len(find(document, path)[1]) == len(path)
