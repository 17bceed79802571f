"""The checkout of real repositories, over files and over HTTP with a login."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.core import contract
from airflow_mcp.exceptions import GitAuthError, GitRemoteError, InvalidArgumentError, SourceError
from airflow_mcp.work.__main__ import main
from airflow_mcp.work.sources.git_checkout import checkout
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer, Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


@pytest.fixture
def server(repository: Repository) -> Iterator[GitHttpServer]:
    with GitHttpServer(repository.folder.parent) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def environment(repository: Repository, commit: str, target: Path, **changes: str) -> dict[str, str]:
    named = {
        "PATH": "/usr/bin:/bin",
        contract.ENV_SOURCE_URL: repository.url,
        contract.ENV_SOURCE_COMMIT: commit,
        contract.ENV_SOURCE_PATH: str(target),
    }
    return {**named, **changes}


def test_the_folder_holds_exactly_the_commit_and_not_what_came_after(repository: Repository, target: Path) -> None:
    commit = repository.commit("print(1)", "jobs/train.py")
    repository.commit("print(2)", "jobs/train.py")
    given = {contract.ENV_SOURCE_FOLDER: "jobs", contract.ENV_SOURCE_SCRIPT: "train.py"}
    assert checkout(environment(repository, commit, target, **given)) == target
    assert (target / "jobs/train.py").read_text() == "print(1)"
    assert Repository.git(_at(target), "rev-parse", "HEAD") == commit
    assert Repository.git(_at(target), "rev-list", "--count", "HEAD") == "1"


def _at(folder: Path) -> Repository:
    found = Repository.__new__(Repository)
    found.folder = folder
    return found


def test_a_server_that_gives_no_single_commits_is_asked_for_everything(repository: Repository, target: Path) -> None:
    commit = repository.commit("first")
    repository.commit("second")
    for name in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowReachableSHA1InWant"):
        repository.git("config", name, "false")
    # Protocol 0 enforces what protocol 2 does not.
    given = environment(repository, commit, target)
    shim = target.parent / "bin/git"
    shim.parent.mkdir()
    shim.write_text('#!/bin/sh\nexec /usr/bin/git -c protocol.version=0 "$@"\n')
    shim.chmod(0o755)
    checkout({**given, "PATH": f"{shim.parent}:{given['PATH']}"})
    assert (target / "train.py").read_text() == "first"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({contract.ENV_SOURCE_COMMIT: "1" * 40}, "has no commit 1111"),
        ({contract.ENV_SOURCE_FOLDER: "other"}, "has no folder 'other'"),
        ({contract.ENV_SOURCE_SCRIPT: "other.py"}, "has no file 'other.py'"),
        ({contract.ENV_SOURCE_SCRIPT: "out.py"}, "out.py in commit .* is a symbolic link that leads out"),
        ({contract.ENV_SOURCE_FOLDER: "away"}, "away in commit .* is a symbolic link that leads out"),
    ],
)
def test_what_the_commit_does_not_hold_is_refused(
    repository: Repository, target: Path, changes: dict[str, str], message: str
) -> None:
    (repository.folder / "out.py").symlink_to("/etc/passwd")
    (repository.folder / "away").symlink_to("/tmp")
    repository.git("add", "out.py", "away")
    commit = repository.commit("print(1)")
    with pytest.raises(SourceError, match=message):
        checkout(environment(repository, commit, target, **changes))


def test_a_link_within_the_repository_is_followed(repository: Repository, target: Path) -> None:
    (repository.folder / "link.py").symlink_to("train.py")
    repository.git("add", "link.py")
    commit = repository.commit("print(1)")
    checkout(environment(repository, commit, target, **{contract.ENV_SOURCE_SCRIPT: "link.py"}))
    assert (target / "link.py").read_text() == "print(1)"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (contract.ENV_SOURCE_URL, ""),
        (contract.ENV_SOURCE_URL, "https://bob:secret@example.com/models"),
        (contract.ENV_SOURCE_URL, "ext::sh -c id"),
        (contract.ENV_SOURCE_COMMIT, "main"),
        (contract.ENV_SOURCE_COMMIT, "--upload-pack=id"),
        (contract.ENV_SOURCE_FOLDER, "../etc"),
        (contract.ENV_SOURCE_SCRIPT, "/etc/passwd"),
        (contract.ENV_SOURCE_SCRIPT, ".git/config"),
    ],
)
def test_a_wrong_description_is_refused(repository: Repository, target: Path, name: str, value: str) -> None:
    commit = repository.commit("print(1)")
    with pytest.raises(InvalidArgumentError) as refusal:
        checkout(environment(repository, commit, target, **{name: value}))
    assert "secret" not in str(refusal.value)


def test_no_program_of_repository_or_template_runs(repository: Repository, target: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    commit = repository.commit("print(1)")
    checkout(environment(repository, commit, target, GIT_TEMPLATE_DIR=str(hooks.parent)))
    assert target.is_dir()
    assert not (tmp_path / "ran").exists()


def test_credentials_open_a_repository_and_stay_out_of_sight(
    repository: Repository, server: GitHttpServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit = repository.commit("print(1)")
    given = {
        contract.ENV_SOURCE_URL: f"{server.url}/models",
        contract.ENV_GIT_USERNAME: LOGIN,
        contract.ENV_GIT_PASSWORD: PASSWORD,
    }
    with caplog.at_level(logging.DEBUG):
        checkout(environment(repository, commit, target, **given))
    assert (target / "train.py").read_text() == "print(1)"
    written = caplog.text + "".join(
        path.read_text(errors="replace") for path in (target / ".git").rglob("*") if path.is_file()
    )
    assert PASSWORD not in written


@pytest.mark.parametrize("given", [{}, {contract.ENV_GIT_USERNAME: LOGIN, contract.ENV_GIT_PASSWORD: "wrong-one"}])
def test_refused_credentials_are_named_as_such_and_not_shown(
    repository: Repository, server: GitHttpServer, target: Path, given: dict[str, str]
) -> None:
    commit = repository.commit("print(1)")
    with pytest.raises(GitAuthError) as failure:
        checkout(environment(repository, commit, target, **{contract.ENV_SOURCE_URL: f"{server.url}/models", **given}))
    assert f"{server.url}/models" in str(failure.value)
    assert "wrong-one" not in str(failure.value)
    assert not target.exists()


def test_a_host_that_is_not_there_is_worth_a_retry(repository: Repository, target: Path) -> None:
    commit = repository.commit("print(1)")
    with pytest.raises(GitRemoteError, match=r"http://127.0.0.1:1/models .* cannot be fetched.*a retry may succeed"):
        checkout(environment(repository, commit, target, **{contract.ENV_SOURCE_URL: "http://127.0.0.1:1/models"}))


def test_a_machine_without_git_is_told_so(repository: Repository, target: Path) -> None:
    commit = repository.commit("print(1)")
    with pytest.raises(GitRemoteError, match="git is not installed"):
        checkout(environment(repository, commit, target, PATH=str(target)))


def test_the_command_line_tells_refusals_from_failures(
    repository: Repository, target: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in environment(repository, "1" * 40, target).items():
        monkeypatch.setenv(name, value)
    repository.commit("print(1)")
    assert main(["checkout"]) == contract.EXIT_REFUSED
    assert "has no commit" in caplog.text
    monkeypatch.setenv(contract.ENV_SOURCE_URL, "http://127.0.0.1:1/models")
    assert main(["checkout"]) == 1
