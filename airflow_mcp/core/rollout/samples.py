"""What one replica of a model server has counted, read from its metrics in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, NamedTuple

from pydantic import Field

from airflow_mcp.core.document import Document
from airflow_mcp.exceptions import EvidenceError

_PREFIX = "airflow_mcp_serving_"
_STARTED = "process_start_time_seconds"
_LINE = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?\s*")
_LABEL = re.compile(r'(?P<name>[A-Za-z_]\w*)="(?P<value>(?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_NOT_JUDGED = frozenset({408, 429, 499})
"""Statuses that say nothing about the version: a slow or impatient caller, a rate limit."""
_OVERLOADED = 503
_FAILED_COPIES = frozenset({"model_failed", "model_crashed", "internal", "upstream_failed", "timeout"})
"""Results of copied requests that are errors of the model; see ``airflow_mcp.serving.errors``."""
_Count = Annotated[float, Field(ge=0)]


class Counts(Document):
    """Requests that one version was asked in one role."""

    answered: _Count = 0
    """Answers that are predictions, or errors of the model."""
    failed: _Count = 0
    """Those that are errors of the model: a status of 500 or above, but not 503, which means overload."""
    refused: _Count = 0
    """Requests that the version refused, with a status from 400 to 499."""
    timed: _Count = 0
    """Requests in the histogram of latencies."""
    within: dict[str, _Count] = Field(default_factory=dict)
    """Requests that took at most so many milliseconds, by edge of the histogram."""
    unfit: _Count | None = 0
    """Requests whose rows did not fit the signature; None when a server does not count them."""
    classes: dict[str, _Count] = Field(default_factory=dict)
    """Predictions by their value; ``other`` stands for all values that were not counted one by one."""
    ranges: dict[str, _Count] = Field(default_factory=dict)
    """Predicted numbers, by the edge of their range."""

    def plus(self, other: Counts, sign: int = 1) -> Counts:
        """Return the sum with other counts, or the difference.

        :param other: the other counts.
        :param sign: 1 to add, -1 to subtract. A difference below 0 becomes 0.
        """
        is_known = self.unfit is not None and other.unfit is not None
        return Counts(
            answered=_sum(self.answered, other.answered, sign),
            failed=_sum(self.failed, other.failed, sign),
            refused=_sum(self.refused, other.refused, sign),
            timed=_sum(self.timed, other.timed, sign),
            within=_sums(self.within, other.within, sign),
            unfit=_sum(self.unfit or 0, other.unfit or 0, sign) if is_known else None,
            classes=_positive(_sums(self.classes, other.classes, sign)),
            ranges=_positive(_sums(self.ranges, other.ranges, sign)),
        )


class Pair(Document):
    """Counts of the canary and of the champion."""

    canary: Counts = Field(default_factory=Counts)
    champion: Counts = Field(default_factory=Counts)
    shadow: Counts = Field(default_factory=Counts)
    """Copies of the champion's requests that the canary was asked; only ``answered`` and ``failed``."""

    def plus(self, other: Pair, sign: int = 1) -> Pair:
        """Return the sum or the difference of all; see :meth:`Counts.plus`."""
        return Pair(
            canary=self.canary.plus(other.canary, sign),
            champion=self.champion.plus(other.champion, sign),
            shadow=self.shadow.plus(other.shadow, sign),
        )


class ReplicaSample(NamedTuple):
    """What one replica says about one model."""

    replica: str
    """Its address."""
    started: float
    """When it started, in Unix time."""
    generation: int
    """Generation of the split that it follows; 0 for none."""
    counts: Pair
    ready: frozenset[str]
    """Versions that can answer."""
    tripped: frozenset[str]
    """Versions whose breaker is open."""
    weights: Mapping[str, float]
    """Percent of the requests meant for each version."""


class _Series(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


def read_sample(
    text: str, replica: str, model: str, *, canary: str, champion: str, canary_role: str = "canary"
) -> ReplicaSample:
    """Read the metrics of one replica.

    :param text: the answer of ``/metrics``.
    :param replica: address of the replica.
    :param model: registered model.
    :param canary: number of the version whose requests in the role ``canary_role`` are counted.
    :param champion: number of the version whose requests in the role ``champion`` are counted.
    :param canary_role: ``champion`` when the canary has servers of its own, which serve nothing else.
    :raises EvidenceError: when the text is not in Prometheus' text format, or is not about this model.
    """
    started: float | None = None
    generation: int | None = None
    found: list[_Series] = []
    for series in _series(text, replica):
        if series.name == _STARTED:
            started = series.value
        elif series.labels.get("model") == model:
            if series.name == f"{_PREFIX}plan_generation":
                generation = int(series.value)
            found.append(series)
    if started is None or generation is None:
        raise EvidenceError(
            f"{replica} does not serve {model!r}: its metrics have no {_PREFIX}plan_generation of that model. Nothing "
            "was counted; check the addresses in the connection"
        )
    return ReplicaSample(
        replica,
        started,
        generation,
        Pair(
            canary=_counts(found, canary, canary_role),
            champion=_counts(found, champion, "champion"),
            shadow=_copies(found, canary),
        ),
        _marked(found, "version_ready"),
        _marked(found, "breaker_open"),
        {each.labels.get("version", ""): each.value for each in found if each.name == f"{_PREFIX}weight"},
    )


def read_samples(
    replicas: Iterable[tuple[str, str]], model: str, *, canary: str, champion: str, canary_role: str = "canary"
) -> list[ReplicaSample]:
    """Read the metrics of every replica.

    :param replicas: address of each replica, and the answer of its ``/metrics``.
    :param model: registered model.
    :param canary: as for :func:`read_sample`.
    :param champion: likewise.
    :param canary_role: likewise.
    :raises EvidenceError: when one of the answers cannot be read, or is not about this model.
    """
    return [
        read_sample(text, replica, model, canary=canary, champion=champion, canary_role=canary_role)
        for replica, text in replicas
    ]


def _marked(series: list[_Series], name: str) -> frozenset[str]:
    marked = (each for each in series if each.name == _PREFIX + name and each.value == 1)
    return frozenset(each.labels.get("version", "") for each in marked)


def _counts(series: list[_Series], version: str, role: str) -> Counts:
    answered = failed = refused = timed = 0.0
    within: dict[str, float] = {}
    unfit: float | None = None
    for each in series:
        if (each.labels.get("version"), each.labels.get("role")) != (version, role):
            continue
        if each.name == f"{_PREFIX}requests_total":
            code = each.labels.get("code", "")
            status = int(code) if code.isdecimal() else 0
            is_failed = status >= 500 and status != _OVERLOADED
            failed += each.value if is_failed else 0
            answered += each.value if is_failed or 200 <= status < 300 else 0
            refused += each.value if 400 <= status < 500 and status not in _NOT_JUDGED else 0
        elif each.name == f"{_PREFIX}request_seconds_bucket":
            edge = float(each.labels.get("le", "nan"))
            if edge == float("inf"):
                timed += each.value
            else:
                within[f"{edge * 1000:g}"] = each.value
        elif each.name == f"{_PREFIX}unfit_total":
            unfit = each.value
    if unfit is None and not answered and not refused:
        unfit = 0.0
    return Counts(
        answered=answered,
        failed=failed,
        refused=refused,
        timed=timed,
        within=within,
        unfit=unfit,
        classes=_predicted(series, version, "predictions_total", "value"),
        ranges=_predicted(series, version, "prediction_range_total", "from"),
    )


def _predicted(series: list[_Series], version: str, name: str, label: str) -> dict[str, float]:
    found = (each for each in series if each.name == _PREFIX + name and each.labels.get("version") == version)
    return {each.labels.get(label, ""): each.value for each in found}


def _copies(series: list[_Series], version: str) -> Counts:
    found = [each for each in series if each.name == f"{_PREFIX}shadow_total" and each.labels.get("version") == version]
    failed = sum(each.value for each in found if each.labels.get("result") in _FAILED_COPIES)
    answered = sum(each.value for each in found if each.labels.get("result") == "answered")
    return Counts(answered=answered + failed, failed=failed)


def _series(text: str, replica: str) -> Iterator[_Series]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        try:
            value = float(match["value"]) if match else float("nan")
        except ValueError:
            match = None
        if match is None:
            raise EvidenceError(
                f"{replica}: line {number} of its metrics is not in Prometheus' text format. Nothing was counted"
            )
        if match["name"] != _STARTED and not match["name"].startswith(_PREFIX):
            continue
        if not 0 <= value < float("inf"):  # NaN too
            raise EvidenceError(f"{replica}: {match['name']} must be a finite count; got {value}. Nothing was counted")
        labels = {each["name"]: _unescaped(each["value"]) for each in _LABEL.finditer(match["labels"] or "")}
        yield _Series(match["name"], labels, value)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], text)


def _sum(one: float, other: float, sign: int) -> float:
    return max(0.0, one + sign * other)


def _sums(one: Mapping[str, float], other: Mapping[str, float], sign: int) -> dict[str, float]:
    return {name: _sum(one.get(name, 0), other.get(name, 0), sign) for name in sorted({*one, *other})}


def _positive(counts: Mapping[str, float]) -> dict[str, float]:
    return {name: count for name, count in counts.items() if count}
