"""What a store or web server calls the present content of one object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ETAG, NUMBERED = "etag-", "version-"


def object_version(info: Mapping[str, Any]) -> str:
    """Name the content by what a store says about an object.

    :param info: what the store says, by the names that file systems of fsspec and HTTP headers use.
    :return: ``version-<id>`` where the store numbers versions, else ``etag-<ETag>``; empty when it names neither.
    """
    named = {str(name).lower(): value for name, value in info.items() if value}
    version = named.get("versionid") or named.get("version_id") or named.get("generation")
    if version and str(version) != "null":
        return f"{NUMBERED}{version}"
    etag = str(named.get("etag", "")).removeprefix("W/").strip('"')
    return f"{ETAG}{etag}" if etag else ""


def is_object_version(version: str) -> bool:
    """Tell whether a version label is what a store calls a content, so that it can be compared."""
    return version.startswith((ETAG, NUMBERED))
