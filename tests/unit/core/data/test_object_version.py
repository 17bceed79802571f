"""A store's own name of a content: version id before ETag, and never a guess."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.data.object_version import is_object_version, object_version


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"abc"', "VersionId": "v9"}, "version-v9"),
        ({"ETag": '"abc"', "VersionId": "null"}, "etag-abc"),
        ({"etag": 'W/"abc"'}, "etag-abc"),
        ({"generation": 1700, "etag": "x"}, "version-1700"),
        ({"size": 3, "LastModified": "today"}, ""),
        ({}, ""),
    ],
)
def test_the_version_is_what_the_store_names(info: dict[str, Any], version: str) -> None:
    assert object_version(info) == version
    assert is_object_version(version) is bool(version)
