"""Check arguments, and describe in plain words what is wrong with them; every problem is listed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from airflow_mcp.exceptions import InvalidArgumentError

NO_CHAMPION = "none"
"""Stands in XCom for the version when there is no champion, so that a missing XCom is never taken for that."""
ENVIRONMENTS = ("dev", "test", "prod")
"""Where a pipeline runs, and where the registry and its audit log belong."""
MAX_DRAWN_ROWS = 1_000_000
"""Most rows drawn for something whose time grows with the rows, such as the explanation of a model."""
OnRefusal = Literal["fail", "skip"]
OnInconclusive = Literal["fail", "skip", "continue"]
_VERSION = re.compile(r"[1-9]\d*")
_NO_XCOM = "If it comes from another task, that task pushed no XCom"
_MAX_SHOWN = 80
"""Characters of a wrong value that a message repeats."""
_WANTED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
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
_Policy = TypeVar("_Policy")


# --- mappings -------------------------------------------------------------------------------------------------------


def read_argument(model: type[_Model], name: str, value: Any) -> _Model:
    """Read one mapping strictly.

    :param model: class of the result.
    :param name: name of the argument, for the message.
    :param value: the mapping.
    :raises InvalidArgumentError: listing every problem.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidArgumentError(problems_of(error, name, model, prefix=name)) from None


def read_list(model: type[_Model], name: str, values: Any) -> tuple[_Model, ...]:
    """Read a list of mappings, or a single one.

    :param model: class of each item.
    :param name: name of the argument, for the message.
    :param values: the list.
    :raises InvalidArgumentError: with the problems of every item.
    """
    if isinstance(values, Mapping):
        return (read_argument(model, name, values),)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidArgumentError(f"{name} must be a mapping or a list of mappings; got {values!r}")
    read, problems = [], []
    for position, value in enumerate(values):
        try:
            read.append(read_argument(model, f"{name}[{position}]", value))
        except InvalidArgumentError as error:
            problems.append(str(error))
    if problems:
        raise InvalidArgumentError(sentences(*problems))
    return tuple(read)


def read_metric_list(model: type[_Model], name: str, values: Any) -> tuple[_Model, ...]:
    """Read a list of mappings with a ``metric``; an item may be just the name of the metric.

    :param model: class of each item.
    :param name: name of the argument, for the message.
    :param values: the list.
    :raises InvalidArgumentError: with the problems of every item.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidArgumentError(f"{name} must be a list of metrics or mappings; got {values!r}")
    return read_list(model, name, [{"metric": value} if isinstance(value, str) else value for value in values])


def read_policy(
    kind: type[_Policy],
    policy: _Policy | Mapping[str, Any] | None,
    short: Mapping[str, Any],
    defaults: Mapping[str, Any],
    build: Callable[[Mapping[str, Any]], _Policy],
) -> _Policy:
    """Return a policy from an object, or from a mapping and the operator arguments that set single fields.

    :param kind: class of the policy.
    :param policy: the policy, a mapping of its fields, or None.
    :param short: fields that are operator arguments of their own, with their values.
    :param defaults: the defaults of these arguments; an argument at its default counts as not given.
    :param build: makes a policy from its fields.
    :raises InvalidArgumentError: when a field is given both ways, or the policy is neither object nor mapping.
    """
    given = sorted(name for name, value in short.items() if value != defaults[name] and (value or defaults[name]))
    if isinstance(policy, kind):
        if given:
            raise InvalidArgumentError(
                f"{', '.join(given)} and a {kind.__name__} are both given. Set these fields in the policy"
            )
        return policy
    if policy is not None and not isinstance(policy, Mapping):
        raise InvalidArgumentError(f"policy must be a {kind.__name__} or a mapping of its fields; got {policy!r}")
    fields = policy or {}
    if twice := [name for name in given if name in fields]:
        raise InvalidArgumentError(
            f"{', '.join(twice)} is given as an argument and in the policy. Set each field in one place only"
        )
    return build({**short, **fields})


# --- single values, after templates were rendered -------------------------------------------------------------------


def required_text(name: str, value: Any) -> str:
    """Check that a value is text that is not empty.

    :param name: name of the argument, for the message.
    :param value: its value.
    :raises InvalidArgumentError: when it is missing, empty, or not text.
    """
    # Jinja renders a missing XCom as "None".
    if not isinstance(value, str) or not value.strip() or value == "None":
        raise InvalidArgumentError(f"{name} must be text that is not empty; got {value!r}. {_NO_XCOM}")
    return value


def flag(name: str, value: Any) -> bool:
    """Read a value that must be true or false.

    :param name: name of the argument, for the message.
    :param value: a bool, or the text that a template rendered it to.
    :raises InvalidArgumentError: when it is anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise InvalidArgumentError(f"{name} must be true or false; got {value!r}")


def whole_number(name: str, value: Any) -> int:
    """Read a value that must be a whole number.

    :param name: name of the argument, for the message.
    :param value: a number, or the text that a template rendered it to.
    :raises InvalidArgumentError: when it is anything else.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.removeprefix("-").isdecimal():
        return int(text)
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    raise InvalidArgumentError(f"{name} must be a whole number; got {value!r}")


def rows_to_draw(name: str, value: Any) -> int:
    """Check how many rows to draw for something whose time grows with the rows.

    :param name: name of the argument, for the message.
    :param value: 0 for none.
    :raises InvalidArgumentError: when it is not a whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DRAWN_ROWS:
        raise InvalidArgumentError(f"{name} must be a whole number from 0 to {MAX_DRAWN_ROWS}; got {value!r}")
    return value


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Check that a value is one of a few words.

    :param name: name of the argument, for the message.
    :param value: its value.
    :param allowed: the words.
    :raises InvalidArgumentError: when it is none of them.
    """
    if value not in allowed:
        raise InvalidArgumentError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    return str(value)


def matched(pattern: re.Pattern[str], text: str, wanted: str) -> str:
    """Check that a text has a form, and return it; for validators of pydantic, which name the argument.

    :param pattern: the form.
    :param text: the text.
    :param wanted: the form in words, after "must".
    :raises ValueError: when the text has another form.
    """
    if not pattern.fullmatch(text):
        raise ValueError(f"must {wanted}; got {text!r}")
    return text


def version_number(name: str, value: Any, *, none_allowed: bool = False) -> str:
    """Check that a value is the number of a model version.

    :param name: name of the argument, for the message.
    :param value: its value.
    :param none_allowed: whether ``none`` may stand for "no version".
    :raises InvalidArgumentError: when it is anything else; a missing value does not mean "no version".
    """
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if _VERSION.fullmatch(text) or (none_allowed and text == NO_CHAMPION):
        return text
    wanted = "a version number" + (f" or {NO_CHAMPION!r}" if none_allowed else "")
    raise InvalidArgumentError(f"{name} must be {wanted}; got {value!r}. {_NO_XCOM}")


# --- problems that pydantic found, in words -------------------------------------------------------------------------


def problems_of(
    error: ValidationError, whole: str, model: type[BaseModel] | None = None, *, prefix: str = "", then: str = ""
) -> str:
    """Describe every problem, each with its place: ``rules[0].min_rows must be at least 1; got 0``.

    :param error: what the validation raised.
    :param whole: place of a problem with the value as a whole.
    :param model: class that was validated; its names help with an unknown one.
    :param prefix: written before every place.
    :param then: last sentence of the message: what happens next.
    """
    found = (text for _, text in located_problems(error, whole, model, prefix=prefix))
    return sentences(*dict.fromkeys(found), then)


def located_problems(
    error: ValidationError, whole: str, model: type[BaseModel] | None = None, *, prefix: str = ""
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Describe every problem with the path to its value; see :func:`problems_of`."""
    for item in error.errors(include_url=False):
        yield item["loc"], _problem(item, write_place(prefix, item["loc"]) or whole, model)


def sentences(*parts: str) -> str:
    """Join the sentences of a message; empty ones are left out."""
    text = ""
    for part in filter(None, parts):
        text += part if not text else f" {part}" if text.endswith("?") else f". {part}"
    return text


def _problem(item: Any, place: str, model: type[BaseModel] | None) -> str:
    words = in_words(item)
    if item["type"] == "value_error":
        return f"{place}: {words}"
    if item["type"] == "extra_forbidden" and model is not None:
        owner = _owner(model, item["loc"][:-1])
        return f"{place} {words}. {nearest(str(item['loc'][-1]), names_of(owner))}"
    return f"{place} {words}"


def write_place(prefix: str, steps: Sequence[str | int]) -> str:
    """Write the place of a value inside another one: ``rules[0].min_rows``.

    :param prefix: name of the outer value; may be empty.
    :param steps: names and positions, from the outside in.
    """
    return "".join([prefix, *(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)]).lstrip(".")


def _owner(model: type[BaseModel], steps: Sequence[str | int]) -> type[BaseModel]:
    """Find the model that a path leads to; keys of mappings and positions in lists stay in the same model."""
    for step in steps:
        found = (field for name, field in model.model_fields.items() if step in (name, field.alias))
        field = next(found, None)
        model = next(models_in(field.annotation), model) if field is not None else model
    return model


def names_of(model: type[BaseModel]) -> list[str]:
    """Return the names of a model's fields as users write them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return the models that a type may hold, in the order in which it names them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


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
    if kind == "json_invalid":
        return f"is not valid JSON: {context['error']}"
    if kind in _WANTED:
        wanted = _WANTED[kind]
    elif kind in _LIMITS:
        word, limit = _LIMITS[kind]
        bound = context[limit]
        wanted = word.format(f"{bound:g}" if isinstance(bound, float) else bound)
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
        if isinstance(value, float):  # 1.10 was read as 1.1, so what was written is not known
            return ". Put what you wrote in quotes"
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
    longer = [
        other
        for other in lowered
        if min(len(other), len(wanted)) > 2 and (wanted.startswith(other) or other.startswith(wanted))
    ]
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
        return "nothing"
    names = {bool: "a boolean", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}
    return names.get(type(value), "a list")
