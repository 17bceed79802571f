"""The audit log in a file of SQLite, for demos and development: whoever owns the file can change it.

The records are those of PostgreSQL, so an export of either is verified in the same way.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_mcp.audit.settings import AuditSettings
from airflow_mcp.core.audit.event import READS, AuditEvent, model_of
from airflow_mcp.core.audit.log import MOST_LISTED, Appended
from airflow_mcp.core.audit.record import NO_RECORD, Record, erased_line, read_record, record_hash, record_line
from airflow_mcp.exceptions import (
    AuditConflictError,
    AuditUnavailableError,
    InvalidArgumentError,
    ModelControlPlaneError,
)

BUSY_TIMEOUT = 10.0
"""Seconds that a writer waits for the others; SQLite does not queue them, so one may wait far longer than its turn."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, recorded_at INTEGER NOT NULL, action TEXT NOT NULL,
  subject TEXT NOT NULL, model TEXT, hash BLOB NOT NULL, event_hash BLOB NOT NULL, record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS event_of_subject ON event (subject, action, seq);
CREATE INDEX IF NOT EXISTS event_of_model ON event (model, seq);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON event WHEN NOT (
    (NEW.seq, NEW.event_id, NEW.recorded_at, NEW.action, NEW.subject, NEW.hash, NEW.event_hash)
      = (OLD.seq, OLD.event_id, OLD.recorded_at, OLD.action, OLD.subject, OLD.hash, OLD.event_hash)
    AND NEW.model IS OLD.model AND substr(NEW.record, 1, 10) = '{"erased":'
    AND EXISTS (SELECT 1 FROM event e WHERE e.subject = 'record:' || OLD.seq AND e.action = 'audit.erased')
  )
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON event
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""


_OF_THEIR_OWN = READS | {"audit.erased", "log.created"}
_NEVER_ERASED = ("log.created", "audit.", "policy.")


class SqliteAuditLog:
    """The log in a file.

    :param settings: where it is.
    :param clock: returns the time, with a time zone.
    """

    def __init__(self, settings: AuditSettings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.settings, self._clock = settings, clock
        self._connection: sqlite3.Connection | None = None

    @property
    def name(self) -> str:
        """The file, for messages."""
        return self.settings.name

    @property
    def serves_prod(self) -> bool:
        """False: whoever appends may write to the file."""
        return False

    def append(self, event: AuditEvent) -> Appended:
        """Append an event, unless the log has it.

        :raises AuditConflictError: when the log has another event of this ID.
        :raises AuditUnavailableError: when the file is locked or cannot be written.
        :raises InvalidArgumentError: when there is no log, or the event belongs to a read.
        """
        if event.action in _OF_THEIR_OWN:
            raise InvalidArgumentError(
                f"action must not be {event.action}, which is appended by the act that it records, or at the "
                "beginning; got it"
            )
        with self._database() as database:
            return self._store(database, event)

    def facts(self, subject: str, action_prefix: str = "", last: int = 0) -> list[Record]:
        """Return the records of exactly one subject, oldest first."""
        query = "SELECT record FROM event WHERE subject = ? AND substr(action, 1, ?) = ? ORDER BY seq DESC LIMIT ?"
        with self._database() as database:
            rows = database.execute(query, (subject, len(action_prefix), action_prefix, last or -1)).fetchall()
        return [read_record(line) for (line,) in reversed(rows)]

    def erase(self, event: AuditEvent) -> Appended:
        """Record that the content of a record is erased, then erase it."""
        seq = (event.new or {}).get("seq")
        with self._database() as database:
            found = database.execute("SELECT action, record FROM event WHERE seq = ?", (seq,)).fetchone()
            if found is None or event.action != "audit.erased" or found[0].startswith(_NEVER_ERASED):
                raise InvalidArgumentError(
                    f"seq must be the number of a record that can be erased; got {seq}. Nothing was recorded"
                )
            appended = self._store(database, event)
            # Killed before this, a second call erases it: it finds its event, and the record as it was.
            database.execute("UPDATE event SET record = ? WHERE seq = ?", (erased_line(found[1]), seq))
        return appended

    def read(self, event: AuditEvent) -> Iterator[bytes]:
        """Record a read, then yield the lines that were asked for, oldest first."""
        if event.action not in READS:
            raise InvalidArgumentError(f"action must be one of {', '.join(sorted(READS))}; got {event.action!r}")
        with self._database() as database:
            own = self._store(database, event).seq
            if event.action == "audit.exported":
                query = "SELECT record FROM event WHERE seq > ? AND seq <= ? ORDER BY seq"
                values = [(event.new or {}).get("after", 0), own]
            else:
                query, values = _listed(own, dict(event.new or {}))
            for (line,) in database.execute(query, values):
                yield line.encode()

    def close(self) -> None:
        """Close the file; the log stays usable."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def create(self, first: AuditEvent) -> bool:
        """Create the log if there is none.

        :param first: the event ``log.created``.
        :return: whether the log is new.
        """
        try:
            Path(self.settings.sqlite_path).parent.mkdir(parents=True, exist_ok=True)
            # 0600: the log names people.
            os.close(os.open(self.settings.sqlite_path, os.O_CREAT | os.O_WRONLY, 0o600))
            with closing(self._open()) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(_SCHEMA)
                if database.execute("SELECT count(*) FROM event").fetchone() != (0,):
                    return False
                return self._store(database, first).is_new
        except (OSError, sqlite3.Error) as error:
            raise _translated(error, self.name) from error

    def _open(self) -> sqlite3.Connection:
        """Open the file, which must exist: SQLite itself would create an empty one."""
        address = f"{Path(self.settings.sqlite_path).as_uri()}?mode=rw"
        database = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
        database.execute("PRAGMA synchronous = FULL")  # an acknowledged event survives a loss of power
        return database

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection
        except sqlite3.Error as error:
            raise _translated(error, self.name) from error

    def _store(self, database: sqlite3.Connection, event: AuditEvent) -> Appended:
        text = event.text
        event_hash = hashlib.sha256(text.encode()).digest()
        database.execute("BEGIN IMMEDIATE")  # one writer after the other
        try:
            found = database.execute("SELECT seq, event_hash FROM event WHERE event_id = ?", (event.id,)).fetchone()
            if found is not None:
                if found[1] != event_hash:
                    raise AuditConflictError(
                        f"the audit log {self.name} has another event of id {event.id}, seq {found[0]}. Nothing was "
                        "recorded"
                    )
                return Appended(found[0], is_new=False)
            seq = self._insert(database, event, text, event_hash)
            database.execute("COMMIT")
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
        return Appended(seq, is_new=True)

    def _insert(self, database: sqlite3.Connection, event: AuditEvent, text: str, event_hash: bytes) -> int:
        query = "SELECT seq, hash, recorded_at FROM event ORDER BY seq DESC LIMIT 1"
        last, prev, earliest = database.execute(query).fetchone() or (0, NO_RECORD, 0)
        # A clock that was set back does not reorder the log.
        time = max(_microseconds(self._clock()), earliest)
        at = datetime.fromtimestamp(time // 1_000_000, UTC).replace(microsecond=time % 1_000_000)
        line = record_line(text, seq=last + 1, prev=prev, recorded_at=at, by=getpass.getuser())
        about = (event.action, event.subject, model_of(event))
        row = (last + 1, event.id, time, *about, record_hash(line.encode()), event_hash, line)
        database.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return int(last) + 1


def _microseconds(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000 + time.microsecond


def _listed(own: int, wanted: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the query for the latest records that a filter leaves."""
    limit, subject, action = wanted.get("limit"), wanted.get("subject", ""), wanted.get("action", "")
    model = wanted.get("model", "")
    if not isinstance(limit, int) or not 1 <= limit <= MOST_LISTED:
        raise InvalidArgumentError(f"limit must be 1 to {MOST_LISTED}; got {json.dumps(limit)}")
    query = (
        "SELECT record FROM (SELECT seq, record FROM event WHERE seq < ? AND (? = '' OR subject = ?) "
        "AND (? = '' OR model = ?) AND substr(action, 1, ?) = ? ORDER BY seq DESC LIMIT ?) ORDER BY seq"
    )
    return query, [own, subject, subject, model, model, len(action), action, limit]


def _translated(error: Exception, name: str) -> ModelControlPlaneError:
    said = str(error)
    if "unable to open database file" in said or "no such table" in said:
        return InvalidArgumentError(f"there is no audit log at {name}: {said}. Create it with airflow-mcp audit init")
    return AuditUnavailableError(
        f"the audit log {name} cannot be used: {said}. Nothing is known to be recorded; a retry adds nothing twice"
    )
