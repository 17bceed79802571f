"""The Grafana dashboards, from ``dashboards.yml``: ``python -m stack.monitoring.dashboards`` writes their JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SOURCE = Path(__file__).with_suffix(".yml")
FOLDER = Path(__file__).with_suffix("")
Json = dict[str, Any]
_PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
"""A variable, so that the files hold no address."""
_WIDTH = 24
_RED_FROM_ONE = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
_PLAIN = [{"color": "blue", "value": None}]


def dashboards() -> dict[str, str]:
    """Return the text of each file, by its name."""
    read = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return {f"{each['uid']}.json": json.dumps(_dashboard(each), indent=1, ensure_ascii=False) + "\n" for each in read}


def _dashboard(given: Json) -> Json:
    models = {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": _PROMETHEUS,
        "query": {"query": given["models"], "refId": "A"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    prometheus = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": given["uid"],
        "title": given["title"],
        "tags": ["airflow-mcp"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [prometheus, models]},
        "annotations": {"list": []},
        "panels": list(_panels(given["rows"])),
    }


def _panels(rows: list[Json]) -> Iterator[Json]:
    """Yield the panels with their places; those of a row share its width."""
    top, number = 0, 0
    for row in rows:
        width = _WIDTH // len(row["panels"])
        for column, given in enumerate(row["panels"]):
            number += 1
            place = {"x": column * width, "y": top, "w": width, "h": row["height"]}
            kind = next(name for name in _KINDS if name in given)
            common = {"id": number, "title": given[kind], "description": given["says"], "gridPos": place}
            yield {**common, "datasource": _PROMETHEUS, **_KINDS[kind](given)}
        top += row["height"]


def _number(given: Json) -> Json:
    steps = _PLAIN if given.get("plain") else _RED_FROM_ONE
    return {
        "type": "stat",
        "targets": [_target(0, given["query"], instant=True)],
        "fieldConfig": _fields(given, thresholds={"mode": "absolute", "steps": steps}),
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "graphMode": "none"},
    }


def _lines(given: Json) -> Json:
    return {
        "type": "timeseries",
        "targets": [_target(place, *query) for place, query in enumerate(given["queries"].items())],
        "fieldConfig": _fields(given, custom={"fillOpacity": 8}),
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _table(given: Json) -> Json:
    queries = given["columns"].values()
    targets = [{**_target(place, query, instant=True), "format": "table"} for place, query in enumerate(queries)]
    headings = {f"Value #{target['refId']}": heading for target, heading in zip(targets, given["columns"], strict=True)}
    named = {"model": "Model", "owner": "Owner", **headings}
    return {
        "type": "table",
        "targets": targets,
        "fieldConfig": _fields(given, custom={"filterable": True}),
        "transformations": [
            {"id": "joinByField", "options": {"byField": "model", "mode": "outer"}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": named}},
        ],
        "options": {"cellHeight": "sm"},
    }


_KINDS = {"number": _number, "lines": _lines, "table": _table}


def _fields(given: Json, **more: Any) -> Json:
    return {"defaults": {"unit": given.get("unit", "short"), **more}, "overrides": []}


def _target(place: int, first: str, second: str = "", *, instant: bool = False) -> Json:
    """Return one query of a panel, given as the query, or as legend and query."""
    legend, query = (first, second) if second else ("", first)
    query = query.replace("{MODEL", '{model=~"$model"').replace("EACH", "[$__rate_interval]")
    return {
        "refId": chr(ord("A") + place),
        "datasource": _PROMETHEUS,
        "expr": query,
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
    }


if __name__ == "__main__":
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
