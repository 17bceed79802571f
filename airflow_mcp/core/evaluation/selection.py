"""The selection of the best of several candidates; the same evidence always gives the same selection."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import Document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.metrics import Direction
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError

LeaderboardSchema = Literal["airflow_mcp/leaderboard/1", "airflow_mcp/leaderboard/2"]
LEADERBOARD_SCHEMA: LeaderboardSchema = "airflow_mcp/leaderboard/2"
"""The version that is written; version 1 had no experiments."""
CANDIDATE_KEYS = ("name", "run_id", "model_uri", "identity", "evidence_identity")


@dataclass(frozen=True)
class SelectionCandidate:
    """A trained model that may be selected. Texts are empty when the upstream tasks pushed no XCom."""

    name: str
    run_id: str
    model_uri: str
    identity: str = ""
    """Name of the training, returned with the selection."""
    evidence_identity: str | None = ""
    """Identity of the expected evaluation; empty accepts any evidence of the run, None means that the evaluation pushed
    no XCom."""

    @property
    def is_missing(self) -> bool:
        """Whether its training or its evaluation left no result."""
        return not (self.run_id and self.model_uri) or self.evidence_identity is None


@dataclass(frozen=True)
class Judged:
    """A candidate with its evidence, or with the reason for having none."""

    candidate: SelectionCandidate
    evidence: EvaluationEvidence | None
    reason: str = ""


class LeaderboardRow(Document):
    """A candidate with its rank."""

    model_config = ConfigDict(allow_inf_nan=True)  # a metric may be NaN, which becomes null in JSON

    rank: int | None
    """Rank from 1; equal values keep the given order. None when it cannot be selected."""
    name: str
    run_id: str
    model_uri: str
    value: float | None
    reason: str = ""
    """Why it cannot be selected."""


class Leaderboard(Document):
    """The selected candidate and the ranking. Stored in the run of the selected candidate."""

    schema_: LeaderboardSchema = Field(default=LEADERBOARD_SCHEMA, alias="schema")
    metric: str
    direction: Direction
    self_reported: bool
    """Whether the values are those that the training scripts logged."""
    dataset: DatasetPin | None
    """Data that every candidate was measured on; None when self-reported."""
    winner: str
    rows: Annotated[tuple[LeaderboardRow, ...], Field(min_length=1)]
    """Best first; candidates that cannot be selected come last."""
    experiment_name: str = ""
    """Experiment whose runs were ranked; empty when candidates were given one by one."""
    runs_read: int = 0
    """Number of runs of the experiment that were read. The server returns the best first, so it need not be all."""

    def __str__(self) -> str:
        """Return the ranking as a table."""
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
        ``evidence_identity``; all but the name may be None when a task pushed no XCom.
    :raises InvalidArgumentError: when it is anything else, or when two candidates have the same name.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InvalidArgumentError(
            f"candidates must be a list of mappings with {', '.join(CANDIDATE_KEYS)}; got {value!r}"
        )
    found = tuple(_candidate(number, item) for number, item in enumerate(value))
    names = [candidate.name for candidate in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidArgumentError(
            f"candidates must have distinct names; got {', '.join(map(repr, twice))} more than once"
        )
    return found


def _candidate(number: int, item: Any) -> SelectionCandidate:
    where = f"candidates[{number}]"
    if not isinstance(item, Mapping):
        raise InvalidArgumentError(f"{where} must be a mapping with {', '.join(CANDIDATE_KEYS)}; got {item!r}")
    unknown = sorted(map(str, item.keys() - set(CANDIDATE_KEYS)))
    if unknown:
        raise InvalidArgumentError(
            f"{where} must have only the keys {', '.join(CANDIDATE_KEYS)}; got {', '.join(unknown)}"
        )
    if not isinstance(item.get("name"), str) or not item["name"].strip():
        raise InvalidArgumentError(f"{where}.name must be a non-empty text; got {item.get('name')!r}")
    return SelectionCandidate(
        name=item["name"],
        run_id=_pushed(item.get("run_id")),
        model_uri=_pushed(item.get("model_uri")),
        identity=_pushed(item.get("identity")),
        evidence_identity=(_pushed(item["evidence_identity"]) or None) if "evidence_identity" in item else "",
    )


def _pushed(value: Any) -> str:
    """Return a text. A task that pushed no XCom leaves None, or the text "None" from a template."""
    return "" if value in (None, "None") else str(value).strip()


def require_all(candidates: Sequence[Judged]) -> None:
    """Check that every candidate has evidence.

    :param candidates: all candidates.
    :raises EvidenceError: with every candidate that has none, and why.
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

    :param candidates: the candidates, in the order that breaks ties.
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
        raise EvidenceError(f"no candidate has a usable value of {metric!r}, so none was selected: {reasons}")
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
    """Check that all numbers were measured on the same data, and by the same means."""
    named = {judged.candidate.name: _data(judged.evidence) for judged in candidates}
    if len(set(named.values())) > 1:
        listed = "; ".join(f"{name}: {data}" for name, data in named.items())
        raise EvidenceError(f"the candidates were not evaluated on the same data, so none was selected: {listed}")


def _data(evidence: EvaluationEvidence | None) -> str:
    if evidence is None or evidence.dataset is None:
        return "self-reported, no data"
    return evidence.dataset.hash or f"{evidence.dataset.uri} {evidence.dataset.version}"


# --- the runs of an experiment ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunRanking:
    """Ranks the runs of an experiment by the metrics that they logged.

    Only a run that is FINISHED, has a model and a finite value can win. Equal values: the run that started first, then
    the one whose id comes first.
    """

    metric: str
    direction: Direction
    size: int
    """Largest number of rows of the leaderboard, for runs that can be selected and for the others."""

    @property
    def order_by(self) -> tuple[str, str]:
        """Order for the server, so that the best runs come first."""
        word = "DESC" if self.direction == "maximize" else "ASC"
        return f"metrics.`{self.metric}` {word}", "attributes.start_time ASC"

    def is_enough(self, runs: Sequence[Run]) -> bool:
        """Return whether further runs cannot change the leaderboard.

        :param runs: the runs read so far, in the server's order.
        """
        ranked = self.ranked(runs)
        if len(ranked) < self.size:
            return False
        return self.why_not(runs[-1]) != "" or runs[-1].metrics[self.metric] != ranked[0].metrics[self.metric]

    def ranked(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs that can be selected, best first."""
        sign = -1 if self.direction == "maximize" else 1
        valid = [run for run in runs if not self.why_not(run)]
        return sorted(valid, key=lambda run: (sign * run.metrics[self.metric], run.start_time or 0, run.run_id))

    def why_not(self, run: Run) -> str:
        """Return why a run cannot be selected; empty when it can."""
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
        """Return the leaderboard with the selected run.

        :param experiment_name: name of the experiment.
        :param runs: all runs that were read.
        :param unusable: reasons by the ids of runs whose model cannot be used.
        :raises EvidenceError: when no run can be selected.
        """
        ranked = [run for run in self.ranked(runs) if run.run_id not in unusable]
        others = [(run, reason) for run in runs if (reason := self.why_not(run) or unusable.get(run.run_id, ""))]
        if not ranked:
            reasons = "; ".join(f"{run.run_id}: {reason}" for run, reason in others[: self.size])
            more = f"; and {len(others) - self.size} more" if len(others) > self.size else ""
            raise EvidenceError(
                f"no run of experiment {experiment_name!r} can be selected by {self.metric!r}, of {len(runs)} runs "
                f"that were read: {reasons or 'there is none that is finished and meets the filter'}{more}"
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
