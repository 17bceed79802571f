"""The versions of MLflow servers that this package supports."""

from __future__ import annotations

import re

OLDEST_MLFLOW = (3, 10)
FIRST_UNKNOWN_MLFLOW = (4,)
"""The first version that is not supported any more."""
_TAKES_ALIASES_AWAY = (3, 16, 1)
"""The first version that takes the aliases of a deleted version away."""


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, at most three; empty for a text without numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def why_too_old(version: str) -> str:
    """Return why the version of an MLflow server is too old; empty when it is not, or is not known."""
    numbers = version_numbers(version)
    if not numbers or numbers >= OLDEST_MLFLOW:
        return ""
    return f"MLflow {version} is too old: upgrade the server to {'.'.join(map(str, OLDEST_MLFLOW))} or newer"


def keeps_aliases_of_deleted(version: str) -> bool:
    """Return whether aliases may point at deleted versions on an MLflow server; true when its version is not known."""
    return version_numbers(version) < _TAKES_ALIASES_AWAY
