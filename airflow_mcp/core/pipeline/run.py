"""One run of a pipeline: what triggered it, which commit it runs, and which earlier results it reuses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.pipeline.reuse import why_not_reusable
from airflow_mcp.core.registry.events import describe_change
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, SourceError

MAX_CLAIMS = 200
"""How many commits the ledger keeps; older ones are dropped."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT = 10


@dataclass(frozen=True)
class Event:
    """One event that triggered a run."""

    asset: str
    payload: Mapping[str, Any]
    """Payload of airflow-mcp's triggers; empty for other events."""

    @property
    def kind(self) -> str:
        """``commit``, ``data``, ``model``, ``drift``, or an empty text."""
        return str(self.payload.get("kind", ""))

    def __str__(self) -> str:
        """Describe the event in words."""
        said = self.payload
        if self.kind == "commit":
            return f"commit {short(said.get('commit'))} on {_name(said.get('ref'))} of {said.get('repo_url')}"
        if self.kind == "data":
            where = said.get("root") or said.get("uri") or f"{said.get('path')} of {said.get('repo_url')}"
            what = said.get("version") or short(said.get("commit") or said.get("fingerprint"))
            return f"new data {what} in {where}"
        if self.kind == "model":
            changes = said.get("changes")
            told = [describe_change(each) for each in changes if isinstance(each, Mapping)] if changes else []
            return "; ".join(told) or "a change of the registry"
        if self.kind == "drift":
            return f"drift of model {said.get('model_name')}, found by MLflow run {said.get('run_id')}"
        return f"event of asset {self.asset}"


@dataclass(frozen=True)
class Origin:
    """Who or what started a run of a Dag."""

    run_type: str
    """Airflow's run type: ``manual``, ``scheduled``, ``asset_triggered``…"""
    at: str = ""
    """Logical date of the run, in words; empty when it has none."""
    user: str = ""
    events: tuple[Event, ...] = ()

    def explain(self, reason: str) -> str:
        """Describe why a run happens.

        :param reason: reason that a person wrote; may be empty.
        """
        if self.events:
            text = "; ".join(dict.fromkeys(map(str, self.events)))
        elif self.run_type == "scheduled":
            text = f"cron: scheduled for {self.at}" if self.at else "cron"
        elif self.run_type == "manual":
            text = f"started by {self.user or 'a person'}"
        else:
            text = self.run_type.replace("_", " ") + (f" for {self.at}" if self.at else "")
        return f"{reason} ({text})" if reason else text

    def newest(self, kind: str) -> Event | None:
        """Return the newest event of a kind, if there is one."""
        return next((event for event in reversed(self.events) if event.kind == kind), None)

    @property
    def is_commit_only(self) -> bool:
        """Whether only commits triggered the run."""
        return bool(self.events) and all(event.kind == "commit" for event in self.events)


def read_events(found: Iterable[tuple[str, Any, Any]]) -> tuple[Event, ...]:
    """Read the events that triggered a run.

    :param found: name of the asset, time and extra of each.
    :return: oldest first; extras of other origin are ignored.
    """
    events = []
    for asset, _, extra in sorted(found, key=lambda item: (item[1], item[0])):
        payload = extra.get("payload") if isinstance(extra, Mapping) else None
        events.append(Event(asset, payload if isinstance(payload, Mapping) else {}))
    return tuple(events)


def commit_of_event(origin: Origin, url: str) -> str:
    """Return the commit of the newest commit event; empty when there is none.

    :param origin: what triggered the run.
    :param url: repository of the pipeline.
    :raises SourceError: when the event is about another repository, or has no full commit id.
    """
    event = origin.newest("commit")
    if event is None:
        return ""
    commit = str(event.payload.get("commit", ""))
    if event.payload.get("repo_url") != url or not _COMMIT.fullmatch(commit):
        raise SourceError(f"the event that triggered this run says {str(event)!r}, but the code is in {url}")
    return commit


def require_release(found: ResolvedRef, newest: ResolvedRef, pattern: str, url: str) -> ResolvedRef:
    """Refuse a commit that is not a release; return it with the name of its tag.

    :param found: the commit to run.
    :param newest: the newest release that matches the pattern.
    :param pattern: pattern of release tags, for example ``v*``.
    :param url: the repository, for the message.
    :raises SourceError: when no matching release tag points to the commit.
    """
    if newest.sha == found.sha and newest.is_release(pattern):
        return newest
    if found.is_release(pattern):
        return found
    raise SourceError(
        f"commit {found.sha} ({found.name}) of {url} is not a release: no tag that matches {pattern!r}, pre-releases "
        f"excluded, points to it. Nothing was run: this environment runs only releases, and the newest is {newest.name}"
    )


# --- the ledger of commits --------------------------------------------------------------------------------------------


def claim(ledger: Any, commit: str, run_id: str) -> tuple[list[Any], str]:
    """Claim a commit for a run.

    :param ledger: the stored ledger; anything else counts as empty.
    :param commit: the commit.
    :param run_id: the Dag run that claims it.
    :return: the ledger to store, and the other Dag run that has claimed the commit, or an empty text.
    """
    entries = [list(item) for item in ledger if _is_entry(item)] if isinstance(ledger, list) else []
    for known, by in entries:
        if known == commit:
            return entries, "" if by == run_id else by
    return [*entries, [commit, run_id]][-MAX_CLAIMS:], ""


def _is_entry(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)


# --- start at a stage -------------------------------------------------------------------------------------------------


def stages_before(start_at: str, stages: Sequence[str]) -> tuple[str, ...]:
    """Return the stages that reuse earlier results instead of running.

    :param start_at: first stage that runs; empty for the first of all.
    :param stages: all stages in their order.
    :raises InvalidArgumentError: when there is no such stage.
    """
    if not start_at:
        return ()
    if start_at not in stages:
        raise InvalidArgumentError(f"start_at must be one of {', '.join(stages)}; got {start_at!r}")
    return tuple(stages[: stages.index(start_at)])


def choose_reused(runs: Sequence[Run], *, model_name: str, experiment_id: str, experiment_name: str) -> Run:
    """Choose the training run whose results are reused.

    The newest finished run of the model; of several candidates of a Dag run, the selected one.

    :param runs: training runs of the experiment, newest first.
    :param model_name: registered model.
    :param experiment_id: id of the experiment.
    :param experiment_name: its name, for the message.
    :raises EvidenceError: when there is no such run.
    """
    usable = [run for run in runs if not why_not_reusable(run, model_name=model_name, experiment_id=experiment_id)]
    if not usable:
        raise EvidenceError(
            f"there is no finished training run of model {model_name!r} in experiment {experiment_name!r} to reuse. "
            "Start at the first stage, or name a run with from_run"
        )
    newest = usable[0]
    siblings = [run for run in usable if _dag_run(run) == _dag_run(newest)]
    return next((run for run in siblings if contract.TAG_SELECTED in run.tags), newest)


def choose_candidates(
    runs: Sequence[Run], tasks: Mapping[str, str], *, model_name: str, experiment_id: str, named: Run | None = None
) -> dict[str, Run]:
    """Choose the trainings of all candidates whose results are reused; all are of one Dag run.

    The newest Dag run in which every candidate finished, or the Dag run of the training that a person named.

    :param runs: training runs of the experiment, newest first.
    :param tasks: candidate to the id of its training task.
    :param model_name: registered model.
    :param experiment_id: id of the experiment.
    :param named: training of one of the candidates; None takes the newest complete Dag run.
    :return: candidate to its training run.
    :raises EvidenceError: when there is no such Dag run, or its candidates had different code or data.
    """
    usable = [run for run in runs if not why_not_reusable(run, model_name=model_name, experiment_id=experiment_id)]
    if named is not None:
        task = named.tags.get(contract.TAG_TASK_ID, "?")
        if task not in tasks.values():
            raise EvidenceError(
                f"the task of MLflow run {named.run_id} must be one of {', '.join(tasks.values())}; got {task!r}. "
                "Nothing was reused"
            )
        usable = [named, *(run for run in usable if _dag_run(run) == _dag_run(named))]
    trained: dict[tuple[str, str], dict[str, Run]] = {}
    for run in usable:
        trained.setdefault(_dag_run(run), {}).setdefault(run.tags.get(contract.TAG_TASK_ID, ""), run)
    for found in trained.values():
        if found.keys() >= set(tasks.values()):
            return _of_same_inputs({name: found[task] for name, task in tasks.items()})
    raise EvidenceError(_incomplete(trained, tasks, model_name, named))


def _incomplete(
    trained: Mapping[tuple[str, str], Mapping[str, Run]], tasks: Mapping[str, str], model_name: str, named: Run | None
) -> str:
    (_, dag_run), found = next(iter(trained.items()), (("", ""), {}))
    missing = ", ".join(repr(name) for name, task in tasks.items() if task not in found)
    if named is not None:
        return (
            f"Dag run {dag_run!r}, which trained MLflow run {named.run_id}, has no finished training of candidate "
            f"{missing}. Nothing was reused; start at the first stage, or name a training of another Dag run"
        )
    newest = f". The newest, {dag_run!r}, lacks {missing}" if trained else ""
    return (
        f"there is no Dag run with a finished training of every candidate of model {model_name!r} "
        f"({', '.join(tasks)}) to reuse{newest}. Start at the first stage"
    )


def _of_same_inputs(found: dict[str, Run]) -> dict[str, Run]:
    for tag, what in ((contract.TAG_CODE_COMMIT, "code"), (contract.TAG_DATA_VERSION, "data")):
        values = {name: run.tags.get(tag, "") for name, run in found.items()}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{name}: {value or 'unknown'}" for name, value in values.items())
            raise EvidenceError(
                f"the trainings of the candidates to reuse had different {what} ({shown}), so their results cannot be "
                "compared. Nothing was reused; start at the first stage, or name a training of another Dag run"
            )
    return found


def _dag_run(run: Run) -> tuple[str, str]:
    return run.tags.get(contract.TAG_DAG_ID, ""), run.tags.get(contract.TAG_DAG_RUN_ID, "") or run.run_id


def commit_of_run(run: Run) -> str:
    """Return the commit that a training run used; empty when it is not known exactly."""
    commit = run.tags.get(contract.TAG_CODE_COMMIT, "")
    return commit if _COMMIT.fullmatch(commit) else ""


# --- the pinned spec --------------------------------------------------------------------------------------------------


def why_not_pinned(pinned: Any, spec_hash: str) -> str:
    """Return why a task may not run: its pipeline file has changed since its run began.

    :param pinned: hash at the start of the run; None when its first task pushed no XCom.
    :param spec_hash: hash of the pipeline file now.
    :return: the reason, or an empty text when it is the same.
    """
    if pinned == spec_hash:
        return ""
    if not pinned:
        return "the first task of the run pushed no spec hash. Nothing was done; run that task first"
    return (
        f"the pipeline file changed since this run began (spec hash {short(pinned)} then, {short(spec_hash)} now). "
        "A run never mixes two versions of its file. Nothing was done; start a new run"
    )


def short(value: Any) -> str:
    """Shorten a hash or a commit for display."""
    return str(value or "?").removeprefix("sha256:")[:_SHORT]


def _name(ref: Any) -> str:
    return str(ref or "?").removeprefix("refs/heads/").removeprefix("refs/tags/")
