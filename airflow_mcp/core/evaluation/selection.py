"""Pick the best of several candidates: the same evidence always gives the same pick."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.metrics import Direction
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError

LeaderboardSchema = Literal["airflow_mcp/leaderboard/1", "airflow_mcp/leaderboard/2"]
LEADERBOARD_SCHEMA: LeaderboardSchema = "airflow_mcp/leaderboard/2"
"""What is written; version 1 knew no experiments."""
CANDIDATE_KEYS = ("name", "run_id", "model_uri", "identity", "evidence_identity")


@dataclass(frozen=True)
class SelectionCandidate:
    """One trained model that may be picked. Empty texts: the tasks before it pushed nothing."""

    name: str
    run_id: str
    model_uri: str
    identity: str = ""
    """Name of the training; handed on with the pick."""
    evidence_identity: str | None = ""
    """Evaluation that is expected; empty takes whatever evidence the run holds, None means that it pushed nothing."""

    @property
    def is_missing(self) -> bool:
        """Whether its training or its evaluation left nothing."""
        return not (self.run_id and self.model_uri) or self.evidence_identity is None


@dataclass(frozen=True)
class Judged:
    """A candidate with its evidence, or with the reason why it has none."""

    candidate: SelectionCandidate
    evidence: EvaluationEvidence | None
    reason: str = ""


class LeaderboardRow(BaseModel):
    """One candidate in the order of merit."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    rank: int | None
    """From 1; equal values keep the order in which the candidates were given. None: it cannot win."""
    name: str
    run_id: str
    model_uri: str
    value: float | None
    reason: str = ""
    """Why it cannot win."""


class Leaderboard(BaseModel):
    """Who won and why; stored in the winner's run."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: LeaderboardSchema = Field(default=LEADERBOARD_SCHEMA, alias="schema")
    metric: str
    direction: Direction
    self_reported: bool
    """Whether the values are the training scripts' own."""
    dataset: DatasetPin | None
    """Data that every candidate was measured on; None when self-reported."""
    winner: str
    rows: Annotated[tuple[LeaderboardRow, ...], Field(min_length=1)]
    """Best first; those that cannot win come last."""
    experiment_name: str = ""
    """Experiment whose runs were ranked; empty when the candidates were given one by one."""
    runs_read: int = 0
    """Of an experiment: how many runs were looked at. The server gives the best first, so it need not be all."""

    def __str__(self) -> str:
        """Write it as a table."""
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'rank':>4}  {'candidate':<{max(width, 9)}}  {self.metric:>14}  MLflow run"]
        for row in self.rows:
            rank, value = row.rank or "-", "-" if row.value is None else f"{row.value:.6g}"
            end = row.run_id if row.rank else f"{row.run_id or '-'}  {row.reason}"
            lines.append(f"{rank:>4}  {row.name:<{max(width, 9)}}  {value:>14}  {end}")
        return "\n".join(lines)


def read_candidates(value: Any) -> tuple[SelectionCandidate, ...]:
    """Read the argument ``candidates``.

    :param value: list of mappings with ``name``, ``run_id`` and ``model_uri``, perhaps ``identity`` and
        ``evidence_identity``; all but the name may be None when a task pushed nothing.
    :raises InvalidArgumentError: when it is anything else, or two candidates have one name.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InvalidArgumentError(
            f"candidates is {value!r}; allowed: a list of mappings with {', '.join(CANDIDATE_KEYS)}"
        )
    found = tuple(_candidate(number, item) for number, item in enumerate(value))
    names = [candidate.name for candidate in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidArgumentError(f"candidates has the name {', '.join(map(repr, twice))} more than once")
    return found


def _candidate(number: int, item: Any) -> SelectionCandidate:
    where = f"candidates[{number}]"
    if not isinstance(item, Mapping):
        raise InvalidArgumentError(f"{where} is {item!r}; allowed: a mapping with {', '.join(CANDIDATE_KEYS)}")
    unknown = sorted(map(str, item.keys() - set(CANDIDATE_KEYS)))
    if unknown:
        raise InvalidArgumentError(
            f"{where} has unknown keys {', '.join(unknown)}; allowed: {', '.join(CANDIDATE_KEYS)}"
        )
    if not isinstance(item.get("name"), str) or not item["name"].strip():
        raise InvalidArgumentError(f"{where}: name is {item.get('name')!r}; a non-empty text is needed")
    return SelectionCandidate(
        name=item["name"],
        run_id=_pushed(item.get("run_id")),
        model_uri=_pushed(item.get("model_uri")),
        identity=_pushed(item.get("identity")),
        evidence_identity=(_pushed(item["evidence_identity"]) or None) if "evidence_identity" in item else "",
    )


def _pushed(value: Any) -> str:
    """Give a text; a task that pushed nothing leaves None, or its name when a template wrote it."""
    return "" if value in (None, "None") else str(value).strip()


def require_all(candidates: Sequence[Judged]) -> None:
    """Refuse when a candidate has no evidence.

    :param candidates: all of them.
    :raises EvidenceError: naming each that has none, and why.
    """
    missing = [f"{judged.candidate.name}: {judged.reason}" for judged in candidates if judged.evidence is None]
    if missing:
        raise EvidenceError(
            f"{'; '.join(missing)}. None of the {len(candidates)} candidates was picked; with allow_missing=True those "
            "without evidence are left out"
        )


def select_best(candidates: Sequence[Judged], metric: str, direction: Direction) -> Leaderboard:
    """Rank candidates by one metric of their evidence.

    A metric that is missing, undefined or not finite never wins; its candidate is listed with the reason. Equal
    values are ranked in the order given.

    :param candidates: in the order that breaks ties.
    :param metric: the metric's name in the evidence.
    :param direction: whether more or less is better.
    :raises EvidenceError: when no candidate has a usable value, or they were not measured on the same data.
    """
    found = [judged.evidence for judged in candidates if judged.evidence is not None]
    _require_same_data([judged for judged in candidates if judged.evidence is not None])
    sign = -1 if direction == "maximize" else 1
    valued = [(judged.candidate, *_value(judged, metric)) for judged in candidates]
    valid = sorted((item for item in valued if item[1] is not None), key=lambda item: sign * (item[1] or 0.0))
    if not valid:
        reasons = "; ".join(f"{candidate.name}: {reason}" for candidate, _, reason in valued)
        raise EvidenceError(f"no candidate has a usable value of {metric!r}, so none was picked: {reasons}")
    ranked = [_row(candidate, value, rank, "") for rank, (candidate, value, _) in enumerate(valid, start=1)]
    others = [_row(candidate, None, None, reason) for candidate, value, reason in valued if value is None]
    return Leaderboard(
        metric=metric,
        direction=direction,
        self_reported=found[0].self_reported,
        dataset=found[0].dataset,
        winner=ranked[0].name,
        rows=(*ranked, *others),
    )


def _value(judged: Judged, metric: str) -> tuple[float | None, str]:
    if judged.evidence is None:
        return None, judged.reason
    measured = judged.evidence.candidate
    value = measured.metrics.get(metric)
    if value is None:
        known = ", ".join(sorted(measured.metrics)) or "nothing"
        return None, measured.undefined.get(metric) or f"{metric} was not measured (measured: {known})"
    return (value, "") if math.isfinite(value) else (None, f"{metric} is {value}")


def _row(candidate: SelectionCandidate, value: float | None, rank: int | None, reason: str) -> LeaderboardRow:
    return LeaderboardRow(
        rank=rank,
        name=candidate.name,
        run_id=candidate.run_id,
        model_uri=candidate.model_uri,
        value=value,
        reason=reason,
    )


def _require_same_data(candidates: Sequence[Judged]) -> None:
    """Refuse to compare numbers that were measured on different data, or by different people."""
    named = {judged.candidate.name: _data(judged.evidence) for judged in candidates}
    if len(set(named.values())) > 1:
        listed = "; ".join(f"{name}: {data}" for name, data in named.items())
        raise EvidenceError(f"the candidates were not evaluated on the same data, so none was picked: {listed}")


def _data(evidence: EvaluationEvidence | None) -> str:
    if evidence is None or evidence.dataset is None:
        return "self-reported, no data"
    return evidence.dataset.hash or f"{evidence.dataset.uri} {evidence.dataset.version}"


# --- the runs of an experiment ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRanking:
    """Ranks the runs of an experiment by what they logged themselves.

    Only a run that is FINISHED, has a model and a finite value can win. Equal values: the run that started first, then
    the one whose id comes first.
    """

    metric: str
    direction: Direction
    size: int
    """How many rows the leaderboard has at the most, of those that can win and of the others."""

    @property
    def order_by(self) -> tuple[str, str]:
        """The server's order, so that the best need not be looked for among all."""
        word = "DESC" if self.direction == "maximize" else "ASC"
        return f"metrics.`{self.metric}` {word}", "attributes.start_time ASC"

    def is_enough(self, runs: Sequence[Run]) -> bool:
        """Say whether the runs that come later cannot change the leaderboard.

        :param runs: those read so far, in the server's order.
        """
        ranked = self.ranked(runs)
        if len(ranked) < self.size:
            return False
        return self.why_not(runs[-1]) != "" or runs[-1].metrics[self.metric] != ranked[0].metrics[self.metric]

    def ranked(self, runs: Sequence[Run]) -> list[Run]:
        """Give the runs that can win, the best first."""
        sign = -1 if self.direction == "maximize" else 1
        valid = [run for run in runs if not self.why_not(run)]
        return sorted(valid, key=lambda run: (sign * run.metrics[self.metric], run.start_time or 0, run.run_id))

    def why_not(self, run: Run) -> str:
        """Say why a run cannot win; an empty text when it can."""
        value = run.metrics.get(self.metric)
        if run.status != "FINISHED" or run.lifecycle_stage != "active":
            return f"it is {run.status if run.lifecycle_stage == 'active' else run.lifecycle_stage}"
        if not run.model_ids:
            return "it has no model"
        if value is None:
            return f"it did not log {self.metric}"
        if not math.isfinite(value) or abs(value) >= sys.float_info.max:  # MLflow's SQL stores keep infinity so
            return f"{self.metric} is {value if math.isnan(value) else 'infinite'}"
        return ""

    def leaderboard(self, experiment_name: str, runs: Sequence[Run], unusable: Mapping[str, str]) -> Leaderboard:
        """Write down who won.

        :param experiment_name: name of the experiment.
        :param runs: all runs that were read.
        :param unusable: ids of runs whose model cannot be used after all, with the reason.
        :raises EvidenceError: when no run can win.
        """
        ranked = [run for run in self.ranked(runs) if run.run_id not in unusable]
        others = [(run, reason) for run in runs if (reason := self.why_not(run) or unusable.get(run.run_id, ""))]
        if not ranked:
            reasons = "; ".join(f"{run.run_id}: {reason}" for run, reason in others[: self.size])
            more = f"; and {len(others) - self.size} more" if len(others) > self.size else ""
            raise EvidenceError(
                f"no run of experiment {experiment_name!r} can be picked by {self.metric!r}, of {len(runs)} that were "
                f"read: {reasons or 'there is none that is finished and meets the filter'}{more}"
            )
        rows = [self._row(run, rank, "") for rank, run in enumerate(ranked[: self.size], start=1)]
        rows += [self._row(run, None, reason) for run, reason in others[: self.size]]
        return Leaderboard(
            metric=self.metric,
            direction=self.direction,
            self_reported=True,
            dataset=None,
            winner=rows[0].name,
            rows=tuple(rows),
            experiment_name=experiment_name,
            runs_read=len(runs),
        )

    def _row(self, run: Run, rank: int | None, reason: str) -> LeaderboardRow:
        return LeaderboardRow(
            rank=rank,
            name=run.run_name or run.run_id,
            run_id=run.run_id,
            model_uri=f"models:/{run.model_ids[-1]}" if run.model_ids else "",
            value=run.metrics[self.metric] if rank else None,
            reason=reason,
        )
