"""Step ``checkout``: fetch exactly one commit of a Git repository into a folder.

Credentials come from two environment variables and reach Git through a credential helper that reads them from there:
they are in no command line, file, URL or log. Hooks of the repository do not run; submodules are not fetched.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from airflow_mcp.core import contract
from airflow_mcp.core.code.git_environment import git_environment
from airflow_mcp.core.code.source import CodeSource, code_source, path_inside
from airflow_mcp.exceptions import GitAuthError, GitRemoteError, InvalidArgumentError, SourceError
from airflow_mcp.work.run.environment import require

_log = logging.getLogger(__name__)
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.quotePath=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
)
"""No program of the repository runs, bytes are not converted, and a transfer below 1000 bytes/s for 60 s ends."""
_SETTING_WORDS = [word for setting in _SETTINGS for word in ("-c", setting)]
_ERROR_LINES = 8
"""Last lines of Git's output in an error message."""
_REFUSED = re.compile(r"Authentication failed|could not read (Username|Password)|Permission denied|error: 403")


def checkout(environ: Mapping[str, str]) -> Path:
    """Fetch the code that the environment names.

    :param environ: environment variables.
    :return: folder of the checkout.
    :raises InvalidArgumentError: when a variable is missing or wrong.
    :raises SourceError: when the repository lacks the commit, or the commit lacks the folder or script.
    :raises GitRemoteError: when the repository cannot be reached or refuses the credentials, or Git is not installed.
    """
    require(environ, (contract.ENV_SOURCE_URL, contract.ENV_SOURCE_COMMIT, contract.ENV_SOURCE_PATH))
    source = code_source(
        "source",
        {
            "repo_url": environ[contract.ENV_SOURCE_URL],
            "revision": environ[contract.ENV_SOURCE_COMMIT],
            "path": environ.get(contract.ENV_SOURCE_FOLDER, ""),
        },
    )
    folder = fetch_commit(source, Path(environ[contract.ENV_SOURCE_PATH]), environ)
    _require_inside(folder, source, environ.get(contract.ENV_SOURCE_SCRIPT, ""))
    return folder


def fetch_commit(source: CodeSource, folder: Path, environ: Mapping[str, str]) -> Path:
    """Fetch one commit into a new folder.

    :param source: repository and commit.
    :param folder: folder to create; removed again when the commit cannot be fetched.
    :param environ: environment variables, which may include credentials.
    :return: the folder.
    :raises InvalidArgumentError: when the folder exists already.
    :raises SourceError: when the repository lacks the commit.
    :raises GitRemoteError: when the repository cannot be reached or refuses the credentials, or Git is not installed.
    """
    if folder.exists():
        raise InvalidArgumentError(
            f"the folder for the checkout must not exist; got {folder}, which exists. Nothing was fetched"
        )
    git = _Git(source, folder, environ)
    try:
        git.run("init", "--quiet", "--template=", str(folder))
        git.run("-C", str(folder), "remote", "add", "origin", source.url)
        _fetch(git, source)
        git.inside("-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", source.commit)
        head = git.inside("rev-parse", "HEAD").strip()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if head != source.commit:
        raise GitRemoteError(f"the checkout of {source.url} is at {head}, not at {source.commit}; nothing was run")
    _log.info("source %s at commit %s", source.url, source.commit)
    if (folder / ".gitmodules").exists():
        _log.info("the repository has submodules; they are not fetched")
    return folder


class _GitFailedError(Exception):
    """Git failed; the text is the end of its output."""


class _Git:
    """Git for one repository, with hooks and settings that would run a program switched off."""

    def __init__(self, source: CodeSource, folder: Path, environ: Mapping[str, str]) -> None:
        self._source, self._folder = source, folder
        login, password = environ.get(contract.ENV_GIT_USERNAME, ""), environ.get(contract.ENV_GIT_PASSWORD, "")
        self._environ = git_environment(source.url, environ, login, password)

    def inside(self, *arguments: str) -> str:
        """Run Git in the checkout.

        :raises GitRemoteError: when it fails.
        """
        return self.run("-C", str(self._folder), *arguments)

    def run(self, *arguments: str) -> str:
        """Run Git and return its output.

        :raises GitRemoteError: when it fails.
        """
        try:
            return self.attempt(*arguments)
        except _GitFailedError as error:
            kind = GitAuthError if _REFUSED.search(str(error)) else GitRemoteError
            raise kind(
                f"code of {self._source.url} (commit {self._source.commit}) cannot be fetched: {error}. Nothing was "
                "run; a retry may succeed"
            ) from None

    def attempt(self, *arguments: str) -> str:
        """Run Git and return its output.

        :raises _GitFailedError: when it fails.
        """
        try:
            done = subprocess.run(
                ["git", *_SETTING_WORDS, *arguments],  # noqa: S607  (git is in PATH)
                capture_output=True,
                check=False,
                env=self._environ,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise GitRemoteError(
                "git is not installed where the code is fetched: add it to the image (kubernetes.source_image) or to "
                "this machine. Nothing was run"
            ) from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").split("\n")
            lines = [line.strip() for line in said if line.strip()][-_ERROR_LINES:]
            raise _GitFailedError("; ".join(lines) or f"git ended with exit code {done.returncode}")
        return done.stdout.decode(errors="replace")


def _fetch(git: _Git, source: CodeSource) -> None:
    """Fetch the commit alone, or all branches and tags from a server that does not serve single commits."""
    where = ("-C", str(git._folder), "fetch", "--quiet")
    try:
        git.attempt(*where, "--depth", "1", "--no-tags", "origin", source.commit)
    except _GitFailedError as error:
        _log.info("the server does not serve the single commit (%s); fetching all branches and tags", error)
        git.run(*where, "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    try:
        git.attempt("-C", str(git._folder), "cat-file", "-e", f"{source.commit}^{{commit}}")
    except _GitFailedError:
        raise SourceError(
            f"the repository {source.url} has no commit {source.commit}: it is on no branch or tag, or a force push "
            "removed it. Nothing was run"
        ) from None


def _require_inside(folder: Path, source: CodeSource, script: str) -> None:
    """Check that the working folder and the script exist in the checkout, also after following symbolic links."""
    root = folder.resolve()
    where = folder / source.path
    if not where.is_dir():
        raise SourceError(f"commit {source.commit} of {source.url} has no folder {source.path!r}. Nothing was run")
    wanted = [where]
    if script:
        wanted.append(where / path_inside("script", script))
        if not wanted[-1].is_file():
            raise SourceError(
                f"commit {source.commit} of {source.url} has no file {os.path.join(source.path, script)!r}. "  # noqa: PTH118
                "Nothing was run"
            )
    for path in wanted:
        if not path.resolve().is_relative_to(root):
            raise SourceError(
                f"{path.relative_to(folder)} in commit {source.commit} of {source.url} is a symbolic link that leads "
                "out of the repository. Nothing was run"
            )
