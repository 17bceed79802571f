"""Rules on the answer of a web service: a field of its JSON must have the expected value.

Anything but a clear answer stops the candidate. No answer (refused, silent, 429, 5xx) is inconclusive, because a later
try may succeed; any other unexpected answer is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.gate.rules.json_path import find_by_path, parse_json_path
from airflow_mcp.core.gate.rules.rule_result import Fact, RuleResult
from airflow_mcp.core.gate.rules.thresholds import MetricThreshold, in_mode, parse_threshold, write_compared
from airflow_mcp.core.gate.rules.verdicts import RuleMode, Verdict
from airflow_mcp.exceptions import InvalidArgumentError

MAX_ANSWER_BYTES = 1024 * 1024
MAX_EXCERPT = 300
_SECRET_NAMES = frozenset(
    {"access_token", "api_key", "apikey", "auth", "key", "password", "passwd", "secret", "sig", "signature", "token"}
)
_BUSY = 429


class BenchmarkRule(Document):
    """What a web service must answer."""

    url: str
    """Address to GET; ``http`` or ``https``, without credentials."""
    path: str
    """Field of the answer, as :func:`~airflow_mcp.core.gate.rules.json_path.parse_json_path` reads it."""
    expect: StrictBool | StrictInt | StrictFloat | StrictStr | None = None
    """Value that the field must have, of the same type."""
    threshold: str | None = None
    """Bound on a number, such as ``<= 0.05``, instead of ``expect``."""
    conn_id: str | None = None
    """Airflow connection with the credentials."""
    timeout: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Time limit of one request, in seconds."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Repetitions when there is no answer."""
    mode: RuleMode = "enforce"

    @model_validator(mode="after")
    def _be_askable(self) -> BenchmarkRule:
        if (self.expect is None) == (self.threshold is None):
            raise ValueError("give exactly one of expect and threshold")
        try:
            parse_json_path(self.path)
            _ = self._bound
        except InvalidArgumentError as error:
            raise ValueError(str(error)) from None
        if problem := _why_not_askable(self.url):
            raise ValueError(problem)  # without the address: it may hold a credential
        return self

    @cached_property
    def _bound(self) -> MetricThreshold | None:
        if self.threshold is None:
            return None
        bound = parse_threshold(f"value {self.threshold}")
        if bound.against_champion:
            raise InvalidArgumentError(
                f"threshold must be a number, not a comparison with the champion; got {self.threshold!r}"
            )
        return bound

    def __str__(self) -> str:
        """Return the rule with every setting that affects its verdict."""
        wanted = f"is {json.dumps(self.expect)}" if self._bound is None else self.threshold
        return in_mode(self.mode, f"{self.path} {wanted} at {self.url}")


@dataclass(frozen=True)
class BenchmarkAnswer:
    """The answer of the service, as far as it arrived."""

    status: int | None
    """HTTP status; None when there was no answer."""
    body: bytes = field(default=b"", repr=False)
    problem: str = ""
    """What went wrong; empty when the answer is complete."""
    milliseconds: float = 0.0
    tries: int = 1
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that must not be shown."""


def judge_benchmark(rule: BenchmarkRule, answer: BenchmarkAnswer) -> RuleResult:
    """Judge one rule.

    :param rule: the rule.
    :param answer: the answer of the service.
    """
    value: float | None = None
    try:
        found = _read(rule, answer)
        value = float(found) if _is_number(found) else None
        holds, reason = _compare(rule, found, answer.secrets)
        verdict = Verdict.PASSED if holds else Verdict.FAILED
    except _Unclear as unclear:
        verdict, reason = unclear.verdict, str(unclear)
    return RuleResult(
        rule=str(rule),
        metric=rule.path,
        kind="benchmark",
        mode=rule.mode,
        verdict=verdict,
        value=value,
        bound=rule._bound.threshold if rule._bound else None,
        reason=reason,
        facts=_facts(rule, answer),
    )


class _Unclear(Exception):  # noqa: N818  (not an error of ours)
    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict


def _read(rule: BenchmarkRule, answer: BenchmarkAnswer) -> Any:
    """Find the field in the answer."""
    status = answer.status
    if status is None or status == _BUSY or status >= 500:
        said = answer.problem or f"the service answered {status}"
        raise _Unclear(Verdict.INCONCLUSIVE, f"no answer after {answer.tries} tries: {masked(said, answer.secrets)}")
    if 300 <= status < 400:
        raise _Unclear(Verdict.ERROR, f"the service answered {status}, a redirect, which is not followed")
    if status != 200:
        raise _Unclear(Verdict.ERROR, f"the service answered {status}, not 200")
    if answer.problem:
        raise _Unclear(Verdict.ERROR, masked(answer.problem, answer.secrets))
    try:
        document = json.loads(answer.body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _Unclear(Verdict.ERROR, "the answer is not JSON") from None
    try:
        found = find_by_path(document, parse_json_path(rule.path))
    except KeyError as error:
        raise _Unclear(Verdict.ERROR, f"the answer has no {rule.path!r}: {error} is missing") from None
    if _is_number(found) and not -sys.float_info.max <= found <= sys.float_info.max:
        raise _Unclear(
            Verdict.ERROR, f"{rule.path} is {_shown(found, answer.secrets)}, which is outside the range of a number"
        )
    return found


def _compare(rule: BenchmarkRule, found: Any, secrets: Sequence[str]) -> tuple[bool, str]:
    bound, expect, said = rule._bound, rule.expect, _shown(found, secrets)
    if bound is not None:
        if not _is_number(found):
            raise _Unclear(Verdict.ERROR, f"{rule.path} is {said}, not a number")
        holds = bound.holds(found, bound.threshold)
        relation = f"{'' if holds else 'not '}{bound.comparison}"
        return holds, f"{write_compared(found, bound.threshold)} is {relation} {bound.threshold:g}"
    if _is_number(expect) != _is_number(found) or (not _is_number(expect) and type(found) is not type(expect)):
        raise _Unclear(Verdict.ERROR, f"{rule.path} is {said}, which is not of the type of {_shown(expect)}")
    holds = bool(found == expect)
    return holds, f"{rule.path} is {said}{'' if holds else f', not {_shown(expect)}'}"


def _facts(rule: BenchmarkRule, answer: BenchmarkAnswer) -> dict[str, Fact]:
    text = masked(answer.body.decode(errors="replace"), answer.secrets)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * MAX_EXCERPT]).split())
    return {
        "url": rule.url,
        "status": answer.status,
        "milliseconds": round(answer.milliseconds, 1),
        "tries": answer.tries,
        "excerpt": text[:MAX_EXCERPT],
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any, secrets: Sequence[str] = ()) -> str:
    text = masked(json.dumps(value), secrets)
    return text if len(text) <= 80 else f"{text[:80]}…"


def masked(text: str, secrets: Sequence[str]) -> str:
    """Replace secrets, as they are and as JSON writes them."""
    for secret in secrets:
        for written in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            text = text.replace(written, "***")
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _why_not_askable(url: str) -> str:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return "url must be an http or https address"
    problems: Mapping[str, bool] = {
        "url must be an http or https address": parts.scheme not in ("http", "https") or not has_host,
        "url holds a user or password (not shown here); name a connection that holds them": "@" in parts.netloc,
        "url must not have a fragment: it is never sent to the service": bool(parts.fragment),
        "url has a parameter that looks like a credential (not shown here); name a connection that holds it": any(
            name.lower() in _SECRET_NAMES for name, _ in parse_qsl(parts.query, keep_blank_values=True)
        ),
    }
    return next((problem for problem, holds in problems.items() if holds), "")
