"""Which version of a dataset is meant: folders of versions, ``<root>/<version>/<file>``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from airflow_mcp.exceptions import DatasetError, InvalidArgumentError

LATEST = "latest"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def choose_version(requested: str, available: Iterable[str], *, root: str) -> str:
    """Choose a version by name, or the latest one.

    Versions are ordered the way people read them: numbers by value, the rest by letter, so that ``v10`` comes
    after ``v9`` and ``2026-11-02`` after ``2026-11-01``.

    :param requested: a version's name, or ``latest``.
    :param available: names of the versions there are; one named ``latest`` does not count, since what it means changes.
    :param root: where they are, for the message.
    :raises InvalidArgumentError: when the name cannot be a version (for example a path).
    :raises DatasetError: when there is no such version.
    """
    versions = sorted((name for name in available if name != LATEST and _VERSION.fullmatch(name)), key=_order)
    if requested == LATEST:
        if not versions:
            raise DatasetError(f"{root} has no data version; expected folders like {root}/<version>/<file>")
        return versions[-1]
    if not _VERSION.fullmatch(requested):
        raise InvalidArgumentError(
            f"data version {requested!r} is not a version's name; allowed: letters, digits and _ . + -, or {LATEST!r}"
        )
    if requested not in versions:
        raise DatasetError(f"{root} has no data version {requested!r}; available: {', '.join(versions) or 'none'}")
    return requested


def _order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.findall(r"\d+|\D+", name)
    # The name itself comes second: v1 and v01 are equal by value, and the order must not depend on the folder's.
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts], name
