"""Find the commit of a branch, a tag or a pattern of tags on a Git remote, and read files of it, without a checkout."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.log import amask_secret, mask_secret

from airflow_mcp.core.code.git_environment import git_environment
from airflow_mcp.core.code.git_refs import ResolvedRef, check_question, choose_ref, find_ref, ls_remote_arguments
from airflow_mcp.core.code.source import repository_url
from airflow_mcp.core.code.tag_signers import TagSigners, read_verified
from airflow_mcp.exceptions import GitAuthError, GitRemoteError, InvalidArgumentError, SourceError

if TYPE_CHECKING:
    from airflow.sdk import Connection

DEFAULT_TIMEOUT_SECONDS = 60.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_DEFAULT_USER = "git"
"""Sent with a token when the connection has no login; the large Git hosts accept any."""
_CHUNK = 64 * 1024
_MESSAGE_LIMIT = 500
_AUTH = re.compile(
    r"Authentication failed|could not read (Username|Password)|Access denied|error: 40[13]|Permission denied \("
    r"|Host key verification failed"
)
_ERROR = re.compile(rb"^(error|fatal):", re.M)
_NOT_A_REPOSITORY = re.compile(
    r"does not appear to be a git repository|is this a git repository|[Rr]epository .*not found|error: 404"
)


class CommitContent:
    """The files of a commit on a remote; see :meth:`GitRemote.commit`."""

    def __init__(self, git: Callable[..., Awaitable[bytes | None]], commit: str) -> None:
        self._git, self._commit = git, commit

    async def object_id(self, path: str) -> str:
        """Return the id of the object at a path; the same content has the same id in every commit.

        :param path: file or folder, relative to the repository.
        :return: empty when the path does not exist.
        """
        found = await self._git("rev-parse", "--verify", "--quiet", f"{self._commit}:{path}")
        return (found or b"").decode().strip()

    async def author(self) -> str:
        """Return the e-mail address of the commit's author, as the commit says; nothing has checked it."""
        found = await self._git("show", "--no-patch", "--no-mailmap", "--format=%ae", self._commit, "--")
        return (found or b"").decode(errors="replace").strip()

    async def read(self, path: str) -> bytes | None:
        """Return the content of a file; None when it does not exist.

        :param path: file, relative to the repository.
        """
        found = await self.object_id(path)
        return await self._git("cat-file", "blob", found) if found else None


class GitRemote:
    """A Git repository on a server, which is never checked out.

    :param url: ``https``, ``http``, ``ssh`` or ``file`` URL, or ``user@host:path``; without a password.
    :param conn_id: Airflow connection with login and password for an ``https`` or ``http`` URL; if it has a host, the
        URL must be on that host. None uses no credentials.
    :param timeout: seconds after which a Git command is killed.
    :raises InvalidArgumentError: for another kind of URL.
    """

    def __init__(self, url: str, conn_id: str | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.url = repository_url("url", url)
        self.conn_id = conn_id
        self.timeout = timeout

    def resolve(self, ref: str | None = None, tags: str | None = None) -> ResolvedRef:
        """Find the commit that a name leads to now; blocks.

        :param ref: branch, tag, full name (``refs/heads/…``, ``refs/tags/…``) or full commit id; None or empty means
            the default branch. A commit id gets the name of a tag or branch that points at it. Without one it is
            returned as it is: only a checkout shows whether the repository has it.
        :param tags: instead of ``ref``: a pattern such as ``v*``, which chooses the newest version.
        :raises InvalidArgumentError: when an argument or the connection is not usable.
        :raises SourceError: when there is no such repository or name, or it is both a branch and a tag.
        :raises GitAuthError: when the remote refuses the credentials, or requires some.
        :raises GitRemoteError: when the remote does not answer in time.
        """
        answer = asyncio.run(self._ask(ref, tags, self.credentials()))
        return choose_ref(answer, url=self.url, ref=ref, tags=tags)

    def credentials(self) -> tuple[str, str]:
        """Read login and password of the connection, and mask them in logs from then on; blocks.

        :return: login and password; empty without a connection.
        :raises InvalidArgumentError: when the connection is not usable for this URL.
        """
        secrets = self._secrets(BaseHook.get_connection(self.conn_id)) if self.conn_id else ("", "")
        for secret in _hidden(secrets):
            mask_secret(secret)
        return secrets

    async def afind(self, ref: str | None = None, tags: str | None = None) -> ResolvedRef | None:
        """Find the commit as :meth:`resolve` does, without blocking the event loop.

        :return: None when there is no such branch or tag (yet).
        """
        answer = await self._ask(ref, tags, await self._asecrets())
        return find_ref(answer, url=self.url, ref=ref, tags=tags)

    @asynccontextmanager
    async def commit(self, commit: str) -> AsyncIterator[CommitContent]:
        """Fetch a commit without its files into a temporary folder; each file is fetched when it is read.

        A remote that does not support this sends all files of the commit.

        :param commit: full commit id.
        :raises GitRemoteError: when it cannot be fetched.
        """
        secrets = await self._asecrets()
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="airflow-mcp-git-")
        try:
            await self._git(("init", "--quiet", "--bare", "--template=", "--", folder), secrets)
            inside = ("-C", folder)
            await self._git((*inside, "remote", "add", "origin", self.url), secrets)
            fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--filter=tree:0", "origin", commit)
            await self._git((*inside, *fetch), secrets)

            async def git(*arguments: str) -> bytes | None:
                code, output, complaint = await self._run((*inside, *arguments), secrets)
                # Exit code 1: the path does not exist or, with an error message, it could not be fetched.
                if code not in (0, 1) or (code == 1 and _ERROR.search(complaint)):
                    raise self._failure(complaint, secrets)
                return output if code == 0 else None

            yield CommitContent(git, commit)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def verified_tag(self, name: str, signers: TagSigners) -> str:
        """Return the commit of a signed tag, after Git has verified the signature with the given keys and no others.

        :param name: short name of an annotated tag.
        :param signers: whose signature counts.
        :raises SourceError: when none of them has signed it, or the signed object was made for another tag.
        :raises GitRemoteError: when it cannot be fetched.
        """
        secrets, ref = await self._asecrets(), f"refs/tags/{name}"
        with tempfile.TemporaryDirectory(prefix="airflow-mcp-tag-") as folder:
            keys = Path(folder)
            (keys / "allowed_signers").write_text(signers.allowed_signers, encoding="utf-8")
            # No agent: it would outlive the folder, and a public key needs none.
            (keys / "gpg.conf").write_text("no-autostart\n", encoding="utf-8")
            inside = ("-C", str(keys / "tag"))
            await self._git(("init", "--quiet", "--bare", "--template=", "--", inside[1]), secrets)
            fetch = ("fetch", "--quiet", "--depth=1", "--no-tags", "--filter=tree:0", self.url, f"+{ref}:{ref}")
            await self._git((*inside, *fetch), secrets)
            if signers.gpg_keys and shutil.which("gpg"):  # without it Git verifies SSH signatures only
                (keys / "keys.asc").write_text(signers.gpg_keys, encoding="utf-8")
                await self._import(keys)
            known = ("-c", f"gpg.ssh.allowedSignersFile={keys / 'allowed_signers'}", "-c", "gpg.x509.program=false")
            verify = (*inside, *known, "verify-tag", "--raw", ref)
            code, _, complaint = await self._run(verify, secrets, {"GNUPGHOME": folder})
            shown = await self._git((*inside, "for-each-ref", "--format=%(tag) %(*objectname)", ref), secrets)
        return read_verified(name, code, shown.decode(errors="replace"), complaint.decode(errors="replace"))

    async def _import(self, keys: Path) -> None:
        """Let GPG read the public keys of a folder; one that it cannot read verifies nothing."""
        arguments = ("--homedir", str(keys), "--batch", "--quiet", "--import", str(keys / "keys.asc"))
        await self._run(arguments, ("", ""), program="gpg")

    async def _asecrets(self) -> tuple[str, str]:
        secrets = self._secrets(await BaseHook.aget_connection(self.conn_id)) if self.conn_id else ("", "")
        for secret in _hidden(secrets):
            await amask_secret(secret)
        return secrets

    async def _ask(self, ref: str | None, tags: str | None, secrets: tuple[str, str]) -> str:
        check_question(ref, tags)
        answer = await self._git(ls_remote_arguments(self.url, ref, tags), secrets)
        return answer.decode(errors="replace")

    def _secrets(self, connection: Connection) -> tuple[str, str]:
        """Read login and password, and check that they are for this URL."""
        login, password = connection.login or "", connection.password or ""
        if any(character in login + password for character in "\r\n\0"):
            raise InvalidArgumentError(
                f"connection {self.conn_id!r}: login or password contains a line break. Nothing was sent"
            )
        scheme, _, rest = self.url.partition("://")
        if (login or password) and scheme not in ("https", "http"):
            raise InvalidArgumentError(
                f"connection {self.conn_id!r} has login or password, but {self.url!r} is not an https or http URL. For "
                "ssh leave the connection out and give the machine an SSH key"
            )
        host = (connection.host or "").rpartition("://")[2].partition("/")[0].rpartition("@")[2]
        if host and host.lower() not in _names_of_host(rest):
            raise InvalidArgumentError(
                f"connection {self.conn_id!r} is for the host {host!r}, but the repository is {self.url!r}. Nothing "
                "was sent to it"
            )
        return login or (_DEFAULT_USER if password else ""), password

    async def _git(self, arguments: tuple[str, ...], secrets: tuple[str, str]) -> bytes:
        """Run Git and return its output."""
        code, output, complaint = await self._run(arguments, secrets)
        if code != 0:
            raise self._failure(complaint, secrets)
        return output

    async def _run(
        self,
        arguments: tuple[str, ...],
        secrets: tuple[str, str],
        more: Mapping[str, str] = MappingProxyType({}),
        program: str = "git",
    ) -> tuple[int, bytes, bytes]:
        """Run Git and return exit code, output and error output; no process is left behind, whatever happens."""
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**git_environment(self.url, os.environ, *secrets), **more},
                start_new_session=True,
            )
        except OSError as error:
            raise GitRemoteError(
                f"{program} cannot be started: {error.strerror}. Is it installed and in PATH?"
            ) from None
        try:
            async with asyncio.timeout(self.timeout):
                output, complaint = await asyncio.gather(_read(process.stdout), _read(process.stderr))
                code = await process.wait()
        except TimeoutError:
            raise GitRemoteError(
                f"{self.url} did not answer completely in {self.timeout:g} s. A retry may succeed"
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return code, output, complaint

    def _failure(self, said_by_git: bytes, secrets: tuple[str, str]) -> SourceError | GitRemoteError:
        complaint = said_by_git.decode(errors="replace")
        for secret in _hidden(secrets):
            complaint = complaint.replace(secret, "***")
        said = " ".join(complaint.split())[-_MESSAGE_LIMIT:] or "nothing"
        if _AUTH.search(complaint):
            given = f"the credentials of connection {self.conn_id!r}" if self.conn_id else "access without a connection"
            return GitAuthError(f"{self.url} refuses {given}. Git reports: {said}")
        if _NOT_A_REPOSITORY.search(complaint):
            return SourceError(
                f"{self.url} is not a Git repository, or this account may not read it. Git reports: {said}"
            )
        return GitRemoteError(f"{self.url} cannot be read. Git reports: {said}")


class GitRepositories:
    """The Git repositories of releases: where their tags are now, and who wrote their commits.

    :param conn_id: Airflow connection for the https and http URLs among them; empty when they need none.
    """

    def __init__(self, conn_id: str = "") -> None:
        self._conn_id = conn_id

    def commit_of(self, url: str, ref: str) -> str:
        """Return the commit that a branch or tag leads to now; blocks.

        :param url: URL of the repository.
        :param ref: full name, ``refs/heads/…`` or ``refs/tags/…``.
        :raises SourceError: when there is no such repository or name.
        :raises GitRemoteError: when the remote does not answer, or refuses the credentials.
        """
        return self._remote(url).resolve(ref).sha

    def signed_commit_of(self, url: str, ref: str, signers: TagSigners) -> str:
        """Return the commit of a signed tag; blocks.

        :param url: URL of the repository.
        :param ref: full name, ``refs/tags/…``.
        :param signers: whose signature counts.
        :raises SourceError: when the tag is gone, or none of them has signed it.
        :raises GitRemoteError: when the remote does not answer, or refuses the credentials.
        """
        remote = self._remote(url)
        found = remote.resolve(ref)
        return asyncio.run(remote.verified_tag(found.name, signers))

    def author_of(self, url: str, commit: str) -> str:
        """Return the e-mail address of a commit's author, as the commit says; blocks.

        :param url: URL of the repository.
        :param commit: full commit id.
        :raises GitRemoteError: when the commit cannot be fetched.
        """
        remote = self._remote(url)

        async def read() -> str:
            async with remote.commit(commit) as content:
                return await content.author()

        return asyncio.run(read())

    def _remote(self, url: str) -> GitRemote:
        has_login = url.startswith(("https://", "http://"))
        return GitRemote(url, (self._conn_id or None) if has_login else None)


def _hidden(secrets: tuple[str, str]) -> list[str]:
    """Return the values that must not be shown: the password, and a login that is itself a token."""
    login, password = secrets
    shown = [] if password not in ("", "x-oauth-basic") else [login]
    return [secret for secret in (*shown, password) if secret]


def _names_of_host(rest: str) -> tuple[str, str]:
    """Return the host of the part after ``://``, with and without its port."""
    authority = rest.partition("/")[0].lower()
    return authority, authority.partition(":")[0]


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end, up to the size limit."""
    content = bytearray()
    while stream is not None and (chunk := await stream.read(_CHUNK)):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise GitRemoteError(f"the answer of the Git remote is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


__all__ = ["DEFAULT_TIMEOUT_SECONDS", "GitRemote", "GitRepositories", "ResolvedRef"]
