"""``airflow-mcp status``: all models, those that need attention first; or one champion, why, and how to go back."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from airflow_mcp.cli.governance import governance_standing
from airflow_mcp.cli.options import add_format, add_tracking_uri
from airflow_mcp.cli.registry_server import registry_server
from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.panel.facts import PROVENANCE
from airflow_mcp.core.panel.state import ModelState, Situation, assess_state
from airflow_mcp.core.registry.copies import CopiedFrom, read_copied_from
from airflow_mcp.core.registry.load_check import (
    ROLLBACK_CHECK_AGE,
    LoadCheckRule,
    read_load_check,
    why_unusable,
)
from airflow_mcp.core.registry.moves import read_history, read_last_move
from airflow_mcp.core.registry.rehearsal import read_rehearsal
from airflow_mcp.core.registry.standing import Standing
from airflow_mcp.core.rollout.state import RolloutState
from airflow_mcp.core.serving.traffic import RolloutDocument
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.registry.aliases import as_taken, ways_back
from airflow_mcp.registry.overview import read_rollouts
from airflow_mcp.registry.standing import read_standings

_CONSEQUENCES: Mapping[str, str] = {
    contract.ALIAS_CHAMPION: "a model server cannot load it: roll back, or restore its files and run a load check",
    contract.ALIAS_PREVIOUS_CHAMPION: "you cannot roll back to it: set to_version to another version",
}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the model, the number of models to list, the MLflow server and the format."""
    command.add_argument("model_name", nargs="?", help="registered model; default: list all of them")
    command.add_argument("--limit", type=int, default=50, metavar="N", help="models to list; default: 50")
    add_tracking_uri(command)
    add_format(command)


def run(parsed: argparse.Namespace) -> int:
    """Print all models, the worst first; or the champion, the previous champion and the last move of one."""
    if parsed.limit < 1:
        raise InvalidArgumentError(f"--limit must be 1 or more; got {parsed.limit}")
    with registry_server(parsed) as mlflow:
        document = _one(mlflow, parsed.model_name) if parsed.model_name else _all(mlflow, parsed.limit)
    text = _one_text if parsed.model_name else _all_text
    print(json.dumps(document, indent=2) if parsed.format == "json" else "\n".join(text(document)))
    return 0


# --- the answers, as plain JSON values --------------------------------------------------------------------------


def _all(mlflow: DirectMlflow, limit: int) -> dict[str, Any]:
    models = mlflow.search_registered_models()
    standings, unread = read_standings(mlflow, models)
    rollouts = read_rollouts(mlflow, models)
    states = {each.model_name: _state(each, rollouts.get(each.model_name)) for each in standings}
    standings.sort(key=lambda each: (states[each.model_name].rank, each.model_name))
    return {
        "server": mlflow.settings.base_url,
        "models": [
            {**standing.to_json(), "state": states[standing.model_name].to_json()} for standing in standings[:limit]
        ],
        "number_of_models": len(standings),
        "with_problems": sum(any(one.level == "problem" for one in each.concerns) for each in standings),
        "with_warnings": sum(any(one.level == "warning" for one in each.concerns) for each in standings),
        "not_read": list(unread),
        **governance_standing(),
    }


def _state(standing: Standing, rollout: RolloutDocument | None) -> ModelState:
    """Return the state in the words of the page; what only Airflow and the audit log know is left out."""
    return assess_state(
        Situation(standing, canary=rollout.canary if rollout else "", weight=rollout.weight if rollout else 0.0)
    )


def _one(mlflow: DirectMlflow, name: str) -> dict[str, Any]:
    found = mlflow.get_registered_model(name)
    (standing,), unread = read_standings(mlflow, [found])
    model = as_taken(mlflow, found)
    versions = {
        alias: mlflow.get_model_version(name, model.aliases[alias])
        for alias in contract.ALIASES_OF_OURS
        if alias in model.aliases
    }
    move = read_last_move(model.tags)
    is_outside = any(concern.kind == "moved_outside" for concern in standing.concerns)
    return {
        "server": mlflow.settings.base_url,
        "model_name": name,
        "state": _state(standing, RolloutState.of(versions.get(contract.ALIAS_CHAMPION)).active).to_json(),
        "concerns": [concern.to_json() for concern in standing.concerns],
        **{alias: _version(versions.get(alias), model) for alias in contract.ALIASES_OF_OURS},
        "last_move": move and asdict(move),
        "last_move_is_done": move is None
        or is_outside
        or move.champion_after == model.aliases.get(contract.ALIAS_CHAMPION),
        "way_back": _way_back(mlflow, model, versions.get(contract.ALIAS_PREVIOUS_CHAMPION)),
        "not_read": list(unread),
        **governance_standing(),
    }


def _version(version: ModelVersion | None, model: RegisteredModel) -> dict[str, Any] | None:
    if version is None:
        return None
    moves = read_history(model.tags)[::-1]
    move = next((move for move in moves if move.champion_after == version.version), None)
    check, origin = read_load_check(version.tags), read_copied_from(version.tags)
    rehearsal = read_rehearsal(version.tags)
    return {
        "version": version.version,
        "status": version.status,
        "run_id": version.run_id,
        "since": move and move.at,
        "set_by": move and move.by,
        "load_check": str(check) if check else None,
        "is_unusable": check is not None and check.is_unusable,
        "rehearsal": str(rehearsal) if rehearsal else None,
        "copied_from": origin and asdict(origin),
        "provenance": {label: version.tags[tag] for label, tag in PROVENANCE.items() if version.tags.get(tag)},
    }


def _way_back(mlflow: DirectMlflow, model: RegisteredModel, previous: ModelVersion | None) -> dict[str, Any]:
    """Return the version to roll back to and the command, or why a person has to choose the version."""
    command = f"airflow-mcp rollback {model.name} --reason TEXT"
    if previous is not None and not why_unusable(previous):
        note = ""
        try:
            LoadCheckRule(max_age=ROLLBACK_CHECK_AGE).require(previous, datetime.now(UTC))
        except EvidenceError:
            command, note = f"{command} --no-load-check", "it has not passed a load check within the last day"
        if left_behind := previous.tags.get(contract.TAG_ROLLED_BACK):
            note = "; ".join(filter(None, (f"it was rolled back itself: {left_behind}", note)))
        return {"version": previous.version, "command": command, "note": note}
    others = ways_back(mlflow, model)
    return {"version": None, "command": f"{command} --to-version N", "note": others}


# --- the same for people ----------------------------------------------------------------------------------------


def _all_text(document: Mapping[str, Any]) -> Iterator[str]:
    models, total = document["models"], document["number_of_models"]
    yield f"{total} models on {document['server']}: {document['with_problems']} with problems"
    yield from (f"NOT READ: {reason}" for reason in document["not_read"])
    if models:
        width = min(max(len(model["model_name"]) for model in models), 60)
        yield ""
    for model in models:
        champion = f"version {model['champion']}" if model["champion"] else "none"
        yield f"{model['model_name']:<{width}}  {champion:<12}  {_state_text(model['state'])}"
        for each in model["concerns"]:
            yield f"{'':<{width}}  {'':<12}  {each['level'].upper()}: {each['says']}"
    if total > len(models):
        yield f"\n{total - len(models)} more models are not shown, none of them worse: see --limit"
    yield _governance_text(document)


def _state_text(state: Mapping[str, str]) -> str:
    return f"{state['word']}: {state['next_step']}" if state["next_step"] else state["word"]


def _one_text(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"{document['model_name']} on {document['server']}"
    yield _state_text(document["state"])
    for concern in document["concerns"]:
        yield f"{concern['level'].upper()}: {concern['says']}"
    yield from (f"NOT READ: {reason}" for reason in document["not_read"])
    for alias in contract.ALIASES_OF_OURS:
        yield from _version_text(alias, document[alias])
    if move := document["last_move"]:
        yield f"\nlast move: {move['action']} {move['champion_before'] or 'none'} -> {move['champion_after']}"
        yield f"  {'at':<14} {move['at']}\n  {'by':<14} {move['by']}\n  {'reason':<14} {move['reason'] or 'none given'}"
        if move["audit"]:
            yield f"  {'AUDIT PENDING':<14} the log was down; airflow-mcp audit reconcile adds the move"
        if not document["last_move_is_done"]:
            yield f"  {'NOT DONE':<14} in progress, or interrupted before the alias moved; a retry completes it"
    way_back = document["way_back"]
    if way_back["version"]:
        yield f"\nto roll back to version {way_back['version']}: {way_back['command']}"
        if way_back["note"]:
            yield f"  {way_back['note']}"
    elif document["last_move"]:
        yield f"\nto roll back, name a version: {way_back['command']}\n  {way_back['note']}"
    yield _governance_text(document)


def _governance_text(document: Mapping[str, Any]) -> str:
    log, policy = document["audit_log"], document["policy"]
    if not log:
        return "\nnot governed: moves are recorded in MLflow only, see docs/audit.md"
    if document["governance_off"]:
        rule = f"no policy is enforced: {document['governance_off']}"
    elif policy:
        rule = f"governed by policy {policy['digest']}, in force since {policy['since']}"
    elif document["policy_error"]:
        rule = f"which policy is in force is not known: {document['policy_error']}"
    else:
        rule = "not governed by a policy: none is in force, see docs/governance.md"
    return f"\naudit log: {log}\n{rule}"


def _version_text(alias: str, version: Mapping[str, Any] | None) -> Iterator[str]:
    if version is None:
        yield f"\n{alias}: none"
        return
    yield f"\n{alias}: version {version['version']} ({version['status']})"
    yield f"  {'MLflow run':<14} {version['run_id']}"
    if version["since"]:
        since = "champion since" if alias == contract.ALIAS_CHAMPION else "champion from"
        yield f"  {since:<14} {version['since']}\n  {'set by':<14} {version['set_by']}"
    yield f"  {'load check':<14} {version['load_check'] or 'never checked'}"
    if version["is_unusable"]:
        yield f"  {'UNUSABLE':<14} {_CONSEQUENCES[alias]}"
    if alias == contract.ALIAS_PREVIOUS_CHAMPION:
        yield f"  {'rehearsal':<14} {version['rehearsal'] or 'never rehearsed'}"
    if version["copied_from"]:
        origin = CopiedFrom(**version["copied_from"])
        yield f"  {'copied from':<14} {origin}\n  {'copied at':<14} {origin.at}\n  {'copied by':<14} {origin.by}"
    for label, value in version["provenance"].items():
        yield f"  {label:<14} {value}"
