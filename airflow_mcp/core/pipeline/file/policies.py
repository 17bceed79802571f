"""Documents of ``kind: TrafficPolicy`` and ``kind: RollbackPolicy``: what a server accepts, and when it goes back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from airflow_mcp.core.contract import ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.duration import seconds_of
from airflow_mcp.core.pipeline.file.document import find, plain, read_document
from airflow_mcp.core.pipeline.file.fields import Duration, Number, SpecModel, Text, Whole
from airflow_mcp.core.pipeline.file.validation import problem_at, validate
from airflow_mcp.core.serving.tokens import TokenPolicy
from airflow_mcp.core.serving.traffic import BreakerRule, checked_threshold
from airflow_mcp.exceptions import PipelineSpecError, SpecProblem

TAG_RELEASE = "airflow_mcp.release"
"""On a version: its name as a release, such as ``v1.7.3``, by which a policy can name it."""
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_API_VERSION = r"^[A-Za-z0-9.-]+/v1(alpha[0-9]+|beta[0-9]+)?$"


def _issuer(value: str) -> str:
    url = urlsplit(value)
    if url.scheme != "https" or not url.hostname or url.username or url.query or url.fragment:
        raise ValueError(f"must be an https address without login and query; got {value!r}")
    return value


def _number_in_text(value: Any) -> Any:
    """Return the number that a text holds; in YAML thresholds are often in quotes.

    :raises ValueError: for text such as ``5%``, with the number that was probably meant.
    """
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        percent = _PERCENT.fullmatch(value)
        if percent is None:
            return value
        raise ValueError(f"must be a number; got {value!r}. Write {float(percent[1]) / 100:g}") from None


InQuotes: TypeAlias = Annotated[Number, BeforeValidator(_number_in_text, json_schema_input_type=float | str)]
"""A number, also in quotes; never true or false."""


class PolicyMetadata(SpecModel):
    """Metadata of a policy."""

    name: Text = Field(description="Name of the policy.")
    labels: dict[str, str] = Field(default={}, description="Labels for people and tools.")


class RateLimit(SpecModel):
    """How many requests a server accepts."""

    requests_per_second: Annotated[InQuotes, Field(gt=0, le=1_000_000)] = Field(description="Requests per second.")
    scope: Literal["replica", "service"] = Field(
        "replica", description="Whether each replica accepts that many, or all replicas together."
    )
    key: Text = Field("", description="Who has a limit of their own: sub, or the name of a header. Empty: nobody.")


class Auth(SpecModel):
    """Which tokens a server demands."""

    method: Literal["JWT"] = Field(description="How callers prove who they are.")
    issuer: Annotated[Text, AfterValidator(_issuer)] = Field(description="Issuer of the tokens.")
    audience: Text = Field("", description="Audience that the tokens must name.")
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = Field(
        ("RS256", "ES256", "EdDSA"), min_length=1, description="Algorithms that tokens may be signed with."
    )
    allowed_key_hosts: tuple[Text, ...] = Field(
        (), description="Hosts besides the issuer's from which its keys may be read."
    )

    @property
    def tokens(self) -> TokenPolicy:
        """What a token must say."""
        return TokenPolicy(self.issuer, self.audience, tuple(self.algorithms))


class TrafficPolicy(SpecModel):
    """What a server accepts."""

    rate_limit: RateLimit | None = Field(None, description="How many requests are accepted.")
    auth: Auth | None = Field(None, description="Which tokens are demanded.")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.rate_limit is None and self.auth is None:
            raise ValueError("must have rateLimit, auth or both; got neither, which limits nothing")
        return self


class RollbackTrigger(SpecModel):
    """What must be measured for how long."""

    metric: Literal["http_5xx_rate", "latency_p99_ms"] = Field(description="Metric that the server measures.")
    threshold: Annotated[InQuotes, Field(ge=0)] = Field(description="The metric must be above this.")
    duration: Duration = Field(description="For how long it must be above the threshold, such as 2m.")
    min_requests: Annotated[Whole, Field(ge=1)] = Field(
        20, description="Requests in 30 seconds, below which nothing is concluded."
    )

    @field_validator("threshold")
    @classmethod
    def _can_decide(cls, value: float, info: ValidationInfo) -> float:
        return checked_threshold(info.data.get("metric"), value)

    @property
    def rule(self) -> BreakerRule:
        """The rule of the breaker."""
        return BreakerRule(
            metric=self.metric,
            threshold=self.threshold,
            duration=float(seconds_of(self.duration)),
            min_requests=self.min_requests,
        )


class RollbackStrategy(SpecModel):
    """Where requests go instead."""

    type: Literal["blue-green"] = Field("blue-green", description="All requests change sides at once.")
    stable_version: Text = Field(
        ALIAS_PREVIOUS_CHAMPION,
        description="A version number, an alias, or the release that a version's tag airflow_mcp.release names.",
    )


class RollbackPolicy(SpecModel):
    """When a server goes back to another version by itself."""

    trigger: RollbackTrigger = Field(description="What must be measured.")
    strategy: RollbackStrategy = Field(RollbackStrategy(), description="Which version answers instead.")


class TrafficPolicyFile(SpecModel):
    """A document of ``kind: TrafficPolicy``."""

    api_version: Annotated[str, Field(pattern=_API_VERSION)] = Field(description="Group and version of the document.")
    kind: Literal["TrafficPolicy"] = Field(description="Kind of the document.")
    metadata: PolicyMetadata | None = Field(None, description="Name and labels.")
    spec: TrafficPolicy = Field(description="What a server accepts.")


class RollbackPolicyFile(SpecModel):
    """A document of ``kind: RollbackPolicy``."""

    api_version: Annotated[str, Field(pattern=_API_VERSION)] = Field(description="Group and version of the document.")
    kind: Literal["RollbackPolicy"] = Field(description="Kind of the document.")
    metadata: PolicyMetadata | None = Field(None, description="Name and labels.")
    spec: RollbackPolicy = Field(description="When a server goes back.")


PolicyFile: TypeAlias = TrafficPolicyFile | RollbackPolicyFile
KINDS: Mapping[str, type[PolicyFile]] = {
    "TrafficPolicy": TrafficPolicyFile,
    "RollbackPolicy": RollbackPolicyFile,
}


def read_policy_file(data: bytes, file: str) -> PolicyFile:
    """Read a document of one of the kinds in :data:`KINDS`.

    :param data: bytes of the YAML file.
    :param file: its name, for the places of problems.
    :raises PipelineSpecError: with every problem and its place.
    """
    problems: list[SpecProblem] = []
    node = read_document(data, file, problems)
    if node is None or problems:
        raise PipelineSpecError(problems)
    values = plain(node)
    kind = values.get("kind") if isinstance(values, dict) else None
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        _, walked = find(node, ("kind",))
        message = f"kind must be one of {', '.join(KINDS)}; got {kind!r}"
        raise PipelineSpecError([problem_at(node, walked, message)])
    document = validate(model, node, problems)
    if document is None:
        raise PipelineSpecError(problems)
    return document
