"""The words of the page in Russian, by their English text."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RUSSIAN: Mapping[str, str] = MappingProxyType({})
