"""Credentials written into a pipeline file, found by their names and shapes; no message repeats them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_mcp.core.pipeline.file.document import FieldPath, Node, walk
from airflow_mcp.core.pipeline.file.validation import problem_at
from airflow_mcp.exceptions import SpecProblem

# 20: schemes are short, and without a bound a long text without "://" costs its length squared.
_URL_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[^/\s:@]*:[^/\s@]+@", re.I)
_SHAPES = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
)
_NAMES = re.compile(
    r"(^|_)(password|passwd|passphrase|secret|token|credentials?|api_?key|access_?key|secret_?key|private_?key)$"
)
_TOKENS_OF_TEXT = re.compile(r"(^|_)(pad|mask|eos|bos|unk|cls|sep|special|start|end|stop)_token$")
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
        if _URL_WITH_PASSWORD.search(node.content):
            message = "the URL contains a password. Keep the password in an Airflow connection, and name that"
            yield problem_at(document, path, message)
        elif environment == "prod" and path[:1] == ("spec",) and _is_credential(path, node.content):
            yield problem_at(document, path, _IN_PROD)


def has_credential_shape(text: str) -> bool:
    """Return whether a text holds something with the shape of a credential: a token, a key, a URL with a password."""
    return bool(_URL_WITH_PASSWORD.search(text) or _SHAPES.search(text))


def _is_credential(path: FieldPath, value: str) -> bool:
    if _SHAPES.search(value):
        return True
    if not value or not any(place in path for place in _PLACES):
        return False
    option = _OPTION.fullmatch(value)
    names = [*(part for part in path[2:] if isinstance(part, str)), *([option[1]] if option else [])]
    return any(_names_a_credential(name) for name in names[-1:])


def _names_a_credential(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(".", "_").lower()
    return bool(_NAMES.search(words)) and not _TOKENS_OF_TEXT.search(words)
