"""Reads and checks ModelPipeline files, without Airflow. Nothing in a file is executed.

The ``kind`` makes a file a pipeline; other YAML files beside it (config of trainings, ``defaults.yaml``) are ignored.
An empty file is an error: it may have been a pipeline, whose Dag must not vanish silently.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_mcp.core.argument import kind_of
from airflow_mcp.core.pipeline.checks import Subject, check
from airflow_mcp.core.pipeline.file.credentials import credential_problems
from airflow_mcp.core.pipeline.file.document import (
    EMPTY,
    FILLED_IN,
    MAX_BYTES,
    FieldPath,
    Node,
    Place,
    find,
    plain,
    read_document,
)
from airflow_mcp.core.pipeline.file.environment import Expansion, check_environment, with_defaults, with_overlay
from airflow_mcp.core.pipeline.file.pipeline import CONFIG_FILE, Environments, ModelPipeline
from airflow_mcp.core.pipeline.file.validation import problem_at, validate
from airflow_mcp.core.pipeline.plan.entities import PipelineFile
from airflow_mcp.core.pipeline.plan.values import merge
from airflow_mcp.core.workload.config import CONFIG_SUFFIXES, inline_config
from airflow_mcp.dag_rendering.files import Files, looks_like_a_pipeline
from airflow_mcp.dag_rendering.servers import check_server
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError, SpecProblem

DEFAULTS = "defaults.yaml"
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline for one environment, with the place of everything in it."""

    pipeline: ModelPipeline
    """Merged with defaults and overlay, variables replaced; ``spec.environments`` is empty."""
    environment: str
    path: Path
    """The file, absolute."""
    root: Path
    """Folder of all pipelines, absolute; messages name files relative to it."""
    text: str
    """Text of the file."""
    config: Mapping[str, Any] | None = field(compare=False)
    """Config of the training: the config file, with the values merged over it; None without config."""
    document: Node = field(repr=False, compare=False)
    """The merged document behind the pipeline, with places."""
    defaults: Path | None = field(default=None, compare=False)
    """The ``defaults.yaml`` that it was merged with, absolute; None without one."""

    @property
    def file(self) -> str:
        """Path of the file relative to ``root``, with ``/``."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def source(self) -> PipelineFile:
        """The file, for the plan."""
        return PipelineFile(self.file, str(self.path.parent), self.text, self.origin, self.config)

    def place(self, *path: str | int) -> Place:
        """Return where a field is written; for a field that is not there, the nearest field above it.

        :param path: names as they are in the file, and indexes: ``"spec", "stages", 0, "image"``.
        """
        return find(self.document, path)[0].place

    def origin(self, *path: str | int) -> str:
        """Return where a value comes from: ``fraud.yaml:18``, or the rule that filled it in.

        :param path: as for :meth:`place`.
        """
        node = find(self.document, path)[0]
        return node.note if node.note.startswith(FILLED_IN) else f"{node.place.file}:{node.place.line}"


@dataclass(frozen=True)
class BrokenPipeline:
    """A file that cannot be used."""

    path: Path
    """The file, absolute."""
    root: Path
    error: PipelineSpecError


@dataclass(frozen=True)
class _Read:
    """The result of reading a file, and what it depends on."""

    result: LoadedPipeline | PipelineSpecError | None
    """None when the file is not a pipeline."""
    files: Files
    variables: Mapping[str, str | None]


_CACHE: dict[tuple[str, str, str], _Read] = {}


def load_pipeline_file(
    path: str | Path,
    environment: str = "dev",
    *,
    root: str | Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> LoadedPipeline:
    """Read and check one pipeline.

    :param path: the YAML file.
    :param environment: dev, test or prod.
    :param root: folder of all pipelines; ``defaults.yaml`` is searched from the file's folder up to it. Default:
        :func:`pipelines_root`.
    :param variables: values of ``${NAME}``; None takes the environment of the process.
    :raises PipelineSpecError: with every problem of the file.
    :raises InvalidArgumentError: when there is no such environment, or the file is not inside ``root``.
    """
    file = _absolute(path)
    folder = _absolute(root) if root is not None else pipelines_root(file)
    if not file.is_relative_to(folder):
        raise InvalidArgumentError(f"path must be inside root {root}; got {path}")
    result = _load(file, folder, check_environment(environment), variables, must_be_one=True)
    if isinstance(result, LoadedPipeline):
        return result
    raise _no_pipeline(file, folder) if result is None else PipelineSpecError(result.problems)


def load_pipeline_folder(
    folder: str | Path, environment: str = "dev", *, variables: Mapping[str, str] | None = None
) -> list[LoadedPipeline | BrokenPipeline]:
    """Read and check all pipelines in a folder and its subfolders; a broken one does not affect the others.

    :param folder: folder of YAML files.
    :param environment: dev, test or prod.
    :param variables: values of ``${NAME}``; None takes the environment of the process.
    :return: sorted by path; two pipelines with the same name are both broken.
    :raises InvalidArgumentError: when there is no such environment or folder.
    """
    check_environment(environment)
    root = _absolute(folder)
    if not root.is_dir():
        raise InvalidArgumentError(f"folder {folder} does not exist. Name the folder of the pipeline files")
    found: list[LoadedPipeline | BrokenPipeline] = []
    for file in pipeline_files(root):
        result = _load(file, root, environment, variables, must_be_one=False)
        if isinstance(result, PipelineSpecError):
            found.append(BrokenPipeline(file, root, result))
        elif result is not None:
            found.append(result)
    return _refuse_doubles(found)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 -- resolve() would follow links, absolute() keeps ".."


def pipelines_root(file: str | Path, top: Path | None = None) -> Path:
    """Return the folder of all pipelines for a file that is read by itself.

    :param file: a pipeline file.
    :param top: folder where the search ends. Default: the top of the Git repository.
    :return: the nearest folder above the file with a ``defaults.yaml``; the file's own folder without one.
    """
    path = _absolute(file)
    for folder in path.parents:
        if (folder / DEFAULTS).is_file():
            return folder
        if folder == top or (folder / ".git").exists():
            break
    return path.parent


def pipeline_files(root: Path) -> Iterator[Path]:
    """Return the YAML files in a folder and its subfolders, sorted by name, without hidden files and defaults.

    :param root: the folder, absolute.
    """
    for here, folders, names in os.walk(root):
        linked = [name for name in folders if _leads_out(Path(here, name), root)]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in linked)
        yaml_names = (name for name in names if name.endswith(SUFFIXES) and name != DEFAULTS)
        for name in sorted([*yaml_names, *linked]):
            if not name.startswith("."):
                yield Path(here, name)


def _leads_out(path: Path, root: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(root.resolve())


def _load(
    path: Path, root: Path, environment: str, variables: Mapping[str, str] | None, *, must_be_one: bool
) -> LoadedPipeline | PipelineSpecError | None:
    values = os.environ if variables is None else variables
    key = (str(path), str(root), environment)
    known = _CACHE.get(key)
    is_fresh = known is not None and known.files.unchanged() and _same(known.variables, values)
    if known is not None and is_fresh and not (must_be_one and known.result is None):
        return known.result
    files = Files(root)
    expansion_problems: list[SpecProblem] = []
    expansion = Expansion(values, expansion_problems)
    try:
        result: LoadedPipeline | PipelineSpecError | None = _Loading(
            path, root, environment, files, expansion, expansion_problems
        ).load(must_be_one=must_be_one)
    except PipelineSpecError as error:
        result = error.with_traceback(None)
    except (OSError, RuntimeError) as error:  # the disk fails, or a file changes during the read
        name = path.relative_to(root).as_posix()
        return PipelineSpecError([SpecProblem(name, 1, 1, "", f"the file cannot be read: {error}")])
    _CACHE[key] = _Read(result, files, expansion.used)
    return result


def _same(used: Mapping[str, str | None], values: Mapping[str, str]) -> bool:
    return all(values.get(name) == value for name, value in used.items())


def _no_pipeline(path: Path, root: Path) -> PipelineSpecError:
    what = "the file is not a ModelPipeline: kind is missing. Add kind: ModelPipeline"
    return PipelineSpecError([SpecProblem(path.relative_to(root).as_posix(), 1, 1, "kind", what)])


class _Loading:
    """One read of one file."""

    def __init__(
        self,
        path: Path,
        root: Path,
        environment: str,
        files: Files,
        expansion: Expansion,
        problems: list[SpecProblem],
    ) -> None:
        self._path, self._root, self._environment = path, root, environment
        self._files, self._expansion, self._problems = files, expansion, problems
        self._defaults_path: Path | None = None

    def load(self, *, must_be_one: bool) -> LoadedPipeline | None:
        name = self._path.relative_to(self._root).as_posix()
        data = self._files.read(self._path, SpecProblem(name, 1, 1, "", ""))
        document = read_document(data, name, self._problems)
        is_empty = any(problem.message == EMPTY for problem in self._problems)  # it may have been a pipeline
        if not must_be_one and not is_empty and not looks_like_a_pipeline(document, data):
            return None
        if document is None:
            raise PipelineSpecError(self._problems)
        merged = with_defaults(document, self._defaults(), self._problems)
        overlaid = with_overlay(merged, self._environment)
        if find(merged, ("spec", "environments", self._environment))[1][2:]:
            validate(ModelPipeline, merged, self._problems)  # values that the overlay replaces must be valid as well
        resolved = self._expansion.expand(overlaid)
        pipeline = validate(ModelPipeline, resolved, self._problems)
        self._problems.extend(credential_problems(resolved, self._environment))
        if pipeline is not None:
            config = self._config(pipeline, resolved)
            check(Subject(pipeline, self._environment, config or {}), resolved, self._problems)
            check_server(pipeline, resolved, self._problems)
            self._check_scripts(pipeline, resolved)
        if pipeline is None or self._problems:
            raise PipelineSpecError(_once(self._problems))
        spec = pipeline.spec.model_copy(update={"environments": Environments()})
        return LoadedPipeline(
            pipeline=pipeline.model_copy(update={"spec": spec}),
            environment=self._environment,
            path=self._path,
            root=self._root,
            text=data.decode("utf-8-sig"),
            config=config,
            document=resolved,
            defaults=self._defaults_path,
        )

    def _defaults(self) -> Node | None:
        folder = self._path.parent
        while True:
            path = folder / DEFAULTS
            if self._files.exists(path):
                self._defaults_path = path
                name = path.relative_to(self._root).as_posix()
                return read_document(self._files.read(path, SpecProblem(name, 1, 1, "", "")), name, self._problems)
            if folder == self._root:
                return None
            folder = folder.parent

    def _check_scripts(self, pipeline: ModelPipeline, document: Node) -> None:
        spec = pipeline.spec
        if spec.source_code.is_remote:
            return
        source = self._path.parent / spec.source_code.repo_url
        if not self._files.is_folder(source):
            url = spec.source_code.repo_url
            hint = f", for example https://{url}" if "." in url.partition("/")[0].strip(".") else ""
            if "{{" in url:
                hint = ". Templates are not rendered in pipeline files"
            elif name := re.fullmatch(r"\$(\w+)", url):
                hint = f". A variable is written ${{{name[1]}}}"
            message = f"there is no folder {url} next to {self._path.name}. Name a folder or a Git URL{hint}"
            self._problems.append(problem_at(document, ("spec", "sourceCode", "repoUrl"), message))
            return
        self._check_script(document, source, spec.training_script, ("spec", "trainingScript"))
        for index, candidate in enumerate(spec.candidates):
            if candidate.training_script is not None:
                path: FieldPath = ("spec", "candidates", index, "trainingScript")
                self._check_script(document, source, candidate.training_script, path)

    def _check_script(self, document: Node, source: Path, script: str, field_path: FieldPath) -> None:
        path = source / script
        if not self._files.exists(path):
            near = difflib.get_close_matches(path.name, _names_in(path.parent), n=1, cutoff=0.75)
            meant = [(Path(script).parent / name).as_posix() for name in near]
            hint = f"Did you mean {meant[0]!r}?" if meant else "Name a script in the source"
            message = f"{script} is not in {source.name}. {hint}"
        elif not path.resolve().is_relative_to(source.resolve()):
            message = f"{script} leads out of {source.name}. Name a script in the source"
        else:
            return
        self._problems.append(problem_at(document, field_path, message))

    def _config(self, pipeline: ModelPipeline, document: Node) -> Mapping[str, Any] | None:
        config = pipeline.spec.config
        try:
            inline_config(config.values or {})
            if config.file is None:
                return config.values
            values = self._config_file(config.file, document)
            inline_config(values)
            return merge(values, config.values or {})
        except PipelineSpecError as error:
            self._problems.extend(error.problems)
        except InvalidArgumentError as error:
            self._problems.append(problem_at(document, ("spec", "config"), str(error)))
        return None

    def _config_file(self, name: str, document: Node) -> Mapping[str, Any]:
        if not name.endswith(CONFIG_SUFFIXES):
            raise InvalidArgumentError(f"config file must end with {' or '.join(CONFIG_SUFFIXES)}; got {name!r}")
        named_in = find(document, ("spec", "config", CONFIG_FILE))[0].place.file
        file = (self._root / named_in).parent / name
        data = self._files.read(file, problem_at(document, ("spec", "config"), ""))
        if name.endswith(".json"):
            values = _json(data, name)
        else:
            problems: list[SpecProblem] = []
            node = read_document(data, file.relative_to(self._root).as_posix(), problems)
            if node is None or problems:
                raise PipelineSpecError(problems)
            values = plain(node)
        if not isinstance(values, dict):
            raise InvalidArgumentError(f"{name} must contain a mapping of names to values; got {kind_of(values)}")
        return values


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix == ".py")
    except OSError:
        return []


def _once(problems: list[SpecProblem]) -> list[SpecProblem]:
    """Sort problems, and drop duplicates at the same place, which come from a value and its overlay."""
    kept: dict[tuple[str, int, int, str], SpecProblem] = {}
    for problem in sorted(problems):
        kept.setdefault((problem.file, problem.line, problem.column, problem.message), problem)
    return list(kept.values())


def _json(data: bytes, name: str) -> Any:
    if len(data) > MAX_BYTES:
        raise InvalidArgumentError(f"{name} must have at most {MAX_BYTES} bytes; got more")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{name} cannot be read: {error}") from None


def _refuse_doubles(found: list[LoadedPipeline | BrokenPipeline]) -> list[LoadedPipeline | BrokenPipeline]:
    by_name: dict[str, list[LoadedPipeline]] = {}
    for loaded in found:
        if isinstance(loaded, LoadedPipeline):
            by_name.setdefault(loaded.pipeline.metadata.name, []).append(loaded)
    return [_double(one, by_name) if isinstance(one, LoadedPipeline) else one for one in found]


def _double(loaded: LoadedPipeline, by_name: Mapping[str, list[LoadedPipeline]]) -> LoadedPipeline | BrokenPipeline:
    name = loaded.pipeline.metadata.name
    others = [other.file for other in by_name[name] if other is not loaded]
    if not others:
        return loaded
    message = f"{name!r} is also the name of {', '.join(others)}. Give each pipeline its own name"
    problem = problem_at(loaded.document, ("metadata", "name"), message)
    return BrokenPipeline(loaded.path, loaded.root, PipelineSpecError([problem]))
