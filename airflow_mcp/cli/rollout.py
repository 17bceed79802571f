"""``airflow-mcp rollout``: show the rollout of a model; pause, resume and abort it, without Airflow."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from airflow_mcp.cli.governance import governance
from airflow_mcp.cli.options import add_format, add_tracking_uri
from airflow_mcp.cli.registry_server import actor, log, registry_server, require_reason
from airflow_mcp.core.rollout.advance import analysis_of
from airflow_mcp.core.rollout.samples import ReplicaSample, read_samples
from airflow_mcp.core.rollout.state import Journal
from airflow_mcp.core.serving.traffic import ACTIVE, RolloutDocument
from airflow_mcp.exceptions import MlflowUnreachableError
from airflow_mcp.hooks.replica_metrics import ReplicaAddresses, read_addresses
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.registry.rollout_control import RolloutControl, read_journal
from airflow_mcp.registry.rollout_lease import LEASE
from airflow_mcp.registry.rollouts import RolloutStore, bake_document


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions ``status``, ``pause``, ``resume`` and ``abort``."""
    actions = command.add_subparsers(dest="action", required=True)
    for name, what in (
        ("status", "the split, the step, what was measured, and which split every replica follows"),
        ("pause", "keep the weight until somebody resumes"),
        ("resume", "go on: with the next step after a pause, otherwise with the same step anew"),
        ("abort", "give all requests back to the champion and end the rollout"),
    ):
        action = actions.add_parser(name, help=what, description=what)
        action.add_argument("model_name", help="registered model")
        if name == "status":
            action.add_argument("--servers", default="", help="model servers, such as fraud-headless.ml.svc:8000")
        else:
            action.add_argument("--reason", required=True, help="why; recorded in the rollout")
        if name == "resume":
            action.add_argument(
                "--skip", action="store_true", help="go on with the next step although nothing was concluded"
            )
        add_tracking_uri(action)
        add_format(action)


def run(parsed: argparse.Namespace) -> int:
    """Read or change the document of the rollout."""
    if parsed.action != "status":
        require_reason(parsed.reason)
    with registry_server(parsed) as mlflow:
        document = _status(mlflow, parsed) if parsed.action == "status" else _changed(mlflow, parsed)
    print(json.dumps(document, indent=2) if parsed.format == "json" else "\n".join(_text(document)))
    return 0


def _changed(mlflow: DirectMlflow, parsed: argparse.Namespace) -> dict[str, Any]:
    control = RolloutControl(mlflow, parsed.model_name, actor=actor(), log=log, governance=governance())
    written = "Nothing was written"
    try:
        mlflow.get_registered_model(parsed.model_name)  # names the nearest one when there is none of this name
        before = control.document()
        written = "It is not known whether the change was written"
        if parsed.action == "resume":
            document = control.resume(parsed.reason, skip=parsed.skip)
        else:
            document = control.pause(parsed.reason) if parsed.action == "pause" else control.abort(parsed.reason)
    except MlflowUnreachableError as error:
        raise MlflowUnreachableError(
            f"{error}. {written}. Servers keep the split that they follow, and their breakers work; when MLflow "
            f"answers again, look with airflow-mcp rollout status {parsed.model_name}, and repeat the command if needed"
        ) from error
    changed = document.has_moved_from(before)
    return {"model_name": parsed.model_name, "changed": changed, **_of_document(document)}


def _status(mlflow: DirectMlflow, parsed: argparse.Namespace) -> dict[str, Any]:
    mlflow.get_registered_model(parsed.model_name)  # names the nearest one when there is none of this name
    state = RolloutStore(mlflow, parsed.model_name, actor=actor(), log=log).read()
    found: dict[str, Any] = {
        "model_name": parsed.model_name,
        "champion": state.champion.version if state.champion is not None else None,
        "error": state.error,
    }
    bake = bake_document(state.champion, datetime.now(UTC))
    document = bake or state.document
    if document is None:
        return {**found, "phase": None}
    found |= _of_document(document)
    journal = read_journal(mlflow, document.run_id)
    if journal is not None:
        found |= {
            "looked": journal.looked.isoformat() if journal.looked is not None else None,
            "look_error": journal.error,
            "stale_seconds": _stale_seconds(journal, document),
        }
    if journal is not None and bake is None:
        analysis = analysis_of(journal, document)
        found |= {"verdict": analysis.verdict, "verdict_reason": analysis.reason}
    if parsed.servers:
        samples = asyncio.run(_samples(parsed, document))
        found["replicas"] = [
            {
                "replica": each.replica,
                "generation": each.generation,
                "follows": each.generation == document.generation or not document.is_active,
                "canary_ready": document.canary in each.ready,
                "breaker_open": document.canary in each.tripped,
            }
            for each in samples
        ]
    return found


def _stale_seconds(journal: Journal, document: RolloutDocument) -> float | None:
    """Return how long ago the last look was, if that is too long ago; None when it is not, or when nobody must look."""
    if document.phase not in (*ACTIVE, "BAKING"):
        return None
    passed = datetime.now(UTC) - max(filter(None, (journal.looked, journal.started)))
    return round(passed.total_seconds()) if passed > LEASE else None


async def _samples(parsed: argparse.Namespace, document: RolloutDocument) -> list[ReplicaSample]:
    replicas = await ReplicaAddresses(read_addresses(parsed.servers)).read()
    return read_samples(replicas, parsed.model_name, canary=document.canary, champion=document.stable)


def _of_document(document: RolloutDocument) -> dict[str, Any]:
    return {
        "phase": document.phase,
        "stable": document.stable,
        "canary": document.canary,
        "weight": document.weight,
        "step": document.step,
        "step_since": document.step_since.isoformat() if document.step_since is not None else None,
        "generation": document.generation,
        "identity": document.identity,
        "run_id": document.run_id,
        "by": document.by,
        "reason": document.reason,
    }


def _text(document: dict[str, Any]) -> list[str]:
    name = document["model_name"]
    if document["phase"] is None:
        problem = f": {document['error']}" if document["error"] else ""
        return [f"{name}: the champion has no rollout{problem}"]
    lines = [
        f"{name}: {document['phase']}, version {document['canary']} against champion version {document['stable']}, "
        f"weight {document['weight']:g} %",
        f"  step {document['step']} since {document['step_since']}, generation {document['generation']}, by "
        f"{document['by']}",
        f"  {document['reason']}",
    ]
    if "verdict" in document:
        lines.append(f"  rules: {document['verdict']}: {document['verdict_reason']}")
    if "looked" in document:
        failed = f", and since then looks have failed: {document['look_error']}" if document["look_error"] else ""
        lines.append(f"  last look: {document['looked'] or 'none'}{failed}")
    if document.get("stale_seconds"):
        lines.append(
            f"  STALE: nobody has looked for {document['stale_seconds']} s, so nobody would end this rollout now. Look "
            f"at its task in Airflow, or run airflow-mcp rollout abort {name}"
        )
    if document.get("changed") is False:
        lines.append("  nothing was written: it was so already")
    for each in document.get("replicas", ()):
        follows = "follows" if each["follows"] else f"is at generation {each['generation']}"
        ready = "canary ready" if each["canary_ready"] else "canary not ready"
        lines.append(f"  {each['replica']} {follows}, {ready}{', breaker open' if each['breaker_open'] else ''}")
    return lines
