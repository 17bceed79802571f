"""``airflow-mcp``: what the on-call person asks at 3 a.m., answered from the MLflow registry alone, without Airflow."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from airflow_mcp import __version__
from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.promotion import read_history, read_last_move
from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError
from airflow_mcp.hooks import mlflow_registry_api
from airflow_mcp.hooks.mlflow_settings import MlflowSettings
from airflow_mcp.hooks.mlflow_transport import SyncDriver

_SHOWN_TAGS: Mapping[str, str] = {
    "gate verdict": contract.TAG_GATE_VERDICT,
    "reason": contract.TAG_REASON,
    "data version": contract.TAG_DATA_VERSION,
    "data hash": contract.TAG_DATA_HASH,
    "code commit": contract.TAG_CODE_COMMIT,
    "config hash": contract.TAG_CONFIG_HASH,
    "image": contract.TAG_IMAGE,
    "Dag run": contract.TAG_DAG_RUN_ID,
    "rolled back": contract.TAG_ROLLED_BACK,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: arguments; None takes those of the process.
    :return: exit code: 0 done, 1 the registry could not be asked, 2 the call is wrong.
    """
    parsed = _parser().parse_args(arguments)
    if parsed.command == "version":
        print(f"airflow-mcp {__version__}")
        return 0
    try:
        return _status(parsed.model_name, _settings(parsed.tracking_uri))
    except ModelControlPlaneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidArgumentError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="airflow-mcp", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version", help="print the version")
    status = commands.add_parser("status", help="which version is the champion, why, and how to go back")
    status.add_argument("model_name", help="registered model")
    status.add_argument("--tracking-uri", default="", help="MLflow server; default: MLFLOW_TRACKING_URI")
    return parser


def _settings(tracking_uri: str) -> MlflowSettings:
    """Read address and credentials the way MLflow's own tools do."""
    url = (tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise InvalidArgumentError(
            f"--tracking-uri is {url!r}; allowed: the http:// or https:// address of an MLflow server, here or in "
            "MLFLOW_TRACKING_URI"
        )
    return MlflowSettings(
        "command line",
        url,
        url,
        retries=1,
        username=os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        password=os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
        token=os.environ.get("MLFLOW_TRACKING_TOKEN", ""),
        verify=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
        or os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() != "true",
    )


def _status(name: str, settings: MlflowSettings) -> int:
    driver = SyncDriver(settings)
    try:
        model = driver.perform(mlflow_registry_api.get_registered_model(name))
        wanted = (contract.ALIAS_CHAMPION, contract.ALIAS_PREVIOUS_CHAMPION)
        versions = {
            alias: driver.perform(mlflow_registry_api.get_model_version(name, model.aliases[alias]))
            for alias in wanted
            if alias in model.aliases
        }
    finally:
        driver.close()
    print(f"{name} on {settings.base_url}")
    for alias in wanted:
        _print_version(alias, versions.get(alias), model)
    _print_last_move(model)
    return 0


def _print_version(alias: str, version: ModelVersion | None, model: RegisteredModel) -> None:
    if version is None:
        print(f"\n{alias}: none")
        return
    print(f"\n{alias}: version {version.version} ({version.status})")
    print(f"  {'MLflow run':<14} {version.run_id}")
    for move in read_history(model.tags)[::-1]:
        if move.champion_after == version.version:
            print(f"  {'champion since':<14} {move.at}\n  {'moved there by':<14} {move.by}")
            break
    for label, tag in _SHOWN_TAGS.items():
        if version.tags.get(tag):
            print(f"  {label:<14} {version.tags[tag]}")


def _print_last_move(model: RegisteredModel) -> None:
    move = read_last_move(model.tags)
    if move is not None:
        print(f"\nlast move: {move.action} {move.champion_before or 'none'} -> {move.champion_after}")
        print(f"  {'at':<14} {move.at}\n  {'by':<14} {move.by}\n  {'reason':<14} {move.reason or 'none given'}")
        if move.champion_after != model.aliases.get(contract.ALIAS_CHAMPION):
            print("  the champion is another version now: it was moved outside airflow-mcp, or a move broke off")
    if contract.ALIAS_PREVIOUS_CHAMPION in model.aliases:
        print(f"\nto go back: trigger the Dag rollback_model with model_name={model.name}")


if __name__ == "__main__":
    sys.exit(main())
