"""Verification of a log, or an export of it, as a stream: the first record that is not as it was recorded is named.

The chain shows what was changed, moved, added or left out in the middle. Only a checkpoint shows that the end was cut,
or that the whole log was written anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from airflow_mcp.core.audit.checkpoint import Checkpoint
from airflow_mcp.core.audit.merkle import Frontier
from airflow_mcp.core.audit.record import ERASED, NO_RECORD, Link, leaf_hash, read_link, record_hash
from airflow_mcp.core.identity import canonical_json
from airflow_mcp.exceptions import EvidenceError

_ERASURE = b'"event":{"action":"audit.erased",'
_BEFORE_EVENT = 500
"""Bytes that hold the login, which is before the event, and the beginning of the event."""


@dataclass(frozen=True)
class Progress:
    """How far a log was verified: enough to go on with the next record."""

    log_id: str
    size: int
    """Records so far."""
    frontier: tuple[bytes, ...]
    """Hashes of the frontier of the tree over them."""
    last: bytes
    """Hash of the last record."""
    latest: str
    """Time of the last record."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint at this place."""
        return Checkpoint(self.log_id, self.size, Frontier(self.frontier, self.size).root())

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "log_id": self.log_id,
            "size": self.size,
            "frontier": [each.hex() for each in self.frontier],
            "last": self.last.hex(),
            "latest": self.latest,
        }

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> Self:
        """Return what :meth:`to_json` wrote.

        :raises EvidenceError: when it did not write this.
        """
        try:
            frontier = tuple(map(bytes.fromhex, fields["frontier"]))
            last = bytes.fromhex(fields["last"])
            return cls(fields["log_id"], int(fields["size"]), frontier, last, fields["latest"])
        except (KeyError, TypeError, ValueError):
            raise EvidenceError("the log does not say how far it was verified; verify it from its beginning") from None


@dataclass(frozen=True)
class Verification:
    """What the verification of a log found."""

    progress: Progress
    """Up to the last record that is as it was recorded."""
    first_bad: int | None = None
    """Sequence number of the first record that is wrong or missing; None when all are whole."""
    problem: str = ""
    checkpoints: int = 0
    """Checkpoints that agree with the records."""
    erased: tuple[int, ...] = ()
    """Sequence numbers of records whose content was erased, with a record that says so."""

    @property
    def log_id(self) -> str:
        """The log."""
        return self.progress.log_id

    @property
    def records(self) -> int:
        """Records that are as they were recorded, from the first on."""
        return self.progress.size

    @property
    def root(self) -> bytes:
        """Head of the tree over them."""
        return self.progress.checkpoint.root

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return self.first_bad is None


class _FoundError(Exception):
    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(problem)
        self.seq, self.problem = seq, problem


def verify(
    lines: Iterable[bytes],
    checkpoints: Sequence[Checkpoint] = (),
    *,
    deep: bool = False,
    begin: Progress | None = None,
) -> Verification:
    """Verify the records of one log, in memory that does not depend on their number.

    :param lines: one record per line, with or without the line break.
    :param checkpoints: checkpoints whose signatures were checked.
    :param deep: also read every record as JSON and check that it is in canonical form; four times the work.
    :param begin: how far the log was verified before; the lines go on from there. None: they begin with the first one.
    :raises EvidenceError: when there is no record, or a checkpoint is of another log; nothing is known then.
    """
    wanted = sorted(checkpoints, key=lambda each: each.size)
    check = _Check(wanted, deep=deep, begin=begin or _NOTHING)
    try:
        for seq, line, link in _linked(lines, check):
            check.take(seq, line, link)
        check.finish()
    except _FoundError as found:
        return check.verification(found)
    if check.frontier.size == 0:
        raise EvidenceError("there is no record to verify: an audit log begins with log.created")
    return check.verification(None)


class _Check:
    """What is known after the records so far."""

    def __init__(self, checkpoints: Sequence[Checkpoint], *, deep: bool, begin: Progress) -> None:
        self.frontier, self.last, self.deep = Frontier(begin.frontier, begin.size), begin.last, deep
        self.log_id, self.latest = begin.log_id, begin.latest.encode()
        self._open, self._agreeing, self._agreed_size = list(checkpoints), 0, begin.size
        self._unexplained: dict[int, int] = {}
        """Erased records that no record has explained yet; a dictionary keeps their order."""
        self._erased: list[int] = []

    def take(self, seq: int, line: bytes, link: Link) -> None:
        """Check one record whose link to the one before is right."""
        if seq == 1:
            try:
                self.log_id = log_id_of(line)
            except EvidenceError as error:
                raise _FoundError(1, str(error)) from None
            if others := {each.log_id for each in self._open} - {self.log_id}:
                raise EvidenceError(
                    f"the records are those of log {self.log_id}, and a checkpoint is of log "
                    f"{', '.join(sorted(others))}. Nothing was verified; pass checkpoints of this log"
                )
        if link.recorded_at < self.latest:
            raise _FoundError(seq, f"seq {seq} has an earlier time than the record before it")
        if self.deep and not _is_canonical(line):
            raise _FoundError(seq, f"seq {seq} is not in canonical form")
        if line.startswith(ERASED):
            self._unexplained[seq] = seq
            self.last = leaf_hash(line)
        else:
            if line.find(_ERASURE, 0, _BEFORE_EVENT) >= 0:
                self._explain(line)
            self.last = record_hash(line)
        self.latest = link.recorded_at
        self.frontier.add(self.last)
        while self._open and self._open[0].size == self.frontier.size:
            checkpoint = self._open.pop(0)
            if checkpoint.root != self.frontier.root():
                raise _FoundError(
                    self._first_open(),
                    f"the checkpoint of {checkpoint.size} records has another root: the log was written anew, and a "
                    f"record from seq {self._first_open()} to seq {checkpoint.size} is not the one that was recorded",
                )
            self._agreeing, self._agreed_size = self._agreeing + 1, checkpoint.size

    def _explain(self, line: bytes) -> None:
        number = (json.loads(line)["event"]["new"] or {}).get("seq", 0)
        if self._unexplained.pop(number, None) is not None:
            self._erased.append(number)

    def _first_open(self) -> int:
        return self._agreed_size + 1

    def finish(self) -> None:
        """Check that every erasure was recorded, and that no checkpoint covers more records than there are."""
        if (bare := next(iter(self._unexplained), None)) is not None:
            raise _FoundError(bare, f"seq {bare} was erased, and no record says who did it and why")
        if self._open and self.frontier.size:
            most, size = self._open[-1].size, self.frontier.size
            raise _FoundError(
                size + 1,
                f"the log was cut: it has {size} records, and a checkpoint covers {most}; seq {size + 1} is missing",
            )

    def verification(self, found: _FoundError | None) -> Verification:
        """Return what was found."""
        hashes, latest = self.frontier.hashes, self.latest.decode()
        return Verification(
            Progress(self.log_id, self.frontier.size, hashes, self.last, latest),
            found.seq if found else None,
            found.problem if found else "",
            self._agreeing,
            tuple(sorted(self._erased)),
        )


_NOTHING = Progress("", 0, (), NO_RECORD, "")


def _linked(lines: Iterable[bytes], check: _Check) -> Iterator[tuple[int, bytes, Link]]:
    """Yield each record with its number after checking its place and its link to the record before.

    A broken link lies between two records; the next one shows which of them was changed.
    """
    found = iter(lines)
    first = check.frontier.size + 1
    for seq, raw in enumerate(found, first):
        line = raw.rstrip(b"\r\n")
        link = read_link(line)
        if link is None:
            raise _FoundError(seq, f"seq {seq} was changed: its line is not a record of an audit log")
        if link.seq != seq:
            problem = "is missing" if link.seq > seq else "is not in its place"
            raise _FoundError(seq, f"seq {seq} {problem}: its line holds seq {link.seq}")
        if link.prev != check.last:
            follower = read_link(next(found, b"").rstrip(b"\r\n"))
            # Before the first line given, everything was verified.
            is_own = seq == first or (follower is not None and follower.prev != leaf_hash(line))
            bad = seq if is_own else seq - 1
            raise _FoundError(bad, f"seq {bad} was changed: the chain breaks between seq {seq - 1} and seq {seq}")
        yield seq, line, link


def log_id_of(line: bytes) -> str:
    """Return the ID of a log from its first record.

    :raises EvidenceError: when it is not the first record of a log.
    """
    try:
        event = json.loads(line)["event"]
        if event["action"] == "log.created":
            return str(event["new"]["log_id"])
    except (ValueError, KeyError, TypeError):
        pass
    raise EvidenceError("seq 1 was changed: an audit log begins with the event log.created")


def _is_canonical(line: bytes) -> bool:
    try:
        text = line.decode()
        return canonical_json(json.loads(text)) == text
    except ValueError:
        return False
