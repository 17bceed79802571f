"""The rooms of the package: what is in each folder, and which other folders it may import.

The one list behind the architecture test and the table in ``docs/development.md``; after a change, write the table
with ``python -m tests.support.rooms``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.paths import DOCS, ROOT

PAGE = DOCS / "development.md"
BEGIN, END = "<!-- rooms: begin (python -m tests.support.rooms) -->", "<!-- rooms: end -->"


@dataclass(frozen=True)
class Room:
    """One folder of the package, or one module at its top.

    :param holds: what is in it, for the table of the docs.
    :param may_import: the rooms that it may import besides itself and ``exceptions``.
    """

    holds: str
    may_import: frozenset[str]


def _room(holds: str, *may_import: str) -> Room:
    return Room(holds, frozenset(may_import))


_CORE = ("core", "core/*")

ROOMS: Mapping[str, Room] = {
    "exceptions": _room("the [errors](errors.md), each with what a retry does"),
    "settings": _room("the options of `[airflow_mcp]`, read when they are needed"),
    "get_provider_info": _room("metadata for Airflow's provider manager"),
    "spans": _room("what sends spans of OpenTelemetry, where it is configured; without Airflow"),
    "airflow_private": _room("the only uses of private names of Airflow; an upgrade may break them"),
    # --- decisions ------------------------------------------------------------------------------------------------
    "core": _room(
        "decisions as functions of plain data: no I/O, the time is passed in. Here: the contract between the planes, "
        "the base of JSON documents, argument checks, identities, metrics"
    ),
    "core/code": _room("which code a workload runs: sources, commits, refs, the environment of Git", "core"),
    "core/data": _room("pinned datasets and the versions of DVC, Git LFS and object stores", "core", "core/code"),
    "core/evaluation": _room("what evaluations and replays measured; which candidate is best", "core", "core/data"),
    "core/workload": _room(
        "a workload as data: pod, replicas, files, how it ended, what to sweep", "core", "core/code", "core/data"
    ),
    "core/html": _room("drawings and the style of report pages"),
    "core/gate/rules": _room(
        "one module per kind of gate rule, and the verdict and result every rule gives", "core", "core/evaluation"
    ),
    "core/gate": _room(
        "a gate's policy, its judgement and the approval of an inconclusive one",
        *("core", "core/data", "core/evaluation", "core/gate/rules"),
    ),
    "core/gate/report": _room("the gate's HTML report", "core/evaluation", "core/gate", "core/gate/rules", "core/html"),
    "core/drift": _room("drift policies, profiles, results and their report", "core", "core/data", "core/html"),
    "core/features": _room(
        "features of a feature store, and whether online and offline values agree", "core", "core/data", "core/html"
    ),
    "core/quality": _room(
        "when logged predictions can be judged by late labels, and what follows from it",
        *("core", "core/data", "core/evaluation", "core/html"),
    ),
    "core/registry": _room(
        "which aliases move, the records of moves, claims, load checks, stages, copies, events",
        *("core", "core/drift", "core/gate/rules"),
    ),
    "core/retrain": _room("when to retrain: policy, decision, ledger", "core", "core/drift", "core/quality"),
    "core/pipeline/file": _room(
        "a ModelPipeline file as it is written: fields, defaults, places of mistakes",
        *("core", "core/code", "core/data", "core/evaluation", "core/gate/rules", "core/rollout", "core/serving"),
        "core/workload",
    ),
    "core/pipeline/plan": _room(
        "the tasks that follow from a ModelPipeline file",
        *("core", "core/gate/rules", "core/pipeline/file", "core/rollout"),
    ),
    "core/pipeline": _room(
        "checks of a file against its plan, and what one run of a pipeline uses",
        *("core", "core/code", "core/data", "core/evaluation", "core/gate", "core/gate/rules"),
        *("core/pipeline/file", "core/pipeline/plan", "core/registry", "core/rollout", "core/workload"),
    ),
    "core/signing": _room("keys: what signs, and whose signatures count until when", "core"),
    "core/audit": _room(
        "the audit log as data: events, records, Merkle tree, signed checkpoints, verification",
        *("core", "core/registry", "core/signing"),
    ),
    "core/passport": _room(
        "what a version was made from, as a signed statement: envelopes, passports, clearances",
        *("core", "core/data", "core/gate", "core/gate/rules", "core/registry", "core/signing"),
    ),
    "core/access": _room(
        "who may do what to which model, by one policy document in the audit log",
        *("core", "core/audit", "core/code", "core/pipeline/file"),
    ),
    "core/approvals": _room(
        "who is asked before a release, which votes count, when somebody is reminded",
        *("core", "core/access", "core/audit", "core/pipeline/file"),
    ),
    "core/conformity": _room(
        "whether the moves in an audit log follow the policies in it",
        *("core", "core/access", "core/approvals", "core/audit"),
    ),
    "core/replay": _room(
        "past decisions, made again from what was recorded",
        *("core", "core/access", "core/approvals", "core/audit", "core/conformity", "core/gate", "core/registry"),
        "core/retrain",
    ),
    "core/serving": _room(
        "what a model server decides: which versions, which of them answers, what it refuses",
        *("core", "core/gate/rules", "core/passport", "core/registry", "core/signing", "core/drift"),
    ),
    "core/rollout": _room(
        "rollouts: steps, limits, bounds, what was counted, what happens next, the report",
        *("core", "core/gate/rules", "core/html", "core/serving"),
    ),
    "core/manifests": _room(
        "the model server as objects of Kubernetes: manifests, their difference, how a rollout of pods stands",
        *("core", "core/pipeline/file", "core/serving", "core/workload"),
    ),
    "core/panel": _room(
        "what the page shows of a model: state in one word, facts, words, charts, actions",
        *("core", "core/approvals", "core/gate", "core/gate/rules", "core/html", "core/registry", "core/rollout"),
        "core/serving",
    ),
    "core/panel/pages": _room(
        "the pages as functions from facts to HTML",
        *("core", "core/approvals", "core/gate/rules", "core/html", "core/panel", "core/registry", "core/rollout"),
    ),
    "core/doctor": _room("what `airflow-mcp doctor` concludes", "core", "core/registry", "core/workload"),
    # --- the outside world ----------------------------------------------------------------------------------------
    "mlflow_client": _room("MLflow's REST API, blocking and asynchronous; without Airflow", "core"),
    "audit": _room("stores of the audit log: PostgreSQL and SQLite; without Airflow", *_CORE),
    "registry": _room("the only code that changes the model registry; without Airflow", *_CORE, "mlflow_client"),
    "hooks": _room(
        "readers of Airflow connections, and what they lead to", *_CORE, "audit", "mlflow_client", "settings"
    ),
    "cluster": _room(
        "a Kubernetes cluster: its workload pods, and model servers; without Airflow",
        *("core", "core/manifests", "core/workload"),
    ),
    "routers": _room(
        "what moves requests besides the model servers: Gateway API, Services, Argo Rollouts, KServe; without Airflow",
        *(*_CORE, "cluster"),
    ),
    "doctor": _room("the checks of `airflow-mcp doctor`; without Airflow", *_CORE, "cluster", "mlflow_client"),
    # --- Airflow --------------------------------------------------------------------------------------------------
    "triggers": _room(
        "what waits in the triggerer",
        *(*_CORE, "airflow_private", "hooks", "mlflow_client", "registry", "settings"),
    ),
    "workloads": _room(
        "backends that run a workload: child process or pod", *_CORE, "airflow_private", "settings", "triggers"
    ),
    "links": _room("buttons to MLflow", *_CORE, "hooks", "settings"),
    "notifications": _room("messages to webhooks and by e-mail", "core", "core/approvals"),
    "lineage": _room("what tasks read and write, for Airflow's OpenLineage provider", "core", "core/data"),
    "metrics": _room("what tasks report to Airflow's metrics, and the trace that they continue", "core"),
    "operators": _room(
        "one class per action: read, ask `core`, write",
        *(
            *_CORE,
            "airflow_private",
            "audit",
            "cluster",
            "hooks",
            "lineage",
            "links",
            "metrics",
            "mlflow_client",
            "notifications",
            "registry",
            "routers",
        ),
        *("settings", "triggers", "workloads"),
    ),
    "sensors": _room(
        "tasks that wait for the registry, data or drift", *_CORE, "hooks", "links", "operators", "settings", "triggers"
    ),
    "plugins": _room(
        "the page in Airflow's UI, mounted in its API server",
        *(*_CORE, "hooks", "mlflow_client", "registry", "settings"),
    ),
    "publisher": _room(
        "the publisher API in Airflow's API server, for teams without Python",
        *(*_CORE, "mlflow_client", "plugins", "settings"),
    ),
    "dag_rendering": _room(
        "ModelPipeline files to Dags",
        *(*_CORE, "airflow_private", "notifications", "operators", "routers", "settings", "triggers"),
    ),
    # --- the model server ---------------------------------------------------------------------------------------
    "serving": _room(
        "the front of the model server: HTTP, batches, model processes, the registry it follows; without Airflow",
        *(*_CORE, "mlflow_client", "spans"),
    ),
    # --- the work plane -------------------------------------------------------------------------------------------
    "work/run": _room("the MLflow run and the process of a step", *_CORE, "spans"),
    "work/sources": _room("fetches code and data: Git, DVC, Git LFS, hashes", *_CORE, "work/run"),
    "work/reading": _room("reads datasets and request logs", *_CORE, "work/run", "work/sources"),
    "work/models": _room("loads a model and asks it", *_CORE, "work/run"),
    "work/measures": _room(
        "measures a model: metrics, intervals, latency", *_CORE, "work/models", "work/reading", "work/run"
    ),
    "work/engines": _room("runs functions on a cluster of Spark or Dask", *_CORE, "work/run"),
    "work/drift": _room(
        "profiles data, here or on an engine, and compares columns",
        *(*_CORE, "work/engines", "work/reading", "work/run"),
    ),
    "work/features": _room("asks a Feast feature store", *(*_CORE, "work/measures", "work/reading", "work/run")),
    "work/quality": _room(
        "joins logged predictions with labels, and measures them",
        *(*_CORE, "work/measures", "work/reading"),
    ),
    "work/serve_model": _room("a model process: loads one version and answers batches", *_CORE, "work/models"),
    "work/steps": _room("one module per step", *_CORE, "work/*"),
    "work": _room("`python -m airflow_mcp.work STEP`: the work plane, without Airflow", *_CORE, "work/*"),
    # --- the command line -----------------------------------------------------------------------------------------
    "cli": _room(
        "the command `airflow-mcp`, one module per sub-command; without Airflow",
        *(
            *_CORE,
            "audit",
            "cluster",
            "dag_rendering",
            "doctor",
            "hooks",
            "mlflow_client",
            "registry",
            "serving",
            "work/*",
        ),
    ),
}
"""Lowest rooms first within each part."""


def may_import(room: str, other: str) -> bool:
    """Say whether one room may import another.

    :param room: the importing room, such as ``core/gate``.
    :param other: the imported room.
    """
    allowed = ROOMS[room].may_import if room in ROOMS else frozenset()
    return other in (room, "exceptions") or other in allowed or f"{other.split('/', maxsplit=1)[0]}/*" in allowed


def table() -> str:
    """Return the table of all rooms, as Markdown."""
    lines = ["| room | what is in it | may import |", "| --- | --- | --- |"]
    for name, room in ROOMS.items():
        names = sorted(room.may_import)
        shown = [name for name in names if f"{name.split('/')[0]}/*" not in names or name.endswith("*")]
        place = f"{name}.py" if (ROOT / "airflow_mcp" / f"{name}.py").is_file() else f"{name}/"
        lines.append(f"| `{place}` | {room.holds} | {', '.join(f'`{name}`' for name in shown)} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """Return a page with the table in its place.

    :param page: text of the page, with both markers.
    """
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{table()}\n{END}", page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
