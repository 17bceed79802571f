"""The audit log in a real PostgreSQL and in SQLite: what is appended stays, once, in order, whoever dies on the way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_mcp.audit.postgresql import PostgresAuditLog, connect
from airflow_mcp.audit.settings import AuditSettings
from airflow_mcp.audit.sqlite import SqliteAuditLog
from airflow_mcp.audit.stores import create_log, open_log
from airflow_mcp.core.audit.checkpoint import Checkpoint
from airflow_mcp.core.audit.event import AuditEvent
from airflow_mcp.core.audit.log import Appended, created, erasure, export, listing
from airflow_mcp.core.audit.record import erased_line, read_record
from airflow_mcp.core.audit.verify import Verification, verify
from airflow_mcp.exceptions import AuditConflictError, AuditUnavailableError, InvalidArgumentError
from tests.support.audit_log import ACTOR, RIGHTS, Logs, moved, postgresql_logs, sqlite_logs
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture
def logs(audit_logs: Logs) -> Logs:
    return audit_logs


@pytest.fixture
def on_postgresql(postgresql: str) -> Iterator[Logs]:
    with postgresql_logs(postgresql) as found:
        yield found


def append(logs: Logs, *events: AuditEvent, login: str = "mcp_release") -> list[int]:
    log = open_log(logs.as_login(login))
    try:
        return [log.append(event).seq for event in events]
    finally:
        log.close()


def lines(logs: Logs) -> list[bytes]:
    log = open_log(logs.as_login("mcp_keeper"))
    try:
        return list(log.read(export(ACTOR, "dev", reason="test")))
    finally:
        log.close()


def verified(logs: Logs) -> Verification:
    return verify(lines(logs), deep=True)


def test_what_is_appended_is_found_whole_and_in_order(logs: Logs) -> None:
    assert append(logs, *map(moved, "abc")) == [2, 3, 4]
    found = verified(logs)
    assert (found.is_whole, found.records) == (True, 5)  # the export is a record of its own
    records = [read_record(line.decode()) for line in lines(logs)]
    assert [each.event["action"] for each in records] == [
        *("log.created", "registry.moved", "registry.moved", "registry.moved", "audit.exported", "audit.exported")
    ]
    assert records[0].event["new"]["log_id"] == found.log_id
    assert records[1].event["actor"]["name"] == "lena"
    if logs.is_postgresql:
        assert records[1].by == "mcp_release"


def test_texts_of_every_kind_give_the_same_record_in_both_stores(logs: Logs) -> None:
    event = replace(moved("x"), reason='a "quote" \\ é 🙂 \n \t \x1f {} $$ %s', new={"n": -(2**60)})
    append(logs, event)
    line = lines(logs)[1].decode()
    assert read_record(line).event["reason"] == event.reason
    assert f'"event":{event.text},"prev":"' in line
    assert verified(logs).is_whole


def test_an_event_is_kept_once_and_another_of_its_id_is_refused(logs: Logs) -> None:
    log = open_log(logs.as_login("mcp_release"))
    with closing(log):
        assert log.append(moved(1)).is_new
        again = log.append(moved(1))
        assert (again.seq, again.is_new) == (2, False)
        with pytest.raises(AuditConflictError, match="seq 2"):
            log.append(replace(moved(1), reason="another"))
        assert log.append(moved(2)).seq == 3
    assert verified(logs).records == 4


def test_the_facts_of_a_subject_are_its_own_only(logs: Logs) -> None:
    append(logs, moved(1), moved(2, subject="model:fraud2"), moved(3, action="registry.move_intended"))
    log = open_log(logs.as_login("mcp_release"))
    with closing(log):
        assert [each.seq for each in log.facts("model:fraud")] == [2, 4]
        assert [each.seq for each in log.facts("model:fraud", "registry.move_i")] == [4]
        assert log.facts("model:fr") == []


def test_every_read_is_recorded_first_and_lists_the_latest(logs: Logs) -> None:
    append(logs, *map(moved, range(5)), moved(9, subject="model:churn"))
    log = open_log(logs.as_login("mcp_reader"))
    with closing(log):
        found = list(log.read(listing(ACTOR, "dev", limit=2, subject="model:fraud", action="registry.")))
        assert [read_record(line.decode()).seq for line in found] == [5, 6]
        event = listing(ACTOR, "dev", limit=1000)
        before = list(log.read(event))
        append(logs, moved("later"))
        assert list(log.read(event)) == before  # the same event again shows nothing that came after it
    reads = [each for each in (read_record(line.decode()) for line in lines(logs)) if "read" in each.event["action"]]
    assert [each.event["new"].get("limit") for each in reads] == [2, 1000]
    with pytest.raises(InvalidArgumentError, match="limit must be 1 to 1000; got 1001"):
        listing(ACTOR, "dev", limit=1001)


def test_creating_a_log_again_changes_nothing(logs: Logs) -> None:
    append(logs, moved(1))
    assert not create_log(logs.owner, created(ACTOR, "dev"), RIGHTS if logs.is_postgresql else {})
    assert append(logs, moved(2)) == [3]
    assert verified(logs).is_whole


@pytest.mark.parametrize(
    ("statement", "first_bad"),
    [
        ("UPDATE airflow_mcp_audit.event SET record = replace(record, 'fraud', 'freud') WHERE seq = 4", 4),
        ("DELETE FROM airflow_mcp_audit.event WHERE seq = 3", 3),
        ("UPDATE airflow_mcp_audit.event SET seq = 100 - seq WHERE seq IN (3, 97)", 3),
    ],
    ids=["changed", "deleted", "moved"],
)
def test_what_an_owner_without_triggers_changes_is_named(logs: Logs, statement: str, first_bad: int) -> None:
    append(logs, *map(moved, range(6)))
    with pytest.raises(Exception, match="append-only"):
        logs.sql(statement)
    assert verified(logs).is_whole
    _drop_triggers(logs)
    logs.sql(statement)
    assert verified(logs).first_bad == first_bad


def test_a_record_that_an_owner_inserts_is_named(logs: Logs) -> None:
    append(logs, *map(moved, range(6)))
    _drop_triggers(logs)
    for statement in (
        "UPDATE airflow_mcp_audit.event SET seq = seq + 1000 WHERE seq >= 4",
        "INSERT INTO airflow_mcp_audit.event SELECT 4, 'forged', recorded_at, action, subject, model, hash, "
        "event_hash, replace(record, '\"seq\":3}', '\"seq\":4}') FROM airflow_mcp_audit.event WHERE seq = 3",
        "UPDATE airflow_mcp_audit.event SET seq = seq - 999 WHERE seq > 1000",
    ):
        logs.sql(statement)
    if logs.is_postgresql:
        logs.sql("UPDATE airflow_mcp_audit.head SET seq = seq + 1")
    assert verified(logs).first_bad == 4


def _drop_triggers(logs: Logs) -> None:
    if logs.is_postgresql:
        logs.sql("ALTER TABLE airflow_mcp_audit.event DISABLE TRIGGER ALL")
    else:
        logs.sql("DROP TRIGGER no_update")
        logs.sql("DROP TRIGGER no_delete")


def test_a_cut_end_is_found_by_a_checkpoint_only(logs: Logs) -> None:
    append(logs, *map(moved, range(4)))
    whole = verified(logs)
    checkpoint = Checkpoint(whole.log_id, whole.records, whole.root)
    _drop_triggers(logs)
    logs.sql("DELETE FROM airflow_mcp_audit.event WHERE seq > 3")
    if logs.is_postgresql:
        logs.sql(
            "UPDATE airflow_mcp_audit.head SET seq = 3, hash = (SELECT hash FROM airflow_mcp_audit.event WHERE seq = 3)"
        )
    assert verified(logs).is_whole  # and the export itself became seq 4
    found = verify(lines(logs)[:4], [checkpoint])
    assert found.first_bad == 5
    append(logs, *map(moved, "abcdef"))
    assert "written anew" in verify(lines(logs), [checkpoint]).problem


def test_a_clock_that_was_set_back_does_not_reorder_the_log(logs: Logs) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    append(logs, moved(1))
    if logs.is_postgresql:
        logs.sql("UPDATE airflow_mcp_audit.head SET recorded_at = %s", (tomorrow,))
    else:
        SqliteAuditLog(logs.owner, clock=lambda: tomorrow).append(moved("tomorrow"))
    append(logs, moved(2), moved(3))
    last = read_record(lines(logs)[-1].decode())
    assert last.recorded_at >= tomorrow.strftime("%Y-%m-%dT%H:%M:%S")
    assert verified(logs).is_whole


def _append_many(settings: AuditSettings, first: int, number: int) -> None:
    log = open_log(settings)
    for each in range(first, first + number):
        log.append(moved(each))
    log.close()


def test_many_writers_lose_nothing(logs: Logs) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_append_many, args=(logs.as_login("mcp_release"), 1000 * number, 20))
        for number in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert (verified(logs).is_whole, verified(logs).records) == (True, 1 + 60 + 2)


WRITER = """
import sys
from airflow_mcp.audit.stores import open_log
from airflow_mcp.audit.settings import AuditSettings
from tests.support.audit_log import moved
log = open_log(eval(sys.argv[1]))
for number in range(100000):
    print(log.append(moved(number)).seq, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(logs: Logs) -> None:
    settings = logs.as_login("mcp_release")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, repr(settings)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(30)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    found = verified(logs)
    assert found.is_whole
    # Everything acknowledged, at most the one in flight, the first event and the export.
    assert acknowledged[-1] + 1 <= found.records <= acknowledged[-1] + 2
    assert append(logs, moved(0)) == [2]  # a retry of the killed one finds what it had appended


class TestGrants:
    """Each login of PostgreSQL can do what it is for, and nothing else."""

    def refused(self, logs: Logs, login: str, statement: str) -> str:
        import psycopg2

        with closing(connect(logs.as_login(login))) as connection, pytest.raises(psycopg2.Error) as error:
            connection.cursor().execute(statement)
        return str(error.value)

    @pytest.mark.parametrize("login", RIGHTS)
    def test_no_login_touches_a_table(self, on_postgresql: Logs, login: str) -> None:
        append(on_postgresql, moved(1))
        for statement in (
            *("SELECT * FROM airflow_mcp_audit.event", "DELETE FROM airflow_mcp_audit.event"),
            *("UPDATE airflow_mcp_audit.event SET record = ''", "TRUNCATE airflow_mcp_audit.event"),
            "INSERT INTO airflow_mcp_audit.event (seq) VALUES (9)",
            *("UPDATE airflow_mcp_audit.head SET seq = 0", "SELECT * FROM airflow_mcp_audit.may_append"),
            *("DROP TABLE airflow_mcp_audit.event", "ALTER TABLE airflow_mcp_audit.event DISABLE TRIGGER ALL"),
            *("SET ROLE airflow_mcp_audit_owner", "SET session_replication_role = replica"),
            *(
                "SELECT airflow_mcp_audit.store('x', '{}')",
                "CREATE FUNCTION airflow_mcp_audit.f() RETURNS int AS '' LANGUAGE sql",
            ),
        ):
            said = self.refused(on_postgresql, login, statement)
            assert "permission denied" in said or "must be owner" in said, statement
        assert verified(on_postgresql).is_whole

    def test_a_stolen_login_appends_only_its_own_actions_under_its_name(self, on_postgresql: Logs) -> None:
        with pytest.raises(InvalidArgumentError, match=r"login mcp_train may not append registry\.moved"):
            append(on_postgresql, moved(1), login="mcp_train")
        append(on_postgresql, moved(1, action="gate.decided"), login="mcp_train")
        assert read_record(lines(on_postgresql)[1].decode()).by == "mcp_train"

    def test_a_reader_lists_but_does_not_export_or_append(self, on_postgresql: Logs) -> None:
        log = open_log(on_postgresql.as_login("mcp_reader"))
        with closing(log):
            assert len(list(log.read(listing(ACTOR, "dev", limit=5)))) == 1
            with pytest.raises(InvalidArgumentError, match=r"may not append audit\.exported"):
                list(log.read(export(ACTOR, "dev", reason="curious")))
            with pytest.raises(InvalidArgumentError, match=r"login mcp_reader may not append registry\.moved"):
                log.append(moved(1))
        log = open_log(on_postgresql.as_login("mcp_release"))
        with closing(log), pytest.raises(InvalidArgumentError, match="permission denied"):
            list(log.read(listing(ACTOR, "dev", limit=5)))

    def test_a_read_cannot_be_forged(self, on_postgresql: Logs) -> None:
        with pytest.raises(InvalidArgumentError, match="appended by the act that it records"):
            append(on_postgresql, listing(ACTOR, "dev", limit=5), login="mcp_keeper")

    @pytest.mark.parametrize("text", ['{"id":"x"}', "[]", '{"id":"x","action":"registry.moved","subject":"a"}\n', "{"])
    def test_what_is_no_event_is_refused(self, on_postgresql: Logs, text: str) -> None:
        import psycopg2

        with closing(connect(on_postgresql.as_login("mcp_release"))) as connection, pytest.raises(psycopg2.Error):
            connection.cursor().execute("SELECT airflow_mcp_audit.append('x', %s)", (text,))
        assert len(lines(on_postgresql)) == 2

    def test_a_right_that_is_not_given_again_is_gone(self, on_postgresql: Logs) -> None:
        create_log(on_postgresql.owner, created(ACTOR, "dev"), {"mcp_release": ("gate.",)})
        with pytest.raises(InvalidArgumentError, match="may not append"):
            append(on_postgresql, moved(1))

    def test_an_unknown_login_is_refused_and_nothing_changes(self, on_postgresql: Logs) -> None:
        with pytest.raises(InvalidArgumentError, match="nobody_there"):
            create_log(on_postgresql.owner, created(ACTOR, "dev"), {"mcp_release": (), "nobody_there": ("gate.",)})
        assert append(on_postgresql, moved(1)) == [2]


class TestUnavailable:
    def test_a_database_that_is_not_there(self, on_postgresql: Logs) -> None:
        with pytest.raises(AuditUnavailableError, match="does not answer"):
            PostgresAuditLog(replace(on_postgresql.owner, port=1)).append(moved(1))

    def test_a_database_without_a_log(self, on_postgresql: Logs) -> None:
        with pytest.raises(InvalidArgumentError, match="airflow-mcp audit init"):
            PostgresAuditLog(replace(on_postgresql.owner, database="template1")).append(moved(1))

    def test_a_lock_that_is_held_ends_the_wait(self, on_postgresql: Logs) -> None:
        with closing(connect(on_postgresql.owner)) as connection:
            connection.autocommit = False
            connection.cursor().execute("SELECT * FROM airflow_mcp_audit.head FOR UPDATE")
            with pytest.raises(AuditUnavailableError, match="lock timeout"):
                append(on_postgresql, moved(1))
        assert append(on_postgresql, moved(1)) == [2]

    def test_a_connection_that_was_lost_is_opened_again(self, on_postgresql: Logs) -> None:
        log = open_log(on_postgresql.as_login("mcp_release"))
        with closing(log):
            log.append(moved(1))
            on_postgresql.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mcp_release' "
                "AND datname = current_database()"
            )
            time.sleep(0.2)
            assert log.append(moved(2)).seq == 3

    def test_a_file_that_is_not_there_is_not_created(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match="airflow-mcp audit init"):
            SqliteAuditLog(AuditSettings(sqlite_path=str(tmp_path / "log.db"))).append(moved(1))
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_locked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import sqlite3

        monkeypatch.setattr("airflow_mcp.audit.sqlite.BUSY_TIMEOUT", 0.1)
        logs = sqlite_logs(tmp_path)
        with closing(sqlite3.connect(logs.owner.sqlite_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(AuditUnavailableError, match="locked"):
                append(logs, moved(1))
        assert append(logs, moved(1)) == [2]


class TestErasure:
    """What a record says about people can be erased; its hash, its place and every checkpoint stay."""

    def erase(self, logs: Logs, seq: int, login: str = "mcp_keeper") -> Appended:
        with closing(open_log(logs.as_login(login))) as log:
            return log.erase(erasure(ACTOR, "dev", seq=seq, reason="request 17"))

    def test_the_log_stays_whole_and_says_who_erased_what(self, logs: Logs) -> None:
        append(logs, moved(1), replace(moved(2), reason="asked by Lena Example"), moved(3))
        before = lines(logs)
        checkpoint = verify(before).progress.checkpoint
        appended = self.erase(logs, 3)
        assert appended.is_new
        after = lines(logs)
        found = verify(after, [checkpoint], deep=True)
        assert (found.is_whole, found.checkpoints, found.erased) == (True, 1, (3,))
        assert after[2].decode() == erased_line(before[2].decode())
        assert b"Lena" not in b"".join(after)
        record = read_record(after[2].decode())
        assert (record.event["action"], record.event["erased"], record.event["reason"]) == ("registry.moved", True, "")
        event = read_record(after[appended.seq - 1].decode()).event
        assert (event["action"], event["new"], event["reason"]) == ("audit.erased", {"seq": 3}, "request 17")

    def test_erasing_again_changes_nothing_and_the_event_is_still_known(self, logs: Logs) -> None:
        append(logs, moved(1))
        first = self.erase(logs, 2)
        again = self.erase(logs, 2)
        assert (again.seq, again.is_new) == (first.seq, False)
        assert append(logs, moved(1)) == [2]  # a retry of its task finds it
        assert verified(logs).is_whole

    @pytest.mark.parametrize("seq", [1, 2, 99])
    def test_the_beginning_reads_and_what_is_not_there_are_not_erased(self, logs: Logs, seq: int) -> None:
        lines(logs)  # seq 2
        with pytest.raises(InvalidArgumentError, match="can be erased"):
            self.erase(logs, seq)
        assert verified(logs).is_whole

    def test_without_its_record_an_erasure_is_found(self, logs: Logs) -> None:
        append(logs, moved(1), moved(2))
        bare = lines(logs)
        bare[1] = erased_line(bare[1].decode()).encode()
        found = verify(bare)
        assert (found.first_bad, "no record says who did it" in found.problem) == (2, True)

    def test_even_the_owner_erases_only_what_a_record_says(self, logs: Logs) -> None:
        append(logs, moved(1), moved(2))
        self.erase(logs, 2)
        stub = lines(logs)[1].decode()
        for statement, values in (
            ("UPDATE airflow_mcp_audit.event SET record = %s WHERE seq = 3", (stub,)),
            ("UPDATE airflow_mcp_audit.event SET record = 'x', action = 'y' WHERE seq = 2", ()),
            ("UPDATE airflow_mcp_audit.event SET hash = %s WHERE seq = 2", (b"x",)),
        ):
            with pytest.raises(Exception, match="append-only"):
                logs.sql(statement, values)
        assert verified(logs).is_whole

    def test_only_a_login_with_the_right_erases(self, on_postgresql: Logs) -> None:
        append(on_postgresql, moved(1))
        with pytest.raises(InvalidArgumentError, match=r"may not append audit\.erased"):
            self.erase(on_postgresql, 2, login="mcp_release")
        event = erasure(ACTOR, "dev", seq=2, reason="x")
        with pytest.raises(InvalidArgumentError, match="appended by the act"):
            append(on_postgresql, event, login="mcp_keeper")


def test_the_records_of_a_model_its_versions_and_its_servers_are_one_list(logs: Logs) -> None:
    served = replace(moved(4, subject="replica:pod-1", action="registry.moved"), new={"model": "fraud"})
    append(logs, moved(1), moved(2, subject="version:fraud/7"), moved(3, subject="version:fraud2/7"), served, moved(5))
    with closing(open_log(logs.as_login("mcp_reader"))) as log:
        found = list(log.read(listing(ACTOR, "dev", limit=10, model="fraud")))
    assert [read_record(line.decode()).seq for line in found] == [2, 3, 5, 6]


def test_an_export_begins_where_it_is_told_and_is_verified_from_there(logs: Logs) -> None:
    append(logs, *map(moved, range(4)))
    begin = verify(lines(logs)[:3]).progress
    append(logs, moved(9))
    with closing(open_log(logs.as_login("mcp_keeper"))) as log:
        rest = list(log.read(export(ACTOR, "dev", reason="test", after=3)))
    found = verify(rest, begin=begin)
    assert (found.is_whole, found.records) == (True, 8)
    assert verify(rest[1:], begin=begin).first_bad == 4
    changed = [rest[0].replace(b"fraud", b"freud"), *rest[1:]]
    assert verify(changed, begin=begin).first_bad == 4
