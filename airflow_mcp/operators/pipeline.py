"""The first task of a pipeline run: pin file, commit, data version and the earlier runs to reuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_mcp.airflow_private import is_resumed
from airflow_mcp.core import contract
from airflow_mcp.core.argument import read_argument, required_text
from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.core.data.dataset import LATEST
from airflow_mcp.core.manifests.spec import Resources
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.pipeline.reuse import require_reusable
from airflow_mcp.core.pipeline.run import (
    Origin,
    choose_candidates,
    choose_reused,
    claim,
    commit_of_event,
    commit_of_run,
    read_events,
    require_release,
    short,
    stages_before,
    why_not_pinned,
)
from airflow_mcp.core.quantity import amount_of
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.hooks.git import GitRemote
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.registry.deployment import ServerBudget, require_deployable

if TYPE_CHECKING:
    from airflow.sdk import Context

BEGIN_TASK_ID = "begin"
_STATE = "pinned"
_COMMIT_ONLY = "is_commit_only"
_LEDGER = "commits"
_CODE_KEYS = ("repo_url", "revision", "tags", "path", "git_conn_id")


class BeginPipelineOperator(ModelControlOperator):
    """Decide once what a pipeline run works on, so that every later task and every retry uses the same.

    A branch or tag becomes a full commit id. A run that was triggered by an event takes the newest commit and data when
    it starts, not those of the event, because Airflow may join or drop events that arrive while another run is active.
    What triggered the run is described in words. When the run starts at a
    later stage, the earlier training run to reuse is found and checked. A retry returns what the first try decided,
    whatever has changed since.

    A run that was triggered only by a new commit is skipped if another run has already run that commit. The commits
    are recorded in the state store of the asset ``<Dag id>.commits``, which must have one writer at a time, so the Dag
    needs ``max_active_runs=1``.

    XCom: ``spec_hash``, ``code`` (``{repo_url, revision, path, ref}``, or None for a folder), ``commit``, ``ref``,
    ``data_version``, ``start_at``, ``reuse`` (stage to the run that it reuses, ``{run_id}``, or with candidates
    ``{<candidate>: run id}``; None for a stage that runs) and ``reason``.

    :param spec_hash: hash of the pipeline file.
    :param code: Git repository, ``{repo_url, revision or tags, path, git_conn_id}``; None for code in a folder.
    :param model_name: registered model that the pipeline trains.
    :param experiment_name: MLflow experiment of its trainings.
    :param stages: all stages in order.
    :param candidates: with several trainings side by side: candidate to the id of the task that trains it.
    :param start_at: first stage to run; empty runs all (templated).
    :param from_run: training run to reuse; with candidates, any one of the trainings of a Dag run. Empty takes the
        newest finished one (templated).
    :param revision: commit, branch or tag to run instead of the one in ``code`` (templated).
    :param data_version: version of the data, or ``latest`` (templated).
    :param reason: why a person started the run (templated).
    :param stable_version: version that model servers go back to; the run is refused when it is not in the registry.
        Empty: not checked.
    :param server_resources: ``memory`` and ``memory_limit`` of the model server that the pipeline deploys; the run is
        refused when two versions as large as the champion do not fit. None: not checked.
    :param require_release_tag: pattern such as ``v*``: only commits that a matching release tag points at may run.
        None allows every commit.
    """

    template_fields: Sequence[str] = ("start_at", "from_run", "revision", "data_version", "reason")
    ui_color = "#eeeeee"

    def __init__(
        self,
        *,
        spec_hash: str,
        code: Mapping[str, str] | None,
        model_name: str,
        experiment_name: str,
        stages: Sequence[str],
        candidates: Mapping[str, str] | None = None,
        start_at: str = "",
        from_run: str = "",
        revision: str = "",
        data_version: str = LATEST,
        reason: str = "",
        stable_version: str = "",
        server_resources: Mapping[str, str] | None = None,
        require_release_tag: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec_hash = spec_hash
        self.code = code
        self.model_name = model_name
        self.experiment_name = experiment_name
        self.stages = stages
        self.candidates = dict(candidates or {})
        self.start_at = start_at
        self.from_run = from_run
        self.revision = revision
        self.data_version = data_version
        self.reason = reason
        self.stable_version = stable_version
        self.server_resources = server_resources
        self.require_release_tag = require_release_tag
        for name in ("spec_hash", "model_name", "experiment_name"):
            required_text(name, getattr(self, name))
        if not stages:
            raise InvalidArgumentError(f"stages must have at least one stage; got {stages!r}")
        _check_code(code, require_release_tag)
        # Airflow gives a task the state store of its inlets only; the asset has no events.
        self._ledger = Asset(name=f"{self.dag_id}.commits")
        if code is not None:
            self.inlets = [*self.inlets, self._ledger]

    def act(self, context: Context) -> dict[str, Any]:
        """Return what an earlier try decided, or decide.

        :raises InvalidArgumentError: when an argument is wrong, or ``from_run`` would not be used.
        :raises SourceError: when there is no such branch, tag or commit, or it is not a release but must be one.
        :raises EvidenceError: when there is no run to reuse, the pipeline file changed since the first try, or the
            model could not be deployed afterwards.
        :raises FailedError: when Git or MLflow does not answer.
        """
        state = context["task_state_store"]
        known = state.get(_STATE)
        settled: dict[str, Any] = dict(known) if isinstance(known, dict) else {}
        if not settled:
            settled = self._settle(context)
            state.set(_STATE, settled, retention=NEVER_EXPIRE)
        elif problem := why_not_pinned(settled["spec_hash"], self.spec_hash):
            raise EvidenceError(problem)
        is_commit_only = settled.pop(_COMMIT_ONLY)
        self.log.info("Reason: %s", settled["reason"])
        if settled["commit"]:
            self.log.info("Commit %s", settled["commit"])
            self._claim(context, settled["commit"], may_skip=is_commit_only)
        return settled

    def _require_deployable(self) -> None:
        server = None
        if self.server_resources is not None:
            resources = read_argument(Resources, "server_resources", self.server_resources)
            server = ServerBudget(amount_of(resources.memory_limit or resources.memory))
        require_deployable(self.hook, self.model_name, stable_version=self.stable_version, server=server)

    def _settle(self, context: Context) -> dict[str, Any]:
        self._require_deployable()
        origin = _origin(context)
        reused_stages = stages_before(self.start_at, self.stages)
        trained = self._reused(reused_stages)
        run = next(iter(trained.values()), None)
        found, newer = self._resolve(origin, run)
        reused = {name: each.run_id for name, each in trained.items()}
        return {
            "spec_hash": self.spec_hash,
            "code": self._pinned_code(found),
            "commit": found.sha if found else "",
            "ref": found.ref if found else "",
            "data_version": self._data_version(origin, run),
            "start_at": self.start_at or self.stages[0],
            "reuse": {stage: reused if stage in reused_stages else None for stage in self.stages},
            "reason": origin.explain(self.reason.strip()) + newer,
            _COMMIT_ONLY: origin.is_commit_only and not reused_stages,
        }

    # --- what is run ----------------------------------------------------------------------------------------------

    def _resolve(self, origin: Origin, run: Run | None) -> tuple[ResolvedRef | None, str]:
        """Find the commit: of the argument, else of the reused run, else the newest of ``code``.

        :return: the commit, and a remark when it is newer than the one of the event; None for code in a folder.
        """
        if self.code is None:
            if self.revision:
                raise InvalidArgumentError(f"revision must be empty for code in a folder; got {self.revision!r}")
            return None, ""
        url = self.code["repo_url"]
        remote = GitRemote(url, self.code.get("git_conn_id"))
        told = commit_of_event(origin, remote.url)
        wanted = self.revision.strip() or (commit_of_run(run) if run else "")
        if wanted:
            found = remote.resolve(ref=wanted)
        else:
            found = remote.resolve(ref=self.code.get("revision"), tags=self.code.get("tags"))
        if self.require_release_tag is not None:
            newest = remote.resolve(tags=self.require_release_tag)
            found = require_release(found, newest, self.require_release_tag, url)
        is_newer = bool(told) and not wanted and found.sha != told
        return found, f"; runs the newest commit {short(found.sha)}" if is_newer else ""

    def _pinned_code(self, found: ResolvedRef | None) -> dict[str, str] | None:
        if self.code is None or found is None:
            return None
        return {
            "repo_url": self.code["repo_url"],
            "revision": found.sha,
            "path": self.code.get("path", ""),
            "ref": found.ref,
        }

    def _data_version(self, origin: Origin, run: Run | None) -> str:
        version = self.data_version.strip() or LATEST
        if run is not None and contract.TAG_DATA_VERSION in run.tags:
            return run.tags[contract.TAG_DATA_VERSION]
        if version == LATEST and origin.newest("data") is not None:
            self.log.info("The newest version of the data is pinned; it may be newer than the one of the event")
        return version

    # --- what is taken over ---------------------------------------------------------------------------------------

    def _reused(self, stages: Sequence[str]) -> dict[str, Run]:
        """Find the trainings to reuse, by candidate; empty when this run trains."""
        wanted = self.from_run.strip()
        if "train" not in stages:
            if wanted:
                raise InvalidArgumentError(
                    f"from_run must be empty when the run trains itself; got {wanted!r}. It starts at "
                    f"{self.start_at or self.stages[0]!r}; set start_at to a later stage"
                )
            return {}
        experiment = self.hook.get_experiment_by_name(self.experiment_name)
        experiment_id = experiment.experiment_id if experiment else ""
        known = {"model_name": self.model_name, "experiment_id": experiment_id}
        named = self.hook.get_run(wanted) if wanted else None
        if named is not None:
            require_reusable(named, **known)
        if self.candidates:
            runs = choose_candidates(self._trainings(experiment_id), self.candidates, named=named, **known)
        else:
            run = named or choose_reused(self._trainings(experiment_id), experiment_name=self.experiment_name, **known)
            runs = {"run_id": run}
        for run in runs.values():
            self.log.info("Stages %s reuse the results of MLflow run %s", ", ".join(stages), self.hook.run_url(run))
        return runs

    def _trainings(self, experiment_id: str) -> list[Run]:
        if not experiment_id:
            return []
        wanted = {contract.TAG_KIND: contract.KIND_TRAINING, contract.TAG_MODEL_NAME: self.model_name}
        where = [f"tags.`{name}` = {filter_value(value)}" for name, value in wanted.items()]
        return self.hook.search_runs(
            [experiment_id], " and ".join([*where, "attributes.status = 'FINISHED'"]), ["attributes.start_time DESC"]
        )

    # --- each commit once -----------------------------------------------------------------------------------------

    def _claim(self, context: Context, commit: str, *, may_skip: bool) -> None:
        """Record that this run runs the commit; skip the run if another has, and only the commit triggered it."""
        store = context["asset_state_store"][self._ledger]
        run_id = self.task_key(context).dag_run_id
        before = store.get(_LEDGER, [])
        ledger, other = claim(before, commit, run_id)
        if other and may_skip:
            raise AirflowSkipException(
                f"commit {commit} was already run by {other}. A commit is not run twice; trigger the Dag by hand to "
                "run it again"
            )
        if ledger != before:
            store.set(_LEDGER, ledger)


def require_pinned_spec(spec_hash: str) -> Callable[[Context], None]:
    """Return a ``pre_execute`` hook that fails a task when the pipeline file changed since its run began.

    A task that resumes after a deferral is not checked, because its work started under the pinned file and its result
    must be recorded. Its downstream tasks are checked.

    :param spec_hash: hash of the pipeline file that the Dag was rendered from.
    :return: the hook; it raises ``AirflowFailException``, so that the task is not retried.
    """

    def check(context: Context) -> None:
        instance = context["ti"]
        if is_resumed(instance):
            return
        pinned = instance.xcom_pull(task_ids=BEGIN_TASK_ID, key="spec_hash")
        if problem := why_not_pinned(pinned, spec_hash):
            raise AirflowFailException(problem)

    return check


def _origin(context: Context) -> Origin:
    dag_run = context["dag_run"]
    found = [
        (event.asset.name, event.timestamp, event.extra)
        for events in context["triggering_asset_events"].values()
        for event in events
    ]
    at = dag_run.logical_date
    return Origin(
        run_type=str(getattr(dag_run.run_type, "value", dag_run.run_type)),
        at=f"{at:%Y-%m-%d %H:%M %Z}" if at else "",
        user=dag_run.triggering_user_name or "",
        events=read_events(found),
    )


def _check_code(code: Mapping[str, str] | None, require_release_tag: str | None) -> None:
    if code is None:
        if require_release_tag is not None:
            raise InvalidArgumentError(
                f"require_release_tag must be None when code is None; got {require_release_tag!r}. Code in a folder "
                "has no releases"
            )
        return
    unknown = sorted(code.keys() - set(_CODE_KEYS))
    if unknown or not code.get("repo_url"):
        raise InvalidArgumentError(
            f"code must be a mapping with repo_url, maybe revision or tags, path and git_conn_id; got {dict(code)!r}"
        )
    if code.get("revision") and code.get("tags"):
        raise InvalidArgumentError(f"code must have at most one of revision and tags; got {dict(code)!r}")
