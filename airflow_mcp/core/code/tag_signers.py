"""Whose signature a release tag needs, in the form that Git and its helpers read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_mcp.exceptions import SourceError

_SSH_KEY = re.compile(r"(?P<key>(ssh-|ecdsa-sha2-|sk-)[\w@.-]+ [A-Za-z0-9+/]+=*)( [^\r\n]*)?")
_GPG_BEGIN, _GPG_END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
_LONGEST = 500
"""Characters of what Git reported, in a message."""


@dataclass(frozen=True)
class TagSigners:
    """The people whose signature counts, and their public keys."""

    keys: Mapping[str, Sequence[str]]
    """Person to keys: lines of SSH public keys, or armoured GPG public key blocks."""

    @property
    def allowed_signers(self) -> str:
        """The SSH keys, as the file of allowed signers that ``ssh-keygen -Y verify`` reads."""
        lines = [
            f'person{number} namespaces="git" {found["key"]}'
            for number, keys in enumerate(self.keys.values())
            for key in keys
            if (found := _SSH_KEY.fullmatch(key.strip())) is not None
        ]
        return "".join(f"{line}\n" for line in lines)

    @property
    def gpg_keys(self) -> str:
        """The GPG keys, for ``gpg --import``; empty without any."""
        found = [key.strip() for keys in self.keys.values() for key in keys if key.strip().startswith(_GPG_BEGIN)]
        return "".join(f"{key}\n" for key in found)


def why_no_key(text: str) -> str:
    """Return why a text is not a public key that can verify a tag; empty when it is one.

    :param text: a line of an SSH public key file, or an armoured GPG public key block.
    """
    key = text.strip()
    is_gpg = key.startswith(_GPG_BEGIN) and key.endswith(_GPG_END)
    if is_gpg or _SSH_KEY.fullmatch(key) is not None:
        return ""
    if "PRIVATE KEY" in key:
        return "must be a public key; got a private one. Replace that key everywhere: it is not a secret any more"
    return "must be a line of an SSH public key, such as ssh-ed25519 AAAA..., or an armoured GPG public key block"


def read_verified(tag: str, code: int, shown: str, complaint: str) -> str:
    """Return the commit of a tag whose signature Git has verified.

    :param tag: name of the tag.
    :param code: exit code of ``git verify-tag``.
    :param shown: the name that the tag object carries, a space, and the commit that it points at.
    :param complaint: what Git and its helper reported.
    :raises SourceError: when no permitted key has signed it, or the signed object was made for another tag.
    """
    if code != 0:
        said = " ".join(complaint.split())[-_LONGEST:] or "nothing"
        raise SourceError(f"tag {tag} carries no signature of a permitted key. Git reports: {said}")
    name, _, commit = shown.strip().rpartition(" ")
    if name != tag:
        raise SourceError(f"tag {tag} leads to an object that was signed as tag {name}")
    return commit
