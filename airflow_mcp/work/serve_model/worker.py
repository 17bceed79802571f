"""The loop of a process that answers batches over a socket."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from typing import Any

import msgspec

from airflow_mcp.core.serving.frames import SECONDS, AnswerKind, Frame, FrameReader, encode
from airflow_mcp.core.serving.scoring import UnreadableRequestError
from airflow_mcp.core.serving.signature import ModelDescription
from airflow_mcp.work.serve_model.batches import Batches, ModelRaisedError
from airflow_mcp.work.serve_model.example import try_example

_log = logging.getLogger(__name__)
_RECEIVE_BYTES = 1 << 18
_MAX_TEXT = 500


class Worker:
    """A process that answers one batch after the other.

    :param connection: socket to the front.
    :param pyfunc: MLflow's ``PyFuncModel``.
    :param path: folder of the model's files.
    :param description: what its ``MLmodel`` file says.
    """

    def __init__(self, connection: socket.socket, pyfunc: Any, path: Path, description: ModelDescription) -> None:
        self._connection = connection
        self._pyfunc = pyfunc
        self._path = path
        self._description = description
        self._batches = Batches(pyfunc, description.signature)

    def run(self) -> int:
        """Answer the input example, then batches until the front closes the connection.

        :return: the exit code.
        """
        try:
            batching = try_example(self._pyfunc, self._path, self._description, self._batches)
        except ModelRaisedError as error:
            cause = error.__cause__
            text = f"it does not answer its input example: {type(cause).__name__}: {' '.join(str(cause).split())}"
            self._send(0, 0, AnswerKind.ERROR, msgspec.msgpack.encode(["model_failed", text[:_MAX_TEXT]]), 0.0)
            return 1
        ready = {"is_batched": batching.allowed, "why_alone": batching.why_not}
        self._send(0, 0, AnswerKind.READY, msgspec.json.encode(ready), 0.0)
        reader = FrameReader()
        while data := self._connection.recv(_RECEIVE_BYTES):
            for frame in reader.feed(data):
                self._answer(frame)
        return 0

    def _answer(self, frame: Frame) -> None:
        started = time.perf_counter()
        try:
            answer = self._batches.answer(frame.kind, frame.payload, frame.rows)
        except UnreadableRequestError as error:
            self._fail(frame, error.code, str(error), started)
        except ModelRaisedError as error:
            _log.error("the model raised an error", exc_info=error.__cause__)
            self._fail(frame, "model_failed", f"the model raised {error}", started)
        except (MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            _log.exception("a batch could not be answered")
            self._fail(frame, "model_failed", f"the answer could not be written: {type(error).__name__}", started)
        else:
            self._send(frame.batch, answer.rows, answer.kind, answer.payload, time.perf_counter() - started)

    def _fail(self, frame: Frame, code: str, message: str, started: float) -> None:
        payload = msgspec.msgpack.encode([code, message])
        self._send(frame.batch, frame.rows, AnswerKind.ERROR, payload, time.perf_counter() - started)

    def _send(self, batch: int, rows: int, kind: AnswerKind, payload: bytes, seconds: float) -> None:
        self._connection.sendall(encode(batch, rows, kind, SECONDS.pack(seconds) + payload))
