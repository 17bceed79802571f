"""The release tag of a version's code, asked of a real Git server with a login: kept, moved, deleted, none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.core.passport.statement import CodeFacts
from airflow_mcp.exceptions import GitAuthError, PassportError
from airflow_mcp.hooks.git import GitRepositories
from airflow_mcp.registry.release_tags import require_release_tag
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer, Repository


class Code:
    """A repository behind the server.

    :param folder: folder of repositories.
    :param url: address of the server.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.repository = Repository(folder / "churn")
        self.commit = self.repository.commit("print(1)")
        self.url = f"{url}/churn/.git"

    def facts(self, ref: str = "refs/tags/v1.2.0") -> CodeFacts:
        return CodeFacts(url=self.url, ref=ref, commit=self.commit)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Code]:
    with GitHttpServer(tmp_path) as server:
        connection = {"conn_type": "http", "host": server.url, "login": LOGIN, "password": PASSWORD}
        monkeypatch.setenv("AIRFLOW_CONN_GIT_READER", json.dumps(connection))
        yield Code(tmp_path, server.url)


REPOSITORIES = GitRepositories("git_reader")


@pytest.mark.parametrize("arguments", [("tag", "v1.2.0"), ("tag", "-a", "v1.2.0", "-m", "release")])
def test_a_tag_that_names_the_commit_is_enough_and_a_moved_one_is_not(code: Code, arguments: tuple[str, ...]) -> None:
    code.repository.git(*arguments)
    require_release_tag(code.facts(), REPOSITORIES)
    later = code.repository.commit("print(2)")
    require_release_tag(code.facts(), REPOSITORIES)
    command, *others = arguments
    code.repository.git(command, "--force", *others)
    with pytest.raises(PassportError) as refused:
        require_release_tag(code.facts(), REPOSITORIES)
    assert f"the release tag v1.2.0 of {code.url} was moved" in str(refused.value)
    assert f"trained from commit {code.commit}, and the tag names {later}" in str(refused.value)


def test_a_deleted_tag_releases_nothing(code: Code) -> None:
    code.repository.git("tag", "v1.2.0")
    code.repository.git("tag", "--delete", "v1.2.0")
    with pytest.raises(PassportError, match=r"v1\.2\.0 cannot be checked: .* is neither a branch nor a tag of"):
        require_release_tag(code.facts(), REPOSITORIES)


@pytest.mark.parametrize("ref", ["refs/heads/main", "", "c" * 40])
def test_a_branch_or_nothing_is_no_release(code: Code, ref: str) -> None:
    with pytest.raises(PassportError, match="prod releases only what was trained from a release tag"):
        require_release_tag(code.facts(ref), REPOSITORIES)


def test_where_nobody_can_be_asked_nothing_is_released(code: Code) -> None:
    code.repository.git("tag", "v1.2.0")
    with pytest.raises(PassportError, match="nobody can be asked here where the tag"):
        require_release_tag(code.facts(), None)


def test_a_server_that_refuses_the_credentials_is_asked_again(code: Code) -> None:
    code.repository.git("tag", "v1.2.0")
    with pytest.raises(GitAuthError):
        require_release_tag(code.facts(), GitRepositories())


def test_the_author_of_a_commit_is_read_from_the_server(code: Code) -> None:
    code.repository.git("-c", "user.name=x", "commit", "--allow-empty", "--author=Lena <Lena@bank.example>", "-m", "x")
    assert REPOSITORIES.author_of(code.url, code.repository.git("rev-parse", "HEAD")) == "Lena@bank.example"
    assert REPOSITORIES.author_of(code.url, code.commit) == "tests@example.com"
