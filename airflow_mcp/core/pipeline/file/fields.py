"""The field types of a ModelPipeline file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic.types import Strict

from airflow_mcp.core.argument import closest, shown
from airflow_mcp.core.code.source import SCHEMES
from airflow_mcp.core.duration import DURATION, seconds_of
from airflow_mcp.core.kubernetes_fields import image_reference
from airflow_mcp.core.metrics import check_spelling
from airflow_mcp.core.workload.connection_values import REFERENCE_WORDS, is_reference

_QUANTITY = re.compile(r"\d{1,12}(\.\d{1,3})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?")
_PAGE = re.compile(r"(?P<url>.+?)((/-)?/(tree|blob|commit)/(?P<revision>[^/]+).*|(?<=[^/])@(?P<ref>[^/@:]+))")
"""A page of a repository in the browser, or a URL with a revision appended as pip writes it."""
EXPANDABLE = "expandable"
"""Key in a field's JSON schema: ``${NAME:-default}`` is replaced from the environment."""


class SpecModel(BaseModel):
    """Base of every section: frozen, names in camelCase, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, protected_namespaces=())


def parse_duration(text: str) -> str:
    """Check a duration and return it as it was written.

    :param text: a whole number and ``s``, ``m``, ``h`` or ``d``.
    :raises ValueError: for anything else, and for zero.
    """
    if seconds_of(text) == 0:
        raise ValueError(f"must be longer than zero; got {text!r}")
    return text


def _with_unit(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        message = f"must have a unit: s, m, h or d, for example 30m; got {value}"
        raise ValueError(message)  # noqa: TRY004 -- pydantic turns ValueError into a problem
    return value


def _connection_value(value: Any) -> Any:
    if not is_reference(value):  # never repeated: it may be the secret itself
        raise ValueError(f"must be {REFERENCE_WORDS}; got a value that is not shown")
    return value


def _connection_id(text: str) -> str:
    if "://" in text:  # never repeated: the address of a webhook is a secret
        raise ValueError(
            "must be the id of an Airflow connection that holds the address; got a value that is not shown"
        )
    return text


def _image(text: str) -> str:
    return text if "${" in text else image_reference(text)


def _repository(text: str) -> str:
    """Check a Git URL; a text without ``://`` is a folder or ``user@host:path``."""
    scheme, colon, rest = text.partition("://")
    if not colon or "${" in text:
        return text
    if scheme.lower() not in SCHEMES:
        near = closest(scheme, SCHEMES)
        hint = f". Did you mean {near}://{rest}?" if near else ""
        raise ValueError(f"must begin with one of {', '.join(f'{each}://' for each in SCHEMES)}; got {text!r}{hint}")
    page = _PAGE.fullmatch(text)
    if page is not None:
        revision = page["revision"] or page["ref"]
        raise ValueError(
            f"must be the URL to clone from; got {text!r}. Write repoUrl: {page['url']} and revision: {revision}"
        )
    return text


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _relative_path(path: str) -> str:
    parts = path.split("/")
    if "\\" in path:
        raise ValueError(f"must have / between folders, on Windows too; got {path!r}")
    if "${" in path:
        raise ValueError(f"must be a fixed path, because variables are not replaced here; got {path!r}")
    if path.startswith("/") or "\\" in path or ".." in parts or "\x00" in path:
        raise ValueError(f"must be a relative path with / and without ..; got {path!r}")
    return path


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text; got a line break or another control character")
    return text


def _runtime(text: str) -> str:
    if text not in ("local", "kubernetes") and "${" not in text:
        raise ValueError(f"must be one of local, kubernetes; got {text!r}")
    return text


def _quantity(text: str) -> str:
    if _QUANTITY.fullmatch(text) is None or not float(text.rstrip("mkKMGTPi")):
        raise ValueError(f'must be a Kubernetes quantity such as "500m", "2" or "4Gi"; got {text!r}')
    return text


def _metric(name: str) -> str:
    check_spelling(name)
    return name


Text = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]
"""One line of text; it is data, never a template."""
ExpandableText = Annotated[
    str, Field(min_length=1, max_length=1000, json_schema_extra={EXPANDABLE: True}), AfterValidator(_one_line)
]
"""One line of text in which ``${NAME:-default}`` is replaced from the environment."""
Image = Annotated[ExpandableText, AfterValidator(_image)]
"""A container image."""
RepositoryUrl = Annotated[ExpandableText, AfterValidator(_repository)]
"""URL of a Git repository, or a folder."""
_NAME = r"^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$"
Name = Annotated[str, StringConstraints(pattern=_NAME, max_length=200)]
"""Lower-case letters, digits, ``-``, ``_`` and ``.``; begins and ends with a letter or digit."""
_STAGE_NAME = r"^[a-z]([a-z0-9_]*[a-z0-9])?$"
StageName = Annotated[str, StringConstraints(pattern=_STAGE_NAME, max_length=60)]
"""Lower-case letters, digits and ``_``; begins with a letter. It becomes a task id."""
_VARIABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
VariableName = Annotated[str, StringConstraints(pattern=_VARIABLE_NAME, max_length=200)]
"""Name of an environment variable."""
ConnectionId = Annotated[Text, AfterValidator(_connection_id)]
"""Id of an Airflow connection."""
ConnectionReference = Annotated[str, BeforeValidator(_connection_value)]
"""Where a secret is stored: ``<connection>.<field>``."""
SecretVariables = dict[VariableName, ConnectionReference]
"""Environment variables whose values are stored in Airflow connections."""
_METRIC_NAME = r"^[A-Za-z_][A-Za-z0-9_./@]*$"
MetricName = Annotated[str, StringConstraints(pattern=_METRIC_NAME, max_length=200), AfterValidator(_metric)]
"""Name of a metric, as in MLflow (``latency_ms``) or in camelCase (``latencyMs``)."""
Duration = Annotated[
    str,
    BeforeValidator(_with_unit),
    AfterValidator(parse_duration),
    Field(examples=["90s", "30m", "2h", "1d"], json_schema_extra={"pattern": f"^{DURATION.pattern}$"}),
]
"""A duration: a whole number and ``s``, ``m``, ``h`` or ``d``."""
RelativePath = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_relative_path)]
"""Path inside the folder that it is relative to."""
Quantity = Annotated[
    str,
    BeforeValidator(
        _number_as_text,
        json_schema_input_type=Annotated[str, StringConstraints(pattern=f"^{_QUANTITY.pattern}$")] | int | float,
    ),
    AfterValidator(_quantity),
]
"""A Kubernetes quantity."""
Whole = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
ConfigValues = dict[str, Any]
"""JSON values by name."""
_COMPARATOR = r"^\s*(>=|<=|>|<)\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"


def _bound(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number and not (isinstance(value, str) and re.fullmatch(_COMPARATOR, value) and len(value) < 60):
        message = f"must be a number, or >=, <=, > or < and a number, for example '>= 0.92'; got {shown(value)}"
        raise ValueError(message)
    return value


Bound = Annotated[
    float | str,
    BeforeValidator(_bound, json_schema_input_type=float | Annotated[str, StringConstraints(pattern=_COMPARATOR)]),
]
"""A number, or a comparison with a number, for example ``>= 0.92``."""
Runtime = Annotated[
    str,
    Field(
        json_schema_extra={EXPANDABLE: True, "pattern": r"^(local|kubernetes)$|\$\{"}, examples=["local", "kubernetes"]
    ),
    AfterValidator(_runtime),
]
"""``local`` or ``kubernetes``, checked after ``${NAME}`` is replaced."""
PodSettings = dict[str, Annotated[Any, Field(json_schema_extra={EXPANDABLE: True})]]
"""Pod options by name; text values are expandable."""
WORDS_OF_PATTERNS: Mapping[str, str] = {
    _NAME: "lower-case letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
    _STAGE_NAME: "lower-case letters, digits and '_', beginning with a letter",
    _VARIABLE_NAME: "letters, digits and '_', not beginning with a digit",
    _METRIC_NAME: "a metric: letters, digits and any of _ . / @, beginning with a letter",
}
"""What each pattern allows, in words for messages."""
