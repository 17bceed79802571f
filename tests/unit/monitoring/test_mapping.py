"""The mapping file of statsd_exporter, whose image cannot be had here: its fields, its expressions, what they name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from airflow_mcp.metrics.catalogue import METRICS, PREFIX, prometheus_name
from tests.support.statsd import MAPPING, exposition

DEFAULTS = {"match_type", "observer_type", "histogram_options", "summary_options", "ttl", "glob_disable_ordering"}
RULE = {"match", "match_metric_type", "match_type", "name", "help", "labels", "action", "ttl", "observer_type"}
RULE |= {"histogram_options", "summary_options", "honor_labels", "scale"}
KINDS = {"counter": "c", "gauge": "g", "timer": "ms"}
NOT_RE2 = re.compile(r"\(\?(?:[=!>]|<[=!])|\\[1-9]|[*+?]\+")
"""Look-around, back references and possessive repetition: Python knows them, Go's expressions do not."""


def problems(config: dict[str, Any]) -> list[str]:
    """Return what statsd_exporter would refuse, or would read otherwise than it is meant."""
    defaults, rules = config.get("defaults", {}), config.get("mappings", [])
    found = [f"no field {name}" for name in config.keys() - {"defaults", "mappings"}]
    found += [f"defaults: no field {name}" for name in defaults.keys() - DEFAULTS]
    if not re.fullmatch(r"(\d+(ms|s|m|h))+", str(defaults.get("ttl", "0s"))):
        found.append("defaults: ttl is no duration of Go")
    buckets = defaults.get("histogram_options", {}).get("buckets", [])
    if buckets != sorted(set(buckets)):
        found.append("defaults: buckets do not rise")
    for number, rule in enumerate(rules):
        found += [f"rule {number}: no field {name}" for name in rule.keys() - RULE]
        if NOT_RE2.search(rule["match"]):
            found.append(f"rule {number}: Go has no such expression")
        if not rule["match"].startswith("^") or not rule["match"].endswith("$"):
            found.append(f"rule {number}: matches a part of a name")
        if rule.get("match_metric_type") not in ("counter", "gauge", "observer", None):
            found.append(f"rule {number}: no such type")
        if not re.fullmatch(r"[a-zA-Z_](?:[a-zA-Z0-9_]|\$\{\d+\})*", rule["name"]):
            found.append(f"rule {number}: no name of Prometheus")
    return found


@pytest.fixture
def config() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(MAPPING.read_text(encoding="utf-8"))
    return read


def test_the_file_is_one_that_the_exporter_reads(config: dict[str, Any]) -> None:
    assert problems(config) == []
    assert (config["defaults"]["match_type"], config["defaults"]["observer_type"]) == ("regex", "histogram")


@pytest.mark.parametrize(
    ("place", "name", "value", "problem"),
    [
        ("defaults", "timer_type", "histogram", "defaults: no field timer_type"),
        ("defaults", "ttl", "7d", "defaults: ttl is no duration of Go"),
        ("defaults", "histogram_options", {"buckets": [1, 0.5]}, "defaults: buckets do not rise"),
        (0, "match", r"^(?=airflow).*$", "rule 0: Go has no such expression"),
        (0, "match", r"airflow_mcp\.(.+)", "rule 0: matches a part of a name"),
        (0, "match_metric_type", "timer", "rule 0: no such type"),
        (0, "name", "airflow-mcp", "rule 0: no name of Prometheus"),
        (0, "tags", {}, "rule 0: no field tags"),
    ],
)
def test_a_mistake_is_found(config: dict[str, Any], place: str | int, name: str, value: Any, problem: str) -> None:
    part = config["defaults"] if place == "defaults" else config["mappings"][place]
    part[name] = value
    assert problem in problems(config)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_gets_the_name_that_alerts_and_dashboards_ask_for(name: str) -> None:
    metric = METRICS[name]
    tags = "".join(f",{tag}=x" for tag in ("model", *metric.tags))
    for prefix in ("airflow.", ""):
        text = exposition([f"{prefix}{PREFIX}{name}{tags}:1|{KINDS[metric.kind]}"])
        ending = "_count" if metric.kind == "timer" else ""
        assert f"\n{prometheus_name(name)}{ending}{{" in f"\n{text}"


def test_metrics_of_airflow_keep_their_names() -> None:
    text = exposition(["airflow.ti.finish,dag_id=airflow_mcp,state=success:1|c"])
    assert text.startswith("airflow_ti_finish{")
