"""The release tag of a version's code, asked of a real Git server with a login: kept, moved, deleted, none, signed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.core.code.tag_signers import TagSigners
from airflow_mcp.core.passport.statement import CodeFacts
from airflow_mcp.exceptions import GitAuthError, PassportError
from airflow_mcp.hooks.git import GitRepositories
from airflow_mcp.registry.release_tags import require_release_tag
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer, Repository, new_ssh_key


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


# --- signatures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def signers(tmp_path: Path) -> TagSigners:
    """Two people whose signatures count; the private key of lena is at ``lena``, that of a stranger at ``mallory``."""
    lena, luis, _ = (new_ssh_key(tmp_path / name) for name in ("lena", "luis", "mallory"))
    return TagSigners({"lena": [f"{lena} lena@bank.example"], "luis": [luis]})


@pytest.mark.parametrize("person", ["lena", "luis"])
def test_a_tag_that_a_permitted_key_signed_is_enough_until_it_is_moved(
    code: Code, signers: TagSigners, tmp_path: Path, person: str
) -> None:
    code.repository.sign_tag("v1.2.0", tmp_path / person)
    require_release_tag(code.facts(), REPOSITORIES, signers)
    code.repository.commit("print(2)")
    code.repository.sign_tag("v1.2.0", tmp_path / person, "--force")
    with pytest.raises(PassportError, match=r"the release tag v1\.2\.0 of .* was moved"):
        require_release_tag(code.facts(), REPOSITORIES, signers)


@pytest.mark.parametrize("arguments", [("tag", "v1.2.0"), ("tag", "-a", "v1.2.0", "-m", "release")])
def test_a_tag_without_a_signature_is_refused(code: Code, signers: TagSigners, arguments: tuple[str, ...]) -> None:
    code.repository.git(*arguments)
    require_release_tag(code.facts(), REPOSITORIES)
    with pytest.raises(
        PassportError, match=r"v1\.2\.0 cannot be checked: tag v1\.2\.0 carries no signature of a permit"
    ):
        require_release_tag(code.facts(), REPOSITORIES, signers)


def test_a_tag_that_a_stranger_signed_is_refused(code: Code, signers: TagSigners, tmp_path: Path) -> None:
    code.repository.sign_tag("v1.2.0", tmp_path / "mallory")
    with pytest.raises(PassportError, match=r"no signature of a permitted key.*No principal matched"):
        require_release_tag(code.facts(), REPOSITORIES, signers)
    with pytest.raises(PassportError, match="no signature of a permitted key"):
        require_release_tag(code.facts(), REPOSITORIES, TagSigners({}))


def test_a_signed_object_counts_for_no_other_tag(code: Code, signers: TagSigners, tmp_path: Path) -> None:
    code.repository.sign_tag("v1.0.0", tmp_path / "lena")
    code.repository.git("update-ref", "refs/tags/v1.2.0", code.repository.git("rev-parse", "v1.0.0"))
    with pytest.raises(PassportError, match=r"tag v1\.2\.0 leads to an object that was signed as tag v1\.0\.0"):
        require_release_tag(code.facts(), REPOSITORIES, signers)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_a_gpg_signature_is_verified_with_the_keys_of_the_policy_only(
    code: Code, signers: TagSigners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    with monkeypatch.context() as patch:
        patch.setenv("GNUPGHOME", str(home))
        try:
            for name in ("lena", "mallory"):
                made = ("--batch", "--quiet", "--passphrase", "", "--quick-gen-key", f"{name}@bank.example", "ed25519")
                subprocess.run(["gpg", *made, "sign", "never"], check=True, capture_output=True)
            key = subprocess.run(["gpg", "--armor", "--export", "lena"], check=True, capture_output=True, text=True)
            for name, tag in (("lena", "v1.2.0"), ("mallory", "v1.3.0")):
                code.repository.git("-c", f"user.signingkey={name}@bank.example", "tag", "-s", tag, "-m", "release")
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], check=True)
    known = TagSigners({**signers.keys, "rita": [key.stdout]})
    require_release_tag(code.facts(), REPOSITORIES, known)
    for ref, whose in (("refs/tags/v1.3.0", known), ("refs/tags/v1.2.0", signers)):
        with pytest.raises(PassportError, match=r"no signature of a permitted key.*NO_PUBKEY"):
            require_release_tag(code.facts(ref), REPOSITORIES, whose)
    agents = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not [command for command in agents if b"gpg-agent" in command and b"airflow-mcp-tag-" in command]
