"""Findings of static analysis and security scanners, as SARIF 2.1.0 (OASIS, 2020) has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

from airflow_mcp.exceptions import EvidenceError

Level = Literal["error", "warning", "note", "none"]
LEVELS: tuple[Level, ...] = get_args(Level)


class Finding(NamedTuple):
    """One result that says that something is wrong, and that nobody has suppressed."""

    tool: str
    rule: str
    level: Level
    identity: tuple[str, ...]
    """The same for the same finding in another report: its fingerprints, or what it says about which file."""
    is_new: bool | None
    """As the report itself says, compared with its own baseline; None when it does not."""


class Findings(NamedTuple):
    """What a report holds."""

    tools: tuple[str, ...]
    found: tuple[Finding, ...]
    problems: tuple[str, ...]
    """Why it does not tell everything: a run that did not end well, or says nothing about results."""


def parse_sarif(content: bytes) -> Findings:
    """Read a report.

    :param content: the JSON text.
    :raises EvidenceError: when it is no SARIF 2.1.0.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise EvidenceError("it is not JSON") from None
    if not isinstance(document, dict) or document.get("version") != "2.1.0":
        raise EvidenceError("it is not SARIF 2.1.0")
    tools, found, problems = [], [], []
    for run in _objects(document, "runs"):
        driver = _object(_object(run, "tool"), "driver")
        tool = _text(driver, "name")
        if not tool:
            raise EvidenceError("it is not SARIF 2.1.0: a run names no tool")
        tools.append(tool)
        problems += [f"{tool} {problem}" for problem in _problems(run)]
        found += list(_findings(tool, run))
    if not tools:
        problems.append("no tool ran")
    return Findings(tuple(tools), tuple(found), tuple(problems))


def _problems(run: Mapping[str, Any]) -> Iterator[str]:
    if any(invocation.get("executionSuccessful") is False for invocation in _objects(run, "invocations")):
        yield "did not end well (executionSuccessful is false)"
    if run.get("results") is None:
        yield "says nothing about results"


def _findings(tool: str, run: Mapping[str, Any]) -> Iterator[Finding]:
    rules = _objects(_object(_object(run, "tool"), "driver"), "rules")
    for result in _objects(run, "results"):
        if result.get("kind", "fail") != "fail" or result.get("baselineState") == "absent" or _is_suppressed(result):
            continue
        rule = _rule(result, rules)
        name = _text(result, "ruleId") or _text(_object(result, "rule"), "id") or _text(rule, "id")
        state = result.get("baselineState")
        yield Finding(
            tool=tool,
            rule=name,
            level=_level(result, rule),
            identity=(tool, name, *_identity(result)),
            is_new=None if state is None else state == "new",
        )


def _rule(result: Mapping[str, Any], rules: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Find what the tool says about the rule of a result."""
    wanted = _text(result, "ruleId") or _text(_object(result, "rule"), "id")
    index = result.get("ruleIndex", _object(result, "rule").get("index"))
    if isinstance(index, int) and 0 <= index < len(rules):
        return rules[index]
    return next((rule for rule in rules if wanted and _text(rule, "id") == wanted), {})


def _level(result: Mapping[str, Any], rule: Mapping[str, Any]) -> Level:
    level = result.get("level") or _object(rule, "defaultConfiguration").get("level") or "warning"
    if level not in LEVELS:
        raise EvidenceError(f"it is not SARIF 2.1.0: a result has the level {level!r}")
    return cast("Level", level)


def _is_suppressed(result: Mapping[str, Any]) -> bool:
    """Whether somebody has said that it is no problem, and nobody rejected or still examines that."""
    given = _objects(result, "suppressions")
    return bool(given) and all(item.get("status", "accepted") == "accepted" for item in given)


def _identity(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Tell a finding from others without its line, which moves."""
    for name in ("fingerprints", "partialFingerprints"):
        given = _object(result, name)
        if given:
            return tuple(f"{key}={value}" for key, value in sorted(given.items()))
    location = next(iter(_objects(result, "locations")), {})
    physical = _object(location, "physicalLocation")
    return (
        _file(_text(_object(physical, "artifactLocation"), "uri")),
        _text(_object(result, "message"), "text"),
        _text(_object(_object(physical, "region"), "snippet"), "text"),
    )


def _file(uri: str) -> str:
    """Name a file the same in every report: an absolute address differs from run to run, so its file name has to do."""
    return uri.rsplit("/", 1)[-1] if "://" in uri or uri.startswith(("/", "file:")) else uri


def _object(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = owner.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise EvidenceError(f"it is not SARIF 2.1.0: {name} is not an object")
    return value


def _objects(owner: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = owner.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise EvidenceError(f"it is not SARIF 2.1.0: {name} is not a list of objects")
    return value


def _text(owner: Mapping[str, Any], name: str) -> str:
    value = owner.get(name)
    return value if isinstance(value, str) else ""
