"""The data that a tag of a repository led to when it was first used, to notice when the tag moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_mcp.core.identity import fingerprint


@dataclass(frozen=True)
class TagRecord:
    """The commit and data that a tag led to, for one path."""

    commit: str
    hash: str
    """Hash of the data at the path; may be empty."""

    def is_same_data(self, found: TagRecord) -> bool:
        """Return whether the data is certainly the same; a tag may move to a commit that does not change it."""
        return self.commit == found.commit or bool(self.hash and self.hash == found.hash)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return asdict(self)


def record_key(repo: str, ref: str, path: str) -> str:
    """Return the key of a tag's record in a store.

    :param repo: address of the repository.
    :param ref: full name of the tag.
    :param path: path of the data in the repository.
    """
    return f"tag.{fingerprint([repo, ref, path])[:32]}"


def read_record(stored: Any) -> TagRecord | None:
    """Read a stored record; None when there is none, or another program wrote it."""
    if not isinstance(stored, Mapping) or not isinstance(stored.get("commit"), str):
        return None
    return TagRecord(stored["commit"], str(stored.get("hash") or ""))
