"""One file for one environment: merged with its defaults and the overlay, with ``${NAME}`` replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from airflow_mcp.core.argument import ENVIRONMENTS
from airflow_mcp.core.pipeline.file.document import FILLED_IN, FieldPath, Node, find, write_path
from airflow_mcp.core.pipeline.file.fields import EXPANDABLE
from airflow_mcp.core.pipeline.file.pipeline import CONFIG_FILE, ModelPipeline
from airflow_mcp.core.pipeline.file.validation import problem_at
from airflow_mcp.exceptions import InvalidArgumentError, SpecProblem

RELEASE_TAGS = "v*"
_FILLED_TAGS = f'{FILLED_IN}in prod the code is the newest release tag (tags: "v*") unless sourceCode names another'
_EXCLUSIVE = ("revision", "tags")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")
_HERE = ""
"""Key of the mark that the value itself is expandable."""
Marks = Mapping[str, Any]
"""Paths of expandable values as nested mappings; ``*`` is any name or index."""


def check_environment(environment: str) -> str:
    """Check the name of an environment.

    :raises InvalidArgumentError: when there is no such environment.
    """
    if environment not in ENVIRONMENTS:
        raise InvalidArgumentError(f"environment must be one of {', '.join(ENVIRONMENTS)}; got {environment!r}")
    return environment


def with_defaults(document: Node, defaults: Node | None, problems: list[SpecProblem]) -> Node:
    """Merge a document over the defaults: mappings merge, lists and single values replace.

    :param document: the pipeline file.
    :param defaults: ``defaults.yaml``; None when there is none.
    :param problems: problems with the defaults are added here.
    """
    if defaults is None or not isinstance(document.content, dict):
        return document
    if not isinstance(defaults.content, dict):
        problems.append(problem_at(defaults, (), "the defaults must be a mapping with metadata and spec"))
        return document
    usable = {}
    for name, node in defaults.content.items():
        if name in ("metadata", "spec"):
            usable[name] = node
        else:
            problems.append(
                problem_at(defaults, (name,), "cannot have defaults; only metadata and spec can", at_key=True)
            )
    name = find(defaults, ("metadata", "name"))
    if len(name[1]) == 2:
        problems.append(
            problem_at(
                defaults,
                name[1],
                "cannot have a default, because each pipeline has its own name. Remove it",
                at_key=True,
            )
        )
    return _merge(defaults._replace(content=usable), document)


def with_overlay(document: Node, environment: str) -> Node:
    """Merge the overlay of an environment over ``spec``; in prod, fill in release tags if no revision is named.

    :param document: the pipeline file, merged with its defaults.
    :param environment: dev, test or prod.
    """
    spec = find(document, ("spec",))
    if not spec[1] or not isinstance(spec[0].content, dict):
        return document
    node = spec[0]
    overlay, walked = find(node, ("environments", environment))
    if len(walked) == 2 and isinstance(overlay.content, dict):
        node = _merge(node, overlay._replace(place=node.place, key_place=node.key_place))
    if environment == "prod":
        node = _released(node)
    return document._replace(content={**document.content, "spec": node})


def _released(spec: Node) -> Node:
    if "sourceCode" not in spec.content:
        return spec
    source = _long_source(spec.content["sourceCode"])
    if not isinstance(source.content, dict) or any(name in source.content for name in _EXCLUSIVE):
        return spec
    tags = Node(RELEASE_TAGS, source.place, source.key_place, _FILLED_TAGS)
    filled = source._replace(content={**source.content, "tags": tags})
    return spec._replace(content={**spec.content, "sourceCode": filled})


def _long_source(node: Node) -> Node:
    return node._replace(content={"repoUrl": node}) if isinstance(node.content, str) else node


def _merge(below: Node, above: Node) -> Node:
    if not isinstance(below.content, dict) or not isinstance(above.content, dict):
        return above
    merged = dict(below.content)
    for name, over in above.content.items():
        under = merged.get(name)
        if name == "sourceCode" and under is not None:
            merged[name] = _merge_sources(under, over)
        elif name == "config" and under is not None and isinstance(under.content, str):
            merged[name] = _over_file(under, over)
        else:
            merged[name] = over if under is None else _merge(under, over)
    return above._replace(content=merged)


def _over_file(below: Node, above: Node) -> Node:
    return above._replace(content={CONFIG_FILE: below, **above.content}) if isinstance(above.content, dict) else above


def _merge_sources(below: Node, above: Node) -> Node:
    """Merge short and long forms; ``tags`` replaces ``revision`` and vice versa: they exclude each other."""
    below, above = _long_source(below), _long_source(above)
    if not isinstance(below.content, dict) or not isinstance(above.content, dict):
        return above
    if any(name in above.content for name in _EXCLUSIVE):
        below = below._replace(content={n: node for n, node in below.content.items() if n not in _EXCLUSIVE})
    return _merge(below, above)


class Expansion:
    """Replaces ``${NAME}`` and ``${NAME:-default}`` in the fields that are marked for it."""

    def __init__(self, values: Mapping[str, str], problems: list[SpecProblem]) -> None:
        self._values = values
        self._problems = problems
        self.used: dict[str, str | None] = {}
        """Variables that were looked up, with their values, to notice later that one has changed."""

    def expand(self, document: Node) -> Node:
        """Return the document with every expandable field replaced, except in the overlays of other environments.

        :param document: the merged document.
        """
        marks = dict(expandable(ModelPipeline))
        marks["spec"] = {name: below for name, below in marks["spec"].items() if name != "environments"}
        return self._walk(document, marks, ())

    def _walk(self, node: Node, marks: Marks, path: FieldPath) -> Node:
        content = node.content
        if isinstance(content, str):
            return self._replaced(node, content, path) if _HERE in marks and "${" in content else node
        if isinstance(content, dict):
            changed: dict[str, Node] = {}
            for name, child in content.items():
                below = marks.get(name) or marks.get("*")
                if below and (new := self._walk(child, below, (*path, name))) is not child:
                    changed[name] = new
            return node._replace(content={**content, **changed}) if changed else node
        if isinstance(content, list) and "*" in marks:
            children = [self._walk(child, marks["*"], (*path, index)) for index, child in enumerate(content)]
            if any(new is not old for new, old in zip(children, content, strict=True)):
                return node._replace(content=children)
        return node

    def _replaced(self, node: Node, text: str, path: FieldPath) -> Node:
        missing: list[str] = []

        def value_of(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            self.used[name] = found = self._values.get(name)
            if found or (found is not None and default is None):
                return found
            if default is None:
                missing.append(name)
            return default or ""

        new = _VARIABLE.sub(value_of, text)
        if missing:
            names = ", ".join(dict.fromkeys(missing))
            self._note(
                node, path, f"{names} is not set in the environment. Set it, or write ${{{missing[0]}:-a default}}"
            )
        elif "${" in _VARIABLE.sub("", text):
            self._note(node, path, f"must use only ${{NAME}} and ${{NAME:-default}}; got {text!r}")
        return node._replace(content=new, note=f"from {text}")

    def _note(self, node: Node, path: FieldPath, message: str) -> None:
        self._problems.append(problem_at(node, (), message)._replace(field=write_path(path)))


@cache
def expandable(model: type[BaseModel]) -> Marks:
    """Return the paths of the expandable fields of a model."""
    marks: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        found = _marks_of_field(field)
        if found:
            marks[field.alias or name] = found
    return MappingProxyType(marks)


def _marks_of_field(field: FieldInfo) -> dict[str, Any]:
    marks = _marks_of(field.annotation)
    for extra in field.metadata:
        _add(marks, _marks_of(getattr(extra, "json_schema_input_type", None)))
    if _is_marked(field):
        marks[_HERE] = {}
    return marks


def _is_marked(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get(EXPANDABLE))


def _marks_of(annotation: Any) -> dict[str, Any]:
    marks: dict[str, Any] = {}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return dict(expandable(annotation))
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, FieldInfo) and _is_marked(extra):
            marks[_HERE] = {}
        _add(marks, _marks_of(getattr(extra, "json_schema_input_type", None)))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (tuple, list, dict):
        found = _marks_of(arguments[1] if origin is dict else arguments[0])
        _add(marks, {"*": found} if found else {})
    else:
        for argument in arguments:
            _add(marks, _marks_of(argument))
    return marks


def _add(marks: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, below in more.items():
        merged = dict(marks.get(name, {}))
        _add(merged, below)
        marks[name] = merged
