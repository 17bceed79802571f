"""Every metric and label that an alert or a dashboard asks for exists in what our exporters print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stack.monitoring.dashboards import FOLDER, dashboards
from tests.support.metrics_world import events_text, every_model, metrics_app, model_server_text, scraped
from tests.support.promql import OF_PROMETHEUS, labels_of, missing, queries


async def test_every_query_asks_for_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = await scraped(metrics_app(every_model(tmp_path)))
    printed = labels_of([models, events_text(monkeypatch), model_server_text()])
    found = list(queries())
    assert len(found) > 40
    assert [(name, problems) for name, query in found if (problems := missing(query, printed))] == []


async def test_no_two_exporters_print_the_same_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [await scraped(metrics_app(every_model(tmp_path))), events_text(monkeypatch), model_server_text()]
    names = [name for text in texts for name in labels_of([text]) if name not in OF_PROMETHEUS]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(gone_total)", "no metric gone_total"),
        ('rate(known_total{color="red"}[5m])', "known_total has no label color"),
        ("sum by (color) (known_total)", "nothing has the label color"),
        ("known_total / on (color) known_total", "nothing has the label color"),
        (
            'histogram_quantile(0.9, rate(known_total{color=~"$model"}[$__rate_interval]))',
            "known_total has no label color",
        ),
        ("(known_total) unless gone_total == 1", "no metric gone_total"),
    ],
)
def test_a_query_for_nothing_is_found(query: str, problem: str) -> None:
    printed = labels_of(['# TYPE known_total counter\nknown_total{model="a"} 1\n'])
    assert missing(query, printed)[0] == problem
    assert missing(query.replace("gone", "known").replace("color", "model"), printed) == []


def test_the_dashboards_are_those_that_the_generator_makes() -> None:
    committed = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    assert committed == dashboards()


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_a_dashboard_can_be_imported_anywhere(name: str) -> None:
    text = dashboards()[name]
    read = json.loads(text)
    assert read["uid"] == name.removesuffix(".json")
    assert "id" not in read, "Grafana gives it one"
    assert "http" not in text, "no address is written down"
    assert {panel["datasource"]["uid"] for panel in read["panels"]} == {"${datasource}"}
    assert len({panel["id"] for panel in read["panels"]}) == len(read["panels"])
    for panel in read["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["description"].endswith(".")


def test_panels_do_not_overlap() -> None:
    for text in dashboards().values():
        places = [panel["gridPos"] for panel in json.loads(text)["panels"]]
        cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
        assert len(cells) == len(set(cells))
