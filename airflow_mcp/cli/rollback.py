"""``airflow-mcp rollback``: make an earlier champion the champion again, without Airflow."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import replace
from typing import Any

from airflow_mcp.cli.governance import governance
from airflow_mcp.cli.options import add_format, add_tracking_uri
from airflow_mcp.cli.registry_server import log, order_of, registry_server, require_reason
from airflow_mcp.core.argument import NO_CHAMPION
from airflow_mcp.core.contract import TAG_ROLLED_BACK
from airflow_mcp.core.registry.load_check import ROLLBACK_CHECK_AGE, LoadCheckRule
from airflow_mcp.core.registry.plans import AliasPlan
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.registry.rollback import Rollback, check_rollback, continued, roll_back


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the model, where to go back to, why, and what may be waived."""
    command.add_argument("model_name", help="registered model")
    command.add_argument(
        "--to-version", type=_version, metavar="N", help="version to roll back to; default: the previous champion"
    )
    command.add_argument(
        "--reason", required=True, help="why; recorded with the move and on the version that was champion"
    )
    command.add_argument(
        "--no-load-check", action="store_true", help="accept a version that has not passed a load check within a day"
    )
    command.add_argument(
        "--force", action="store_true", help="accept a version that never was champion and that no gate accepted"
    )
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--dry-run", action="store_true", help="check everything and show the plan; move nothing")
    choice.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    add_tracking_uri(command)
    add_format(command)


def run(parsed: argparse.Namespace) -> int:
    """Show what would move, ask for confirmation, and roll back."""
    require_reason(parsed.reason)
    wanted = Rollback(
        order=order_of("rollback", parsed.reason),
        model_name=parsed.model_name,
        rule=LoadCheckRule(not parsed.no_load_check, ROLLBACK_CHECK_AGE),
        to_version=parsed.to_version,
        force=parsed.force,
    )
    if not (parsed.dry_run or parsed.yes or sys.stdin.isatty()):
        raise InvalidArgumentError(
            "there is no terminal to ask on: nothing was moved. Pass --yes to roll back without being asked"
        )
    with registry_server(parsed) as mlflow:
        wanted = continued(mlflow, wanted)
        plan = check_rollback(mlflow, wanted, log=log)
        is_wanted = not parsed.dry_run and (parsed.yes or _is_confirmed(mlflow, parsed.model_name, plan))
        if is_wanted:
            plan = roll_back(mlflow, replace(wanted, confirmed=plan), log=log, governance=governance())
    document = _document(parsed, plan, has_moved=is_wanted)
    print(json.dumps(document, indent=2) if parsed.format == "json" else _text(document))
    return 0 if document["moved"] or parsed.dry_run else 1


def _version(text: str) -> str:
    if not re.fullmatch("[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"must be a version number; got {text!r}")
    return text


def _is_confirmed(mlflow: DirectMlflow, name: str, plan: AliasPlan) -> bool:
    """Ask on the terminal; the question is on stderr, so that stdout holds the answer alone."""
    before, after = plan.champion_before or NO_CHAMPION, plan.champion_after
    if left_behind := mlflow.get_model_version(name, after).tags.get(TAG_ROLLED_BACK):
        print(f"WARNING: version {after} was rolled back itself: {left_behind}", file=sys.stderr)
    server = mlflow.settings.base_url
    print(f"Roll back {name} on {server} from version {before} to version {after}? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _document(parsed: argparse.Namespace, plan: AliasPlan, *, has_moved: bool) -> dict[str, Any]:
    before = plan.champion_before or NO_CHAMPION
    return {
        "model_name": parsed.model_name,
        "version": plan.champion_after,
        "previous_version": before,
        "champion_version": plan.champion_after if has_moved else before,
        "moved": has_moved,
        "dry_run": parsed.dry_run,
        "forced": plan.forced,
    }


def _text(document: dict[str, Any]) -> str:
    name, version, before = (document[key] for key in ("model_name", "version", "previous_version"))
    if document["moved"]:
        return f"{name}: version {version} is the champion now; version {before} was rolled back"
    would = f"version {version} would become the champion in place of version {before}"
    return f"{name}: nothing was moved; {would}"
