"""Find the commit that a branch, a tag or a pattern of tags means, in the answer of ``git ls-remote``."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow_mcp.exceptions import InvalidArgumentError, SourceError

_HEADS, _TAGS, _PEELED = "refs/heads/", "refs/tags/", "^{}"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_REF = re.compile(r"[\x00-\x20\x7f]|^-")
_AFTER_RELEASE = frozenset({"final", "fix", "ga", "hotfix", "p", "patch", "post", "r", "release", "rev", "sp"})
_SHOWN_NAMES = 8


@dataclass(frozen=True)
class ResolvedRef:
    """A commit, and the branch or tag that led to it."""

    sha: str
    """Full id of the commit; for an annotated tag the commit that it points at."""
    ref: str
    """Full name, for example ``refs/heads/main`` or ``refs/tags/v1.2``. The commit id itself when the commit was named
    by its id and no branch or tag points at it: only a checkout shows whether the repository has it."""
    is_tag: bool
    """Whether ``ref`` is a tag."""

    @property
    def name(self) -> str:
        """The short name: ``main``, ``v1.2``."""
        return _short(self.ref)

    def is_release(self, tags: str = "*") -> bool:
        """Return whether this is a release: a tag that matches, has a version number and is not a pre-release.

        :param tags: pattern of the tags' names, for example ``v*``.
        """
        return self.is_tag and fnmatch.fnmatchcase(self.name, tags) and _is_release(self.name, tags)


def check_question(ref: str | None, tags: str | None) -> None:
    """Check that at most one of the two is given; neither means the default branch.

    :param ref: branch, tag or full commit id.
    :param tags: pattern of tags.
    :raises InvalidArgumentError: for both, or for a name that no branch or tag can have.
    """
    if ref and tags:
        raise InvalidArgumentError(f"revision and tags must not both be given; got {ref!r} and {tags!r}")
    for name, text in (("revision", ref), ("tags", tags)):
        if text and _NO_REF.search(text):
            raise InvalidArgumentError(f"{name} must be a name without spaces that does not begin with -; got {text!r}")


def ls_remote_arguments(url: str, ref: str | None, tags: str | None) -> tuple[str, ...]:
    """Return the arguments of ``git`` that ask for the refs that are needed and no more.

    :param url: checked address of the repository.
    :param ref: branch, tag or full commit id.
    :param tags: pattern of tags.
    """
    if asks_for_name(ref, tags):
        return ("ls-remote", "--quiet", "--heads", "--tags", "--", url)
    return ("ls-remote", "--quiet", "--symref", "--", url, "HEAD")


def asks_for_name(ref: str | None, tags: str | None) -> bool:
    """Return whether branches and tags are needed; the default branch needs ``HEAD`` only."""
    return bool(tags) or ref not in (None, "", "HEAD")


def parse_refs(answer: str) -> tuple[dict[str, str], str]:
    """Read an answer of ``git ls-remote``.

    :param answer: lines of an id, a tab and a name.
    :return: the commit id of each full name (for an annotated tag the id of its commit, not of the tag), and the branch
        that ``HEAD`` points at, or empty text.
    """
    refs: dict[str, str] = {}
    peeled: dict[str, str] = {}
    head = ""
    for line in answer.splitlines():
        value, _, name = line.partition("\t")
        if name == "HEAD" and value.startswith("ref: "):
            head = value.removeprefix("ref: ")
        elif name.endswith(_PEELED) and _COMMIT.fullmatch(value):
            peeled[name.removesuffix(_PEELED)] = value
        elif name and _COMMIT.fullmatch(value):
            refs[name] = value
    return refs | peeled, head


def find_ref(answer: str, *, url: str, ref: str | None = None, tags: str | None = None) -> ResolvedRef | None:
    """Choose a commit as :func:`choose_ref` does; None when there is no such name (yet).

    :raises SourceError: when a name is both a branch and a tag.
    """
    refs, head = parse_refs(answer)
    if tags:
        return _newest(refs, tags)
    if not asks_for_name(ref, tags):
        return ResolvedRef(refs["HEAD"], head or "HEAD", is_tag=False) if "HEAD" in refs else None
    name = ref or ""
    if _COMMIT.fullmatch(name):
        return _by_commit(refs, name)
    full = (name,) if name.startswith("refs/") else (_HEADS + name, _TAGS + name)
    found = [candidate for candidate in full if candidate in refs]
    if len(found) > 1:
        raise SourceError(f"{name!r} is both a branch and a tag of {url}. Write {found[0]!r} or {found[1]!r}")
    return ResolvedRef(refs[found[0]], found[0], is_tag=found[0].startswith(_TAGS)) if found else None


def choose_ref(answer: str, *, url: str, ref: str | None = None, tags: str | None = None) -> ResolvedRef:
    """Choose a commit from an answer of ``git ls-remote``.

    :param answer: the answer to :func:`ls_remote_arguments`.
    :param url: address of the repository, for messages.
    :param ref: branch, tag (also by its full name ``refs/…``), or full commit id; empty means the default branch.
    :param tags: pattern; chooses the newest release among the matching tags.
    :raises SourceError: when there is no such name, or it is both a branch and a tag.
    """
    found = find_ref(answer, url=url, ref=ref, tags=tags)
    if found is not None:
        return found
    refs, _ = parse_refs(answer)
    if tags:
        near = _near(tags, (name for name in refs if name.startswith(_TAGS)))
        raise SourceError(f"no tag of {url} matches {tags!r} and has a version number such as v1.2. {near}")
    if not asks_for_name(ref, tags):
        raise SourceError(
            f"{url} has no default branch: it is empty, or its HEAD names no branch. Name a branch or tag"
        )
    raise SourceError(f"{ref!r} is neither a branch nor a tag of {url}. {_near(ref or '', refs)}")


def _by_commit(refs: Mapping[str, str], commit: str) -> ResolvedRef:
    """Name a commit by a release, another tag or a branch that points at it, in this order and then by letter."""
    names = [name for name, sha in refs.items() if sha == commit and name.startswith((_HEADS, _TAGS))]
    if not names:
        return ResolvedRef(commit, commit, is_tag=False)
    best = min(names, key=lambda name: (not _is_release_ref(name), not name.startswith(_TAGS), name))
    return ResolvedRef(commit, best, is_tag=best.startswith(_TAGS))


def _is_release_ref(name: str) -> bool:
    return name.startswith(_TAGS) and _is_release(_short(name), "*")


def _short(name: str) -> str:
    return name.removeprefix(_HEADS).removeprefix(_TAGS)


def _near(name: str, refs: Iterable[str]) -> str:
    names = sorted({_short(full) for full in refs})
    near = difflib.get_close_matches(_short(name), names, n=_SHOWN_NAMES, cutoff=0.5)
    hint = ". Name a commit by its full id" if re.fullmatch(r"[0-9a-f]{7,39}", name) else ""
    if near:
        return f"Similar names: {', '.join(near)}{hint}"
    more = ", …" if len(names) > _SHOWN_NAMES else ""
    return f"Known names: {', '.join(names[:_SHOWN_NAMES]) or 'none'}{more}{hint}"


# --- versions ----------------------------------------------------------------------------------------------------


def _newest(refs: Mapping[str, str], tags: str) -> ResolvedRef | None:
    named = {_short(name): sha for name, sha in refs.items() if name.startswith(_TAGS)}
    name = newest_tag(named, tags)
    return None if name is None else ResolvedRef(named[name], _TAGS + name, is_tag=True)


def newest_tag(names: Iterable[str], pattern: str = "*") -> str | None:
    """Choose the newest version among tags.

    Numbers are compared by value, so ``v1.10`` is newer than ``v1.9``. A word after the number marks a pre-release,
    which is older than the release: ``v2.0-rc1`` comes before ``v2.0``. Words such as ``hotfix`` and ``post`` do not.
    A pre-release is chosen only when no release matches.

    :param names: names of tags; those without a number are ignored.
    :param pattern: pattern with ``*``, ``?`` and ``[…]`` that must match the whole name, for example ``v*``.
    :return: the name; None when no version matches.
    """
    versions = [name for name in names if fnmatch.fnmatchcase(name, pattern) and _parts(name, pattern)]
    return max(versions, key=lambda name: (_is_release(name, pattern), _version_order(name, pattern)), default=None)


def _is_release(name: str, pattern: str) -> bool:
    parts = _parts(name, pattern)
    return bool(parts) and all(part.isdigit() or part in _AFTER_RELEASE for part in parts)


def _parts(name: str, pattern: str) -> list[str]:
    """Split a version into numbers and words, from the first number on, without build metadata (``+…``)."""
    prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rstrip("0123456789.")
    version = name.removeprefix(prefix).partition("+")[0].lower()
    first = re.search(r"[0-9]", version)
    return re.findall(r"[0-9]+|[a-z]+", version[first.start() :]) if first else []


def _version_order(name: str, pattern: str) -> tuple[list[tuple[int, int, str]], str]:
    order = [
        (3, int(part), "") if part.isdigit() else (2 if part in _AFTER_RELEASE else 0, 0, part)
        for part in _parts(name, pattern)
    ]
    # The end of a version ranks above a pre-release's word and below a further number. The name makes the order total.
    return [*order, (1, 0, "")], name
