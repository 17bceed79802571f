"""Credentials written into a pipeline file, found by their names and shapes; no message repeats them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_mcp.core.credential_shapes import TOKEN_OR_KEY, URL_WITH_PASSWORD, names_a_credential
from airflow_mcp.core.pipeline.file.document import FieldPath, Node, walk
from airflow_mcp.core.pipeline.file.validation import problem_at
from airflow_mcp.exceptions import SpecProblem

_OPTION = re.compile(r"--?([A-Za-z][\w-]*)=(.+)")
_PLACES = ("config", "env", "arguments", "command", "pod_kwargs")
"""Fields below which names and values are the user's own."""
_IN_PROD = (
    "looks like a credential in plain text, which prod refuses. Keep it in an Airflow connection, and name that in "
    "secretEnv"
)


def credential_problems(document: Node, environment: str) -> Iterator[SpecProblem]:
    """Find credentials in plain text: URLs with a password always; in prod everything that looks like a credential.

    :param document: the file, merged with its defaults and overlay.
    :param environment: dev, test or prod.
    """
    for path, node in walk(document):
        if path[:2] == ("spec", "environments") and path[2:3] != (environment,):
            continue
        if not isinstance(node.content, str):
            continue
        if URL_WITH_PASSWORD.search(node.content):
            message = "the URL contains a password. Keep the password in an Airflow connection, and name that"
            yield problem_at(document, path, message)
        elif environment == "prod" and path[:1] == ("spec",) and _is_credential(path, node.content):
            yield problem_at(document, path, _IN_PROD)


def _is_credential(path: FieldPath, value: str) -> bool:
    if TOKEN_OR_KEY.search(value):
        return True
    if not value or not any(place in path for place in _PLACES):
        return False
    option = _OPTION.fullmatch(value)
    names = [*(part for part in path[2:] if isinstance(part, str)), *([option[1]] if option else [])]
    return any(names_a_credential(name) for name in names[-1:])
