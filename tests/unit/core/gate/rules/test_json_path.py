"""Paths into JSON documents."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.gate.rules.json_path import find_by_path, parse_json_path
from airflow_mcp.exceptions import InvalidArgumentError

DOCUMENT: dict[str, Any] = {"regression": False, "results": [{"score": 0.5}, [7]], "a.b": {"c-d": None}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("regression", False),
        (".regression", False),
        ("results[0].score", 0.5),
        (".results[1][0]", 7),
        ('["a.b"].c-d', None),
        ('["a.b"]["c-d"]', None),
    ],
)
def test_a_path_leads_to_its_field(path: str, value: Any) -> None:
    assert find_by_path(DOCUMENT, parse_json_path(path)) == value


@pytest.mark.parametrize("path", ["", ".", "a..b", "a b", "a[", "a[x]", "a[-1]", "$.a", "[0]a", "a.", '[""]'])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgumentError, match="path must be a path such as"):
        parse_json_path(path)


@pytest.mark.parametrize("path", ["nothing", "results[2]", "results.score", "regression.x", "results[0][0]", "a.b"])
def test_a_path_that_leads_nowhere_says_so(path: str) -> None:
    with pytest.raises(KeyError):
        find_by_path(DOCUMENT, parse_json_path(path))
