"""Which code runs: commit and bytes of a script, asked from a real Git repository."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.source import code_version


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "a repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "train.py").write_text("print(1)\n")
    (folder / ".gitignore").write_text("ignored.py\n")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_committed_script_has_its_commit_and_is_not_dirty(repository: Path) -> None:
    version = code_version(repository / "train.py")
    assert version.commit == git(repository, "rev-parse", "HEAD")
    assert version.dirty is False
    assert version.content_hash == "sha256:" + hashlib.sha256(b"print(1)\n").hexdigest()


def test_a_changed_script_is_dirty_and_has_another_hash(repository: Path) -> None:
    before = code_version(repository / "train.py")
    (repository / "train.py").write_text("print(2)\n")
    after = code_version(repository / "train.py")
    assert after.dirty is True
    assert after.commit == before.commit
    assert after.content_hash != before.content_hash


def test_a_staged_change_is_dirty_as_well(repository: Path) -> None:
    (repository / "train.py").write_text("print(2)\n")
    git(repository, "add", "train.py")
    assert code_version(repository / "train.py").dirty is True


@pytest.mark.parametrize("name", ["untracked.py", "ignored.py", "new folder/deep.py"])
def test_a_script_that_no_commit_holds_is_dirty(repository: Path, name: str) -> None:
    script = repository / name
    script.parent.mkdir(exist_ok=True)
    script.write_text("")
    version = code_version(script)
    assert version.commit is not None
    assert version.dirty is True


def test_another_changed_file_does_not_make_the_script_dirty(repository: Path) -> None:
    (repository / "other.py").write_text("")
    assert code_version(repository / "train.py").dirty is False


def test_a_name_with_pattern_characters_is_taken_literally(repository: Path) -> None:
    (repository / "[t]rain.py").write_text("")
    git(repository, "add", "-A")
    git(repository, "commit", "--quiet", "-m", "second")
    (repository / "train.py").write_text("changed")
    assert code_version(repository / "[t]rain.py").dirty is False


def test_a_symbolic_link_stands_for_the_script_it_points_at(repository: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(repository / "train.py")
    assert code_version(link) == code_version(repository / "train.py")


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "train.py").write_text("")
    version = code_version(tmp_path / "train.py")
    assert (version.commit, version.dirty) == (None, True)


def test_outside_a_repository_the_commit_is_unknown_and_never_clean(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    version = code_version(tmp_path / "train.py")
    assert (version.commit, version.dirty) == (None, True)


def test_without_git_the_commit_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert code_version(repository / "train.py").commit is None


def test_git_variables_of_the_environment_do_not_redirect_the_question(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = code_version(repository / "train.py")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert code_version(repository / "train.py") == expected


def test_a_program_in_the_repositorys_configuration_is_not_run(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    trap.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(trap))
    assert code_version(repository / "train.py").dirty is False
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["missing.py", "."])
def test_what_is_not_a_readable_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"script must be a readable file; got '.*': "):
        code_version(tmp_path / name)


def test_the_folder_commit_stays_while_the_rest_of_the_repository_moves_on(tmp_path: Path) -> None:
    def git(*command: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    script = tmp_path / "model" / "train.py"
    script.parent.mkdir()
    script.write_text("print(1)\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    first = git("rev-parse", "HEAD")
    (tmp_path / "README.md").write_text("unrelated\n")
    git("add", ".")
    git("commit", "-qm", "two")
    second = git("rev-parse", "HEAD")

    unrelated = code_version(script)
    assert (unrelated.commit, unrelated.folder_commit) == (second, first)

    (script.parent / "features.py").write_text("X = 1\n")
    git("add", ".")
    git("commit", "-qm", "three")
    assert code_version(script).folder_commit == git("rev-parse", "HEAD")
