"""Move the traffic of a model to a new champion step by step, and give it back when the new version is not sound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp import settings
from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.core import contract
from airflow_mcp.core.argument import NO_CHAMPION, choice, flag, required_text, version_number
from airflow_mcp.core.contract import ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.identity import identity
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.rollout.advance import Action, Finish, Wait
from airflow_mcp.core.rollout.plan import (
    BLUE_GREEN_STEPS,
    CANARY_STEPS,
    DEFAULT_RULES,
    RolloutPlan,
    Shadow,
    checked_selector,
    read_plan,
)
from airflow_mcp.core.rollout.state import ARTIFACT_REPORT_HTML, Event, Journal, parse_journal
from airflow_mcp.core.workload.pod_options import pod_options
from airflow_mcp.exceptions import (
    AuditUnavailableError,
    ClaimUnavailableError,
    InvalidArgumentError,
    MlflowError,
    RolloutFailedError,
)
from airflow_mcp.hooks.prometheus import PrometheusHook
from airflow_mcp.hooks.rollout_look import MetricsFrom, RolloutLooks, metrics_source
from airflow_mcp.hooks.serving import ServingHook
from airflow_mcp.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_mcp.metrics.catalogue import ROLLOUT_STEPS
from airflow_mcp.metrics.stats import publish
from airflow_mcp.metrics.tasks import Sample
from airflow_mcp.operators.base import ModelControlOperator, has_template, is_deferrable, no_result
from airflow_mcp.operators.server_deployment import cluster_of
from airflow_mcp.registry.promotion import Promotion
from airflow_mcp.registry.rollout_lease import RolloutLease
from airflow_mcp.registry.rollout_run import RolloutOrder, RolloutRun
from airflow_mcp.routers.choose import REGISTRY, check_router, require_copies, router_of
from airflow_mcp.triggers.rollout import DEFAULT_POLL_SECONDS, RolloutStepTrigger, longest_wait
from airflow_mcp.triggers.watch import checked_poll_seconds

if TYPE_CHECKING:
    from airflow.sdk import Context

Strategy = Literal["canary", "blueGreen"]
OnKill = Literal["abort", "keep"]
_STEPS: Mapping[str, Sequence[Mapping[str, Any]]] = {"canary": CANARY_STEPS, "blueGreen": BLUE_GREEN_STEPS}


class RolloutModelOperator(ModelControlOperator):
    """Send a growing share of a model's requests to a new version, and promote it when every step has passed.

    Model servers that follow the registry split the requests by a document on the champion's version; no service mesh
    is needed. The task writes each step, and waits in the triggerer for the next. When a rule is certainly broken, or
    the breaker of the new version opens, all requests go back to the champion, and the task fails without a retry. The
    report is in an MLflow run before the task ends.

    The state is in the registry: a retry, another triggerer and ``airflow-mcp rollout`` go on from there. There is
    never more than one rollout of a model. Without a champion the version is promoted at once.

    XCom, also when the task fails: ``model_name``, ``version``, ``phase`` (``SUCCEEDED`` or ``FAILED``), ``cause``
    (empty, ``analysis``, ``inconclusive``, ``breaker``, ``timeout``, ``aborted``, ``superseded``, ``refused`` or
    ``lost``), ``reason``, ``run_id`` (of the rollout; empty without one), ``report`` (artifact path),
    ``previous_version`` (champion before, or ``none``).

    :param model_name: registered model (templated).
    :param version: version to roll out (templated).
    :param expected_champion: version that the gate compared with, or ``none`` (``gate.output["champion_version"]``;
        templated).
    :param experiment_name: MLflow experiment for the run of the rollout (templated).
    :param strategy: ``canary`` or ``blueGreen``: which steps are taken when none are given.
    :param steps: steps in order, such as ``[{"setWeight": 5}, {"analysis": "10m"}, {"pause": {}}]``; None takes those
        of ``strategy`` (templated).
    :param rules: limits such as ``http_5xx_rate <= champion + 0.005`` (templated).
    :param queries: PromQL by name; rules limit its result by that name. Needs ``prometheus_conn_id``.
    :param sticky: header whose value keeps a caller on one side; empty: none.
    :param breaker: when servers stop asking the new version by themselves: ``metric``, ``threshold``, ``duration``,
        ``min_requests``; None: only when half of its requests fail suddenly.
    :param rollback: when servers go back from the new champion to the old one by themselves; the same fields.
    :param stable_version: where servers go back to: a version number, an alias, or a release that the tag
        ``airflow_mcp.release`` names. ``previous_champion`` is the champion before this rollout. Needs ``rollback``.
    :param bake: how long the new champion is watched, as a timedelta or in seconds. When a replica goes back, the alias
        is moved back too. Needs ``rollback``.
    :param on_inconclusive: what happens when nothing can be concluded: ``pause`` waits for a person, ``abort``.
    :param on_lost: what servers do while nobody looks after the rollout, for example because Airflow is down: ``hold``
        keeps the split, ``stable`` gives all requests to the champion until somebody looks again.
    :param load_timeout: how long replicas may take to load the new version.
    :param follow_timeout: how long replicas may take to follow a new split.
    :param max_duration: longest time of the rollout, pauses included; None: no limit. A timedelta, or seconds.
    :param serving_conn_id: Airflow connection of type ``model_server``.
    :param prometheus_conn_id: Airflow connection of type ``prometheus``, which answers ``queries`` and has the metrics
        of ``metrics_source="prometheus"``; None: none.
    :param metrics_source: where the metrics of the replicas are read: from the ``replicas`` themselves, or from the
        ``prometheus`` that scrapes them, for replicas that workers and triggerer cannot reach.
    :param prometheus_selector: matchers of the replicas' series in Prometheus, such as ``namespace="ml"``, when it has
        several servers of the model.
    :param router: what moves the requests, when it is not the model servers themselves: ``kind`` (``gateway_api``,
        ``service``, ``argo``, ``kserve`` or ``nop``) and its fields, see ``docs/rollouts.md``. None: ``registry``.
    :param kubernetes: options for the cluster of the router, as for workloads.
    :param require_gate: refuse a version whose gate decision is not ``passed``, ``warned`` or ``approved``.
    :param require_load_check: refuse a version that has not passed its load check (templated).
    :param reason: why; recorded with the promotion (templated).
    :param dry_run: check everything, and skip (templated).
    :param poll_interval: seconds between two looks, at least 1.
    :param on_kill_action: what happens when a person ends the waiting task: ``abort`` gives all requests back to the
        champion, ``keep`` leaves the split.
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = (
        "model_name",
        "version",
        "expected_champion",
        "experiment_name",
        "steps",
        "rules",
        "require_load_check",
        "reason",
        "dry_run",
    )
    operator_extra_links = (MlflowModelVersionLink(), MlflowRunLink())
    ui_color = "#cfe3e8"
    _rollout: Mapping[str, str] | None = None
    """What the trigger must know; None while no rollout has begun."""
    _failures = 0
    """Times in a row that nothing could be written."""
    _unkept: Journal | None = None
    """What was measured, if it could not be kept in the MLflow run."""

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        expected_champion: str,
        experiment_name: str,
        strategy: Strategy = "canary",
        steps: Sequence[Mapping[str, Any]] | None = None,
        rules: Sequence[str] = DEFAULT_RULES,
        queries: Mapping[str, str] | None = None,
        sticky: str = "",
        breaker: Mapping[str, Any] | None = None,
        rollback: Mapping[str, Any] | None = None,
        stable_version: str = ALIAS_PREVIOUS_CHAMPION,
        bake: timedelta | float = 0,
        on_inconclusive: Literal["pause", "abort"] = "pause",
        on_lost: Literal["hold", "stable"] = "hold",
        load_timeout: timedelta = timedelta(minutes=10),
        follow_timeout: timedelta = timedelta(minutes=2),
        max_duration: timedelta | float | None = None,
        serving_conn_id: str = ServingHook.default_conn_name,
        prometheus_conn_id: str | None = None,
        metrics_source: MetricsFrom = "replicas",
        prometheus_selector: str = "",
        router: Mapping[str, Any] | None = None,
        kubernetes: Mapping[str, Any] | None = None,
        require_gate: bool = True,
        require_load_check: bool | str = True,
        reason: str = "",
        dry_run: bool | str = False,
        poll_interval: float = DEFAULT_POLL_SECONDS,
        on_kill_action: OnKill = "abort",
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name, self.experiment_name = model_name, experiment_name
        self.version, self.expected_champion = version, expected_champion
        self.strategy, self.steps, self.rules, self.sticky = strategy, steps, rules, sticky
        self.breaker, self.rollback, self.bake, self.stable_version = breaker, rollback, bake, stable_version
        self.on_inconclusive, self.on_lost, self.max_duration = on_inconclusive, on_lost, max_duration
        self.load_timeout, self.follow_timeout = load_timeout, follow_timeout
        self.serving_conn_id, self.prometheus_conn_id = serving_conn_id, prometheus_conn_id
        self.metrics_source, self.prometheus_selector = metrics_source, checked_selector(prometheus_selector)
        self.router, self.kubernetes, self.queries = dict(router or {"kind": REGISTRY}), kubernetes, dict(queries or {})
        self.require_gate, self.require_load_check, self.reason = require_gate, require_load_check, reason
        self.dry_run, self.poll_interval = dry_run, checked_poll_seconds(poll_interval)
        self.on_kill_action, self.deferrable = on_kill_action, is_deferrable(deferrable)
        self._check()

    def _check(self) -> None:
        check_router(self.router)
        choice("strategy", self.strategy, get_args(Strategy))
        choice("metrics_source", self.metrics_source, get_args(MetricsFrom))
        choice("on_kill_action", self.on_kill_action, get_args(OnKill))
        if (bool(self.queries) or self._is_scraped) != bool(self.prometheus_conn_id):
            raise InvalidArgumentError(
                "prometheus_conn_id must be given with queries or metrics_source='prometheus', and only then; got "
                f"{self.prometheus_conn_id!r}, {len(self.queries)} queries and metrics_source {self.metrics_source!r}"
            )
        if self.prometheus_selector and not self._is_scraped:
            raise InvalidArgumentError(
                f"prometheus_selector needs metrics_source='prometheus'; got metrics_source {self.metrics_source!r}"
            )
        if not has_template([self.steps, self.rules]):
            self._plan()

    def _act(self, context: Context) -> dict[str, Any]:
        order = self._order(context)
        name, version = order.promotion.model_name, order.promotion.version
        self.mlflow_model_version_url = self.hook.model_version_url(name, version)
        router = router_of(self.router, self._cluster)
        run = RolloutRun(self.hook, order, log=self.log, governance=self.governance, router=router)
        if flag("dry_run", self.dry_run):
            run.check()
            raise AirflowSkipException(f"dry run: version {version} of {name!r} would be rolled out")
        journal = run.begin(self._unkept)
        if journal is None:
            return self._result(order, run, run.promote_at_once())
        self._rollout = self._named(run, journal)
        self.mlflow_run_url = self.hook.run_url(self.hook.get_run(run.run_id))
        journal, end = self._followed(context, run, journal)
        run.finish(journal, end)
        result = self._result(order, run, end)
        with self.pushed_when_raising(context, result):
            if not end.succeeded:
                raise RolloutFailedError(
                    f"version {version} of {name!r} was not rolled out ({end.cause}): {end.reason}. The report is "
                    f"{ARTIFACT_REPORT_HTML} of MLflow run {run.run_id}"
                )
        return result

    def resume(self, context: Context, event: Mapping[str, Any] | None) -> dict[str, Any]:
        """Go on from what the registry says, which may have changed since the event.

        :raises FailedError: when the trigger failed or ended without an event; a retry goes on.
        """
        with self.at_the_edge():
            if event is None or event.get("status") != "due":
                raise no_result(event)
            self._rollout = event.get("rollout")
            self._failures = int((self._rollout or {}).get("failures", 0))
            unkept = event.get("journal")
            self._unkept = parse_journal(unkept, "the event of the trigger") if unkept else None
            return self.finish(self.act(context))

    def act(self, context: Context) -> dict[str, Any]:
        """Begin the rollout or go on with it, and wait for what is next.

        A rollout that has begun waits while MLflow, the claim or the audit log cannot be had, also without a retry.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises GateRejectedError: when no gate accepted the version.
        :raises LoadCheckFailedError: when the version's load check failed.
        :raises EvidenceError: when the version is not READY, or has not passed a load check although one is required.
        :raises AliasConflictError: when the champion is not the expected one; nothing was written.
        :raises RolloutConflictError: when another rollout of the model is in progress; nothing was written.
        :raises RolloutFailedError: when the rollout ended without success; all requests go to the champion.
        """
        while True:
            try:
                return self._act(context)
            except (MlflowError, ClaimUnavailableError, AuditUnavailableError) as error:
                if self._rollout is None or not _may_pass(error):
                    raise
                self._failures += 1
                wait = longest_wait(self._failures, self.poll_interval)
                self.log.warning(
                    "%s: the next step cannot be written now, so this task waits again, for %.0f s at least. The split "
                    "stays as it is, and the breakers of the servers work: %s",
                    *(self.model_name, wait, error),
                )
                if self.deferrable:
                    self.defer(trigger=self._trigger(context, self._rollout), method_name="resume")
                time.sleep(wait)

    def _followed(self, context: Context, run: RolloutRun, journal: Journal) -> tuple[Journal, Finish]:
        """Write what is due until the rollout has ended; wait in the triggerer, or here."""
        prometheus = PrometheusHook(self.prometheus_conn_id) if self.prometheus_conn_id else None
        name = str(self.model_name)
        selector = self.prometheus_selector if self._is_scraped else None
        source = metrics_source(self.serving_conn_id, prometheus, name, selector)
        looks = RolloutLooks(self.hook, source, run.run_id, prometheus, is_routed=self._is_routed)
        lease = RolloutLease(self.hook, name)
        while True:
            known = {event.generation for event in journal.events}
            journal, left = run.step(journal)
            self._report([event for event in journal.events if event.generation not in known])
            if isinstance(left, Finish):
                return journal, left
            self.log.info("%s: %s", name, left.reason)
            self._failures = 0
            if self.deferrable:
                self.defer(trigger=self._trigger(context, self._named(run, journal)), method_name="resume")
            looks.use(journal, run.run_id)
            action: object = left
            while isinstance(action, Wait):
                time.sleep(min(self.poll_interval, action.within))
                journal, action = asyncio.run(_looked(looks, lease))
                self._unkept, self._failures = looks.unkept, 0
                if looks.is_run_lost:
                    journal = run.begin(journal) or journal
                    looks.use(journal, run.run_id)

    def _report(self, steps: Sequence[Event]) -> None:
        """Count the steps that were written now in Airflow's metrics."""
        model = str(self.model_name)
        publish(Sample(ROLLOUT_STEPS, tags={"model": model, "phase": event.phase}) for event in steps)

    def _named(self, run: RolloutRun, journal: Journal) -> dict[str, str]:
        """Return what the trigger must know of the rollout."""
        return {
            "model_name": journal.model_name,
            "identity": journal.identity,
            "stable": journal.stable,
            "run_id": run.run_id,
            "on_kill_action": self.on_kill_action,
            "router": self.router["kind"] if self._is_routed else "",
            **({"selector": self.prometheus_selector} if self._is_scraped else {}),
        }

    def _trigger(self, context: Context, rollout: Mapping[str, str]) -> RolloutStepTrigger:
        actor = self.actor(context)
        return RolloutStepTrigger(
            rollout={**rollout, "failures": str(self._failures)},
            mlflow_conn_id=self.hook.mlflow_conn_id,
            serving_conn_id=self.serving_conn_id,
            prometheus_conn_id=self.prometheus_conn_id or "",
            actor={
                "kind": actor.kind,
                "name": actor.name,
                "via": actor.via,
                "requested_by": actor.requested_by,
                "run_type": actor.run_type,
            },
            poll_seconds=self.poll_interval,
        )

    @property
    def _is_routed(self) -> bool:
        return bool(self.router["kind"] != REGISTRY)

    @property
    def _is_scraped(self) -> bool:
        return self.metrics_source == "prometheus"

    def _cluster(self) -> ClusterObjects:
        named = {"namespace": self.router["namespace"]} if self.router.get("namespace") else {}
        return cluster_of(pod_options(settings.kubernetes_defaults(), self.kubernetes, named), self)

    def _plan(self) -> RolloutPlan:
        plan = read_plan(
            {
                "steps": _STEPS[self.strategy] if self.steps is None else self.steps,
                "rules": tuple(self.rules) if isinstance(self.rules, list | tuple) else self.rules,
                "queries": self.queries,
                "sticky": self.sticky,
                "breaker": self.breaker,
                "rollback": self.rollback,
                "stable_version": self.stable_version,
                "bake": self.bake,
                "on_inconclusive": self.on_inconclusive,
                "on_lost": self.on_lost,
                "load_timeout": self.load_timeout,
                "follow_timeout": self.follow_timeout,
                "max_duration": self.max_duration,
            }
        )
        if any(isinstance(step, Shadow) for step in plan.steps):
            require_copies(check_router(self.router))
        return plan

    def _order(self, context: Context) -> RolloutOrder:
        name = required_text("model_name", self.model_name)
        version = version_number("version", self.version)
        expected = version_number("expected_champion", self.expected_champion, none_allowed=True)
        experiment = required_text("experiment_name", self.experiment_name)
        plan, task = self._plan(), self.task_key(context)
        inputs = {"action": "rollout", "model_name": name, "version": version, "stable": expected, "plan": plan.hash}
        key = identity(task, inputs)
        promotion = Promotion(
            order=MoveOrder(action="promote", identity=key, by=self.actor(context), reason=self.reason),
            model_name=name,
            version=version,
            expected_champion=None if expected == NO_CHAMPION else expected,
            require_gate=self.require_gate,
            require_load_check=flag("require_load_check", self.require_load_check),
        )
        tags = {
            contract.TAG_DAG_ID: task.dag_id,
            contract.TAG_DAG_RUN_ID: task.dag_run_id,
            contract.TAG_TASK_ID: task.task_id,
        }
        return RolloutOrder(promotion=promotion, plan=plan, experiment_name=experiment, tags=tags)

    def _result(self, order: RolloutOrder, run: RolloutRun, end: Finish) -> dict[str, Any]:
        self.log.info("%s: %s %s", order.promotion.model_name, "SUCCEEDED" if end.succeeded else "FAILED", end.reason)
        return {
            "model_name": order.promotion.model_name,
            "version": order.promotion.version,
            "phase": "SUCCEEDED" if end.succeeded else "FAILED",
            "cause": end.cause,
            "reason": end.reason,
            "run_id": run.run_id,
            "report": ARTIFACT_REPORT_HTML if run.run_id else "",
            "previous_version": order.promotion.expected_champion or NO_CHAMPION,
        }


def _may_pass(error: MlflowError | ClaimUnavailableError | AuditUnavailableError) -> bool:
    """Return whether waiting may help; an answer of MLflow such as 403 or 404 stays as it is."""
    return not isinstance(error, MlflowError) or error.status is None or error.status >= 500 or error.status == 429


async def _looked(looks: RolloutLooks, lease: RolloutLease) -> tuple[Journal, Action]:
    """Look once, and renew the lease of the split while nothing is due."""
    journal, action = await looks.look()
    if looks.document is not None and isinstance(action, Wait):
        await lease.renew(looks.document)
    return journal, action
