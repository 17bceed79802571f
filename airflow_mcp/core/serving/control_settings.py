"""Settings of what a model server follows, checks, limits and logs, read from environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.serving.pairing import PairingMode, PairingRule
from airflow_mcp.core.serving.prediction_log import LogRule
from airflow_mcp.core.serving.setting_values import check_digest, check_host, check_upstream, describe_settings
from airflow_mcp.exceptions import InvalidArgumentError

_GIBIBYTE = 1024**3
_Bytes = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ControlSettings(Document):
    """What a model server follows, checks, limits and logs; described in ``docs/serving/following.md``."""

    poll_seconds: _Seconds = 15.0
    """Seconds between two looks at the registry."""
    registry_timeout: _Seconds = 5.0
    """Seconds after which one look is given up."""
    require_registry: bool = False
    """Whether the server is ready only after it has read the registry once."""
    cache_folder: str = "/tmp/airflow-mcp-serving"  # noqa: S108  (of a container; an emptyDir in a pod)
    cache_bytes: _Bytes = 20 * _GIBIBYTE
    """Bytes of all versions on disk; versions that are wanted stay even beyond it."""
    keep_warm: Annotated[int, Field(ge=0, le=100)] = 1
    """Versions of each model that stay loaded after they were wanted."""
    memory_bytes: _Bytes = 0
    """Memory for all versions; 0 takes the limit of the container."""
    pairing: PairingMode = "enforce"
    allowed_data: tuple[str, ...] = ()
    passport_keys: str = ""
    """File with the public keys whose passports count, PEM; empty requires no passports."""
    clearance: Literal["", "dev", "test", "prod"] = ""
    """Environment for which each version must have a clearance; empty requires none."""
    image_digest: str = ""
    """Digest of the image that serves, ``sha256:...``."""
    forced: bool = False
    """Whether callers may choose a version by a header."""
    policies: tuple[str, ...] = ()
    """Files with documents of ``kind: TrafficPolicy`` and ``kind: RollbackPolicy``."""
    service: str = ""
    """Name of the headless Service, under which the other replicas are found; empty for none."""
    webhook_secret: str = Field("", repr=False)
    """Secret that MLflow signs its webhooks with; empty accepts none."""
    log_uri: str = Field("", repr=False)
    """Address of the prediction log; empty for none."""
    log_folder: str = "/tmp/airflow-mcp-prediction-log"  # noqa: S108  (of a container; an emptyDir in a pod)
    log_sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the requests that are logged."""
    log_disk_bytes: _Bytes = _GIBIBYTE
    """Bytes that may wait on disk while the store is away; beyond, the oldest go."""
    log_exclude: tuple[str, ...] = ()
    """Input columns that are not logged."""
    log_hash: tuple[str, ...] = ()
    """Input columns of which only a keyed hash is logged."""
    log_hash_key: str = Field("", repr=False)
    outliers: bool = False
    """Whether rows are counted that the training data does not cover."""
    allowed_upstreams: tuple[str, ...] = ()
    """Beginnings of addresses to which a version's tag may lead requests."""

    @field_validator("allowed_data", "policies", "log_exclude", "log_hash", "allowed_upstreams", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("log_hash_key")
    @classmethod
    def _with_key(cls, value: str, info: Any) -> str:
        if (value or info.data.get("log_hash")) and len(value) < 16:
            raise ValueError(
                "must be a secret of at least 16 characters, and is needed for LOG_HASH; got a value that is not shown"
            )
        return value

    @field_validator("clearance")
    @classmethod
    def _signed(cls, value: str, info: Any) -> str:
        if value and not info.data.get("passport_keys"):
            raise ValueError(f"must have keys that it is checked with: set PASSPORT_KEYS too; got {value!r} without")
        return value

    @field_validator("service")
    @classmethod
    def _service(cls, value: str) -> str:
        return check_host(value) if value else value

    @field_validator("image_digest")
    @classmethod
    def _digest(cls, value: str) -> str:
        return check_digest(value) if value else value

    @field_validator("allowed_upstreams")
    @classmethod
    def _upstreams(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_upstream, value))

    @property
    def pairing_rule(self) -> PairingRule:
        """What is checked before a version is loaded."""
        return PairingRule(self.pairing, self.allowed_data)

    @property
    def log_rule(self) -> LogRule:
        """What is written of a request."""
        return LogRule(frozenset(self.log_exclude), frozenset(self.log_hash), self.log_hash_key.encode())


NAMES = frozenset(ControlSettings.model_fields)


def read_control_settings(environment: Mapping[str, str], prefix: str, **given: Any) -> ControlSettings:
    """Read the settings.

    :param environment: environment variables; empty ones count as not set.
    :param prefix: beginning of their names.
    :param given: settings that take precedence, by name; None counts as not given.
    :raises InvalidArgumentError: listing every wrong value; a value that may be secret is not shown.
    """
    values: dict[str, Any] = {
        name: text.strip() for name in NAMES if (text := environment.get(prefix + name.upper(), "")).strip()
    }
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return ControlSettings.model_validate({"log_hash_key": "", **values})
    except ValidationError as error:
        raise InvalidArgumentError(describe_settings(error, prefix)) from None
