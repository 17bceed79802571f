"""Findings of static analysis and security scanners in the format SARIF 2.1.0 (OASIS, 2020)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Literal, NamedTuple, cast, get_args

from airflow_mcp.exceptions import EvidenceError

SarifLevel = Literal["error", "warning", "note", "none"]
LEVELS: tuple[SarifLevel, ...] = get_args(SarifLevel)


class SarifResult(NamedTuple):
    """One finding that is not suppressed."""

    tool: str
    rule: str
    level: SarifLevel
    identity: tuple[str, ...]
    """Equal for the same finding in another report: its fingerprints, or its message and file."""
    is_new: bool | None
    """Whether the report marks it as new against its own baseline; None when it does not say."""


class Findings(NamedTuple):
    """The findings of a report."""

    tools: tuple[str, ...]
    found: tuple[SarifResult, ...]
    problems: tuple[str, ...]
    """Why the report is incomplete: a run that failed, or has no list of results."""


def parse_sarif(content: bytes) -> Findings:
    """Read a report.

    :param content: the JSON text.
    :raises EvidenceError: when it is not SARIF 2.1.0.
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
            raise EvidenceError("it is not SARIF 2.1.0: a run has no tool name")
        tools.append(tool)
        problems += [f"{tool} {problem}" for problem in _problems(run)]
        found += list(_findings(tool, run))
    if not tools:
        problems.append("no tool ran")
    return Findings(tuple(tools), tuple(found), tuple(problems))


def _problems(run: Mapping[str, Any]) -> Iterator[str]:
    if any(invocation.get("executionSuccessful") is False for invocation in _objects(run, "invocations")):
        yield "failed (executionSuccessful is false)"
    if run.get("results") is None:
        yield "has no list of results"


class _Rules:
    """The rules of a tool: its driver's and its extensions' (for example the query packs of CodeQL)."""

    def __init__(self, tool: Mapping[str, Any]) -> None:
        self._components = [_object(tool, "driver"), *_objects(tool, "extensions")]
        self._rules = [_objects(component, "rules") for component in self._components]
        self._by_id: dict[str, Mapping[str, Any]] = {}
        for rule in chain.from_iterable(self._rules):
            self._by_id.setdefault(_text(rule, "id"), rule)

    def of(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """Find the rule of a result: by its index in the component that the result names, otherwise by its id."""
        reference = _object(result, "rule")
        index = result.get("ruleIndex", reference.get("index"))
        rules = self._component(_object(reference, "toolComponent"))
        if isinstance(index, int) and 0 <= index < len(rules):
            return rules[index]
        wanted = _text(result, "ruleId") or _text(reference, "id")
        return self._by_id.get(wanted, {}) if wanted else {}

    def _component(self, reference: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the rules of a component; a result that names none refers to the driver."""
        if not reference:
            return self._rules[0]
        index = reference.get("index")
        if isinstance(index, int) and 0 <= index < len(self._rules) - 1:
            return self._rules[1 + index]
        for name in ("guid", "name"):
            for component, rules in zip(self._components, self._rules, strict=True):
                if _text(reference, name) and _text(component, name) == _text(reference, name):
                    return rules
        return []


def _findings(tool: str, run: Mapping[str, Any]) -> Iterator[SarifResult]:
    rules = _Rules(_object(run, "tool"))
    for result in _objects(run, "results"):
        if result.get("kind", "fail") != "fail" or result.get("baselineState") == "absent" or _is_suppressed(result):
            continue
        rule = rules.of(result)
        name = _text(result, "ruleId") or _text(_object(result, "rule"), "id") or _text(rule, "id")
        state = result.get("baselineState")
        yield SarifResult(
            tool=tool,
            rule=name,
            level=_level(result, rule),
            identity=(tool, name, *_identity(result)),
            is_new=None if state is None else state == "new",
        )


def _level(result: Mapping[str, Any], rule: Mapping[str, Any]) -> SarifLevel:
    level = result.get("level") or _object(rule, "defaultConfiguration").get("level") or "warning"
    if level not in LEVELS:
        raise EvidenceError(f"it is not SARIF 2.1.0: a result has the level {level!r}")
    return cast("SarifLevel", level)


def _is_suppressed(result: Mapping[str, Any]) -> bool:
    """Whether every suppression of the finding was accepted; one under review does not count."""
    given = _objects(result, "suppressions")
    return bool(given) and all(item.get("status", "accepted") == "accepted" for item in given)


def _identity(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what identifies a finding, without its line number, which changes between commits."""
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
    """Return a file name that is equal in every report: absolute addresses differ from run to run."""
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
