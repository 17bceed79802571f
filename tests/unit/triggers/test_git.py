"""GitCommitTrigger on real repositories: pushes, forced pushes, tags, paths, and remotes that go away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.triggers.git import GitCommitTrigger
from tests.support.git_server import Repository
from tests.support.watching import StateOfAssets, watching


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


def event(repository: Repository, commit: str, ref: str = "refs/heads/main", **fields: Any) -> dict[str, Any]:
    return {
        "kind": "commit",
        "repo_url": repository.url,
        "ref": ref,
        "commit": commit,
        "is_tag": False,
        "path": None,
        **fields,
    }


async def test_a_push_gives_one_event_and_of_several_commits_the_newest_counts(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit("first")
    state = StateOfAssets()
    async with watching(GitCommitTrigger(repo_url=repository.url), state, monkeypatch) as seen:
        await seen.more_looks()
        assert seen.events == []
    repository.commit("second")
    newest = repository.commit("third")
    async with watching(GitCommitTrigger(repo_url=repository.url), state, monkeypatch) as seen:
        assert await seen.event(1) == event(repository, newest)
        await seen.more_looks()
        assert len(seen.events) == 1


async def test_a_forced_push_back_to_a_known_commit_gives_no_event(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.commit("first")
    async with watching(GitCommitTrigger(repo_url=repository.url), StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        second = repository.commit("second")
        await seen.event(1)
        for known in (first, second):
            repository.git("reset", "--quiet", "--hard", known)
            await seen.more_looks()
        third = repository.commit("third")
        assert await seen.event(2) == event(repository, third)
    assert len(seen.events) == 2


async def test_the_newest_release_among_tags_counts_also_when_there_was_none(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.commit("first")
    async with watching(GitCommitTrigger(repo_url=repository.url, tags="v*"), StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        repository.git("tag", "--annotate", "v1.9", "--message", "release")
        assert await seen.event(1) == event(repository, first, "refs/tags/v1.9", is_tag=True)
        second = repository.commit("second")
        repository.git("tag", "v1.8")
        await seen.more_looks()
        repository.git("tag", "v1.10")
        assert await seen.event(2) == event(repository, second, "refs/tags/v1.10", is_tag=True)
    assert len(seen.events) == 2


async def test_only_commits_that_change_the_path_count(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.commit("first", "fraud/train.py")
    trigger = GitCommitTrigger(repo_url=repository.url, path="fraud")
    async with watching(trigger, StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        repository.commit("other", "churn/train.py")
        await seen.more_looks()
        assert seen.events == []
        changed = repository.commit("second", "fraud/lib/features.py")
        assert await seen.event(1) == event(repository, changed, path="fraud")


async def test_a_branch_and_a_remote_that_go_away_and_come_back_give_no_event_of_their_own(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.commit("first")
    repository.git("branch", "release", first)
    async with watching(
        GitCommitTrigger(repo_url=repository.url, revision="release"), StateOfAssets(), monkeypatch
    ) as seen:
        await seen.more_looks()
        repository.git("branch", "--delete", "--force", "release")
        await seen.more_looks()
        repository.git("branch", "release", first)
        await seen.more_looks()
        away = repository.folder.with_name("away")
        shutil.move(repository.folder, away)
        await seen.more_looks()
        shutil.move(away, repository.folder)
        await seen.more_looks()
        assert seen.events == []
        second = repository.commit("second")
        repository.git("branch", "--force", "release", second)
        assert await seen.event(1) == event(repository, second, "refs/heads/release")


@pytest.mark.parametrize(
    "arguments",
    [
        {"repo_url": "ext::id"},
        {"repo_url": "https://bob:s3cret@example.com/x"},
        {"repo_url": "https://example.com/x", "revision": "main", "tags": "v*"},
        {"repo_url": "https://example.com/x", "path": "../other"},
        {"repo_url": "https://example.com/x", "poll_seconds": 0},
    ],
)
def test_what_cannot_be_watched_is_refused_when_the_dag_is_read(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        GitCommitTrigger(**arguments)
    assert "s3cret" not in str(caught.value)
