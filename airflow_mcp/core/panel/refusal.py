"""Why something cannot be done on the page."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Refusal(NamedTuple):
    """Why an action is not possible, as a text of the catalogue with its values."""

    text: str
    values: Mapping[str, str] = _NOTHING
    is_right: bool = False
    """Whether somebody else might be allowed to."""
