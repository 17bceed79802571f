"""The audit log: appends per second beside a plain INSERT, and the verification of a million records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.anchors import FolderAnchor
from airflow_mcp.audit.checkpoints import seal
from airflow_mcp.audit.postgresql import PostgresAuditLog, connect
from airflow_mcp.core.audit.log import created
from airflow_mcp.core.audit.record import NO_RECORD, record_hash, record_line
from airflow_mcp.core.signing.keys import PrivateKey
from tests.benchmarks.fresh import median, print_table, run_fresh
from tests.support.audit_log import ACTOR, Logs, moved, new_key, postgresql_logs
from tests.support.postgresql import PostgresServer, programs

pytestmark = pytest.mark.benchmark

SECONDS = 4.0
WRITERS = (1, 8, 32)
RECORDS = 1_000_000
Append = Callable[[str], Any]


def appends(open_one: Callable[[], tuple[Append, Callable[[], None]]], writers: int) -> tuple[float, float, float]:
    """Append with so many connections at once; return appends per second, and the median and maximum wait in ms."""
    waits: list[list[float]] = [[] for _ in range(writers)]
    errors: list[BaseException] = []
    barrier = threading.Barrier(writers)

    def write(number: int) -> None:
        try:
            append, close = open_one()
            append(f"{writers}/{number}/first")
            barrier.wait()
            end = time.perf_counter() + SECONDS
            while (before := time.perf_counter()) < end:
                append(f"{writers}/{number}/{len(waits[number])}")
                waits[number].append(time.perf_counter() - before)
            close()
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    every = [wait for own in waits for wait in own]
    return len(every) / SECONDS, 1000 * median(every), 1000 * max(every)


def test_appends_per_second_beside_a_plain_insert(tmp_path: Path) -> None:
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    rows = []
    with PostgresServer(tmp_path, where, fsync=True) as server, postgresql_logs(server.uri) as logs:
        logs.sql("CREATE TABLE plain (seq bigserial PRIMARY KEY, id text NOT NULL UNIQUE, record text NOT NULL)")
        for writers in WRITERS:
            for name, open_one in (("the log", lambda: _log(logs)), ("a plain INSERT", lambda: _plain(logs))):
                rate, middle, longest = appends(open_one, writers)
                rows.append([name, str(writers), f"{rate:.0f}", f"{middle:.1f}", f"{longest:.0f}"])
    head = ["what", "writers", "appends per second", "median, ms", "longest, ms"]
    print_table(f"Appends to PostgreSQL, fsync on, open connections, {SECONDS:.0f} s each", head, rows)
    assert len(rows) == 2 * len(WRITERS)


def _log(logs: Logs) -> tuple[Append, Callable[[], None]]:
    log = PostgresAuditLog(logs.as_login("mcp_release"))
    return lambda name: log.append(moved(name)), log.close


def _plain(logs: Logs) -> tuple[Append, Callable[[], None]]:
    connection = connect(logs.owner)

    def append(name: str) -> None:
        event = moved(name)
        with closing(connection.cursor()) as cursor:
            cursor.execute("INSERT INTO plain (id, record) VALUES (%s, %s)", (event.id, event.text))

    return append, connection.close


def test_the_verification_of_a_million_records(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    write_log(file, RECORDS)
    rows = []
    run_fresh(tmp_path / "cache", "-c", "import tests.benchmarks.audit; print('{}')")
    names = {"": "chain and tree", "deep": "chain, tree and canonical form", "decisions": "chain, tree and every move"}
    for how, name in names.items():
        figures = run_fresh(tmp_path / "cache", "-m", "tests.benchmarks.audit", str(file), how)
        assert figures["records"] == RECORDS
        assert figures["mib"] <= 64
        rows.append([name, f"{figures['cpu']:.1f}", f"{figures['mib']:.0f}"])
    size = file.stat().st_size / RECORDS
    title = f"Verification of {RECORDS:,} records of {size:.0f} bytes from a file"
    print_table(title, ["what is checked", "CPU s", "peak MiB, Python included"], rows)
    assert len(rows) == len(names)


def test_the_checkpoint_of_ten_thousand_new_records(tmp_path: Path) -> None:
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    signer, kept = PrivateKey(new_key()[0]), tmp_path / "kept"
    kept.mkdir()
    rows = []
    with PostgresServer(tmp_path, where) as server, postgresql_logs(server.uri) as logs:
        for part in range(2):
            with closing(PostgresAuditLog(logs.as_login("mcp_release"))) as log:
                for number in range(10_000):
                    log.append(moved(f"{part}/{number}"))
            with closing(PostgresAuditLog(logs.as_login("mcp_keeper"))) as log:
                before = time.process_time()
                sealed = seal(log, [FolderAnchor(str(kept))], signer, ACTOR, "dev")
                seconds = time.process_time() - before
            assert sealed.is_anchored
            read = sealed.found.records - sealed.verified_from + 1
            rows.append([f"{sealed.found.records:,}", f"{read:,}", f"{seconds:.2f}"])
    head = ["records", "read", "CPU s of the client"]
    print_table("A checkpoint in PostgreSQL goes on from the last one", head, rows)
    assert len(rows) == 2


def write_log(file: Path, number: int) -> None:
    """Write an export of so many records, as the stores make them."""
    begin, prev, text = datetime(2026, 1, 1, tzinfo=UTC), NO_RECORD, created(ACTOR, "dev").text
    pattern = moved("NUMBER").text
    with file.open("wb") as out:
        for seq in range(1, number + 1):
            at = begin + timedelta(milliseconds=seq)
            line = record_line(text, seq=seq, prev=prev, recorded_at=at, by="mcp_release").encode()
            out.write(line + b"\n")
            prev, text = record_hash(line), pattern.replace("NUMBER", str(seq))
