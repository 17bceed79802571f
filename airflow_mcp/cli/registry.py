"""``airflow-mcp registry``: which version was champion when, who moved it, and MLflow's stages."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from airflow_mcp.cli import registry_stages
from airflow_mcp.cli.options import add_format, add_tracking_uri
from airflow_mcp.cli.registry_server import registry_server
from airflow_mcp.core.contract import ALIASES_OF_OURS, TAG_COPIED_FROM, TAG_PREFIX
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry import history
from airflow_mcp.core.registry.copies import CopiedFrom, read_copied_from
from airflow_mcp.core.registry.load_check import why_unusable
from airflow_mcp.core.registry.stages import read_stage_moves
from airflow_mcp.exceptions import InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.registry.aliases import model_of

_TIME = "ISO 8601 with an offset, such as 2026-11-21T08:00Z"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions ``history``, ``at`` and ``diff``, and the actions on stages."""
    actions = command.add_subparsers(dest="action", required=True)
    for name, times, what in (
        ("history", (), "every change of the champion, oldest first"),
        ("at", ("time",), "the champion at one time"),
        ("diff", ("first_time", "second_time"), "what changed between two times"),
    ):
        action = actions.add_parser(name, help=what, description=what)
        action.add_argument("model_name", help="registered model")
        for time in times:
            action.add_argument(time, help=_TIME)
        if name == "history":
            action.add_argument(
                "--limit", type=int, default=100, metavar="N", help="latest changes to show; default: 100"
            )
        add_tracking_uri(action)
        add_format(action)
        action.set_defaults(answer=_answer)
    registry_stages.add_actions(actions)


def run(parsed: argparse.Namespace) -> int:
    """Run the action."""
    return int(parsed.answer(parsed))


def _answer(parsed: argparse.Namespace) -> int:
    """Print the answer, read from the tags of the registered model and its versions."""
    times = [
        history.parse_time(name, getattr(parsed, name))
        for name in ("time", "first_time", "second_time")
        if hasattr(parsed, name)
    ]
    limits = [parsed.limit] if hasattr(parsed, "limit") else []
    if any(limit < 1 for limit in limits):
        raise InvalidArgumentError(f"--limit must be 1 or more; got {parsed.limit}")
    with registry_server(parsed) as mlflow:
        document = _DOCUMENTS[parsed.action](mlflow, model_of(mlflow, parsed.model_name), *times, *limits)
    text = json.dumps(document, indent=2) if parsed.format == "json" else "\n".join(_TEXTS[parsed.action](document))
    print(text)
    return 0


# --- the answers, as plain JSON values --------------------------------------------------------------------------


def _history(mlflow: DirectMlflow, model: RegisteredModel, limit: int) -> dict[str, Any]:
    timeline = history.read_timeline(model, datetime.now(UTC))
    changes = timeline.changes[-limit:]
    named = {version for change in changes for version in (change.before, change.after)}
    named |= {model.aliases.get(alias) for alias in ALIASES_OF_OURS}
    numbers = {int(version) for version in named if version is not None}
    versions = {version.version: version for version in mlflow.read_model_versions(model.name, numbers)}
    return {
        "model_name": model.name,
        "champion": timeline.champion,
        "read_at": timeline.until.isoformat(),
        "changes": [change.to_json() for change in changes],
        "earlier_changes": len(timeline.changes) - len(changes),
        "unusable": [
            {"alias": alias, "version": version.version, "reason": reason}
            for alias in ALIASES_OF_OURS
            if (version := versions.get(model.aliases.get(alias, ""))) and (reason := why_unusable(version))
        ],
        "unrecorded_moves": [
            {"alias": move.alias, "recorded": move.recorded, "found": move.found}
            for move in history.unrecorded_moves(model)
        ],
        "stage_moves": [move.to_json() for move in read_stage_moves(model)[-limit:]],
        "copies": [
            {"version": version.version, "copied_from": asdict(origin)}
            for version in sorted(versions.values(), key=lambda version: int(version.version))
            if (origin := read_copied_from(version.tags)) is not None
        ],
    }


def _at(mlflow: DirectMlflow, model: RegisteredModel, time: datetime) -> dict[str, Any]:
    answer = history.champion_at(history.read_timeline(model, datetime.now(UTC)), time)
    return {
        "model_name": model.name,
        **answer.to_json(),
        "provenance": {
            version: _provenance(_version(mlflow, model, version)) for version in answer.versions if version
        },
    }


def _diff(mlflow: DirectMlflow, model: RegisteredModel, first: datetime, second: datetime) -> dict[str, Any]:
    first, second = sorted((first, second))
    timeline = history.read_timeline(model, datetime.now(UTC))
    ends = [history.champion_at(timeline, time) for time in (first, second)]
    tags = [_provenance(_version(mlflow, model, end.versions[-1])) for end in ends]
    differs = None if None in tags else history.provenance_difference(tags[0] or {}, tags[1] or {})
    return {
        "model_name": model.name,
        "first": ends[0].to_json(),
        "second": ends[1].to_json(),
        "changes": [change.to_json() for change in history.changes_between(timeline, first, second)],
        "provenance": differs and {name: list(values) for name, values in differs.items()},
        "compared": [end.versions[-1] for end in ends],
    }


def _version(mlflow: DirectMlflow, model: RegisteredModel, number: str | None) -> ModelVersion | None:
    if number is None:
        return None
    try:
        return mlflow.get_model_version(model.name, number)
    except MlflowNotFoundError:
        return None


def _provenance(version: ModelVersion | None) -> dict[str, str] | None:
    """Return the run and the tags of a version; None when the version was deleted."""
    return None if version is None else {f"{TAG_PREFIX}mlflow_run": version.run_id, **version.tags}


# --- the same for people ---------------------------------------------------------------------------------------------


def _history_text(document: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{document['model_name']}: champion is {_named(document['champion']) if document['champion'] else 'not set'}",
        "",
    ]
    if document["earlier_changes"]:
        lines += [f"{document['earlier_changes']} earlier changes are not shown: see --limit", ""]
    lines += [line for change in document["changes"] for line in _change_text(change)] or ["no move is recorded"]
    for one in document["unusable"]:
        lines.append(f"\nUNUSABLE: alias {one['alias']} is at version {one['version']}: {one['reason']}")
    for move in document["unrecorded_moves"]:
        lines.append(
            f"\nWARNING: alias {move['alias']} was moved outside airflow-mcp: it is at {_named(move['found'])}, but "
            f"the last recorded move left it at {_named(move['recorded'])}"
        )
    if document["stage_moves"]:
        lines += ["", "moves between stages other than Production:"]
        lines += [line for move in document["stage_moves"] for line in _stage_move_text(move)]
    if document["copies"]:
        lines += ["", "copies:"]
    for copy in document["copies"]:
        origin = CopiedFrom(**copy["copied_from"])
        lines += [f"version {copy['version']} is a copy of {origin}", f"  at {origin.at} by {origin.by}"]
    return lines


def _stage_move_text(move: Mapping[str, Any]) -> list[str]:
    to = "; ".join(f"{versions} -> {stage}" for stage, versions in move["stages"].items())
    return [f"{move['at']}  {move['action']}  {to}", f"  by {move['by']}: {move['reason'] or 'no reason given'}"]


def _at_text(document: Mapping[str, Any]) -> list[str]:
    versions = " or ".join(map(_named, document["versions"]))
    lines = [f"{document['model_name']} at {document['time']}: {versions}"]
    if document["since"]:
        lines += ["", "last certain change:", *_change_text(document["since"])]
    if document["doubtful"]:
        lines += ["", "unrecorded, so made at an unknown time:"]
        lines += [line for change in document["doubtful"] for line in _change_text(change)]
    for version, tags in document["provenance"].items():
        lines += ["", f"version {version}" + (":" if tags else " was deleted; only the record of its move is left")]
        ours = sorted((name, value) for name, value in (tags or {}).items() if name.startswith(TAG_PREFIX))
        lines += [f"  {_short(name):<16} {_shown(name, value)}" for name, value in ours]
    return lines


def _diff_text(document: Mapping[str, Any]) -> list[str]:
    lines = [document["model_name"]]
    lines += [
        f"  at {end['time']}: {' or '.join(map(_named, end['versions']))}"
        for end in (document["first"], document["second"])
    ]
    lines += ["", "changes:" if document["changes"] else "no changes"]
    lines += [line for change in document["changes"] for line in _change_text(change)]
    first, second = document["compared"]
    if document["provenance"] is None:
        lines += [
            "",
            "provenance cannot be compared: there was no champion at one of the times, or the version was deleted",
        ]
    elif first != second:
        lines += ["", f"version {first} -> version {second}:"]
        for name, (old, new) in document["provenance"].items():
            lines.append(f"  {_short(name):<16} {_shown(name, old)} -> {_shown(name, new)}")
    return lines


def _change_text(change: Mapping[str, Any]) -> list[str]:
    fromto = f"{change['from'] or 'none'} -> {change['to'] or 'none'}"
    if change["action"] == "unrecorded":
        when = f"between {change['earliest']} and {change['latest']}" if change["earliest"] else change["latest"]
        before = "" if change["earliest"] else "before "
        return [
            f"{before}{when}  UNRECORDED  {fromto}",
            "  moved outside airflow-mcp (MLflow's UI or a script), or the version was deleted",
        ]
    judged = f"gate {change['gate_verdict']}, " if change["gate_verdict"] else ""
    run = f"{judged}MLflow run {change['run_id']}" if change["run_id"] else ""
    lines = [
        f"{change['latest']}  {change['action']}{' FORCED' if change['forced'] else ''}  {fromto}",
        f"  by {change['by']}: {change['reason'] or 'no reason given'}",
    ]
    checked = f"load check {change['load_check']}" if change["load_check"] else ""
    return [*lines, *(f"  {line}" for line in (run, checked) if line)]


def _named(version: str | None) -> str:
    return f"version {version}" if version else "no version"


def _shown(name: str, value: str | None) -> str:
    origin = read_copied_from({name: value}) if name == TAG_COPIED_FROM and value else None
    return str(origin) if origin else value or "none"


def _short(name: str) -> str:
    return name.removeprefix(TAG_PREFIX).replace("_", " ")


_DOCUMENTS: Mapping[str, Callable[..., dict[str, Any]]] = {"history": _history, "at": _at, "diff": _diff}
_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "history": _history_text,
    "at": _at_text,
    "diff": _diff_text,
}
