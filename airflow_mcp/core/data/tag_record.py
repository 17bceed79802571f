"""What a tag of a repository led to when data was first pinned by it: a tag that has moved is not a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from airflow_mcp.core.identity import fingerprint


@dataclass(frozen=True)
class TagRecord:
    """What a tag meant for one path."""

    commit: str
    hash: str
    """Hash of the data at the path; empty when it is not known."""

    def is_same_data(self, found: TagRecord) -> bool:
        """Tell whether the data are the same for certain; a tag may move to a commit that leaves them alone."""
        return self.commit == found.commit or bool(self.hash and self.hash == found.hash)

    def to_json(self) -> dict[str, Any]:
        """Write it for a store."""
        return asdict(self)


def record_key(repo: str, ref: str, path: str) -> str:
    """Name the record of a tag in a store.

    :param repo: address of the repository.
    :param ref: full name of the tag.
    :param path: path of the data in the repository.
    """
    return f"tag.{fingerprint([repo, ref, path])[:32]}"


def read_record(stored: Any) -> TagRecord | None:
    """Read a record from a store; None when there is none, or it is not one of ours."""
    if not isinstance(stored, Mapping) or not isinstance(stored.get("commit"), str):
        return None
    return TagRecord(stored["commit"], str(stored.get("hash") or ""))
