"""Settings of the model server, read from environment variables that begin with ``AIRFLOW_MCP_SERVING_``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.document import Document
from airflow_mcp.core.serving.control_settings import NAMES
from airflow_mcp.core.serving.setting_values import check_host, check_variable_name, describe_settings
from airflow_mcp.exceptions import InvalidArgumentError

PREFIX = "AIRFLOW_MCP_SERVING_"
_MEBIBYTE = 1024 * 1024
_ADDRESS = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))?")
_CHAMPION_WORDS = {"", "champion", "production"}
"""What stands for the champion in an address, in lower case; ``Production`` is MLflow's old name of the stage."""
_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_Coercion = Literal["strict", "mlflow"]
_Batch = Literal["auto", "always", "never"]


class ModelAddress(NamedTuple):
    """One model that the server is asked to serve."""

    name: str
    """Name of the registered model, and of the model in answers."""
    version: str = ""
    """Number of the version; empty follows the alias ``champion``."""
    path: str = ""
    """Folder of the model's files; empty for a model of the registry."""


class ServingSettings(Document):
    """How a model server works; every field is described in ``docs/serving/settings.md``."""

    models: tuple[ModelAddress, ...] = ()
    default_model: str = ""
    """The model that ``/invocations`` asks; empty takes the only one."""
    host: str = "0.0.0.0"  # noqa: S104  (a server in a container; the network policy says who reaches it)
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    """Model processes per version."""
    batch: _Batch = "auto"
    """Whether requests share batches: ``auto`` asks the input example and the flavor."""
    max_batch_rows: Annotated[int, Field(ge=1, le=100_000)] = 64
    max_queue_rows: Annotated[int, Field(ge=1, le=10_000_000)] = 4096
    """Rows that may wait for one version; more are answered 503 at once."""
    shed_latency_ms: Annotated[float, Field(ge=0, le=86_400_000)] = 0
    """Latency above which fewer rows may wait: the 99th percentile of a window of 10 s; 0 never sheds load."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1024 * _MEBIBYTE)] = _MEBIBYTE
    inline_body_bytes: Annotated[int, Field(ge=0)] = 256 * 1024
    """Longer bodies are read in the model process, so that they do not hold up the requests of others."""
    coercion: _Coercion = "strict"
    """``mlflow`` sends what the strict decoder refuses through MLflow's own parser."""
    request_timeout: _Seconds = 30.0
    body_timeout: _Seconds = 10.0
    load_timeout: _Seconds = 300.0
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0
    keep_alive: _Seconds = 75.0
    """Longer than the 60 s of common load balancers, which otherwise write into a closed connection."""
    max_connections: Annotated[int, Field(ge=1)] = 20_000
    retry_after_crash: bool = True
    """Whether requests are asked again when a model process died; false for models with effects."""
    model_environment: tuple[str, ...] = ()
    """Names of environment variables that model processes see besides the usual ones; never put credentials there."""
    access_log: bool = True

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        return check_host(value)

    @field_validator("model_environment", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        return tuple(check_variable_name(name.strip()) for name in names if name.strip())

    @model_validator(mode="after")
    def _with_default(self) -> Self:
        names = [address.name for address in self.models]
        if self.default_model and names and self.default_model not in names:
            raise ValueError(f"{PREFIX}DEFAULT_MODEL must be one of {', '.join(names)}; got {self.default_model!r}")
        return self


def read_settings(environment: Mapping[str, str], **given: Any) -> ServingSettings:
    """Read the settings.

    :param environment: environment variables; empty ones count as not set.
    :param given: settings that take precedence, by name; None counts as not given.
    :raises InvalidArgumentError: listing every wrong value and every unknown variable.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, text in environment.items():
        field = name.removeprefix(PREFIX).lower()
        if not name.startswith(PREFIX) or not text.strip() or field in READ_ELSEWHERE:
            continue
        if field not in ServingSettings.model_fields:
            problems.append(f"{name}: there is no such setting")
        else:
            values[field] = text.strip()
    values |= {name: value for name, value in given.items() if value is not None}
    addresses = values.get("models") or environment.get("MODEL_URI", "")
    try:
        values["models"] = read_addresses(addresses) if isinstance(addresses, str) else addresses
        settings = ServingSettings.model_validate(values)
    except ValidationError as error:
        problems.append(describe_settings(error, PREFIX))
    except InvalidArgumentError as error:
        problems.append(str(error))
    if problems:
        raise InvalidArgumentError("; ".join(problems))
    return settings


READ_ELSEWHERE: frozenset[str] = NAMES
"""Settings of other parts of the server, in lower case and without the prefix."""


def read_addresses(text: str) -> tuple[ModelAddress, ...]:
    """Read one address or several, separated by commas.

    :param text: such as ``models:/fraud@champion``, ``models:/fraud/8``, a bare name, or the path of a folder.
    :raises InvalidArgumentError: when one is none of these, or two have the same name.
    """
    addresses = tuple(_address(part.strip()) for part in text.split(",") if part.strip())
    names = [address.name for address in addresses]
    if len(set(names)) != len(names):
        raise InvalidArgumentError(f"every model must have a name of its own; got {', '.join(names)}")
    return addresses


def _address(text: str) -> ModelAddress:
    name, _, path = text.rpartition("=")
    if name or path.startswith(("/", ".", "~", "file:")):
        folder = Path(path.removeprefix("file://").removeprefix("file:")).expanduser()
        return ModelAddress(name or folder.resolve().name, "", str(folder))
    found = _ADDRESS.fullmatch(text if text.startswith("models:") else f"models:/{text}")
    if found is None:
        raise InvalidArgumentError(
            f"a model must be given as models:/NAME, models:/NAME@{ALIAS_CHAMPION}, models:/NAME/NUMBER, or as a "
            f"folder: /PATH, ./PATH or NAME=PATH; got {text!r}"
        )
    version, alias = found["version"] or "", found["alias"] or ""
    if version.isdigit() and not version.startswith("0"):
        return ModelAddress(found["name"], version)
    if version.lower() in _CHAMPION_WORDS and alias.lower() in _CHAMPION_WORDS:
        return ModelAddress(found["name"])
    raise InvalidArgumentError(
        f"a server follows the alias {ALIAS_CHAMPION!r} or serves one version by its number; got {text!r}"
    )
