"""The values that Kubernetes takes in names, labels, images and quantities, checked before anything is applied."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator

from airflow_mcp.core.argument import matched, shown
from airflow_mcp.core.quantity import amount_of

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_KEY = re.compile(r"[-._A-Za-z0-9]{1,253}")
_IMAGE = re.compile(
    r"([a-zA-Z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
"""Registry, path, tag and digest, as container runtimes read them."""
_CPU_UNITS = re.compile(r"[0-9.]+m?")
_LEAST_MEMORY = 64 * 1024**2
"""64 MiB: Python alone needs more. What is less was meant in another unit, such as ``2`` for ``2Gi``."""


def namespace_name(text: str) -> str:
    """Check the name of a namespace, and return it.

    :raises ValueError: when Kubernetes would refuse it.
    """
    wanted = "have at most 63 lower-case letters, digits and dashes, and begin and end with a letter or digit"
    return matched(_LABEL, text, wanted)


def object_name(text: str) -> str:
    """Check the name of a Secret, a service account, a Service or a Gateway, and return it.

    :raises ValueError: when Kubernetes would refuse it.
    """
    wanted = "have at most 253 lower-case letters, digits, dashes and dots, and begin and end with a letter or digit"
    return matched(_SUBDOMAIN, text, wanted)


def secret_key(text: str) -> str:
    """Check the key of an entry in a Secret, and return it.

    :raises ValueError: when Kubernetes would refuse it.
    """
    return matched(_SECRET_KEY, text, "have at most 253 letters, digits and any of - _ . ")


def image_reference(text: str) -> str:
    """Check the name of a container image, and return it.

    :raises ValueError: when no container runtime could read it.
    """
    wanted = (
        "be an image such as registry.example.com/team/churn:1.2 in lower case, or with a digest of 64 digits after "
        "@sha256:"
    )
    return matched(_IMAGE, text, wanted)


def variable_names(values: Mapping[str, str]) -> None:
    """Check the names of environment variables.

    :raises ValueError: naming the first that is wrong.
    """
    for name in values:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"name must have letters, digits and _, and not begin with a digit; got {name!r}")


def label_keys(values: Mapping[str, str]) -> None:
    """Check the keys of labels or annotations: a name, after a domain and ``/`` or not.

    :raises ValueError: naming the first that is wrong.
    """
    for key in values:
        domain, slash, name = key.rpartition("/")
        if not _QUALIFIED.fullmatch(name) or (slash and not _SUBDOMAIN.fullmatch(domain)):
            raise ValueError(
                "key must have at most 63 letters, digits and any of - _ . after an optional domain and /, and begin "
                f"and end with a letter or digit; got {key!r}"
            )


def labels(values: dict[str, str]) -> dict[str, str]:
    """Check labels, keys and values, and return them.

    :raises ValueError: naming the first that Kubernetes would refuse.
    """
    label_keys(values)
    for key, value in values.items():
        if value and not _QUALIFIED.fullmatch(value):
            raise ValueError(
                f"{key} must be empty, or have at most 63 letters, digits and any of - _ . and begin and end with a "
                f"letter or digit; got {value!r}"
            )
    return values


def _cpu(text: str) -> str:
    if not _CPU_UNITS.fullmatch(text) or amount_of(text) <= 0:
        raise ValueError(f'must be CPUs such as "500m" or "2", more than 0; got {text!r}')
    return text


def _memory(text: str) -> str:
    if amount_of(text) < _LEAST_MEMORY or text.endswith("m"):
        raise ValueError(f'must be memory such as "2Gi" or "512Mi", at least 64Mi; got {text!r}')
    return text


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number; got {shown(value)}")  # noqa: TRY004 -- pydantic takes ValueError
    return value


def _or_empty(check: Callable[[str], str]) -> AfterValidator:
    return AfterValidator(lambda text: check(text) if text else text)


Namespace: TypeAlias = Annotated[str, AfterValidator(namespace_name)]
NamespaceOrEmpty: TypeAlias = Annotated[str, _or_empty(namespace_name)]
ObjectName: TypeAlias = Annotated[str, AfterValidator(object_name)]
ObjectNameOrEmpty: TypeAlias = Annotated[str, _or_empty(object_name)]
SecretKey: TypeAlias = Annotated[str, AfterValidator(secret_key)]
ImageReference: TypeAlias = Annotated[str, AfterValidator(image_reference)]
Labels: TypeAlias = Annotated[dict[str, str], AfterValidator(labels)]
Cpu: TypeAlias = Annotated[str, AfterValidator(_cpu)]
Memory: TypeAlias = Annotated[str, AfterValidator(_memory)]
NotAFlag = BeforeValidator(_no_flag)
"""Refuses true and false, which Python takes for 1 and 0, where a number is wanted."""
