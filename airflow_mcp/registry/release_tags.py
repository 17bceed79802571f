"""The release tag of the code behind a version: prod releases only what the tag still names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from airflow_mcp.exceptions import PassportError, SourceError

if TYPE_CHECKING:
    from airflow_mcp.core.code.tag_signers import TagSigners
    from airflow_mcp.core.passport.statement import CodeFacts

_TAGS = "refs/tags/"


class CodeRepositories(Protocol):
    """What knows where the tags of Git repositories are now."""

    def commit_of(self, url: str, ref: str) -> str:
        """Return the commit that a branch or tag leads to now; for an annotated tag the one that it points at.

        :raises SourceError: when there is no such repository or name.
        :raises FailedError: when the repository does not answer.
        """

    def signed_commit_of(self, url: str, ref: str, signers: TagSigners) -> str:
        """Return the commit of a tag whose signature was verified.

        :raises SourceError: when there is no such tag, or none of the signers has signed it.
        :raises FailedError: when the repository does not answer.
        """


def require_release_tag(
    code: CodeFacts, repositories: CodeRepositories | None, signers: TagSigners | None = None
) -> None:
    """Check that a version was trained from a release tag, and that the tag still names the same commit.

    :param code: the code, as the signed passport has it.
    :param repositories: what to ask; None: nothing can be asked.
    :param signers: whose signature the tag needs; None: it needs none.
    :raises PassportError: when it was not, the tag was moved or deleted, nobody whose signature counts has signed it,
        or that cannot be checked.
    :raises FailedError: when the repository does not answer; a retry asks again.
    """
    if not code.ref.startswith(_TAGS) or not code.url or not code.commit:
        raise PassportError(
            f"prod releases only what was trained from a release tag; the passport says {code.ref or 'no tag'} of "
            f"{code.url or 'no repository'}. Tag the commit, and train from the tag"
        )
    name = code.ref.removeprefix(_TAGS)
    if repositories is None:
        raise PassportError(f"nobody can be asked here where the tag {name} of {code.url} is now")
    try:
        if signers is None:
            now = repositories.commit_of(code.url, code.ref)
        else:
            now = repositories.signed_commit_of(code.url, code.ref, signers)
    except SourceError as error:
        raise PassportError(f"the release tag {name} cannot be checked: {error}") from None
    if now != code.commit:
        raise PassportError(
            f"the release tag {name} of {code.url} was moved: the version was trained from commit {code.commit}, and "
            f"the tag names {now}. Release a new tag, and train from it"
        )
