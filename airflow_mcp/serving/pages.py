"""What can be read besides predictions: health, status, metrics, the description of the API. Nothing here writes."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from airflow_mcp import __version__
from airflow_mcp.core.serving.inference_v2 import metadata_of
from airflow_mcp.core.serving.openapi import describe_api
from airflow_mcp.core.serving.replica_events import PATH_EVENTS
from airflow_mcp.core.serving.signature import ModelSignature
from airflow_mcp.serving.drain import Drain
from airflow_mcp.serving.errors import STATUSES, Problem
from airflow_mcp.serving.metrics import Metrics
from airflow_mcp.serving.models import ServedModels

_JSON, _TEXT, _HTML = b"application/json", b"text/plain; version=0.0.4; charset=utf-8", b"text/html; charset=utf-8"
StatusSource: TypeAlias = Callable[[], Mapping[str, Any]]
"""Returns a part of ``/status``: what a follower, a breaker or a log has to say."""


class Page(NamedTuple):
    """An answer."""

    body: bytes
    content_type: bytes = _JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Pages:
    """The pages of one server.

    :param models: what is loaded.
    :param metrics: its metrics.
    :param drain: whether the server is ending.
    :param default_model: the model that ``/invocations`` asks.
    """

    def __init__(self, models: ServedModels, metrics: Metrics, drain: Drain, default_model: str) -> None:
        self._models = models
        self._metrics = metrics
        self._drain = drain
        self._default_model = default_model
        self._started = asyncio.get_running_loop().time()
        self.is_complete: Callable[[], str] = lambda: ""
        """Returns why the server is not ready although every model can answer; empty when it is."""
        self.sources: dict[str, StatusSource] = {}
        """Further parts of ``/status``, by name."""
        self.events: Callable[[], bytes] = lambda: b""
        """Returns the latest events as JSON; empty where no registry is followed."""
        self._pages: Mapping[str, Callable[[], Page]] = {
            "/healthz": self._health,
            "/readyz": self._ready,
            "/metrics": lambda: Page(metrics.exposition(), _TEXT),
            "/docs": self._docs,
            "/openapi.json": lambda: _json(self._openapi()),
            "/version": lambda: _json({"version": __version__, "software": "airflow-mcp"}),
            "/status": lambda: _json(self._status()),
            PATH_EVENTS: lambda: Page(self._latest_events()),
            "/ping": self._ping,
            "/health": self._ping,
            "/v2": lambda: _json({"name": "airflow-mcp", "version": __version__, "extensions": []}),
            "/v2/health/live": lambda: _json({"live": True}),
            "/v2/health/ready": self._ready,
        }

    def find(self, path: str) -> Page:
        """Return the page of a path.

        :raises Problem: when there is none.
        """
        page = self._pages.get(path)
        if page is not None:
            return page()
        parts = path.strip("/").split("/")
        if parts[:2] == ["v2", "models"] and len(parts) >= 3:
            return self._model(parts[2], parts[3:])
        raise Problem("not_found", "there is no such path; see `/docs`")

    # --- health ------------------------------------------------------------------------------------------------------

    def _health(self) -> Page:
        plan = self._models.plan(self._default_model) if self._default_model else None
        version = plan.champion.version if plan is not None and plan.champion is not None else ""
        uptime = round(asyncio.get_running_loop().time() - self._started, 1)
        return _json({"status": "ok", "model_version": version, "uptime": uptime})

    def why_not_ready(self) -> str:
        """Return why the server is not ready; empty when it is."""
        if self._drain.is_draining:
            return "the server is ending"
        names = sorted({*self._models.plans, *self._models.reasons})
        for name in names:
            if not self._models.can_answer(name):
                return f"no model yet: {self._models.why_not(name)}"
        return self.is_complete() if names else "no model yet: none has been found"

    def _ready(self) -> Page:
        reason = self.why_not_ready()
        return _json({"ready": not reason, "reason": reason}, 503 if reason else 200)

    def _ping(self) -> Page:
        return Page(b"\n", _JSON, 503 if self.why_not_ready() else 200)

    # --- models ------------------------------------------------------------------------------------------------------

    def _model(self, name: str, rest: list[str]) -> Page:
        plan = self._models.plan(name)
        if plan is None:
            raise Problem("unknown_model", "this server does not serve a model of this name")
        held = {key.version: pool for key, pool in self._models.pools.items() if key.model == name}
        version = plan.champion.version if plan.champion is not None else ""
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
            if version not in held:
                raise Problem("unknown_version", "this server does not hold that version")
        if rest == ["ready"]:
            is_ready = version in held and held[version].ready and not self._drain.is_draining
            return _json({"name": name, "ready": is_ready}, 200 if is_ready else 503)
        if rest:
            raise Problem("not_found", "there is no such path; see `/docs`")
        signature = held[version].report.signature if version in held else ModelSignature()
        return _json({**metadata_of(name, version, signature), "versions": sorted(held, key=int_or_text)})

    def _status(self) -> dict[str, Any]:
        models = {}
        for name, plan in self._models.plans.items():
            models[name] = {
                "champion": plan.champion.version if plan.champion else None,
                "canary": plan.canary.version if plan.canary else None,
                "standby": plan.standby.version if plan.standby else None,
                "weight": plan.weight,
                "generation": plan.generation,
                "error": plan.error,
                "reason": self._models.reasons.get(name, ""),
            }
        versions = {
            str(key): {
                "ready": pool.ready,
                "in_flight": pool.in_flight,
                "failure": pool.failure,
                "processes": pool.processes,
                "restarts": pool.restarts,
                "load_seconds": round(pool.report.seconds, 3),
                "memory_bytes": pool.report.memory_bytes,
                "is_batched": pool.report.is_batched,
                "why_alone": pool.report.why_alone,
                "flavors": list(pool.report.flavors),
            }
            for key, pool in self._models.pools.items()
        }
        further = {name: dict(source()) for name, source in self.sources.items()}
        return {"ready": not self.why_not_ready(), "models": models, "versions": versions, **further}

    def _latest_events(self) -> bytes:
        """Return the latest events.

        :raises Problem: when this server follows no registry, and so has none.
        """
        if found := self.events():
            return found
        raise Problem("not_found", "this server follows no registry, so it has no events")

    # --- the API -----------------------------------------------------------------------------------------------------

    def _openapi(self) -> dict[str, Any]:
        loaded = {}
        for name, plan in self._models.plans.items():
            pool = self._models.pools.get(plan.champion) if plan.champion is not None else None
            if pool is not None and plan.champion is not None:
                loaded[name] = (plan.champion.version, pool.report.signature)
        return describe_api(loaded, self._default_model, STATUSES)

    def _docs(self) -> Page:
        """Return a page that needs nothing from other servers, so that it is readable behind a firewall."""
        document = self._openapi()
        rows = "".join(
            f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>"
            f"<p>{html.escape(operation['summary'])}</p>{_details(operation)}</section>"
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        )
        errors = "".join(
            f"<tr><td>{int(status)}</td><td><code>{code}</code></td><td>{html.escape(meaning)}</td></tr>"
            for code, (status, meaning) in STATUSES.items()
        )
        return Page(_PAGE.replace("{routes}", rows).replace("{errors}", errors).encode(), _HTML)


_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Model server</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h2{font-size:1rem;margin:1.5rem 0 .25rem}pre{background:#f3f4f6;padding:.75rem;overflow:auto;font-size:.8rem}
table{border-collapse:collapse}td{padding:.2rem .75rem .2rem 0;vertical-align:top}p{margin:.25rem 0}
@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#16191d}pre{background:#22262b}a{color:#8ab4f8}}
</style></head><body><h1>Model server</h1>
<p>The same as <a href="openapi.json">OpenAPI</a>, built from the signatures of the models that answer now.</p>
{routes}<h2>Errors</h2><table>{errors}</table></body></html>"""


def _details(operation: Mapping[str, Any]) -> str:
    body = operation.get("requestBody")
    if body is None:
        return ""
    schema = msgspec.json.format(msgspec.json.encode(body["content"]["application/json"]["schema"]), indent=2)
    return f"<details><summary>Body</summary><pre>{html.escape(schema.decode())}</pre></details>"


def _json(document: Mapping[str, Any], status: int = 200) -> Page:
    return Page(msgspec.json.encode(document), _JSON, status)


def int_or_text(version: str) -> tuple[int, str]:
    """Return what versions are sorted by."""
    return (int(version), "") if version.isdigit() else (0, version)
