"""Cron expressions, checked without a scheduler: five fields, their names and ranges, and that the day exists."""

from __future__ import annotations

import re
from typing import NamedTuple

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
ROUGHLY = rf"^({'|'.join(PRESETS)}|[0-9A-Za-z*,/-]+( +[0-9A-Za-z*,/-]+){{4}})$"
"""A pattern for editors: five fields or a preset. :func:`check_cron` checks more."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?P<first>\*|[0-9]{1,2}|[a-z]{3})(-(?P<last>[0-9]{1,2}|[a-z]{3}))?(/(?P<step>[0-9]{1,2}))?")


class _Field(NamedTuple):
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)


def check_cron(text: str) -> str:
    """Check a cron schedule and return it as it was written.

    :param text: minute, hour, day of month, month and day of week, or one of :data:`PRESETS`.
    :raises ValueError: when it is wrong, naming the field and what is allowed.
    """
    if text in PRESETS:
        return text
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            "must have five fields (minute, hour, day of month, month, day of week), for example '0 2 * * *', or be "
            f"one of {', '.join(PRESETS)}; got {text!r} with {len(parts)}"
        )
    values = [_values(part, field, text) for part, field in zip(parts, _FIELDS, strict=True)]
    days, months = values[2], values[3]
    if parts[4] == "*" and all(min(days) > _LONGEST[month - 1] for month in months):
        raise ValueError(f"{text!r} would never start: no such month has that day")
    return text


def _values(part: str, field: _Field, text: str) -> set[int]:
    found: set[int] = set()
    for item in part.lower().split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise _wrong(part, field, text)
        first = field.lowest if match["first"] == "*" else _number(match["first"], field)
        last = first if match["last"] is None else _number(match["last"], field)
        if match["last"] is None and (match["first"] == "*" or match["step"] is not None):
            last = field.highest
        step = 1 if match["step"] is None else int(match["step"])
        if first is None or last is None or first > last or step == 0 or (match["first"] == "*" and match["last"]):
            raise _wrong(part, field, text)
        found.update(range(first, last + 1, step))
    return found


def _number(text: str, field: _Field) -> int | None:
    if text.isdigit():
        return int(text) if field.lowest <= int(text) <= field.highest else None
    return field.names.index(text) + field.lowest if text in field.names else None


def _wrong(part: str, field: _Field, text: str) -> ValueError:
    names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    return ValueError(
        f"the {field.name} must be *, {field.lowest} to {field.highest}{names}, a range (1-5), a list (1,3) "
        f"or a step (*/2); got {part!r} in {text!r}"
    )
