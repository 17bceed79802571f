"""The queries of alerts and dashboards, and whether what they ask for exists in what exporters print."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT

MONITORING = ROOT / "stack" / "monitoring"
OF_PROMETHEUS = {"up": {"job", "instance"}}
"""What Prometheus itself adds, with its labels."""
_OF_GRAFANA = {"$__rate_interval": "5m", "$model": "fraud"}
_VALUES = re.compile(r"label_values\((?P<metric>[\w:]+), (?P<label>\w+)\)")


def alerts() -> list[dict[str, Any]]:
    """Return every alert."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query with the name of its alert or panel."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for file in sorted((MONITORING / "dashboards").glob("*.json")):
        read = json.loads(file.read_text(encoding="utf-8"))
        for panel in read["panels"]:
            for target in panel["targets"]:
                yield f"{read['title']}: {panel['title']}", target["expr"]
        for variable in read["templating"]["list"]:
            if variable["type"] == "query":
                found = _VALUES.fullmatch(variable["query"]["query"])
                assert found is not None, variable
                yield f"{read['title']}: ${variable['name']}", f'{found["metric"]}{{{found["label"]}=~".+"}}'


def labels_of(texts: Iterable[str]) -> Mapping[str, set[str]]:
    """Return the labels of every metric that exporters print.

    :param texts: in Prometheus' text format.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] |= set(sample.labels)
    return {**found, **OF_PROMETHEUS}


def missing(query: str, printed: Mapping[str, set[str]]) -> list[str]:
    """Return the metrics and labels of a query that no exporter prints.

    :param query: PromQL, also with variables of Grafana.
    :param printed: labels by metric.
    """
    for name, value in _OF_GRAFANA.items():
        query = query.replace(name, value)
    problems = []
    for node in _nodes(promql_parser.parse(query)):
        if isinstance(node, promql_parser.VectorSelector):
            if node.name is None or node.name not in printed:
                problems.append(f"no metric {node.name}")
                continue
            asked = {matcher.name for matcher in node.matchers.matchers} - printed[node.name]
            problems += [f"{node.name} has no label {label}" for label in sorted(asked)]
        else:
            below = [printed.get(each.name, set()) for each in _selectors(node)]
            problems += [f"nothing has the label {label}" for label in sorted(_grouped(node) - set().union(*below))]
    return problems


def _grouped(node: Any) -> set[str]:
    """Return the labels that an expression groups by or matches on."""
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
        return set(node.modifier.labels)
    if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
        return set(node.modifier.matching.labels)
    return set()


def _selectors(node: Any) -> Iterator[Any]:
    return (each for each in _nodes(node) if isinstance(each, promql_parser.VectorSelector))


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None:
            yield from _nodes(child)
    for child in getattr(node, "args", None) or ():
        yield from _nodes(child)
