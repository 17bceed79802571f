"""The words of the page: the English text is the key of its translations, of which there are none yet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from types import MappingProxyType
from typing import Any, Literal

Language = Literal["en", "zh-CN", "ru"]
CATALOGUES: Mapping[Language, Mapping[str, str]] = {"en": MappingProxyType({})}
"""The translations of each language that the page can be shown in."""
_UNITS: tuple[tuple[str, int], ...] = (("{n} d", 86_400), ("{n} h", 3_600), ("{n} min", 60), ("{n} s", 1))
_MOST_UNITS = 2
"""Above this many of a unit an age is given in that unit: 36 h, but 3 d."""


def language_of(text: str) -> Language:
    """Return the language that a browser or Airflow's UI names; English for one that has no catalogue.

    :param text: for example ``zh-CN``, ``zh``, ``ru-RU``.
    """
    primary = text.strip().partition("-")[0].lower()
    found = {each.partition("-")[0].lower(): each for each in CATALOGUES}
    return found.get(primary, "en")


class Words:
    """The words of one language.

    :param language: the language.
    """

    def __init__(self, language: Language = "en") -> None:
        self.language = language
        self._catalogue = CATALOGUES[language]

    def plain(self, text: str, **values: Any) -> str:
        """Return a text in this language, not escaped.

        :param text: the text in English, with names of values in braces.
        :param values: the values.
        """
        found = self._catalogue.get(text, text)
        return found.format_map({name: str(value) for name, value in values.items()}) if values else found

    def __call__(self, text: str, **values: Any) -> str:
        """Return a text in this language as HTML: values come from outside, so all of it is escaped.

        :param text: the text in English.
        :param values: the values.
        """
        return escape(self.plain(text, **values), quote=True)

    def age(self, seconds: float) -> str:
        """Return a duration in its largest unit, such as ``3 d``.

        :param seconds: the duration.
        """
        whole = max(int(seconds), 0)
        for text, length in _UNITS:
            if whole >= _MOST_UNITS * length or length == 1:
                return self.plain(text, n=whole // length)
        raise AssertionError  # the last unit is one second

    def date(self, time: datetime) -> str:
        """Return a day, for an axis."""
        return f"{time:%d %b}".lstrip("0") if self.language == "en" else f"{time:%m-%d}"

    def time(self, time: datetime) -> str:
        """Return a time in UTC, such as ``26 Nov 2026 02:12``."""
        utc = time.astimezone(UTC)
        return f"{utc:%d %b %Y %H:%M}" if self.language == "en" else f"{utc:%Y-%m-%d %H:%M}"
