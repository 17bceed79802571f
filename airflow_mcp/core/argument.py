"""Arguments that are mappings: read strictly, with every problem listed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_mcp.exceptions import InvalidArgumentError

NO_CHAMPION = "none"
"""What XCom says instead of a version when there is no champion: a missing value must not read as "no champion"."""
MAX_DRAWN_ROWS = 1_000_000
_VERSION = re.compile(r"[1-9]\d*")
_MAX_SHOWN = 80
"""Characters of a wrong value that a message repeats."""
_WANTED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_LIMITS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("more than {}", "gt"),
    "greater_than_equal": ("at least {}", "ge"),
    "less_than": ("less than {}", "lt"),
    "less_than_equal": ("at most {}", "le"),
    "too_short": ("a list with at least {} entry", "min_length"),
    "string_too_short": ("text that is not empty", "min_length"),
    "string_too_long": ("text of at most {} characters", "max_length"),
}

_Model = TypeVar("_Model", bound=BaseModel)


def read_argument(model: type[_Model], name: str, value: Any) -> _Model:
    """Read one mapping.

    :param model: what it must be.
    :param name: the argument's name, for the message.
    :param value: what was given.
    :raises InvalidArgumentError: naming every problem, the value and the names that are allowed.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, (name, *item['loc'])))}: {item['msg']}{_given(item['input'])}"
            for item in error.errors()
        )
        raise InvalidArgumentError(f"{problems}. Allowed names: {', '.join(model.model_fields)}") from None


def _given(value: Any) -> str:
    """Repeat a single value; a mapping or list is not repeated: something else in it may be a secret."""
    return "" if isinstance(value, Mapping | list | tuple) else f" (got {value!r})"


def read_list(model: type[_Model], name: str, values: Any) -> tuple[_Model, ...]:
    """Read a list of mappings, or a single one.

    :param model: what each item must be.
    :param name: the argument's name, for the message.
    :param values: what was given.
    :raises InvalidArgumentError: with the problems of every item.
    """
    if isinstance(values, Mapping):
        return (read_argument(model, name, values),)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidArgumentError(f"{name} must be a mapping or a list of mappings, got {values!r}")
    read, problems = [], []
    for position, value in enumerate(values):
        try:
            read.append(read_argument(model, f"{name}[{position}]", value))
        except InvalidArgumentError as error:
            problems.append(str(error))
    if problems:
        raise InvalidArgumentError("; ".join(problems))
    return tuple(read)


def read_metric_list(model: type[_Model], name: str, values: Any) -> tuple[_Model, ...]:
    """Read a list whose items are mappings with a ``metric``, or just the metric's name.

    :param model: what each item must be.
    :param name: the argument's name, for the message.
    :param values: what was given.
    :raises InvalidArgumentError: with the problems of every item.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidArgumentError(f"{name} must be a list of metrics or mappings, got {values!r}")
    return read_list(model, name, [{"metric": value} if isinstance(value, str) else value for value in values])


def required_text(name: str, value: Any) -> str:
    """Check a templated argument that must be a text with something in it.

    :param name: name of the argument, for the message.
    :param value: its value after rendering.
    :raises InvalidArgumentError: when it is missing, empty, or not a text.
    """
    if not isinstance(value, str) or not value.strip() or value == "None":
        raise InvalidArgumentError(
            f"{name} is {value!r}; a non-empty text is needed. If it comes from another task, that task pushed nothing."
        )
    return value


def flag(name: str, value: Any) -> bool:
    """Read a templated argument that must be true or false.

    :param name: name of the argument, for the message.
    :param value: a bool, or the text that a template rendered one to.
    :raises InvalidArgumentError: when it is anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise InvalidArgumentError(f"{name} is {value!r}; allowed: true or false")


def whole_number(name: str, value: Any) -> int:
    """Read a templated argument that must be a whole number.

    :param name: name of the argument, for the message.
    :param value: a number, or the text that a template rendered one to.
    :raises InvalidArgumentError: when it is anything else.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.removeprefix("-").isdecimal():
        return int(text)
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    raise InvalidArgumentError(f"{name} is {value!r}; allowed: a whole number")


def rows_to_draw(name: str, value: Any) -> int:
    """Check how many rows are drawn for something that costs time by the row.

    :param name: name of the argument, for the message.
    :param value: 0 for none.
    :raises InvalidArgumentError: when it is no whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DRAWN_ROWS:
        raise InvalidArgumentError(f"{name} is {value!r}; allowed: a number from 0 to {MAX_DRAWN_ROWS}")
    return value


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Check a templated argument that must be one of a few words.

    :param name: name of the argument, for the message.
    :param value: its value after rendering.
    :param allowed: the words.
    :raises InvalidArgumentError: when it is none of them.
    """
    if value not in allowed:
        raise InvalidArgumentError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
    return str(value)


def version_number(name: str, value: Any, *, none_allowed: bool = False) -> str:
    """Check a templated argument that must be the number of a version.

    :param name: name of the argument, for the message.
    :param value: its value after rendering.
    :param none_allowed: whether ``none`` may be said instead, for no version.
    :raises InvalidArgumentError: when it is anything else; a missing value does not mean that there is none.
    """
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if _VERSION.fullmatch(text) or (none_allowed and text == NO_CHAMPION):
        return text
    allowed = "a version number" + (f" or {NO_CHAMPION!r}" if none_allowed else "")
    raise InvalidArgumentError(
        f"{name} is {value!r}; allowed: {allowed}. If it comes from another task, that task pushed nothing."
    )


OnRefusal = Literal["fail", "skip"]
ON_REFUSAL: tuple[str, ...] = ("fail", "skip")


# --- problems that pydantic found, in words -------------------------------------------------------------------------


def in_words(detail: Any, patterns: Mapping[str, str] = MappingProxyType({})) -> str:
    """Describe what is wrong with one value: ``must be at least 0; got -1``.

    :param detail: one entry of ``ValidationError.errors()``. An unknown name needs :func:`nearest` in addition.
    :param patterns: what regular expressions allow, in words.
    """
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not a known name"
    if kind == "value_error":
        return str(context["error"])
    if kind in _WANTED:
        wanted = _WANTED[kind]
    elif kind in _LIMITS:
        word, limit = _LIMITS[kind]
        wanted = word.format(context[limit])
    elif kind == "literal_error":
        wanted = _choices(context["expected"])
    elif kind == "string_pattern_mismatch":
        wanted = patterns.get(context["pattern"], f"text of the form {context['pattern']}")
    else:
        wanted = detail["msg"].removeprefix("Input should be ")
    return f"must be {wanted}; got {shown(value)}{_advice(kind, value, context)}"


def _choices(expected: str) -> str:
    words = expected.replace("'", "").replace(" or ", ", ")
    return f"one of {words}" if "," in words else words


def _advice(kind: str, value: Any, context: Mapping[str, Any]) -> str:
    """Write what the user probably meant, as a sentence of its own."""
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f". Write '{shown(value)}' in quotes"
    if kind in ("tuple_type", "list_type") and isinstance(value, str) and value.isidentifier():
        return f". Write [{value}]"
    if kind == "literal_error" and isinstance(value, str):
        near = closest(value, context["expected"].replace("'", "").replace(" or ", ", ").split(", "))
        return f". Did you mean {near!r}?" if near else ""
    return ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Write the known names, after the nearest one if one is near: ``Did you mean 'image'? Known names: ...``.

    :param name: the unknown name.
    :param known: the names that exist.
    """
    names = sorted(known)
    near = closest(name, names)
    hint = f"Did you mean {near!r}? " if near else ""
    return f"{hint}Known names: {', '.join(names)}" if names else "No names are known here"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that was probably meant, whatever its case and in ``snake_case`` too.

    :param name: the unknown name.
    :param known: the names that exist.
    :return: None when none is near.
    """
    lowered = {each.replace("_", "").lower(): each for each in known}
    wanted = name.replace("_", "").replace("-", "").lower()
    longer = [other for other in lowered if len(other) > 2 and len(wanted) > 2 and wanted.startswith(other)]
    near = difflib.get_close_matches(wanted, list(lowered), n=1, cutoff=0.6) or longer[:1]
    return lowered[near[0]] if near else None


def shown(value: Any) -> str:
    """Write a wrong value for a message; a mapping or list is only named, because a value in it may be secret.

    :param value: the value.
    """
    if value is None:
        return "an empty value"
    if isinstance(value, Mapping | list | tuple):
        kind = "mapping" if isinstance(value, Mapping) else "list"
        return f"a {kind}" if value else f"an empty {kind}"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def kind_of(value: object) -> str:
    """Describe the type of a JSON value in a word or two."""
    if value is None:
        return "empty"
    names = {bool: "a boolean", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}
    return names.get(type(value), "a list")
