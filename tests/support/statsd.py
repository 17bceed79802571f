"""What Airflow's own StatsD client sends, and how statsd_exporter shows it to Prometheus with our mapping."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from airflow.sdk._shared.observability.metrics import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

from tests.support.paths import ROOT

MAPPING = ROOT / "stack" / "monitoring" / "statsd.yml"
_KINDS = {"c": "counter", "g": "gauge", "ms": "observer"}
_LINE = re.compile(r"(?P<name>[^,:]+)(?P<tags>(?:,[^,:=]+=[^,:=]+)*):(?P<value>-?[\d.]+)\|(?P<kind>c|g|ms)")


class Wire:
    """A port that gets what is sent.

    :param listening: the socket.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening

    @property
    def port(self) -> int:
        """The port, on 127.0.0.1."""
        return int(self._socket.getsockname()[1])

    def lines(self, count: int = 0) -> list[str]:
        """Return so many lines, or all that have come.

        :param count: how many to wait for; 0 takes what is there.
        """
        found: list[str] = []
        self._socket.settimeout(10 if count else 0.2)
        while not count or len(found) < count:
            try:
                found.append(self._socket.recv(4096).decode())
            except TimeoutError:
                break
        return found

    def variables(self, *, tagged: bool = True) -> dict[str, str]:
        """Return the environment variables that let Airflow send its metrics here.

        :param tagged: whether Airflow sends tags.
        """
        options = {
            "STATSD_ON": "True",
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(self.port),
            "STATSD_INFLUXDB_ENABLED": str(tagged),
            "LEGACY_NAMES_ON": "False",
        }
        return {f"AIRFLOW__METRICS__{name}": value for name, value in options.items()}

    def configure(self, environment: pytest.MonkeyPatch, *, tagged: bool = True) -> None:
        """Let Airflow in this process send its metrics here.

        :param environment: sets the variables.
        :param tagged: whether Airflow sends tags.
        """
        for name, value in self.variables(tagged=tagged).items():
            environment.setenv(name, value)


@contextmanager
def open_wire() -> Iterator[Wire]:
    """Yield a port that gets what is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        listening.bind(("127.0.0.1", 0))
        yield Wire(listening)


@contextmanager
def airflow_client() -> Iterator[None]:
    """Let Airflow's client read its settings again, and afterwards be what it was."""
    before = stats._factory, stats._backend, stats._export_legacy_names
    stats.initialize(factory=get_stats_factory(), export_legacy_names=False)
    try:
        yield
    finally:
        client = getattr(stats._backend, "statsd", None)
        if client is not None:
            client.close()
        stats._factory, stats._backend, stats._export_legacy_names = before


def exposition(lines: list[str]) -> str:
    """Return the text that Prometheus scrapes from statsd_exporter, without values that nothing here looks at.

    :param lines: lines of StatsD with tags of InfluxDB.
    """
    return "".join(each for line in lines for each in _samples(line))


def _samples(line: str) -> Iterator[str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise AssertionError(f"statsd_exporter would drop {line!r}")
    kind, config = _KINDS[found["kind"]], yaml.safe_load(MAPPING.read_text(encoding="utf-8"))
    name = _mapped(found["name"], kind, config["mappings"])
    tags = dict(tag.split("=") for tag in found["tags"].split(",")[1:])
    value = float(found["value"])
    if kind != "observer":
        yield _line(name, tags, value)
        return
    for edge in [*config["defaults"]["histogram_options"]["buckets"], float("inf")]:
        within = float(value / 1000 <= edge)
        yield _line(f"{name}_bucket", {**tags, "le": "+Inf" if edge == float("inf") else f"{edge:g}"}, within)
    yield _line(f"{name}_sum", tags, value / 1000)
    yield _line(f"{name}_count", tags, 1.0)


def _mapped(name: str, kind: str, mappings: list[dict[str, Any]]) -> str:
    for rule in mappings:
        found = re.search(rule["match"], name)
        if found is not None and rule["match_metric_type"] == kind:
            name = found.expand(re.sub(r"\$\{(\d+)\}", r"\\g<\1>", rule["name"]))
            break
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _line(name: str, labels: dict[str, str], value: float) -> str:
    inner = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{inner}}} {value:g}\n"
