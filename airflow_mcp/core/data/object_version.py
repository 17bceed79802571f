"""The version that a store or web server reports for an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ETAG, NUMBERED = "etag-", "version-"


def object_version(info: Mapping[str, Any]) -> str:
    """Return the version of an object, from its metadata.

    :param info: metadata, with the names of HTTP headers or of fsspec's file systems.
    :return: ``version-<id>`` where the store numbers versions, else ``etag-<ETag>``; empty without either.
    """
    named = {str(name).lower(): value for name, value in info.items() if value}
    version = named.get("versionid") or named.get("version_id") or named.get("generation")
    if version and str(version) != "null":
        return f"{NUMBERED}{version}"
    etag = str(named.get("etag", "")).removeprefix("W/").strip('"')
    return f"{ETAG}{etag}" if etag else ""


def is_object_version(version: str) -> bool:
    """Return whether a version label comes from a store, and can be compared with the present one."""
    return version.startswith((ETAG, NUMBERED))
