"""Verification: every kind of tampering names the first bad record; checkpoints see what the chain cannot."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from airflow_mcp.core.audit.checkpoint import Checkpoint, read_checkpoint, sign
from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id
from airflow_mcp.core.audit.merkle import tree_head
from airflow_mcp.core.audit.record import NO_RECORD, read_record, record_hash, record_line
from airflow_mcp.core.audit.verify import verify
from airflow_mcp.core.signing.keys import PrivateKey
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from tests.support.audit_log import new_key

BEGIN = datetime(2026, 11, 29, tzinfo=UTC)
LOG = "0123456789abcdef"


def texts(number: int, salt: str = "") -> Iterator[str]:
    actor = AuditActor("user", "lena")
    yield AuditEvent(event_id("log.created", "log", LOG), "log.created", "log", "dev", actor, new={"log_id": LOG}).text
    for each in range(2, number + 1):
        name = event_id("registry.moved", "model:fraud", salt, each)
        yield AuditEvent(name, "registry.moved", "model:fraud", "dev", actor, new={"champion": str(each)}).text


def chain(events: list[str] | Iterator[str], clock: Callable[[int], datetime] | None = None) -> list[bytes]:
    lines, prev = [], NO_RECORD
    for seq, text in enumerate(events, 1):
        time = clock(seq) if clock else BEGIN + timedelta(seconds=seq)
        lines.append(record_line(text, seq=seq, prev=prev, recorded_at=time, by="mcp").encode())
        prev = record_hash(lines[-1])
    return lines


LINES = chain(texts(10))


def head(lines: list[bytes], size: int | None = None) -> Checkpoint:
    return Checkpoint(LOG, size or len(lines), tree_head(map(record_hash, lines[:size])))


def test_a_whole_log_is_whole_with_its_root() -> None:
    found = verify((line + b"\n" for line in LINES), [head(LINES), head(LINES, 4)], deep=True)
    assert (found.is_whole, found.records, found.root, found.checkpoints) == (True, 10, head(LINES).root, 2)
    assert found.log_id == LOG


def flipped(seq: int) -> list[bytes]:
    return [line.replace(b"fraud", b"freud", 1) if n == seq else line for n, line in enumerate(LINES, 1)]


def with_other_link(seq: int) -> list[bytes]:
    wrong = json.loads(LINES[seq - 1])["prev"].encode()
    other = (b"0" if wrong[:1] != b"0" else b"1") + wrong[1:]
    return [line.replace(wrong, other) if n == seq else line for n, line in enumerate(LINES, 1)]


@pytest.mark.parametrize(
    ("lines", "first_bad", "problem"),
    [
        (flipped(5), 5, "seq 5 was changed"),
        (flipped(2), 2, "seq 2 was changed"),
        (flipped(9), 9, "seq 9 was changed"),
        (with_other_link(6), 6, "seq 6 was changed"),
        (LINES[:4] + LINES[5:], 5, "seq 5 is missing"),
        (LINES[1:], 1, "seq 1 is missing"),
        ([*LINES[:3], LINES[4], LINES[3], *LINES[5:]], 4, "seq 4 is missing"),
        ([*LINES[:3], LINES[2], *LINES[3:]], 4, "seq 4 is not in its place"),
        ([*LINES[:6], b"{}", *LINES[7:]], 7, "seq 7 was changed"),
        ([*LINES[:9], LINES[9][:40]], 10, "not a record"),
    ],
)
def test_tampering_names_the_first_bad_record(lines: list[bytes], first_bad: int, problem: str) -> None:
    found = verify(lines)
    assert (found.first_bad, found.is_whole) == (first_bad, False)
    assert problem in found.problem


def test_a_reformatted_record_is_changed() -> None:
    spaced = json.dumps(json.loads(LINES[4]), sort_keys=True).encode()
    assert verify([*LINES[:4], spaced, *LINES[5:]]).first_bad == 5


def test_only_a_checkpoint_sees_a_cut_end() -> None:
    assert verify(LINES[:7]).is_whole
    found = verify(LINES[:7], [head(LINES)])
    assert found.first_bad == 8
    assert "the log was cut: it has 7 records, and a checkpoint covers 10" in found.problem


def test_only_a_checkpoint_sees_a_log_that_was_written_anew() -> None:
    texts_of = list(texts(10))
    texts_of[7] = texts_of[7].replace("fraud", "freud")
    anew = chain(texts_of)
    assert verify(anew).is_whole
    found = verify(anew, [head(LINES), head(LINES, 5)])
    assert (found.first_bad, found.checkpoints) == (6, 1)
    assert "written anew" in found.problem
    assert "from seq 6 to seq 10" in found.problem


def test_a_clock_that_went_back_is_found() -> None:
    found = verify(chain(texts(5), lambda seq: BEGIN - timedelta(seconds=seq == 4)))
    assert found.first_bad == 4
    assert "earlier time" in found.problem


def test_a_record_that_is_not_canonical_is_found_when_asked() -> None:
    events = list(texts(5))
    events[2] = events[2].replace(",", ", ", 1)
    lines = chain(events)
    assert verify(lines).is_whole
    assert verify(lines, deep=True).first_bad == 3


def test_what_shows_nothing_is_refused() -> None:
    with pytest.raises(EvidenceError, match="no record to verify"):
        verify([])
    with pytest.raises(EvidenceError, match="checkpoint is of log other"):
        verify(LINES, [Checkpoint("other", 3, bytes(32))])
    assert "begins with the event log.created" in verify(chain(list(texts(3))[1:])).problem


def test_memory_does_not_grow_with_the_log() -> None:
    def lines(number: int) -> Iterator[bytes]:
        prev, text = NO_RECORD, next(texts(1))
        for seq in range(1, number + 1):
            line = record_line(text, seq=seq, prev=prev, recorded_at=BEGIN, by="mcp").encode()
            prev = record_hash(line)
            yield line

    assert verify(lines(10)).is_whole  # what Python keeps from the first call on
    peaks = []
    for number in (100, 2000):
        tracemalloc.start()
        assert verify(lines(number)).records == number
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000  # the records themselves are 1 MB


def test_a_record_is_read_back() -> None:
    record = read_record(LINES[1].decode())
    assert (record.seq, record.by, record.event["subject"]) == (2, "mcp", "model:fraud")
    assert record.recorded_at == "2026-11-29T00:00:02.000000Z"
    with pytest.raises(EvidenceError, match="not a record"):
        read_record("[]")


class TestCheckpoints:
    private, public = new_key()
    checkpoint = head(LINES)

    def test_a_signed_note_is_read_back(self) -> None:
        note = sign(self.checkpoint, PrivateKey(self.private))
        assert note.splitlines()[:2] == [f"airflow-mcp/{LOG}", "10"]
        assert note.splitlines()[4].startswith(f"\N{EM DASH} airflow-mcp/{LOG} ")
        assert read_checkpoint(note, self.public) == self.checkpoint

    @pytest.mark.parametrize(
        "change",
        [
            lambda note: note.replace("\n10\n", "\n9\n"),
            lambda note: note[:-10] + "AAAAAAAA=\n",
            lambda note: note.replace("\n\n", "\n"),
            lambda note: "hello",
            lambda note: note.replace("\n10\n", "\nten\n"),
            lambda note: note.replace("airflow-mcp/", "other/"),
        ],
    )
    def test_a_changed_note_is_refused(self, change: Callable[[str], str]) -> None:
        with pytest.raises(EvidenceError):
            read_checkpoint(change(sign(self.checkpoint, PrivateKey(self.private))), self.public)

    def test_a_signature_of_another_key_does_not_count(self) -> None:
        note = sign(self.checkpoint, PrivateKey(self.private))
        with pytest.raises(EvidenceError, match="no valid signature of this key"):
            read_checkpoint(note, new_key()[1])

    def test_a_second_signature_does_not_hinder(self) -> None:
        other = sign(self.checkpoint, PrivateKey(new_key()[0])).splitlines()[-1]
        assert (
            read_checkpoint(sign(self.checkpoint, PrivateKey(self.private)) + other + "\n", self.public)
            == self.checkpoint
        )

    def test_another_kind_of_key_is_refused_without_being_shown(self) -> None:
        with pytest.raises(InvalidArgumentError, match="got a value that is not shown"):
            sign(self.checkpoint, PrivateKey(b"secret text"))
        note = sign(self.checkpoint, PrivateKey(self.private))
        with pytest.raises(InvalidArgumentError, match="must be a public key as PEM"):
            read_checkpoint(note, self.private)
        elliptic = generate_private_key(SECP256R1()).public_key()
        with pytest.raises(InvalidArgumentError, match="public Ed25519 key as PEM; got one of another kind"):
            read_checkpoint(note, elliptic.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
