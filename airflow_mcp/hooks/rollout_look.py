"""One look at a rollout: registry, replicas and journal in, the next action out. It writes to the MLflow run only."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime
from typing import Literal, Protocol

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.rollout.advance import Abort, Action, next_action
from airflow_mcp.core.rollout.router import routed_samples
from airflow_mcp.core.rollout.samples import ReplicaSample, read_samples
from airflow_mcp.core.rollout.state import (
    ARTIFACT_JOURNAL,
    Journal,
    RolloutState,
    observe,
    observe_error,
    parse_journal,
)
from airflow_mcp.core.serving.traffic import RolloutDocument
from airflow_mcp.exceptions import EvidenceError, MlflowError, MlflowNotFoundError, ModelControlPlaneError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.hooks.prometheus import PrometheusHook
from airflow_mcp.hooks.prometheus_counters import PrometheusCounters
from airflow_mcp.hooks.replica_metrics import ReplicaText
from airflow_mcp.hooks.serving import ServingHook

MetricsFrom = Literal["replicas", "prometheus"]
ASKED_AGAIN_SECONDS = 60.0
"""How long it counts that the canary and the MLflow run exist. The task asks again before every write."""


class MetricsSource(Protocol):
    """Where the metrics of all replicas are read."""

    async def read(self) -> list[ReplicaText]:
        """Return the metrics of every replica.

        :raises ServerUnreachableError: when they cannot be read.
        :raises EvidenceError: when they are not all there.
        """


def metrics_source(
    serving_conn_id: str, prometheus: PrometheusHook | None, model_name: str, selector: str | None
) -> MetricsSource:
    """Return where a rollout reads the metrics of the replicas.

    :param serving_conn_id: connection to the model server.
    :param prometheus: the Prometheus of the rollout; None when it has none.
    :param model_name: registered model.
    :param selector: matchers of the replicas in Prometheus; None when the replicas themselves are asked.
    """
    if selector is None or prometheus is None:
        return ServingHook(serving_conn_id)
    return PrometheusCounters(prometheus, model_name, selector)


class RolloutLooks:
    """The looks of one task or trigger at one rollout.

    :param mlflow: the MLflow server.
    :param source: where the replicas' metrics are read: the model server, or the Prometheus that scrapes it.
    :param run_id: MLflow run of the rollout.
    :param prometheus: what answers the queries of the plan; None when it has none.
    :param is_routed: whether a router splits the requests, between servers that serve one version each.
    """

    def __init__(
        self,
        mlflow: MlflowHook,
        source: MetricsSource,
        run_id: str,
        prometheus: PrometheusHook | None = None,
        *,
        is_routed: bool = False,
    ) -> None:
        self._mlflow, self._source, self._run_id, self._prometheus = mlflow, source, run_id, prometheus
        self._is_routed = is_routed
        self._journal: Journal | None = None
        self._run: Run | None = None
        self._asked_at = -math.inf
        self.unkept: Journal | None = None
        """The journal of the last look, if it could not be kept; None if it was."""
        self.is_run_lost = False
        """Whether the MLflow run is gone, so that nothing can be kept there any more."""
        self.document: RolloutDocument | None = None
        """The split of this rollout that was in force at the last look; None when there was none."""

    def use(self, journal: Journal, run_id: str) -> None:
        """Go on from a journal that somebody else has written.

        :param journal: the journal.
        :param run_id: the MLflow run that keeps it.
        """
        self._journal, self._run_id, self.is_run_lost = journal, run_id, False
        self._run, self._asked_at = None, -math.inf

    async def look(self) -> tuple[Journal, Action]:
        """Measure, keep what was measured, and return what happens next.

        An error while measuring counts as a failed look; the plan says how many in a row are accepted, and what happens
        then. A journal that could not be stored is in :attr:`unkept`; the decision is made with it all the same.

        :raises MlflowError: when MLflow does not answer; the next look loses nothing.
        :raises EvidenceError: when the journal or the record of the rollout cannot be read.
        """
        if self._journal is None:
            self._journal = await self._read()
        before = self._journal
        champion, is_canary_there = await asyncio.gather(
            self._champion(before.model_name), self._is_there(before.model_name, before.canary)
        )
        state = RolloutState.of(champion)
        is_ours = state.active is not None and state.active.identity == before.identity
        document = self.document = state.active if is_ours else None
        now = datetime.now(UTC)
        action: Action
        try:
            samples, results = await asyncio.gather(self._sample(before), self._results(before))
            if self._is_routed:
                samples = routed_samples(samples, before.canary, document.generation if document is not None else 0)
            journal = observe(before, document, samples, now, results)
            action = next_action(journal, state, now)
        except Exception as error:  # unknown means refuse: a look that fails in any way counts as failed
            says_why = isinstance(error, ModelControlPlaneError)
            journal = observe_error(before, str(error) if says_why else f"{type(error).__name__}: {error}")
            action = next_action(journal, state, now)
        if not is_canary_there:
            action = Abort("lost", f"version {before.canary} was deleted")
        await self._kept(journal, document)
        self._journal = journal
        return journal, action

    async def _is_there(self, name: str, version: str) -> bool:
        now = time.monotonic()
        if now - self._asked_at < ASKED_AGAIN_SECONDS:
            return True
        try:
            await self._mlflow.get_model_version.aio(name, version)
        except MlflowNotFoundError:
            return False
        self._run, self._asked_at = None, now
        return True

    async def _kept(self, journal: Journal, document: RolloutDocument | None) -> None:
        """Keep the journal; a run that is deleted, or an artifact store that is down, must not stop a decision."""
        try:
            await self._keep(journal, document.weight if document is not None else None)
            self.unkept = None
        except MlflowError:
            self.unkept = journal
            try:
                self.is_run_lost = (await self._mlflow.get_run.aio(self._run_id)).lifecycle_stage != "active"
            except MlflowNotFoundError:
                self.is_run_lost = True

    async def _champion(self, name: str) -> ModelVersion | None:
        try:
            return await self._mlflow.get_model_version_by_alias.aio(name, ALIAS_CHAMPION)
        except MlflowNotFoundError:
            return None

    async def _sample(self, journal: Journal) -> list[ReplicaSample]:
        replicas = await self._source.read()
        role = "champion" if self._is_routed else "canary"
        versions = {"canary": journal.canary, "champion": journal.stable}
        return read_samples(replicas, journal.model_name, **versions, canary_role=role)

    async def _results(self, journal: Journal) -> dict[str, float | None]:
        queries = journal.plan.queries
        if not queries or self._prometheus is None:
            return {}
        values = await asyncio.gather(*(self._prometheus.number(query) for query in queries.values()))
        return dict(zip(queries, values, strict=True))

    async def _read(self) -> Journal:
        text = await self._mlflow.find_artifact.aio(self._run_id, ARTIFACT_JOURNAL)
        if text is None:
            raise EvidenceError(
                f"MLflow run {self._run_id} holds no {ARTIFACT_JOURNAL}. The split stays as it is; end it with "
                "airflow-mcp rollout abort"
            )
        return parse_journal(text, self._run_id)

    async def _keep(self, journal: Journal, weight: float | None) -> None:
        """Store the journal, and the counts as metrics of the run for its charts."""
        data = dump_document(journal, indent=None).encode()
        self._run = self._run or await self._mlflow.get_run.aio(self._run_id)
        await self._mlflow.upload_artifact.aio(self._run, ARTIFACT_JOURNAL, data, "application/json")
        if weight is None or journal.tally is None:
            return
        total = journal.tally.total
        metrics = {"weight": weight, "canary_requests": total.canary.answered, "canary_failed": total.canary.failed}
        metrics["champion_requests"] = total.champion.answered
        at = int((journal.looked or journal.started).timestamp() * 1000)
        await self._mlflow.log_batch.aio(self._run_id, metrics, timestamp_ms=at)
