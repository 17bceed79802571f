"""What answers the requests of one version, whether model processes of this server or a server elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from airflow_mcp.core.serving.frames import AnswerKind, FrameKind
from airflow_mcp.core.serving.inference_v2 import InferenceRequest
from airflow_mcp.core.serving.signature import ModelSignature


@dataclass(slots=True, eq=False)
class ModelRequest:
    """Rows that one caller sends to one version."""

    kind: FrameKind
    """How ``payload`` is written."""
    payload: bytes
    rows: int
    """Number of rows; 1 when it is not known before the model reads the body."""
    form: bytes = b""
    """Requests of one kind and of equal form may share a batch; for COLUMNS the list of columns as MessagePack."""
    is_alone: bool = False
    """Whether it never shares a batch."""
    inference: InferenceRequest | None = None
    """What the caller of the Open Inference Protocol asked for besides its rows."""
    request_id: bytes = b""


@dataclass(slots=True, eq=False)
class ModelAnswer:
    """The predictions for one request."""

    kind: AnswerKind
    data: Any
    """A list of numbers, rows as JSON, such rows for each output, or one JSON text; see :class:`AnswerKind`."""
    rows: int
    seconds: float = 0.0
    """Seconds that the model took for the whole batch."""

    @property
    def json(self) -> bytes:
        """The predictions as JSON."""
        if self.kind in (AnswerKind.FLOATS, AnswerKind.INTEGERS):
            return msgspec.json.encode(self.data)
        if self.kind is AnswerKind.ROWS:
            return b"[" + b",".join(self.data) + b"]"
        if self.kind is AnswerKind.MAPPING:
            parts = [msgspec.json.encode(name) + b":[" + b",".join(texts) + b"]" for name, texts in self.data.items()]
            return b"{" + b",".join(parts) + b"}"
        return bytes(self.data)

    @property
    def values(self) -> Any:
        """The predictions as plain values: a list with one entry per row, or whatever the model returned."""
        if self.kind in (AnswerKind.FLOATS, AnswerKind.INTEGERS):
            return self.data
        return msgspec.json.decode(self.json)


@dataclass(frozen=True)
class LoadReport:
    """What was found out when a version was loaded.

    :param seconds: from the start of the process until it could answer.
    :param memory_bytes: memory of its largest process.
    :param signature: its signature.
    :param is_batched: whether requests share batches.
    :param why_alone: why they do not; empty if they do.
    :param flavors: MLflow flavors of the model.
    """

    seconds: float = 0.0
    memory_bytes: int = 0
    signature: ModelSignature = field(default_factory=ModelSignature)
    is_batched: bool = False
    why_alone: str = ""
    flavors: tuple[str, ...] = ()


class RequestDecoder(Protocol):
    """Reads the bodies of requests to one version; raises :class:`airflow_mcp.serving.errors.Problem`."""

    def invocations(self, body: bytes, content_type: str) -> ModelRequest:
        """Read a body of MLflow's scoring protocol."""
        ...

    def infer(self, body: bytes) -> ModelRequest:
        """Read a body of the Open Inference Protocol."""
        ...


class ModelPool(ABC):
    """What answers the requests of one version."""

    decoder: RequestDecoder
    """Reads bodies as this version understands them; set by the time the pool is ready."""
    on_change: Callable[[], None] | None = None
    """Called when ``ready`` changes."""
    on_batch: Callable[[float, int], None] | None = None
    """Called after each batch, with the seconds of the model and the rows."""
    restarts: int = 0
    """How many processes were replaced."""
    max_queue_rows: int
    """Rows that may wait, or requests for a server elsewhere; lowered while the server sheds load."""

    @abstractmethod
    async def start(self) -> None:
        """Load the version, and return when it can answer.

        :raises PoolStartError: when it cannot be loaded; nothing of it is left.
        """

    @abstractmethod
    def submit(self, request: ModelRequest) -> Awaitable[ModelAnswer]:
        """Ask the model; the call queues the request at once, awaiting it gives the answer.

        :raises Problem: when it cannot be answered.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Answer what is in flight, and end."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether requests may be sent here."""

    @property
    def processes(self) -> int:
        """Number of model processes here that are ready; 0 for a server elsewhere."""
        return 0

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """Number of requests that are queued or being answered."""

    @property
    @abstractmethod
    def failure(self) -> str:
        """Why the pool has given up; empty while it has not."""

    @property
    @abstractmethod
    def report(self) -> LoadReport:
        """What was found out when the version was loaded."""


class PoolStartError(Exception):
    """A version could not be loaded; the text says why and holds nothing secret."""
