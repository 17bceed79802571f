"""Remove leftovers of workloads: pods whose work has ended, and MLflow runs without a workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_mcp import settings
from airflow_mcp.cluster.client import Cluster
from airflow_mcp.cluster.sweep import JudgedPod, judge_pods, remove_leftovers, workload_pods
from airflow_mcp.core import contract
from airflow_mcp.core.argument import flag
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload.pod_options import pod_options
from airflow_mcp.core.workload.sweep import SweepFinding, TaskName, WorkloadPod, judge_run, task_of, task_state
from airflow_mcp.exceptions import InvalidArgumentError, MlflowError
from airflow_mcp.operators.base import ModelControlOperator, now

if TYPE_CHECKING:
    from airflow.sdk import Context

_LIVE_RUNS = f"attributes.status = 'RUNNING' and tags.`{contract.TAG_IDENTITY}` LIKE '%'"


class SweepPodsOperator(ModelControlOperator):
    """Find pods and MLflow runs whose work has ended, and remove or close them.

    A pod is a leftover when its task has ended, or, if the task is unknown, when its MLflow run has ended. A live run
    is abandoned when its task has ended and no pod works for it; it is closed as KILLED. In doubt, pods and runs are
    kept.

    XCom: ``dry_run``, ``removed`` and ``closed`` (names; in a dry run the names that would be removed and closed),
    ``removed_count``, ``closed_count``, ``kept_count``, ``unknown`` (names kept because of missing information).

    :param dry_run: report what would be removed and closed, and change nothing. True by default, unlike other
        operators: what is removed cannot be restored, so removal must be asked for (templated).
    :param older_than: minimum age of ended pods, and of runs.
    :param experiments: experiments whose runs may be closed; None: all. Name your own where several Airflow
        installations share one MLflow server (templated).
    :param kubernetes: options for cluster and namespace, as for workloads (templated).
    """

    template_fields: Sequence[str] = ("dry_run", "experiments", "kubernetes")
    ui_color = "#e6e6e6"

    def __init__(
        self,
        *,
        dry_run: bool | str = True,
        older_than: timedelta = timedelta(hours=1),
        experiments: Sequence[str] | None = None,
        kubernetes: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dry_run = dry_run
        self.older_than = older_than
        self.experiments = experiments
        self.kubernetes = kubernetes
        if older_than < timedelta(0):
            raise InvalidArgumentError(f"older_than must not be negative; got {older_than!r}")

    def act(self, context: Context) -> dict[str, Any]:
        """Find leftovers and, unless it is a dry run, remove and close them.

        :raises ClusterUnreachableError: when Kubernetes does not answer.
        :raises MlflowError: when MLflow does not answer; nothing was removed.
        """
        dry_run, moment = flag("dry_run", self.dry_run), now()
        cluster = self._cluster()
        pods = workload_pods(cluster, moment)
        state_of = partial(_state_of, context["ti"], {})
        judged = judge_pods(pods, run_of=self.hook.get_run, task_state_of=state_of, grace=self.older_than, now=moment)
        runs = self._judge_runs(pods, state_of, moment)
        for finding in (*(item.finding for item in judged), *runs):
            self.log.info("%s: %s (%s)", finding.name, finding.action, finding.reason)
        removed = _names(judged) if dry_run else remove_leftovers(cluster, judged)
        abandoned = [finding for finding in runs if finding.action == "remove"]
        closed = [finding.name for finding in abandoned if dry_run or self._close(finding)]
        self.log.info(
            "%s in namespace %s: %d of %d pods %s, %d of %d live runs %s",
            *("Dry run" if dry_run else "Sweep", cluster.namespace),
            *(len(removed), len(pods), "would be removed" if dry_run else "removed"),
            *(len(closed), len(runs), "would be closed" if dry_run else "closed"),
        )
        return _result(dry_run, removed, closed, [*(item.finding for item in judged), *runs])

    def _cluster(self) -> Cluster:
        """Return the cluster, connected as for workloads."""
        from airflow_mcp.workloads.kubernetes_arguments import bare_pod_operator  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_pod import namespace_of  # noqa: PLC0415

        options = pod_options(settings.kubernetes_defaults(), self.kubernetes)
        with translated_errors(lambda: "the connection to Kubernetes"):
            pod = bare_pod_operator(options, task=self)
            return Cluster(pod.client.api_client, namespace_of(pod))

    def _judge_runs(self, pods: Sequence[WorkloadPod], state_of: Any, moment: datetime) -> list[SweepFinding]:
        findings = []
        for run in self._live_runs():
            task = task_of(run)
            state = state_of(task) if task else None
            findings.append(judge_run(run, pods, state, grace=self.older_than, now=moment))
        return findings

    def _live_runs(self) -> list[Run]:
        if self.experiments is None:
            ids = [experiment.experiment_id for experiment in self.hook.search_experiments()]
        else:
            found = [self.hook.get_experiment_by_name(name) for name in self.experiments]
            ids = [experiment.experiment_id for experiment in found if experiment is not None]
        return self.hook.search_runs(ids, _LIVE_RUNS) if ids else []

    def _close(self, finding: SweepFinding) -> bool:
        """Close an abandoned run, unless it has ended in the meantime."""
        try:
            if not self.hook.get_run(finding.name).is_live:
                return False
            self.hook.set_tag(finding.name, contract.TAG_ERROR, f"closed by the sweeper: {finding.reason}")
            self.hook.update_run(finding.name, "KILLED", int(now().timestamp() * 1000))
        except MlflowError as error:
            self.log.warning("Run %s could not be closed: %s", finding.name, error)
            return False
        return True


def _state_of(instance: Any, known: dict[tuple[str, str], Any], task: TaskName) -> str | None:
    """Return the state of a task from Airflow; each Dag run is queried once."""
    key = (task.dag_id, task.dag_run_id)
    if key not in known:
        known[key] = instance.get_task_states(dag_id=task.dag_id, run_ids=[task.dag_run_id])
    return task_state(task, known[key])


def _names(judged: Sequence[JudgedPod]) -> list[str]:
    return [item.pod.name for item in judged if item.finding.action == "remove"]


def _result(dry_run: bool, removed: list[str], closed: list[str], findings: list[SweepFinding]) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "removed": removed,
        "removed_count": len(removed),
        "closed": closed,
        "closed_count": len(closed),
        "kept_count": sum(finding.action == "keep" for finding in findings),
        "unknown": [finding.name for finding in findings if finding.is_unknown],
    }
