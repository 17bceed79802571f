"""The words of the page: the English text is the key of its translations, in ``languages/``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

Language = Literal["en", "zh-CN", "ru"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
"""The languages that the page can be shown in."""
_FOLDER = Path(__file__).with_name("languages")
_UNITS: tuple[tuple[str, int], ...] = (("{n} d", 86_400), ("{n} h", 3_600), ("{n} min", 60), ("{n} s", 1))
_MOST_UNITS = 2
"""Above this many of a unit an age is given in that unit: 36 h, but 3 d."""


def language_of(text: str) -> Language:
    """Return the language that a browser or Airflow's UI names; English for one that has no catalogue.

    :param text: for example ``zh-CN``, ``zh``, ``ru-RU``.
    """
    primary = text.strip().partition("-")[0].lower()
    found = {each.partition("-")[0].lower(): each for each in LANGUAGES}
    return found.get(primary, "en")


def preferred_language(header: str) -> Language:
    """Return the language that a header ``Accept-Language`` asks for first, among those of the page.

    :param header: for example ``ru-RU,ru;q=0.9,en;q=0.8``; the order counts, browsers send it by preference.
    """
    for part in header.split(","):
        name = part.partition(";")[0].strip()
        if name and (name.lower().startswith("en") or language_of(name) != "en"):
            return language_of(name)
    return "en"


@cache
def catalogue(language: Language) -> Mapping[str, str]:
    """Return the translations of a language by their English text; none for English.

    :param language: the language.
    """
    path = _FOLDER / f"{language}.json"
    return MappingProxyType(json.loads(path.read_text("utf-8")) if language != "en" else {})


@lru_cache(maxsize=2048)
def _escaped(text: str, language: Language) -> str:
    return escape(catalogue(language).get(text, text), quote=True)


class Words:
    """The words of one language.

    :param language: the language.
    """

    def __init__(self, language: Language = "en") -> None:
        self.language = language
        self._catalogue = catalogue(language)

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
        return escape(self.plain(text, **values), quote=True) if values else _escaped(text, self.language)

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
        forms: Mapping[Language, str] = {"en": "%d %b", "zh-CN": "%m-%d", "ru": "%d.%m"}
        return f"{time:{forms[self.language]}}".lstrip("0" if self.language == "en" else "")

    def time(self, time: datetime) -> str:
        """Return a time in UTC, such as ``26 Nov 2026 02:12``."""
        utc = time.astimezone(UTC)
        forms: Mapping[Language, str] = {"en": "%d %b %Y %H:%M", "zh-CN": "%Y-%m-%d %H:%M", "ru": "%d.%m.%Y %H:%M"}
        return f"{utc:{forms[self.language]}}"
