"""The plan of a rollout: steps as data, limits, and what happens without a conclusion."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from itertools import count, pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from airflow_mcp.core.argument import problems_of
from airflow_mcp.core.contract import ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.document import Document
from airflow_mcp.core.duration import seconds_of
from airflow_mcp.core.gate.rules.thresholds import MetricThreshold, parse_threshold
from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.serving.traffic import BreakerRule
from airflow_mcp.core.serving.windows import LATENCY_EDGES
from airflow_mcp.exceptions import InvalidArgumentError

LATENCY = re.compile(r"latency_p(50|90|95|99)_ms")
SHADOW_SHARE = "http_5xx_rate"
"""What the copies of a shadow step measure: their answers are counted, but their time is not."""
SHARES = (SHADOW_SHARE, "http_4xx_rate", "unfit_rate")
PREDICTION_SHIFT = "prediction_shift"
"""Largest difference between the distributions of the predictions, which is between canary and champion by itself."""
METRICS = (*SHARES, "latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms", PREDICTION_SHIFT)
"""What a model server measures of a version, and rules can limit."""
_MATCHER = r'[A-Za-z_]\w*\s*(?:=|!=|=~|!~)\s*"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(rf"(?:{_MATCHER}(?:\s*,\s*{_MATCHER})*)?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*")
_LONGEST_DAYS = 366
"""Days of the longest time in a plan: far more than a rollout takes, and dates stay within what Python can count."""
_EDGES = tuple(1000 * edge for edge in LATENCY_EDGES)
"""Milliseconds by which servers count latencies."""
DEFAULT_RULES = ("http_5xx_rate <= 0.01",)
CANARY_STEPS: tuple[Mapping[str, Any], ...] = (
    {"setWeight": 5},
    {"analysis": "10m"},
    {"setWeight": 25},
    {"analysis": "10m"},
    {"setWeight": 50},
    {"analysis": "10m"},
)
BLUE_GREEN_STEPS: tuple[Mapping[str, Any], ...] = ({"setWeight": 100}, {"analysis": "10m"})


@lru_cache(maxsize=1_000)
def _parsed(rule: str) -> MetricThreshold:
    """Parse a rule once: the search for misspelled metrics takes longer than a look."""
    return parse_threshold(rule)


def _seconds(value: Any) -> Any:
    """Return the seconds of a duration: text such as ``10m``, a timedelta, or a number of seconds."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool):
        raise ValueError(f"must be a duration such as 10m, or a number of seconds; got {value!r}")  # noqa: TRY004
    return float(seconds_of(value)) if isinstance(value, str) else value


def _within_longest(seconds: float) -> float:
    if seconds > timedelta(days=_LONGEST_DAYS).total_seconds():
        raise ValueError(f"must be at most {_LONGEST_DAYS} days; got {seconds:g} s")
    return seconds


def _not_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number; got {value!r}")  # noqa: TRY004 -- pydantic turns ValueError into a problem
    return value


def _header(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError(f"must be the name of an HTTP header, such as X-User-Id; got {name!r}")
    return name


def _breaker(value: Any) -> Any:
    """Read the trigger of a RollbackPolicy: its threshold may be text, and its duration text such as ``2m``."""
    if not isinstance(value, Mapping):
        return value
    threshold, duration = value.get("threshold"), value.get("duration")
    seconds = _seconds(duration)
    if isinstance(seconds, int | float):
        _within_longest(seconds)
    read = {**value, **({"duration": seconds} if duration is not None else {})}
    try:
        return {**read, "threshold": float(threshold)} if isinstance(threshold, str) else read
    except ValueError:
        return read


def _checked_rule(text: str) -> str:
    """Check that a rule can be read, and return it in its usual form."""
    try:
        rule = _parsed(text)
    except InvalidArgumentError as error:
        raise ValueError(str(error)) from None
    if rule.mode == "dry_run":
        raise ValueError(f"mode of a rule must be one of enforce, warn; got {text!r}")
    return str(rule)


def why_undecidable(rule: str, queries: Mapping[str, str]) -> str:
    """Return why a rule cannot be decided by what is measured; empty when it can.

    :param rule: such as ``http_5xx_rate <= 0.01``.
    :param queries: PromQL by name.
    """
    try:
        _require_decidable(_parsed(_checked_rule(rule)), queries)
    except ValueError as error:
        return str(error)
    return ""


def checked_selector(value: str) -> str:
    """Check matchers of labels, and return them without spaces around.

    :param value: such as ``namespace="ml", job="fraud"``; empty for none.
    :raises InvalidArgumentError: when it is something else.
    """
    if not isinstance(value, str) or not _SELECTOR.fullmatch(value.strip()):
        raise InvalidArgumentError(
            f"""prometheus_selector must be matchers such as namespace="ml", job="fraud"; got {value!r}"""
        )
    return value.strip()


def needs_champion(rule: MetricThreshold) -> bool:
    """Return whether a rule compares the canary with the champion, which must then be asked something too."""
    return rule.against_champion or rule.metric == PREDICTION_SHIFT


def _require_decidable(rule: MetricThreshold, queries: Mapping[str, str]) -> None:
    """Check that a rule can be decided by what is measured."""
    text = str(rule)
    if rule.metric in queries:
        if rule.against_champion:
            raise ValueError(f"rule on a query must have a number, because a query has one result; got {text!r}")
        return
    if rule.metric not in METRICS:
        known = ", ".join((*METRICS, *queries))
        raise ValueError(f"metric must be one of {known}; got {rule.metric!r}")
    if rule.comparison not in ("<=", "<"):
        raise ValueError(f"rule must have <= or <; got {text!r}")
    if not rule.against_champion and rule.threshold <= 0:
        raise ValueError(f"limit must be more than 0, because no number of requests proves 0; got {text!r}")
    if rule.metric in SHARES and rule.threshold >= 1:
        likely = replace(rule, threshold=rule.threshold / 100)
        hint = f". Did you mean {str(likely)!r}?" if likely.threshold < 1 else ""
        raise ValueError(f"limit must be less than 1, because a share is never above 1; got {text!r}{hint}")
    if LATENCY.fullmatch(rule.metric):
        _require_countable(rule)
    if rule.metric == PREDICTION_SHIFT and (rule.against_champion or rule.threshold >= 1):
        raise ValueError(f"limit of {PREDICTION_SHIFT} must be a number below 1, such as 0.1; got {text!r}")
    if rule.metric in SHARES and rule.against_champion and rule.threshold <= 0:
        raise ValueError(
            f"rule must allow a difference, such as {rule.metric} <= champion + 0.005; got {text!r}. Without one, an "
            "equally good version could not pass"
        )


def _require_countable(rule: MetricThreshold) -> None:
    """Check that a latency can be within the limit and beyond it, as servers count latencies."""
    lowest, highest = _EDGES[0], _EDGES[-1]
    if rule.against_champion and rule.factor + rule.percent / 100 > 0:
        return
    if not lowest <= rule.threshold <= highest:
        raise ValueError(
            f"limit must be between {lowest:g} and {highest:g} ms, which are the edges that servers count by; got "
            f"{str(rule)!r}"
        )


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0), AfterValidator(_within_longest)]
Breaker = Annotated[BreakerRule, BeforeValidator(_breaker)]
Rule = Annotated[str, AfterValidator(_checked_rule)]
_QueryName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Query = Annotated[str, Field(min_length=1)]


class Shadow(Document):
    """Send copies of a share of the champion's requests to the canary; its answers are counted, and nobody gets them.

    It ends as an analysis does: when every rule on :data:`SHADOW_SHARE` is met.
    """

    percent: Annotated[float, BeforeValidator(_not_flag), Field(gt=0, le=100)]
    seconds: Annotated[Seconds, Field(alias="for")]
    """Shortest time."""


class SetWeight(Document):
    """Send a share of the requests to the canary."""

    weight: Annotated[float, BeforeValidator(_not_flag), Field(ge=0, le=100, alias="setWeight")]
    """Percent."""


class Analysis(Document):
    """Measure, and go on only when every rule is met."""

    seconds: Annotated[Seconds, Field(alias="analysis")]
    """Shortest time. Without a conclusion it is extended to three times as long."""


class Pause(Document):
    """Wait, while rules that are certainly broken still end the rollout."""

    seconds: Annotated[Seconds | None, Field(alias="pause")]
    """None: until a person resumes."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_person(cls, value: Any) -> Any:
        """Read ``{"pause": {}}`` as a wait for a person."""
        return {"pause": None} if isinstance(value, Mapping) and value.get("pause", 0) == {} else value


Step = SetWeight | Analysis | Pause | Shadow


class RolloutPlan(Document):
    """What a rollout does, from the first request to the canary to the end of the bake time."""

    steps: tuple[Step, ...]
    rules: tuple[Rule, ...] = DEFAULT_RULES
    queries: dict[_QueryName, _Query] = Field(default_factory=dict)
    """PromQL by name; each has one number as its result, which rules limit by the name."""
    sticky: Annotated[str, AfterValidator(_header)] = ""
    """Header whose value keeps a caller on one side."""
    breaker: Breaker | None = None
    """When servers stop asking the canary by themselves."""
    rollback: Breaker | None = None
    """When servers go back from the new champion to the old one by themselves."""
    stable_version: str = ALIAS_PREVIOUS_CHAMPION
    """Where they go back to: a version number, an alias, or a release that a tag names."""
    bake: Annotated[float, BeforeValidator(_seconds), Field(ge=0), AfterValidator(_within_longest)] = 0
    """Seconds for which the new champion is watched; an open breaker then moves the alias back."""
    on_inconclusive: Literal["pause", "abort"] = "pause"
    on_lost: Literal["hold", "stable"] = "hold"
    """What servers do while nobody looks after the rollout: keep the split, or answer with the champion alone."""
    error_limit: Annotated[int, Field(ge=1)] = 4
    """Looks in a row that may fail."""
    load_timeout: Seconds = 600
    """Seconds within which every replica must have loaded the canary."""
    follow_timeout: Seconds = 120
    """Seconds within which every replica must follow a new split."""
    max_duration: Seconds | None = None
    """Seconds after which a rollout that has not ended is aborted."""

    @model_validator(mode="after")
    def _is_consistent(self) -> RolloutPlan:
        weights = [step.weight for step in self.steps if isinstance(step, SetWeight)]
        begins = self.steps[1:] if isinstance(self.steps[0] if self.steps else None, Shadow) else self.steps
        if not begins or not isinstance(begins[0], SetWeight):
            raise ValueError("steps must begin with setWeight, such as {setWeight: 5}, or with shadow and setWeight")
        if any(isinstance(step, Shadow) for step in begins):
            raise ValueError("shadow must come before every other step: later the canary answers requests of its own")
        if any(later <= earlier for earlier, later in pairwise(weights)):
            raise ValueError(f"weights of the steps must rise; got {', '.join(f'{weight:g}' for weight in weights)}")
        if isinstance(self.steps[-1], SetWeight):
            message = "steps must end with an analysis or a pause; the promotion follows by itself"
            raise ValueError(message)  # noqa: TRY004 -- pydantic turns ValueError into a problem
        if not any(isinstance(step, Analysis) for step in self.steps):
            raise ValueError("steps must have an analysis: without one, nothing is measured before the promotion")
        if self.rollback is None and (self.bake or self.stable_version != ALIAS_PREVIOUS_CHAMPION):
            name = "bake" if self.bake else "stable_version"
            raise ValueError(f"{name} needs rollback, which says when to go back to the old champion")
        self._require_rules()
        self._require_time()
        self._require_measurable()
        return self

    def _require_rules(self) -> None:
        """Check that every rule can be decided, and that there is one that decides."""
        if named := self.queries.keys() & set(METRICS):
            raise ValueError(f"query {min(named)!r} must have another name, because servers measure {min(named)}")
        for rule in self.thresholds:
            _require_decidable(rule, self.queries)
        if not any(rule.mode == "enforce" for rule in self.thresholds):
            raise ValueError("rules must have at least one without warn: in front, because only such a rule decides")
        if isinstance(self.steps[0], Shadow) and not self.shadow_thresholds:
            raise ValueError(f"shadow needs a rule on {SHADOW_SHARE}, which is what the copies measure")

    def _require_time(self) -> None:
        """Check that the rollout may last as long as its steps."""
        shortest = math.fsum(step.seconds or 0 for step in self.steps if not isinstance(step, SetWeight))
        if self.max_duration is not None and self.max_duration <= shortest:
            raise ValueError(
                f"max_duration must be longer than the steps, which take at least {shortest:g} s; got "
                f"{self.max_duration:g} s"
            )

    def _require_measurable(self) -> None:
        """Check that every analysis has requests on the sides that its rules compare."""
        weight = 0.0
        if unused := self.queries.keys() - {rule.metric for rule in self.thresholds}:
            raise ValueError(f"query {min(unused)!r} needs a rule that limits its result, such as {min(unused)} <= 0.1")
        against = [rule for rule in self.thresholds if needs_champion(rule) and rule.mode == "enforce"]
        for step in self.steps:
            weight = step.weight if isinstance(step, SetWeight) else weight
            if not isinstance(step, Analysis):
                continue
            if weight == 0:
                raise ValueError("analysis must have a weight above 0, because the canary is asked nothing before")
            if weight == 100 and against:
                raise ValueError(
                    f"rule {str(against[0])!r} compares with the champion, which is asked nothing at weight 100. Use "
                    "a fixed limit"
                )

    @property
    def thresholds(self) -> tuple[MetricThreshold, ...]:
        """The rules, parsed."""
        return tuple(map(_parsed, self.rules))

    @property
    def shadow_thresholds(self) -> tuple[MetricThreshold, ...]:
        """The rules that decide a shadow step."""
        return tuple(rule for rule in self.thresholds if rule.metric == SHADOW_SHARE and rule.mode == "enforce")

    @property
    def hash(self) -> str:
        """Hash of the plan, ``sha256:<hex>``."""
        return content_hash(self.model_dump_json(by_alias=True).encode())


def read_plan(values: Mapping[str, Any]) -> RolloutPlan:
    """Read a plan from plain values.

    :param values: fields of :class:`RolloutPlan`; steps are ``{"setWeight": 5}``, ``{"analysis": "10m"}``,
        ``{"pause": "1h"}``, ``{"pause": {}}``, which waits for a person, and ``{"shadow": {"percent": 20,
        "for": "10m"}}``.
    :raises InvalidArgumentError: with every problem.
    """
    steps = values.get("steps")
    if isinstance(steps, str | Mapping) or not isinstance(steps, Sequence):
        raise InvalidArgumentError(f"steps must be a list of mappings; got {steps!r}")
    try:
        return RolloutPlan.model_validate({**values, "steps": tuple(map(_step, steps, count()))})
    except ValidationError as error:
        raise InvalidArgumentError(problems_of(error, "rollout", RolloutPlan)) from None


def _step(value: Any, position: int) -> Step:
    if isinstance(value, Step):
        return value
    kinds: Mapping[str, type[Step]] = {"setWeight": SetWeight, "analysis": Analysis, "pause": Pause, "shadow": Shadow}
    name = next(iter(value), None) if isinstance(value, Mapping) and len(value) == 1 else None
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidArgumentError(f"steps[{position}] must have one of {', '.join(kinds)}; got {value!r}")
    try:
        return kind.model_validate(value["shadow"] if kind is Shadow else value)
    except ValidationError as error:
        raise InvalidArgumentError(problems_of(error, "step", kind, prefix=f"steps[{position}]")) from None
