"""A field of a JSON document by its path: ``regression``, ``results[0].score``, ``["a.b"].c``."""

from __future__ import annotations

import re
from typing import Any

from airflow_mcp.exceptions import InvalidArgumentError

JsonPath = tuple[str | int, ...]
_STEP = re.compile(r"""\.?(?P<name>[A-Za-z_][\w-]*) | \[(?P<index>\d+)\] | \["(?P<quoted>[^"]+)"\]""", re.VERBOSE)


def parse_json_path(text: str) -> JsonPath:
    """Read a path.

    :param text: names with a dot between them, indexes in brackets, other names in brackets and double quotes; a dot
        may stand before the first name.
    :raises InvalidArgumentError: when it is anything else.
    """
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None or (steps and match["name"] is not None and text[position] != "."):
            break
        steps.append(int(match["index"]) if match["index"] else match["name"] or match["quoted"])
        position = match.end()
    if not steps or position < len(text):
        raise InvalidArgumentError(
            f"path must be a path such as results[0].score; got {text!r}. Write names with dots between them, indexes "
            'in brackets, and other names in brackets and quotes, as in regression, results[0].score or ["a.b"].c'
        )
    return tuple(steps)


def find_by_path(document: Any, path: JsonPath) -> Any:
    """Return a field of a document.

    :param document: plain JSON values.
    :param path: path of the field.
    :raises KeyError: with the part of the path that does not exist.
    """
    found = document
    for step in path:
        is_there = (
            (isinstance(found, dict) and step in found)
            if isinstance(step, str)
            else (isinstance(found, list) and step < len(found))
        )
        if not is_there:
            raise KeyError(step)
        found = found[step]
    return found
