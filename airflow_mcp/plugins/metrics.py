"""The state of all models for Prometheus: facts of the registry, which survive restarts and lost packets."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from airflow_mcp.core.panel.facts import ListRow, moment
from airflow_mcp.core.panel.state import KINDS
from airflow_mcp.plugins.problems import Problem
from airflow_mcp.plugins.registry_index import SWEEP_SECONDS, Snapshot
from airflow_mcp.plugins.services import Services
from airflow_mcp.plugins.side_facts import SideFacts

_PREFIX = "airflow_mcp_"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics(services: Services) -> APIRouter:
    """Return the route of the metrics, which has a token of its own: Airflow's expire every day.

    :param services: what it works with.
    """
    exposition = _Exposition(services)

    async def metrics_token(request: Request) -> None:
        expected = services.metrics_token
        if not expected:
            raise Problem("not-found", "There are no metrics: [airflow_mcp] metrics_token is not set.")
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {expected}".encode()):
            raise Problem("not-logged-in")

    router = APIRouter(dependencies=[Depends(metrics_token)])

    @router.get("/metrics")
    async def read() -> Response:
        return Response(await exposition.text(), 200, {"Cache-Control": "no-store"}, _CONTENT_TYPE)

    return router


class _Exposition:
    """The text, of which the part about models is made once per sweep, in a thread.

    :param services: what it works with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = asyncio.Lock()
        self._rows: Mapping[str, ListRow] | None = None
        self._due = datetime.min.replace(tzinfo=UTC)
        self._models = b""

    async def text(self) -> bytes:
        """Return all metrics."""
        snapshot, now = await self._services.index.current(), self._services.clock()
        async with self._lock:
            if snapshot.rows is not self._rows or now >= self._due:
                self._models = await asyncio.to_thread(self._of_models, snapshot.rows, now)
                self._rows, self._due = snapshot.rows, now + timedelta(seconds=SWEEP_SECONDS)
        return "".join(_of_server(snapshot, self._services.server)).encode() + self._models

    def _of_models(self, rows: Mapping[str, ListRow], now: datetime) -> bytes:
        facts = self._services.side_facts.read(rows, now)
        return "".join((*_of_rows(rows), *_of_side_facts(facts))).encode()


def _of_server(snapshot: Snapshot, server: str) -> Iterator[str]:
    yield from _family("up", "Whether MLflow answered the last sweep.", [({"mlflow_conn_id": server}, _flag(snapshot))])
    if snapshot.read_at is not None:
        read_at = snapshot.read_at.timestamp()
        yield from _family("last_sweep_timestamp_seconds", "When MLflow was read completely.", [({}, read_at)])


def _flag(snapshot: Snapshot) -> float:
    return float(snapshot.read_at is not None and not snapshot.is_down)


def _of_rows(rows: Mapping[str, ListRow]) -> Iterator[str]:
    found = list(rows.values())
    counts = [({"state": str(kind)}, float(sum(row.state.kind == kind for row in found))) for kind in KINDS]
    yield from _family("models", "Models by state.", counts)
    champions = [row for row in found if row.standing.champion]
    yield from _family(
        "champion_version",
        "Version in production.",
        [({"model": row.name, "owner": row.owner}, float(row.standing.champion or 0)) for row in champions],
    )
    yield from _family(
        "champion_since_timestamp_seconds",
        "When the champion became champion.",
        [({"model": row.name}, row.since.timestamp()) for row in champions if row.since is not None],
    )
    yield from _family(
        "champion_loads",
        "0 when the champion's load check failed, or it was deleted.",
        [
            ({"model": row.name}, float(row.state.kind not in ("champion_unusable", "champion_deleted")))
            for row in found
            if row.standing.champion or row.state.kind == "champion_deleted"
        ],
    )
    yield from _family(
        "way_back",
        "Whether previous_champion can be used.",
        [({"model": row.name}, _way_back(row)) for row in champions],
    )
    yield from _family(
        "champion_moved_outside",
        "Whether the champion was moved outside airflow-mcp.",
        [({"model": row.name}, _has(row, "moved_outside")) for row in champions],
    )
    yield from _family(
        "moves_total", "Recorded moves.", [({"model": row.name}, float(row.moves)) for row in found], "counter"
    )
    yield from _family(
        "gate_verdict",
        "Decision of the gate on the newest version.",
        [({"model": row.name, "verdict": row.gate}, 1.0) for row in found if row.gate],
    )
    yield from _of_drift([row for row in found if row.checks])
    yield from _family("rollout_weight", "Percent of the requests, of rollouts in progress.", [*_weights(found)])


def _of_drift(rows: list[ListRow]) -> Iterator[str]:
    yield from _family(
        "drift_share",
        "Share of drifted columns in the last check.",
        [({"model": row.name}, row.checks[-1].share) for row in rows if row.checks[-1].share is not None],
    )
    yield from _family(
        "drift_verdict",
        "Verdict of the last drift check.",
        [({"model": row.name, "verdict": row.checks[-1].verdict}, 1.0) for row in rows],
    )
    yield from _family(
        "drift_check_timestamp_seconds",
        "When the last drift check ended.",
        [({"model": row.name}, row.checks[-1].at.timestamp()) for row in rows],
    )


def _weights(rows: list[ListRow]) -> Iterator[tuple[dict[str, str], float]]:
    for row in rows:
        if row.state.values.get("canary"):
            weight = float(row.state.values["weight"])
            yield {"model": row.name, "role": "champion"}, 100.0 - weight
            yield {"model": row.name, "role": "canary"}, weight


def _of_side_facts(facts: SideFacts) -> Iterator[str]:
    yield from _family(
        "source_up",
        "Whether Airflow and the audit log could be read.",
        [({"source": source}, float(answered)) for source, answered in facts.answered.items()],
    )
    found = facts.retraining
    needed = {name: moment(each["needed"]["since"]) for name, each in found.items() if each["needed"]}
    running = {name: any(one["outcome"] is None for one in each["trainings"][-1:]) for name, each in found.items()}
    for name, help_text, values in (
        ("retrain_paused", "Whether somebody paused retraining.", {n: bool(e["paused"]) for n, e in found.items()}),
        ("retrain_stopped", "Whether rejections stopped retraining.", {n: e["stopped"] for n, e in found.items()}),
        ("retrain_running", "Whether a training is in progress.", running),
        ("retrain_needed_timestamp_seconds", "Since when a training is needed.", _seconds(needed)),
    ):
        yield from _family(name, help_text, [({"model": model}, float(value)) for model, value in values.items()])
    decisions = [({"model": model}, float(each["decisions"])) for model, each in found.items()]
    yield from _family("retrain_ledger_decisions_total", "Decisions in the ledger.", decisions, "counter")
    stages = [
        ({"model": model, "step": step}, seconds)
        for model, cycle in facts.cycles.items()
        for step, seconds in cycle.stages.items()
    ]
    yield from _family("release_step_seconds", "How long the latest release took to each step.", stages)
    steps = {name: {"model": name, "step": node.node.name} for name, node in facts.approvals.items()}
    for name, help_text, times in (
        ("approval_waiting_timestamp_seconds", "Since when people are asked.", _times(facts, "opened_at")),
        ("approval_deadline_timestamp_seconds", "When the request expires.", _times(facts, "expires_at")),
    ):
        yield from _family(name, help_text, [(steps[model], value) for model, value in times.items()])


def _times(facts: SideFacts, name: str) -> dict[str, float]:
    return _seconds({model: getattr(node, name) for model, node in facts.approvals.items()})


def _seconds(times: Mapping[str, datetime | None]) -> dict[str, float]:
    return {name: time.timestamp() for name, time in times.items() if time is not None}


def _way_back(row: ListRow) -> float:
    return float(row.previous is not None and not _has(row, "no_way_back"))


def _has(row: ListRow, kind: str) -> float:
    return float(any(concern.kind == kind for concern in row.standing.concerns))


def _family(
    name: str, help_text: str, samples: list[tuple[dict[str, str], float]], kind: str = "gauge"
) -> Iterator[str]:
    """Yield the lines of one metric; none when it has no sample."""
    if not samples:
        return
    yield f"# HELP {_PREFIX}{name} {help_text}\n# TYPE {_PREFIX}{name} {kind}\n"
    for labels, value in samples:
        inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items() if text or label == "state")
        yield f"{_PREFIX}{name}{{{inner}}} {value:.17g}\n" if inner else f"{_PREFIX}{name} {value:.17g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
