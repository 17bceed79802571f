"""The frames that the front and a model process exchange over a socket pair.

A frame is a header of four little-endian 32-bit numbers and a payload. The header holds the length of the payload, the
number of the batch, the number of rows and the kind. Rows of a batch are the joined payloads of its requests, so that
nobody decodes and encodes them again on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

HEADER = struct.Struct("<IIII")
SECONDS = struct.Struct("<d")
"""Begins the payload of every answer: the seconds that the model took."""
MAX_FRAME_BYTES = 1 << 30
"""1 GiB: a longer frame can only be a defect of the other side, and would use up all memory."""
_ROWS_AS_LIST = struct.Struct(">BI")
_LIST_OF_32_BITS = 0xDD
_PAIR = b"\x92"


class FrameKind(IntEnum):
    """What a frame to a model process holds."""

    PACKED = 1
    """Rows as packed numbers, in the columns and types of the signature."""
    COLUMNS = 2
    """MessagePack: which columns, then the rows as lists."""
    BODY = 3
    """MessagePack: content type, the body of the caller, and whether MLflow's own parser may read it."""
    TENSORS = 4
    """MessagePack: name, type, shape and values of each tensor."""
    ARRAY = 5
    """Rows of the one tensor of the signature, packed in its type."""


class AnswerKind(IntEnum):
    """What a frame of a model process holds."""

    READY = 16
    """JSON: what was found out while the model was loaded."""
    FLOATS = 17
    """One 64-bit floating-point number per row."""
    INTEGERS = 18
    """One 64-bit integer per row."""
    ROWS = 19
    """MessagePack: one JSON text per row."""
    WHOLE = 20
    """One JSON text for all rows together."""
    UNWRAPPED = 21
    """One JSON text that is the whole answer, without the key ``predictions``."""
    ERROR = 22
    """MessagePack: code and message of a problem."""
    MAPPING = 23
    """MessagePack: for each output of the model, one JSON text per row."""


class Frame(NamedTuple):
    """One frame."""

    batch: int
    rows: int
    kind: int
    payload: bytes


def encode(batch: int, rows: int, kind: int, payload: bytes) -> bytes:
    """Return a frame as bytes."""
    return HEADER.pack(len(payload), batch, rows, kind) + payload


def joined_rows(kind: FrameKind, form: object, payloads: Sequence[bytes], rows: int) -> bytes:
    """Return the payload of a batch.

    :param kind: kind of every request of the batch.
    :param form: for COLUMNS, the list of columns as MessagePack.
    :param payloads: payload of each request.
    :param rows: rows of all of them.
    """
    if kind is FrameKind.COLUMNS and isinstance(form, bytes):
        return b"".join((_PAIR, form, rows_as_list(payloads, rows)))
    return payloads[0] if len(payloads) == 1 else b"".join(payloads)


def rows_as_list(payloads: Sequence[bytes], rows: int) -> bytes:
    """Return rows of the kind COLUMNS as one list in MessagePack.

    :param payloads: payload of each request.
    :param rows: rows of all of them.
    """
    return b"".join((_ROWS_AS_LIST.pack(_LIST_OF_32_BITS, rows), *payloads))


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes and return every frame that is complete.

        :param data: bytes in the order in which they arrived.
        :raises ValueError: when the stream holds no frames; it cannot be read any further.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= HEADER.size:
            length, batch, rows, kind = HEADER.unpack_from(buffer, start)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes was announced: the stream holds no frames")
            end = start + HEADER.size + length
            if len(buffer) < end:
                break
            yield Frame(batch, rows, kind, bytes(buffer[start + HEADER.size : end]))
            start = end
        del buffer[:start]
