"""Frames, cut out of a stream of bytes wherever it is broken up."""

from __future__ import annotations

import msgspec
import pytest

from airflow_mcp.core.serving.frames import HEADER, AnswerKind, Frame, FrameKind, FrameReader, encode, joined_rows

FRAMES = [Frame(1, 2, FrameKind.PACKED, b"abc"), Frame(2, 0, AnswerKind.ERROR, b""), Frame(3, 9, 19, b"x" * 100_000)]
STREAM = b"".join(encode(*frame) for frame in FRAMES)


@pytest.mark.parametrize("size", [1, 7, HEADER.size, 4096, len(STREAM)])
def test_frames_are_the_same_however_the_stream_is_broken_up(size: int) -> None:
    reader = FrameReader()
    found = []
    for start in range(0, len(STREAM), size):
        found += list(reader.feed(STREAM[start : start + size]))
    assert found == FRAMES


def test_a_stream_without_frames_is_noticed_before_it_fills_the_memory() -> None:
    with pytest.raises(ValueError, match="holds no frames"):
        list(FrameReader().feed(b"\xff" * 16))


def test_joined_rows_are_one_table() -> None:
    rows = [[1, "a"], [2, "b"], [3, "c"]]
    payloads = [msgspec.msgpack.encode(rows[0]), b"".join(map(msgspec.msgpack.encode, rows[1:]))]
    joined = joined_rows(FrameKind.COLUMNS, msgspec.msgpack.encode([0, 4]), payloads, 3)
    assert msgspec.msgpack.decode(joined) == [[0, 4], rows]
    assert joined_rows(FrameKind.PACKED, b"", [b"ab", b"cd"], 2) == b"abcd"
