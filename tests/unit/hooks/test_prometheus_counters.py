"""Counters of replicas from a server that answers as Prometheus does; a real one is in the tests of rollouts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest

from airflow_mcp.core.rollout.plan import checked_selector
from airflow_mcp.core.rollout.samples import read_samples
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, ServerUnreachableError
from airflow_mcp.hooks.prometheus import PrometheusAddress
from airflow_mcp.hooks.prometheus_counters import PrometheusCounters

PREFIX = "airflow_mcp_serving_"
Series = tuple[dict[str, str], str]


def series(name: str, value: str, instance: str = "10.0.0.1:8000", **labels: str) -> Series:
    named = {"__name__": name} if name else {}
    return {**named, "job": "fraud", "instance": instance, "pod": f"pod-{instance}", **labels}, value


def counts(instance: str, answered: str, **more: str) -> list[Series]:
    of = {"model": "fraud", **more}
    return [
        series(f"{PREFIX}requests_total", answered, instance, version="8", role="canary", code="200", **of),
        series(f"{PREFIX}plan_generation", "3", instance, **of),
    ]


class Answers(BaseHTTPRequestHandler):
    """Answers the three queries, told apart by how they begin."""

    vectors: ClassVar[dict[str, list[Series]]] = {}
    more: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        query = parse_qs(text)["query"][0]
        self.seen.append(query)
        found = next(made for start, made in self.vectors.items() if query.startswith(start))
        result = [{"metric": labels, "value": [1764460800.0, value]} for labels, value in found]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **self.more})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def counters() -> Iterator[PrometheusCounters]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    instances = ("10.0.0.1:8000", "10.0.0.2:8000")
    Answers.seen, Answers.more = [], {}
    Answers.vectors = {
        "{__name__": [*counts(instances[0], "90"), *counts(instances[1], "10")],
        "process_start": [series("process_start_time_seconds", "1.7e+09", each) for each in instances],
        "time()": [series("", "14.5", each) for each in instances],
    }
    yield PrometheusCounters(PrometheusAddress(f"http://127.0.0.1:{server.server_port}"), "fraud")
    server.shutdown()
    server.server_close()


def test_each_replica_reads_as_if_it_had_answered_itself(counters: PrometheusCounters) -> None:
    found = read_samples(asyncio.run(counters.read()), "fraud", canary="8", champion="7")
    assert [(each.replica, each.counts.canary.answered) for each in found] == [
        ("fraud/10.0.0.1:8000", 90),
        ("fraud/10.0.0.2:8000", 10),
    ]
    assert {(each.generation, each.started) for each in found} == {(3, 1.7e9)}


def test_only_the_series_of_the_model_and_the_selector_are_asked_for(counters: PrometheusCounters) -> None:
    odd = PrometheusCounters(counters.prometheus, 'a "b" \\ c', 'namespace="ml"')
    asyncio.run(odd.read())
    matchers = 'model="a \\"b\\" \\\\ c", namespace="ml"'
    assert len(Answers.seen) == 3
    assert all(matchers in query for query in Answers.seen)


class TestMissingDataIsNeverAPass:
    def failed(self, counters: PrometheusCounters) -> str:
        with pytest.raises(EvidenceError) as caught:
            read_samples(asyncio.run(counters.read()), "fraud", canary="8", champion="7")
        return str(caught.value)

    def test_no_series_are_an_error(self, counters: PrometheusCounters) -> None:
        Answers.vectors["{__name__"] = []
        assert 'has no metrics of a model server with model="fraud"' in self.failed(counters)

    @pytest.mark.parametrize("age", ["121", "NaN"])
    def test_old_counts_are_an_error(self, counters: PrometheusCounters, age: str) -> None:
        Answers.vectors["time()"][1] = series("", age, "10.0.0.2:8000")
        assert "what Prometheus has of fraud/10.0.0.2:8000 is" in self.failed(counters)

    def test_a_replica_whose_start_is_not_known_is_an_error(self, counters: PrometheusCounters) -> None:
        del Answers.vectors["process_start"][1]
        assert self.failed(counters).startswith("fraud/10.0.0.2:8000 does not serve 'fraud'")

    def test_what_two_prometheis_have_is_not_counted_twice(self, counters: PrometheusCounters) -> None:
        Answers.vectors["{__name__"] += counts("10.0.0.1:8000", "90", prometheus_replica="b")
        assert "of fraud/10.0.0.1:8000 several times" in self.failed(counters)

    def test_a_part_of_an_answer_is_no_answer(self, counters: PrometheusCounters) -> None:
        Answers.more = {"warnings": ["store 2 does not answer"]}
        with pytest.raises(ServerUnreachableError, match=r"in part: .*store 2"):
            asyncio.run(counters.read())

    def test_another_kind_of_answer_is_no_answer(self, counters: PrometheusCounters) -> None:
        Answers.more = {"data": {"resultType": "scalar", "result": [1, "2"]}}
        with pytest.raises(ServerUnreachableError, match="not with a vector"):
            asyncio.run(counters.read())


@pytest.mark.parametrize("given", ["", ' namespace="ml" ', 'namespace="ml", job=~"a|b"', 'x!="a\\"b"'])
def test_a_selector_is_a_list_of_matchers(given: str) -> None:
    assert checked_selector(given) == given.strip()


@pytest.mark.parametrize("given", ["ml", "namespace=ml", '{namespace="ml"}', 'a="b"} or {c="d"', 'a="b",', 7])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="prometheus_selector must be matchers"):
        checked_selector(given)
