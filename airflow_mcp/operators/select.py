"""Select the best of several trained candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

from airflow_mcp.core import contract
from airflow_mcp.core.argument import choice, required_text
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.evaluation.selection import (
    Judged,
    Leaderboard,
    RunRanking,
    SelectionCandidate,
    read_candidates,
    require_all,
    select_best,
)
from airflow_mcp.core.metrics import Direction, metric_direction
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.base import ModelControlOperator, require_active
from airflow_mcp.registry.evidence import find_evidence

if TYPE_CHECKING:
    from airflow.sdk import Context

_SOME_CAME_THROUGH = "all_done_min_one_success"


class SelectModelOperator(ModelControlOperator):
    """Select the best of several candidates, or of an experiment, and store the leaderboard in the winner's run.

    With ``candidates`` the value of ``metric`` comes from their evaluation evidence; all must have been evaluated on
    the same data. The same evidence always selects the same candidate: equal values rank in the order given. A
    candidate whose value is missing, undefined or not finite is listed but cannot win; if none can, the task fails.

    With ``experiment_name`` the runs of an MLflow experiment are ranked by the metrics that they logged. Only
    FINISHED runs with a model can win; among equal values the run that started first wins.

    XCom: ``run_id``, ``model_uri``, ``identity``, ``evidence_identity`` and ``name`` of the winner, and
    ``leaderboard`` (a row per candidate).

    :param candidates: mappings ``{name, run_id, model_uri}``, optionally with ``identity`` (of the training) and
        ``evidence_identity`` (of the expected evaluation), in the order that breaks ties (templated).
    :param experiment_name: instead of ``candidates``: MLflow experiment to select from (templated).
    :param filter: with ``experiment_name``: which runs to rank, in MLflow's filter language (templated).
    :param max_runs: with ``experiment_name``: how many runs to read at most; the server returns the best first.
    :param leaderboard_size: with ``experiment_name``: how many runs to list, both of those that can win and of others.
    :param metric: metric to compare, of the evidence or of the runs, for example ``roc_auc`` (templated).
    :param direction: ``maximize`` or ``minimize``; None takes the known direction of the metric (templated).
    :param allow_missing: leave out candidates whose training or evaluation failed or was skipped, instead of failing.
        The trigger rule is then ``all_done_min_one_success`` unless another one is given.
    """

    template_fields: Sequence[str] = ("candidates", "experiment_name", "filter", "metric", "direction")
    operator_extra_links = (MlflowRunLink(),)
    ui_color = "#e8e0f5"

    def __init__(
        self,
        *,
        metric: str,
        candidates: Sequence[Mapping[str, Any]] | None = None,
        experiment_name: str = "",
        filter: str = "",
        max_runs: int = 10_000,
        leaderboard_size: int = 20,
        direction: Direction | None = None,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> None:
        if allow_missing:
            kwargs.setdefault("trigger_rule", _SOME_CAME_THROUGH)
        super().__init__(**kwargs)
        self.candidates = candidates
        self.experiment_name = experiment_name
        self.filter = filter
        self.max_runs = max_runs
        self.leaderboard_size = leaderboard_size
        self.metric = metric
        if min(max_runs, leaderboard_size) < 1:
            raise InvalidArgumentError(
                f"max_runs and leaderboard_size must be at least 1; got {max_runs} and {leaderboard_size}"
            )
        self.direction = direction
        self.allow_missing = allow_missing

    def act(self, context: Context) -> dict[str, Any]:
        """Rank the candidates and store the leaderboard.

        :raises InvalidArgumentError: when an argument is wrong, or the metric has no known direction.
        :raises EvidenceError: when evidence is missing or malformed or was measured on different data, or no
            candidate has a usable value.
        """
        metric = required_text("metric", self.metric)
        direction = self._direction(metric)
        if bool(self.experiment_name) == (self.candidates is not None):
            got = "both" if self.experiment_name else "neither"
            raise InvalidArgumentError(f"exactly one of candidates and experiment_name must be given; got {got}")
        if self.experiment_name:
            return self._of_experiment(RunRanking(metric, direction, self.leaderboard_size))
        candidates = read_candidates(self.candidates)
        judged = [self._judge(candidate) for candidate in candidates]
        if not self.allow_missing:
            require_all(judged)
        leaderboard = select_best(judged, metric, direction)
        winner = next(item for item in judged if item.candidate.name == leaderboard.winner)
        self._store(leaderboard)
        return _result(leaderboard, winner)

    def _of_experiment(self, ranking: RunRanking) -> dict[str, Any]:
        """Select the best run of the experiment whose model is READY."""
        if "`" in ranking.metric:
            raise InvalidArgumentError(f"metric must be a name without backquotes; got {ranking.metric!r}")
        found = self.hook.get_experiment_by_name(self.experiment_name)
        if found is None or found.lifecycle_stage != "active":
            raise InvalidArgumentError(
                f"experiment_name must be an active experiment; got {self.experiment_name!r}. It does not exist, or is "
                "deleted"
            )
        wanted = f"attributes.status = 'FINISHED'{f' and {self.filter}' if self.filter else ''}"
        runs = self.hook.search_runs([found.experiment_id], wanted, ranking.order_by, self.max_runs, ranking.is_enough)
        unusable: dict[str, str] = {}
        for run in ranking.ranked(runs):
            model = self.hook.get_logged_model(run.model_ids[-1])
            if model.status == "READY":
                break
            unusable[run.run_id] = f"its model {model.uri} is {model.status}, not READY"
        leaderboard = ranking.leaderboard(self.experiment_name, runs, unusable)
        self._store(leaderboard)
        best = leaderboard.rows[0]
        winner = next(run for run in runs if run.run_id == best.run_id)
        candidate = SelectionCandidate(
            best.name, best.run_id, best.model_uri, winner.tags.get(contract.TAG_IDENTITY, "")
        )
        return _result(leaderboard, Judged(candidate, None))

    def _direction(self, metric: str) -> Direction:
        if self.direction is None:
            return metric_direction(metric)
        return cast("Direction", choice("direction", self.direction, get_args(Direction)))

    def _judge(self, candidate: SelectionCandidate) -> Judged:
        if candidate.is_missing:
            return Judged(candidate, None, "its training or evaluation pushed no XCom")
        run = self.hook.get_run(candidate.run_id)
        require_active(run)
        source = f"{contract.ARTIFACT_EVIDENCE} of MLflow run {run.run_id}"
        evidence = find_evidence(self.hook, run.run_id)
        if evidence is None:
            return Judged(candidate, None, f"there is no {source}")
        _require_about(evidence, candidate, source)
        return Judged(candidate, evidence)

    def _store(self, leaderboard: Leaderboard) -> None:
        best = leaderboard.rows[0]
        run = self.hook.get_run(best.run_id)
        self.mlflow_run_url = self.hook.run_url(run)
        document = leaderboard.model_dump_json(by_alias=True, indent=2).encode()
        self.hook.upload_artifact(run.run_id, contract.ARTIFACT_LEADERBOARD, document, content_type="application/json")
        whose = (
            f"experiment {leaderboard.experiment_name}" if leaderboard.experiment_name else str(len(leaderboard.rows))
        )
        self.hook.set_tag(
            run.run_id,
            contract.TAG_SELECTED,
            f"{best.name}: best of {whose} by {leaderboard.metric} ({leaderboard.direction}): {best.value:.6g}",
        )
        self.log.info("Leaderboard:\n%s", leaderboard)
        if leaderboard.self_reported:
            self.log.warning("Self-reported: the training scripts logged these values; they were not measured again")


def _result(leaderboard: Leaderboard, winner: Judged) -> dict[str, Any]:
    candidate = winner.candidate
    return {
        "run_id": candidate.run_id,
        "model_uri": candidate.model_uri,
        "identity": candidate.identity,
        "evidence_identity": winner.evidence.identity if winner.evidence else "",
        "name": candidate.name,
        "leaderboard": [row.model_dump(mode="json") for row in leaderboard.rows],
    }


def _require_about(evidence: EvaluationEvidence, candidate: SelectionCandidate, source: str) -> None:
    about = (evidence.run_id, evidence.candidate.model_uri)
    if about != (candidate.run_id, candidate.model_uri):
        raise EvidenceError(
            f"candidate {candidate.name!r}: {source} is about model {about[1]} of run {about[0]}, not "
            f"{candidate.model_uri}. Nothing was selected"
        )
    if candidate.evidence_identity and evidence.identity != candidate.evidence_identity:
        raise EvidenceError(
            f"candidate {candidate.name!r}: {source} is from evaluation {evidence.identity}, expected "
            f"{candidate.evidence_identity}: it was evaluated again meanwhile. Nothing was selected"
        )
