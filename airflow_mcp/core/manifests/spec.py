"""What a model server on Kubernetes is made from, as users write it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from airflow_mcp.core.argument import read_argument, shown
from airflow_mcp.core.credential_shapes import is_credential
from airflow_mcp.core.document import Document
from airflow_mcp.core.kubernetes_fields import (
    Cpu,
    ImageReference,
    Labels,
    Memory,
    Namespace,
    NamespaceOrEmpty,
    NotAFlag,
    ObjectName,
    ObjectNameOrEmpty,
    SecretKey,
    label_keys,
    variable_names,
)
from airflow_mcp.core.pipeline.file.policies import RollbackPolicy, TrafficPolicy
from airflow_mcp.core.quantity import amount_of
from airflow_mcp.core.serving.control_settings import read_control_settings
from airflow_mcp.core.serving.settings import PREFIX, read_settings
from airflow_mcp.core.workload.pod_options import SecretVariable
from airflow_mcp.exceptions import InvalidArgumentError

Profile = Literal["safe", "seed"]
Track = Literal["", "blue", "green"]
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?")
_VERSION = re.compile(r"[1-9]\d*")
_Port = Annotated[int, NotAFlag, Field(ge=1, le=65_535)]
_Replicas = Annotated[int, NotAFlag, Field(le=1000)]
_OWNED = frozenset({"models", "host", "port", "policies", "service", "cache_bytes", "drain_seconds", "image_digest"})
"""Settings of the server that follow from other fields."""
_SECRET_SETTINGS = frozenset({"webhook_secret", "log_hash_key"})
"""Settings of the server that come from Secrets only."""


class Resources(Document):
    """Requests and limits of a container, as quantities of Kubernetes."""

    cpu: Cpu = "1"
    """CPU that is requested."""
    cpu_limit: Cpu | None = "2"
    """None: no limit."""
    memory: Memory = "4Gi"
    """Memory that is requested."""
    memory_limit: Memory | None = None
    """None: what is requested, so that the node never runs out of what it has promised."""

    @model_validator(mode="after")
    def _limits_hold_requests(self) -> Self:
        for requested_name in ("cpu", "memory"):
            name = f"{requested_name}_limit"
            requested, limit = getattr(self, requested_name), getattr(self, name)
            if limit is not None and amount_of(limit) < amount_of(requested):
                default = "" if name in self.model_fields_set else ", its default"
                raise ValueError(
                    f"{name} must be at least {requested_name}, {requested!r}; got {limit!r}{default}. Kubernetes "
                    f"refuses pods that request more than their limit: set {name} too"
                )
        return self


class Autoscaling(Document):
    """How many replicas there are, by their load."""

    min_replicas: Annotated[_Replicas, Field(ge=1)] = 2
    max_replicas: Annotated[_Replicas, Field(ge=1)]
    cpu_percent: Annotated[int, NotAFlag, Field(ge=1, le=1000)] = 70
    """Use of the requested CPU that is aimed at, on average over all replicas."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas must be at least min_replicas, {self.min_replicas}; got {self.max_replicas}"
            )
        return self


class NetworkRule(Document):
    """Who may reach the server, and which ports it may reach."""

    from_namespaces: tuple[Namespace, ...] = ()
    """Names of the namespaces whose pods may send requests and read metrics; empty: every pod."""
    to_ports: tuple[_Port, ...] = ()
    """Ports that the server may reach besides DNS and the port of ``tracking_uri``."""


class ServerSecret(SecretVariable):
    """An environment variable from a Secret; Kubernetes must accept every name."""

    secret: ObjectName
    key: SecretKey


class Toleration(Document):
    """A toleration in the form of Kubernetes."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int | None, NotAFlag, Field(alias="tolerationSeconds")] = None


class ModelServerSpec(Document):
    """A model server on Kubernetes; every field is described in ``docs/serving/kubernetes.md``."""

    model_name: Annotated[str, Field(min_length=1)]
    """Registered model."""
    version: str = ""
    """Number of the version to serve; empty follows the alias ``champion``."""
    image: ImageReference
    """Image of the server. Without tag and digest, the version is the tag."""
    tracking_uri: Annotated[str, Field(min_length=1)]
    """Address of MLflow, as pods reach it."""
    name: Annotated[str, Field(validate_default=True)] = ""
    """Name of the objects; empty makes one from the name of the model."""
    namespace: NamespaceOrEmpty = ""
    """Empty leaves it out: whoever applies the objects decides."""
    profile: Profile = "safe"
    track: Track = ""
    """Which of two Deployments behind one Service this is, for blue-green; empty: there is only one."""
    replicas: Annotated[_Replicas, Field(ge=0)] = 2
    """Not written when there is ``autoscaling``."""
    autoscaling: Autoscaling | None = None
    resources: Resources | None = None
    """None takes the resources of the profile."""
    load_seconds: Annotated[float | None, NotAFlag, Field(gt=0, le=86_400)] = None
    """How long the version took to load in its load check; None: not known."""
    drain_seconds: Annotated[float, NotAFlag, Field(ge=0, le=3600)] = 10.0
    """For how long a pod still answers after it was told to end."""
    cache_gib: Annotated[int, NotAFlag, Field(ge=1, le=100_000)] = 20
    """Disk for the files of versions, in GiB."""
    settings: dict[str, str] = Field(default_factory=dict)
    """Settings of the server, by their names without prefix, such as ``PROCESSES``."""
    env: dict[str, str] = Field(default_factory=dict)
    """Further environment variables; no credentials."""
    secrets: tuple[ServerSecret, ...] = ()
    """Environment variables from Secrets, such as ``MLFLOW_TRACKING_PASSWORD``."""
    traffic_policy: TrafficPolicy | None = None
    """What the server accepts, as in a document of ``kind: TrafficPolicy``."""
    rollback_policy: RollbackPolicy | None = None
    """When it goes back by itself, as in a document of ``kind: RollbackPolicy``."""
    network: NetworkRule | None = Field(default_factory=NetworkRule)
    """None: no NetworkPolicy."""
    disruption_budget: bool = True
    """Whether there is a PodDisruptionBudget."""
    service_monitor: bool = False
    """Whether there is a ServiceMonitor, which needs the Prometheus operator."""
    service_account: ObjectNameOrEmpty = ""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[ObjectName, ...] = ()
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    labels: Labels = Field(default_factory=dict)
    """Further labels of all objects and pods."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Further annotations of the pods."""

    @field_validator("version")
    @classmethod
    def _number(cls, value: str) -> str:
        if value and not _VERSION.fullmatch(value):
            raise ValueError(f"must be the number of a version, or empty to follow the champion; got {value!r}")
        return value

    @field_validator("tracking_uri")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            is_address = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:  # a port above 65535, or an IPv6 address without its bracket
            is_address = False
        if not is_address:
            raise ValueError("must be an http or https address, with a port up to 65535; got a value that is not shown")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError(
                "must be an address without login and query; got a value that is not shown. Credentials belong in a "
                "Secret: name it in secrets"
            )
        return value

    @field_validator("image")
    @classmethod
    def _has_tag_or_version(cls, value: str, info: ValidationInfo) -> str:
        if not info.data.get("version", "unknown") and not _has_tag(value):
            raise ValueError(f"must name a tag or a digest when no version is given; got {value!r}")
        return value

    @field_validator("name")
    @classmethod
    def _name_of_objects(cls, value: str, info: ValidationInfo) -> str:
        model = info.data.get("model_name")
        found = value or (_name_from(model) if model else "model")
        if not _NAME.fullmatch(found):
            source = "" if value else f", which follows from the model {shown(model)}. Set name to another one"
            raise ValueError(
                f"must begin with a letter and have at most 50 lower-case letters, digits and dashes; got {found!r}"
                f"{source}"
            )
        return value

    @field_validator("secrets")
    @classmethod
    def _named_once(cls, value: tuple[ServerSecret, ...]) -> tuple[ServerSecret, ...]:
        names = [each.env for each in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is given twice. Name each variable once")
        return value

    @field_validator("env")
    @classmethod
    def _without_credentials(cls, value: dict[str, str]) -> dict[str, str]:
        variable_names(value)
        for name, text in value.items():
            if name.startswith(PREFIX) or name in ("MODEL_URI", "MLFLOW_TRACKING_URI"):
                raise ValueError(f"{name} follows from other fields. Remove it, or use settings")
            _refuse_credential(name, text)
        return value

    @field_validator("labels", "annotations")
    @classmethod
    def _readable_by_everybody(cls, value: dict[str, str]) -> dict[str, str]:
        label_keys(value)
        for name, text in value.items():
            _refuse_credential(name, text)
        return value

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name.lower() in _OWNED:
                raise ValueError(f"{name} follows from other fields. Remove it")
            if name.lower() in _SECRET_SETTINGS:
                raise ValueError(f"{name} must come from a Secret: name {PREFIX}{name} in secrets")
            _refuse_credential(name, text)
        environment = {PREFIX + name: text for name, text in value.items()}
        try:
            read_settings(environment)
            read_control_settings(environment, PREFIX, log_hash_key="-" * 16)  # the key itself comes from a Secret
        except InvalidArgumentError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        twice = sorted({each.env for each in self.secrets} & self.env.keys())
        if twice:
            raise ValueError(f"{', '.join(twice)} is given in env and in secrets. Name each in one of them only")
        if self.profile == "seed" and (self.track or self.traffic_policy or self.rollback_policy):
            raise ValueError("the profile seed has neither tracks nor policies. Use the profile safe")
        return self

    @property
    def base_name(self) -> str:
        """The name of the Service, from which the other names follow."""
        return self.name or _name_from(self.model_name)

    @property
    def deployment_name(self) -> str:
        """The name of the Deployment."""
        return f"{self.base_name}-{self.track}" if self.track else self.base_name

    @property
    def image_reference(self) -> str:
        """The image with its tag or digest."""
        return self.image if _has_tag(self.image) else f"{self.image}:{self.version}"

    @property
    def model_uri(self) -> str:
        """What the server serves."""
        if self.version:
            return f"models:/{self.model_name}/{self.version}"
        return f"models:/{self.model_name}" + ("/Production" if self.profile == "seed" else "@champion")

    @property
    def load_timeout(self) -> int:
        """Seconds that a version may take to load: five times what was measured, at least 60."""
        return 120 if self.load_seconds is None else max(60, math.ceil(5 * self.load_seconds))


def read_model_server(values: Mapping[str, Any]) -> ModelServerSpec:
    """Read the fields of a model server.

    :raises InvalidArgumentError: listing every problem; values that may be secret are not shown.
    """
    return read_argument(ModelServerSpec, "server", values)


def _name_from(model: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def _has_tag(image: str) -> bool:
    return ":" in image.rpartition("/")[2]


def _refuse_credential(name: str, text: str) -> None:
    if is_credential(name, text):
        raise ValueError(
            f"{name} looks like a credential in plain text; got a value that is not shown. Keep it in a Secret, and "
            "name that in secrets"
        )
