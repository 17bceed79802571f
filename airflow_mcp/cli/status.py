"""``airflow-mcp status``: which version is the champion, why, and how to go back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from airflow_mcp.cli.options import add_tracking_uri, mlflow_settings
from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.copies import read_copied_from
from airflow_mcp.core.registry.history import unrecorded_moves
from airflow_mcp.core.registry.load_check import read_load_check, why_unusable
from airflow_mcp.core.registry.moves import read_history, read_last_move
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.registry.aliases import model_of

_SHOWN_TAGS: Mapping[str, str] = {
    "gate verdict": contract.TAG_GATE_VERDICT,
    "source verdict": contract.TAG_COPIED_GATE_VERDICT,
    "copy run": contract.TAG_COPY_RUN,
    "reason": contract.TAG_REASON,
    "data version": contract.TAG_DATA_VERSION,
    "data hash": contract.TAG_DATA_HASH,
    "code commit": contract.TAG_CODE_COMMIT,
    "config hash": contract.TAG_CONFIG_HASH,
    "image": contract.TAG_IMAGE,
    "Dag run": contract.TAG_DAG_RUN_ID,
    "rolled back": contract.TAG_ROLLED_BACK,
}

_CONSEQUENCES: Mapping[str, str] = {
    contract.ALIAS_CHAMPION: "a model server cannot load it: roll back, or restore its files and run a load check",
    contract.ALIAS_PREVIOUS_CHAMPION: "you cannot roll back to it: set to_version to another version",
}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the model and the MLflow server."""
    command.add_argument("model_name", help="registered model")
    add_tracking_uri(command)


def run(parsed: argparse.Namespace) -> int:
    """Print the champion, the previous champion and the last move of a model."""
    name, settings = parsed.model_name, mlflow_settings(parsed.tracking_uri)
    mlflow = DirectMlflow(settings)
    try:
        model = model_of(mlflow, name)
        wanted = (contract.ALIAS_CHAMPION, contract.ALIAS_PREVIOUS_CHAMPION)
        versions = {
            alias: mlflow.get_model_version(name, model.aliases[alias]) for alias in wanted if alias in model.aliases
        }
    finally:
        mlflow.close()
    print(f"{name} on {settings.base_url}")
    is_unrecorded = any(move.alias == contract.ALIAS_CHAMPION for move in unrecorded_moves(model))
    if is_unrecorded:
        print(f"WARNING: champion was moved outside airflow-mcp; see airflow-mcp registry history {name}")
    for alias in wanted:
        _print_version(alias, versions.get(alias), model)
    _print_last_move(model, versions.get(contract.ALIAS_PREVIOUS_CHAMPION), is_unrecorded=is_unrecorded)
    return 0


def _print_version(alias: str, version: ModelVersion | None, model: RegisteredModel) -> None:
    if version is None:
        print(f"\n{alias}: none")
        return
    print(f"\n{alias}: version {version.version} ({version.status})")
    print(f"  {'MLflow run':<14} {version.run_id}")
    for move in read_history(model.tags)[::-1]:
        if move.champion_after == version.version:
            since = "champion since" if alias == contract.ALIAS_CHAMPION else "champion from"
            print(f"  {since:<14} {move.at}\n  {'set by':<14} {move.by}")
            break
    check = read_load_check(version.tags)
    print(f"  {'load check':<14} {check or 'never checked'}")
    if check is not None and check.is_unusable:
        print(f"  {'UNUSABLE':<14} {_CONSEQUENCES[alias]}")
    if origin := read_copied_from(version.tags):
        print(f"  {'copied from':<14} {origin}\n  {'copied at':<14} {origin.at}\n  {'copied by':<14} {origin.by}")
    for label, tag in _SHOWN_TAGS.items():
        if version.tags.get(tag):
            print(f"  {label:<14} {version.tags[tag]}")


def _print_last_move(model: RegisteredModel, previous: ModelVersion | None, *, is_unrecorded: bool) -> None:
    move = read_last_move(model.tags)
    if move is not None:
        print(f"\nlast move: {move.action} {move.champion_before or 'none'} -> {move.champion_after}")
        print(f"  {'at':<14} {move.at}\n  {'by':<14} {move.by}\n  {'reason':<14} {move.reason or 'none given'}")
        if move.champion_after != model.aliases.get(contract.ALIAS_CHAMPION) and not is_unrecorded:
            print(f"  {'NOT DONE':<14} in progress, or interrupted before the alias moved; a retry completes it")
    if previous is not None and not why_unusable(previous):
        print(
            f"\nto roll back to version {previous.version}: trigger the Dag rollback_model with model_name={model.name}"
        )
