"""What a run of a pipeline is about: reasons in words, commits, releases, the ledger, and what is reused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.pipeline.run import (
    MAX_CLAIMS,
    Origin,
    choose_candidates,
    choose_reused,
    claim,
    commit_of_event,
    commit_of_run,
    read_events,
    require_release,
    stages_before,
    why_not_pinned,
)
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, SourceError

URL = "https://git.example.com/team/fraud"
OLD, NEW = "a" * 40, "b" * 40


def commit_event(commit: str = NEW, repo_url: str = URL) -> dict[str, Any]:
    return {
        "kind": "commit",
        "repo_url": repo_url,
        "ref": "refs/heads/main",
        "commit": commit,
        "is_tag": False,
        "path": None,
    }


REGISTRY_CHANGES = [
    {"event": "new_version", "model_name": "fraud", "version": "4"},
    {"event": "alias_moved", "model_name": "fraud", "version": "4", "alias": "champion", "by": "nightly.promote run-7"},
    {"event": "alias_removed", "model_name": "fraud", "version": "", "alias": "shadow", "by": "moved outside"},
    {"event": "model_tag_changed", "model_name": "fraud", "version": "", "tag": "owner"},
    {"event": "version_tag_changed", "model_name": "fraud", "version": "3", "tag": "stage"},
]


def triggered(*payloads: Any, run_type: str = "asset_triggered") -> Origin:
    found = [("an.asset", number, {"from_trigger": True, "payload": each}) for number, each in enumerate(payloads)]
    return Origin(run_type, events=read_events(reversed(found)))


@pytest.mark.parametrize(
    ("origin", "reason", "words"),
    [
        (Origin("scheduled", at="2026-11-21 02:00 UTC"), "", "cron: scheduled for 2026-11-21 02:00 UTC"),
        (Origin("manual", user="alice"), "", "started by alice"),
        (Origin("manual", user="alice"), "new labels", "new labels (started by alice)"),
        (Origin("manual"), "", "started by a person"),
        (Origin("backfill", at="2026-11-20"), "", "backfill for 2026-11-20"),
        (triggered(commit_event()), "", f"commit bbbbbbbbbb on main of {URL}"),
        (triggered({"kind": "data", "root": "/data", "version": "v7"}), "", "new data v7 in /data"),
        (
            triggered({"kind": "data", "uri": "s3://b/x.csv", "fingerprint": "sha256:0123456789abcdef"}),
            "",
            "new data 0123456789 in s3://b/x.csv",
        ),
        (
            triggered({"kind": "data", "repo_url": URL, "path": "d.csv", "commit": NEW, "hash": "h"}),
            "",
            f"new data bbbbbbbbbb in d.csv of {URL}",
        ),
        (
            triggered({"kind": "model", "changes": REGISTRY_CHANGES}),
            "",
            "version 4 of model fraud; version 4 of model fraud, now champion (nightly.promote run-7); alias shadow of "
            "model fraud removed (moved outside); tag owner of model fraud; tag stage of version 3 of model fraud",
        ),
        (
            triggered({"kind": "drift", "model_name": "fraud", "experiment_name": "e", "run_id": "r9"}),
            "",
            "drift of model fraud, found by MLflow run r9",
        ),
        (triggered(None), "", "event of asset an.asset"),
        (
            triggered(commit_event(), {"kind": "data", "root": "/data", "version": "v7"}),
            "",
            f"commit bbbbbbbbbb on main of {URL}; new data v7 in /data",
        ),
    ],
)
def test_what_triggered_a_run_is_said_in_words(origin: Origin, reason: str, words: str) -> None:
    assert origin.explain(reason) == words


def test_the_newest_commit_of_several_is_the_one_to_run() -> None:
    assert commit_of_event(triggered(commit_event(OLD), commit_event(NEW)), URL) == NEW
    assert commit_of_event(triggered({"kind": "data"}), URL) == ""


@pytest.mark.parametrize(
    "event", [commit_event(repo_url="https://evil.example.com/x"), commit_event("main"), commit_event("")]
)
def test_an_event_about_another_repository_or_without_a_commit_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="but the code is in"):
        commit_of_event(triggered(event), URL)


def test_only_a_run_that_nothing_but_commits_triggered_is_one_of_commits_only() -> None:
    assert triggered(commit_event(OLD), commit_event()).is_commit_only
    assert not triggered(commit_event(), {"kind": "drift"}).is_commit_only
    assert not Origin("manual").is_commit_only


RELEASE = ResolvedRef(NEW, "refs/tags/v1.3", is_tag=True)


@pytest.mark.parametrize(
    ("found", "ref"),
    [
        (RELEASE, "refs/tags/v1.3"),
        (ResolvedRef(NEW, "refs/heads/main", is_tag=False), "refs/tags/v1.3"),
        (ResolvedRef(OLD, "refs/tags/v1.2", is_tag=True), "refs/tags/v1.2"),
    ],
)
def test_a_commit_that_a_release_tag_points_at_may_run_by_the_tags_name(found: ResolvedRef, ref: str) -> None:
    assert require_release(found, RELEASE, "v*", URL).ref == ref


@pytest.mark.parametrize(
    "found",
    [
        ResolvedRef(OLD, "refs/heads/main", is_tag=False),
        ResolvedRef(OLD, OLD, is_tag=False),
        ResolvedRef(OLD, "refs/tags/nightly", is_tag=True),
        ResolvedRef(OLD, "refs/tags/v2.0-rc1", is_tag=True),
        ResolvedRef(OLD, "refs/tags/1.0", is_tag=True),
    ],
)
def test_any_other_commit_is_refused_where_releases_are_required(found: ResolvedRef) -> None:
    with pytest.raises(SourceError, match=r"is not a release: .* Nothing was run: .* the newest is v1.3"):
        require_release(found, RELEASE, "v*", URL)


def test_a_commit_is_claimed_once_and_by_the_same_run_again() -> None:
    ledger, other = claim([], NEW, "run-1")
    assert (ledger, other) == ([[NEW, "run-1"]], "")
    assert claim(ledger, NEW, "run-1") == (ledger, "")
    assert claim(ledger, NEW, "run-2") == (ledger, "run-1")
    assert claim(ledger, OLD, "run-2") == ([[NEW, "run-1"], [OLD, "run-2"]], "")


@pytest.mark.parametrize("broken", [None, "x", 3, {"a": 1}, [1, ["a"], ["a", 2], None]])
def test_a_ledger_that_is_not_ours_counts_as_empty(broken: Any) -> None:
    assert claim(broken, NEW, "run-1") == ([[NEW, "run-1"]], "")


def test_the_ledger_forgets_its_oldest_commits() -> None:
    ledger: list[Any] = []
    for number in range(MAX_CLAIMS + 5):
        ledger, _ = claim(ledger, f"{number:040x}", f"run-{number}")
    assert len(ledger) == MAX_CLAIMS
    assert ledger[0][1] == "run-5"


STAGES = ("build", "train", "evaluate", "gate")


def test_the_stages_before_the_first_one_that_works_hand_on_results() -> None:
    assert stages_before("", STAGES) == stages_before("build", STAGES) == ()
    assert stages_before("gate", STAGES) == ("build", "train", "evaluate")
    with pytest.raises(
        InvalidArgumentError, match="start_at must be one of build, train, evaluate, gate; got 'deploy'"
    ):
        stages_before("deploy", STAGES)


def training(run_id: str, dag_run: str, **changes: Any) -> Run:
    tags = {
        contract.TAG_KIND: contract.KIND_TRAINING,
        contract.TAG_MODEL_NAME: "fraud",
        contract.TAG_DAG_ID: "d",
        contract.TAG_DAG_RUN_ID: dag_run,
        **changes.pop("tags", {}),
    }
    return Run(run_id, "7", **{"status": "FINISHED", "model_ids": ("m",), **changes}, tags=tags)


def reuse(*runs: Run) -> str:
    return choose_reused(runs, model_name="fraud", experiment_id="7", experiment_name="fraud").run_id


def test_the_newest_usable_training_is_reused() -> None:
    assert reuse(training("c", "r3", model_ids=()), training("b", "r2"), training("a", "r1")) == "b"


def test_of_several_candidates_of_one_run_the_selected_one_is_reused() -> None:
    selected = {contract.TAG_SELECTED: "x"}
    assert reuse(training("b2", "r2"), training("b1", "r2", tags=selected), training("a", "r1", tags=selected)) == "b1"


def test_nothing_to_reuse_is_refused_in_words() -> None:
    with pytest.raises(EvidenceError, match="no finished training run of model 'fraud' in experiment 'fraud' to reuse"):
        reuse(training("a", "r1", status="FAILED"))


TASKS = {"small": "train_small", "deep": "train_deep"}


def trained_by(name: str, dag_run: str, **changes: Any) -> Run:
    tags = {contract.TAG_TASK_ID: f"train_{name}", **changes.pop("tags", {})}
    return training(f"{name}-{dag_run}", dag_run, tags=tags, **changes)


def reuse_all(*runs: Run, named: Run | None = None) -> dict[str, str]:
    found = choose_candidates(runs, TASKS, model_name="fraud", experiment_id="7", named=named)
    return {name: run.run_id for name, run in found.items()}


def test_each_candidate_is_reused_from_the_newest_dag_run_that_trained_them_all() -> None:
    older = (trained_by("deep", "r1"), trained_by("small", "r1"))
    broken = (trained_by("deep", "r3"), trained_by("small", "r3", status="FAILED"))
    both = (trained_by("small", "r2"), trained_by("deep", "r2"))
    assert reuse_all(*broken, *both, *older) == {"small": "small-r2", "deep": "deep-r2"}
    for named in older:
        assert reuse_all(*broken, *both, *older, named=named) == {"small": "small-r1", "deep": "deep-r1"}


def test_of_two_finished_tries_the_newest_is_reused_unless_the_other_is_named() -> None:
    first = replace(trained_by("deep", "r1"), run_id="first")
    runs = (trained_by("deep", "r1"), first, trained_by("small", "r1"))
    assert reuse_all(*runs)["deep"] == "deep-r1"
    assert reuse_all(*runs, named=first) == {"small": "small-r1", "deep": "first"}


def test_a_candidate_without_a_finished_training_is_refused_by_its_name() -> None:
    alone = trained_by("deep", "r9")
    with pytest.raises(EvidenceError, match=r"'r9', which trained MLflow run deep-r9, has no finished .* 'small'"):
        reuse_all(alone, trained_by("small", "r1"), named=alone)
    with pytest.raises(EvidenceError, match=r"model 'fraud' \(small, deep\) to reuse. The newest, 'r9', lacks 's"):
        reuse_all(alone, trained_by("small", "r1"))
    with pytest.raises(EvidenceError, match=r"\(small, deep\) to reuse. Start at the first stage"):
        reuse_all()


def test_a_training_of_no_candidate_or_candidates_of_different_inputs_are_refused() -> None:
    other = trained_by("old", "r1")
    with pytest.raises(EvidenceError, match="must be one of train_small, train_deep; got 'train_old'"):
        reuse_all(other, named=other)
    changed = trained_by("deep", "r1", tags={contract.TAG_DATA_VERSION: "v2"})
    with pytest.raises(EvidenceError, match=r"different data \(small: unknown, deep: v2\)"):
        reuse_all(trained_by("small", "r1"), changed)


@pytest.mark.parametrize(("tag", "commit"), [(NEW, NEW), (f"{NEW}+changes", ""), ("", "")])
def test_a_commit_of_a_run_is_taken_only_when_it_is_exact(tag: str, commit: str) -> None:
    assert commit_of_run(training("a", "r1", tags={contract.TAG_CODE_COMMIT: tag})) == commit


def test_a_changed_or_missing_spec_is_refused_in_words() -> None:
    assert why_not_pinned("h1", "h1") == ""
    changed = why_not_pinned("h1", "h2")
    assert "the pipeline file changed since this run began (spec hash h1 then, h2 now)" in changed
    assert changed.endswith("start a new run")
    assert "pushed no spec hash" in why_not_pinned(None, "h2")
