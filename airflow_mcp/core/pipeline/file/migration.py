"""Pipeline files of earlier versions, rewritten in place: only renamed names and values change, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from airflow_mcp.core.pipeline.file.document import read_document
from airflow_mcp.core.pipeline.file.pipeline import API_VERSION
from airflow_mcp.exceptions import PipelineSpecError, SpecProblem

ANY = "*"
"""A step of a path: any name or index."""
Path = tuple[str, ...]


@dataclass(frozen=True)
class Rename:
    """One name that a pipeline file had earlier."""

    where: Path
    """Mapping that has the name, below ``spec``."""
    old: str
    new: str
    values: Mapping[str, str] | None = None
    """Old value to new value. With it, other values keep the old name if that is a name still."""
    is_still_used: bool = False
    """Whether the old name exists too, for other values."""
    stage: str = ""
    """Stage that the mapping belongs to; empty: any."""


def _git(where: Path) -> tuple[Rename, ...]:
    names = (("repo", "repoUrl"), ("rev", "revision"), ("connection", "gitConnId"))
    return tuple(Rename(where, old, new) for old, new in names)


_STAGE = ("stages", ANY)
_REPORTS = (
    *(("coverage", ANY, report) for report in ("report", "baseline", "changedLines")),
    *(("findings", ANY, report) for report in ("report", "baseline")),
)
_RENAMES: tuple[Rename, ...] = (
    Rename(("sourceCode",), "url", "repoUrl"),
    Rename(("sourceCode",), "ref", "revision"),
    Rename(("sourceCode",), "connection", "gitConnId"),
    *_git(("data", "dvc")),
    *_git(("data", "lfs")),
    Rename(("data",), "problem", "modelType", {"classification": "classifier", "regression": "regressor"}),
    Rename(("model",), "experiment", "experimentName"),
    Rename(("triggers", ANY, "onDrift"), "experiment", "experimentName"),
    Rename(_STAGE, "mode", "dryRun", {"dryRun": "true"}, is_still_used=True, stage="gate"),
    Rename(_STAGE, "onInconclusive", "escalation", {"ask": "ask"}, is_still_used=True, stage="gate"),
    Rename((*_STAGE, "benchmarks", ANY), "connection", "connId", stage="gate"),
    *(Rename((*_STAGE, *report), "connection", "connId", stage="gate") for report in _REPORTS),
)
MIGRATIONS: Mapping[str, tuple[Rename, ...]] = {API_VERSION: _RENAMES}
"""Version of a file to what was renamed since; the names changed before the version was released, and keep its name."""


@dataclass(frozen=True)
class Migrated:
    """The result for one file."""

    text: str
    changes: tuple[str, ...]
    """What was renamed: ``12: sourceCode.ref is revision``."""


def migrate(data: bytes, file: str, *, is_defaults: bool = False) -> Migrated:
    """Rewrite a pipeline file with the names of this version; comments, order and layout stay.

    :param data: bytes of the file, UTF-8.
    :param file: its name, for the places of problems.
    :param is_defaults: whether it is a ``defaults.yaml``, which has no version of its own.
    :raises PipelineSpecError: when it cannot be read, has an unknown version, or has an old name beside the new one.
    """
    problems: list[SpecProblem] = []
    if read_document(data, file, problems) is None or problems:
        raise PipelineSpecError(problems)
    text = data.decode("utf-8")
    root = yaml.compose(text.removeprefix("\ufeff"), Loader=yaml.SafeLoader)
    renames = _RENAMES if is_defaults else MIGRATIONS[_version(root, file)]
    spec = _value(root, "spec")
    edits = sorted(edit for rename in renames for edit in _edits(spec, rename, file))
    shift = len(text) - len(text.removeprefix("\ufeff"))
    for edit in reversed(edits):
        text = text[: edit.start + shift] + edit.text + text[edit.end + shift :]
    return Migrated(text, tuple(edit.said for edit in edits if edit.said))


@dataclass(frozen=True, order=True)
class _Edit:
    start: int
    end: int
    text: str
    said: str = ""


def _version(root: Any, file: str) -> str:
    node = _value(root, "apiVersion")
    found = getattr(node, "value", None)
    if found not in MIGRATIONS:
        mark = (node or root).start_mark
        message = f"must be one of {', '.join(MIGRATIONS)}; got {found!r}. Nothing was changed"
        raise PipelineSpecError([SpecProblem(file, mark.line + 1, mark.column + 1, "apiVersion", message)])
    return str(found)


def _edits(spec: Any, rename: Rename, file: str) -> Iterator[_Edit]:
    """Yield the edits of one rename, in ``spec`` and in the overlays of its environments."""
    overlays = _value(spec, "environments")
    roots = [("", spec), *((f"environments.{name}.", node) for name, node in _items(overlays))]
    for prefix, root in roots:
        for path, mapping in _mappings(root, rename.where, rename.stage):
            yield from _renamed(mapping, rename, prefix + path, file)


def _renamed(mapping: Any, rename: Rename, path: str, file: str) -> Iterator[_Edit]:
    pairs = {key.value: (key, value) for key, value in mapping.value}
    if rename.old not in pairs:
        return
    key, value = pairs[rename.old]
    new = (rename.values or {}).get(str(getattr(value, "value", "")))
    if new is None and rename.is_still_used:
        return
    if rename.new in pairs:
        mark = key.start_mark
        message = f"has both {rename.old!r} and its new name {rename.new!r}. Nothing was changed; remove one of them"
        raise PipelineSpecError([SpecProblem(file, mark.line + 1, mark.column + 1, f"spec.{path}", message)])
    said = f"{key.start_mark.line + 1}: spec.{path}.{rename.old} is {rename.new}"
    yield _Edit(key.start_mark.index, key.end_mark.index, rename.new, said if new is None else f"{said}: {new}")
    if new is not None and new != value.value:
        yield _Edit(value.start_mark.index, value.end_mark.index, new)


def _mappings(node: Any, where: Path, stage: str, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every mapping at a path, with the path in words; short forms are not mappings, and are passed over."""
    if not where:
        if isinstance(node, yaml.MappingNode):
            yield path, node
        return
    step, *rest = where
    if step == ANY and isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            is_of = path != "stages" or not stage or getattr(_value(child, "name"), "value", None) == stage
            if is_of:
                yield from _mappings(child, tuple(rest), stage, f"{path}[{index}]")
    elif step != ANY and (child := _value(node, step)) is not None:
        yield from _mappings(child, tuple(rest), stage, f"{path}.{step}" if path else step)


def _value(node: Any, name: str) -> Any:
    return dict(_items(node)).get(name)


def _items(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, value) for key, value in node.value)
