"""``airflow-mcp plan``: shows what a pipeline file will do, and what an edit changes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from airflow_mcp.cli.deployable import add_registry, require_registry_agrees
from airflow_mcp.cli.file_at_revision import plan_at_revision
from airflow_mcp.cli.options import add_format
from airflow_mcp.cli.pipeline_files import add_environment, add_root, plan_of, warnings_of
from airflow_mcp.cli.release_chain import add_policy, chain_lines, chain_of, policy_of
from airflow_mcp.core.identity import canonical_json
from airflow_mcp.core.manifests.diff import identity_of, manifest_diff
from airflow_mcp.core.pipeline.plan.diff import plan_diff
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan, PlannedTask, Reference, Template
from airflow_mcp.dag_rendering.servers import TRACKING_URI, server_manifests

_WIDTH = 96


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the file, the environment and what to compare with."""
    command.add_argument("file", metavar="FILE", help="pipeline file")
    add_environment(command)
    add_root(command)
    add_policy(command)
    add_registry(command)
    command.add_argument(
        "--against",
        metavar="REV_OR_FILE",
        help="show what differs from another file, or from a Git revision of this one",
    )
    command.add_argument(
        "--manifests",
        action="store_true",
        help="print the Kubernetes objects of the model server as YAML, and nothing else",
    )
    add_format(command)


def run(parsed: argparse.Namespace) -> int:
    """Print the plan, or its difference from another."""
    plan, defaults = plan_of(parsed.file, parsed.env, parsed.root)
    require_registry_agrees(parsed)
    if parsed.manifests:
        print("\n".join(_manifest_lines(plan)))
        return 0
    if parsed.against is None:
        policy = policy_of(parsed) if plan.release is not None else None
        if parsed.format == "json":
            approval = chain_of(plan, policy) if policy is not None else None
            print(json.dumps({**_document(plan, defaults), "approval": approval}, indent=2))
        else:
            print("\n".join((*plan_lines(plan, defaults), *chain_lines(plan, policy))))
        return 0
    if Path(parsed.against).is_file():
        before = plan_of(parsed.against, parsed.env, parsed.root).plan
    else:
        before = plan_at_revision(parsed.file, parsed.against, parsed.env, parsed.root)
    lines = (*plan_diff(before, plan), *manifest_diff(server_manifests(before), server_manifests(plan)))
    if parsed.format == "json":
        print(json.dumps({"dag_id": plan.dag_id, "environment": plan.environment, "differences": lines}, indent=2))
        return 0
    print("\n".join([f"{plan.dag_id} ({plan.environment}) against {parsed.against}", *lines]) if lines else _SAME)
    return 0


_SAME = "no difference: both do the same"


def _document(plan: PipelinePlan, defaults: str) -> dict[str, Any]:
    """Return a plan as plain JSON values; what another task gives is its text, ``<train.run_id>``."""
    fields = ("dag_id", "environment", "model_name", "experiment_name", "owner", "tags", "stages", "spec_hash")
    tasks = [
        {
            "task_id": task.task_id,
            "needs": list(task.needs),
            "from": task.origin,
            "timeout": task.timeout,
            "arguments": _plain(task.arguments),
        }
        for task in plan.every_task
    ]
    return {
        **{name: _plain(getattr(plan, name)) for name in fields},
        "source_file": plan.source_file,
        "defaults": defaults,
        "started_by": list(_triggers(plan)),
        "run_timeout": plan.run_timeout,
        "warnings": list(warnings_of(plan)),
        "tasks": tasks,
        "manifests": list(server_manifests(plan)),
    }


def plan_lines(plan: PipelinePlan, defaults: str = "") -> Iterator[str]:
    """Describe a plan: what starts it, its tasks in their order, and where each comes from.

    :param plan: the plan.
    :param defaults: path of the ``defaults.yaml`` behind it; empty without one.
    """
    yield f"{plan.dag_id} ({plan.environment}), from {plan.source_file}"
    if defaults:
        yield f"  defaults     {defaults}"
    yield f"  model        {plan.model_name}, experiment {plan.experiment_name}"
    yield f"  owner        {plan.owner}" + (f", tags {', '.join(plan.tags)}" if plan.tags else "")
    yield f"  spec hash    {plan.spec_hash}"
    yield f"  started by   {'; '.join(_triggers(plan))}"
    retries = plan.retries
    yield f"  retries      {retries.attempts}, first after {retries.delay} s, then up to {retries.max_delay} s"
    if plan.run_timeout:
        yield f"  time limit   {plan.run_timeout} s for a run"
    for each in plan.notifications:
        yield f"  notifies     {each.webhook} ({each.format}) of {', '.join(each.on)}"
    own = [f"{param.name} sets {param.sets}" for param in plan.params if param.sets]
    if own:
        yield f"  form         {'; '.join(own)}"
    yield from (f"  warning      {warning}" for warning in warnings_of(plan))
    yield ""
    for task in plan.tasks:
        yield from _task_lines(task)
    if plan.release is not None:
        yield ""
        yield f"{plan.release.dag_id}, which ask_release starts"
        for task in plan.release.tasks:
            yield from _task_lines(task)
    if manifests := server_manifests(plan):
        yield ""
        yield f"deploy_server applies {', '.join(map(identity_of, manifests))}"


def _manifest_lines(plan: PipelinePlan) -> Iterator[str]:
    yield f"# What deploy_server applies; {TRACKING_URI} stands for the address of the connection to MLflow."
    for manifest in server_manifests(plan):
        yield "---"
        yield yaml.safe_dump(manifest, sort_keys=False, width=_WIDTH).rstrip()


def _triggers(plan: PipelinePlan) -> Iterator[str]:
    for cron, timezone in plan.schedule.crons:
        yield f"cron {cron} ({timezone}, {'catches up' if plan.schedule.catchup else 'no catch-up'})"
    for event in plan.schedule.events:
        told = ", ".join(f"{name} {_text(value)}" for name, value in event.arguments.items())
        yield f"{event.kind} ({told})"
    yield "a person"


def _task_lines(task: PlannedTask) -> Iterator[str]:
    after = f" after {', '.join(task.needs)}" if task.needs else ""
    yield f"{task.task_id}{after}"
    yield f"    from                 {task.origin}"
    if task.timeout:
        yield f"    time limit           {task.timeout} s"
    for name, value in sorted(task.arguments.items()):
        if value not in (None, [], {}) and not isinstance(value, Template):
            yield f"    {name:<20} {_text(value)}"


def _text(value: Any) -> str:
    plain = _plain(value)
    text = plain if isinstance(plain, str) else canonical_json(plain)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, Reference | Template):
        return f"<{value}>"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
