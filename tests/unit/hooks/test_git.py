"""GitRemote asks real repositories, over files and over HTTP with a login, and shows no credential."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.core.code.git_refs import ResolvedRef
from airflow_mcp.exceptions import GitAuthError, GitRemoteError, InvalidArgumentError, SourceError
from airflow_mcp.hooks.git import GitRemote
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer, Repository
from tests.support.processes import wait_until


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


@pytest.fixture
def server(repository: Repository) -> Iterator[GitHttpServer]:
    with GitHttpServer(repository.folder.parent) as running:
        yield running


def set_connection(monkeypatch: pytest.MonkeyPatch, **fields: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GIT_TESTS", json.dumps({"conn_type": "git", **fields}))


def test_both_faces_find_branches_tags_commits_and_the_default_branch(repository: Repository) -> None:
    first = repository.commit("first")
    repository.git("tag", "--annotate", "v1.9", "--message", "release")
    second = repository.commit("second")
    repository.git("tag", "v1.10-rc1")
    repository.git("branch", "feature/x", first)
    expected = {
        (None, None): ResolvedRef(second, "refs/heads/main", is_tag=False),
        ("feature/x", None): ResolvedRef(first, "refs/heads/feature/x", is_tag=False),
        ("v1.9", None): ResolvedRef(first, "refs/tags/v1.9", is_tag=True),
        (None, "v*"): ResolvedRef(first, "refs/tags/v1.9", is_tag=True),
        (second, None): ResolvedRef(second, "refs/tags/v1.10-rc1", is_tag=True),
        ("f" * 40, None): ResolvedRef("f" * 40, "f" * 40, is_tag=False),
    }
    remote = GitRemote(repository.url)
    for (ref, tags), resolved in expected.items():
        assert remote.resolve(ref, tags) == resolved
        assert asyncio.run(remote.afind(ref, tags)) == resolved


def test_a_branch_that_was_deleted_is_refused_with_what_there_is(repository: Repository) -> None:
    repository.commit("first")
    repository.git("branch", "feature")
    assert GitRemote(repository.url).resolve("feature").name == "feature"
    repository.git("branch", "--delete", "--force", "feature")
    with pytest.raises(SourceError, match=r"'feature' is neither a branch nor a tag of .*Known names: main"):
        GitRemote(repository.url).resolve("feature")


def test_a_force_push_is_seen(repository: Repository) -> None:
    first = repository.commit("first")
    second = repository.commit("second")
    assert GitRemote(repository.url).resolve("main").sha == second
    repository.git("reset", "--quiet", "--hard", first)
    assert GitRemote(repository.url).resolve("main").sha == first


def test_a_repository_that_vanishes_is_named_and_found_again_when_it_is_back(repository: Repository) -> None:
    first = repository.commit("first")
    away = repository.folder.with_name("away")
    shutil.move(repository.folder, away)
    with pytest.raises(SourceError, match="is not a Git repository"):
        GitRemote(repository.url).resolve()
    shutil.move(away, repository.folder)
    assert GitRemote(repository.url).resolve().sha == first


def test_an_empty_repository_is_refused(repository: Repository) -> None:
    with pytest.raises(SourceError, match="no default branch"):
        GitRemote(repository.url).resolve()


def test_a_remote_that_refuses_connections_is_a_failure_that_a_retry_may_change() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(GitRemoteError, match=r"cannot be read\. Git reports: .*"):
            GitRemote(f"http://127.0.0.1:{probe.getsockname()[1]}/x").resolve()


def test_a_remote_that_stays_silent_is_given_up_and_leaves_no_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/silent"
        with pytest.raises(GitRemoteError, match=r"did not answer completely in 0\.5 s"):
            GitRemote(url, timeout=0.5).resolve()
    assert not processes_with(url)


async def test_a_cancelled_question_leaves_no_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cancelled"
        asking = asyncio.create_task(GitRemote(url).afind())
        await started(url, 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert not processes_with(url)


def test_git_that_is_not_installed_is_named(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(GitRemoteError, match="Is it installed and in PATH"):
        GitRemote(repository.url).resolve()


class TestContent:
    async def test_files_and_folders_of_a_commit_are_found_and_missing_ones_are_not(
        self, repository: Repository
    ) -> None:
        first = repository.commit("one", "fraud/train.py")
        second = repository.commit("two", "churn/train.py")
        remote = GitRemote(repository.url)
        async with remote.commit(first) as before, remote.commit(second) as after:
            assert await before.object_id("fraud") == await after.object_id("fraud") != ""
            assert await before.object_id("") != await after.object_id("")
            assert await before.object_id("churn") == ""
            assert await after.read("churn/train.py") == b"two"
            assert await after.read("churn/gone.py") is None

    async def test_only_what_is_looked_at_is_fetched_and_a_remote_that_goes_away_is_not_a_missing_file(
        self, repository: Repository
    ) -> None:
        commit = repository.commit("one", "fraud/train.py")
        repository.git("config", "uploadpack.allowFilter", "true")
        async with GitRemote(repository.url).commit(commit) as content:
            away = shutil.move(repository.folder, repository.folder.with_name("away"))
            with pytest.raises((SourceError, GitRemoteError)):
                await content.object_id("fraud")
            shutil.move(away, repository.folder)
            assert await content.object_id("fraud") != ""
            shutil.move(repository.folder, away)
            with pytest.raises((SourceError, GitRemoteError)):
                await content.read("fraud/train.py")

    async def test_a_commit_that_the_remote_does_not_have_is_an_error(self, repository: Repository) -> None:
        repository.commit("one")
        with pytest.raises(GitRemoteError, match="not our ref"):
            async with GitRemote(repository.url).commit("f" * 40):
                pytest.fail("there is no such commit")


def test_settings_of_the_user_are_not_used(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.commit("first")
    marker = tmp_path / "ran"
    home = tmp_path / "home"
    home.mkdir()
    command = f'[url "ext::touch {marker} #"]\n\tinsteadOf = {repository.url}\n[protocol "ext"]\n\tallow = always\n'
    (home / ".gitconfig").write_text(command)
    monkeypatch.setenv("HOME", str(home))
    assert GitRemote(repository.url).resolve().sha == first
    assert not marker.exists()


class TestCredentials:
    def test_a_connection_opens_a_protected_repository(
        self, repository: Repository, server: GitHttpServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = repository.commit("first")
        set_connection(monkeypatch, login=LOGIN, password=PASSWORD, host=server.url)
        remote = GitRemote(f"{server.url}/models/.git", "git_tests")
        assert remote.resolve("main").sha == first
        found = asyncio.run(remote.afind("main"))
        assert found is not None
        assert found.sha == first

    def test_a_protected_repository_without_a_connection_is_refused_at_once(
        self, repository: Repository, server: GitHttpServer
    ) -> None:
        repository.commit("first")
        with pytest.raises(GitAuthError, match="refuses access without a connection"):
            GitRemote(f"{server.url}/models/.git").resolve("main")

    def test_a_wrong_password_is_an_error_that_does_not_show_it(
        self, repository: Repository, server: GitHttpServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.commit("first")
        set_connection(monkeypatch, login=LOGIN, password="wrong-one")
        with pytest.raises(GitAuthError, match="refuses the credentials of connection 'git_tests'") as caught:
            GitRemote(f"{server.url}/models/.git", "git_tests").resolve("main")
        assert "wrong-one" not in str(caught.value)

    def test_a_repository_that_is_not_there_is_named(
        self, server: GitHttpServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_connection(monkeypatch, login=LOGIN, password=PASSWORD)
        with pytest.raises(SourceError, match="is not a Git repository, or this account may not read it"):
            GitRemote(f"{server.url}/gone.git", "git_tests").resolve("main")

    def test_another_host_that_the_remote_redirects_to_gets_no_credentials(
        self, repository: Repository, server: GitHttpServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.commit("first")
        set_connection(monkeypatch, login=LOGIN, password=PASSWORD)
        with GitHttpServer(repository.folder.parent) as other:
            server.redirect_to = other.url
            with pytest.raises(GitAuthError):
                GitRemote(f"{server.url}/models/.git", "git_tests").resolve("main")
            assert other.seen_credentials == []

    def test_a_connection_of_another_host_is_refused_before_anything_is_sent(
        self, server: GitHttpServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_connection(monkeypatch, login=LOGIN, password=PASSWORD, host="git.example.com")
        with pytest.raises(InvalidArgumentError, match=r"is for the host 'git\.example\.com'"):
            GitRemote(f"{server.url}/models/.git", "git_tests").resolve("main")
        assert server.seen_credentials == []

    def test_a_password_for_an_ssh_address_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_connection(monkeypatch, login=LOGIN, password=PASSWORD)
        with pytest.raises(InvalidArgumentError, match="leave the connection out"):
            GitRemote("git@example.com:team/models.git", "git_tests").resolve("main")

    def test_a_line_break_in_a_password_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_connection(monkeypatch, login=LOGIN, password="one\nhost=evil.example.com")
        with pytest.raises(InvalidArgumentError, match="contains a line break"):
            GitRemote("https://example.com/x", "git_tests").resolve("main")

    async def test_no_process_shows_the_password_in_its_command_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_connection(monkeypatch, login=LOGIN, password=PASSWORD)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/visible"
            asking = asyncio.create_task(GitRemote(url, "git_tests").afind())
            lines = await started(url, 2)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert not [line for line in lines if PASSWORD in line or LOGIN in line]


async def started(url: str, number: int) -> list[str]:
    """Wait for so many processes of Git."""
    assert await asyncio.to_thread(wait_until, lambda: len(processes_with(url)) >= number, seconds=30)
    return processes_with(url)


def processes_with(text: str) -> list[str]:
    """Give the command lines of the living processes of Git that name a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and "git" in line:
            found.append(line)
    return found
