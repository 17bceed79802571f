"""Bodies of requests, read as the version that answers them understands them."""

from __future__ import annotations

import msgspec

from airflow_mcp.core.serving.arrays import reader_of
from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.inference_v2 import InferenceReader
from airflow_mcp.core.serving.scoring import Rows, TableReader, UnreadableRequestError
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.core.serving.signature import ModelSignature
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.pool import ModelRequest

JSON, CSV = "application/json", "text/csv"


class BodyDecoder:
    """Reads the bodies of requests to one version.

    :param signature: signature of the version.
    :param settings: whether MLflow's parser may read what the strict one refuses, and which bodies are long.
    """

    def __init__(self, signature: ModelSignature, settings: ServingSettings) -> None:
        self._rows = reader_of(signature)
        self._inference = InferenceReader(signature, self._rows if isinstance(self._rows, TableReader) else None)
        self._inline_bytes = settings.inline_body_bytes
        self._coerces = settings.coercion == "mlflow"
        self.is_batched = False
        """Whether requests may share a batch; the pool sets it when it knows."""

    def invocations(self, body: bytes, content_type: str) -> ModelRequest:
        """Read a body of MLflow's scoring protocol.

        :param body: the body.
        :param content_type: :data:`JSON` or :data:`CSV`.
        :raises Problem: when it cannot be read.
        """
        if self._rows is None or content_type != JSON:
            return _unread(body, content_type, for_mlflow=True)
        if len(body) > self._inline_bytes:
            return _unread(body, content_type, for_mlflow=self._coerces)
        try:
            rows = self._rows.read(body)
        except UnreadableRequestError as error:
            if self._coerces:
                return _unread(body, content_type, for_mlflow=True)
            raise Problem(error.code, str(error)) from None
        return _unread(body, content_type, for_mlflow=True) if rows is None else self._request(rows)

    def infer(self, body: bytes) -> ModelRequest:
        """Read a body of the Open Inference Protocol.

        :raises Problem: when it cannot be read.
        """
        try:
            rows, protocol = self._inference.read(body)
        except UnreadableRequestError as error:
            raise Problem(error.code, str(error)) from None
        except UnicodeEncodeError:
            raise Problem("invalid_body", "the body must hold whole characters; got half of a surrogate pair") from None
        request = self._request(rows)
        request.inference = protocol
        return request

    def _request(self, rows: Rows) -> ModelRequest:
        shares = self.is_batched and rows.kind is not FrameKind.TENSORS
        return ModelRequest(rows.kind, rows.payload, rows.number, rows.form, is_alone=not shares)


def _unread(body: bytes, content_type: str, *, for_mlflow: bool) -> ModelRequest:
    """Return a body for the model process to read; its number of rows is not known here."""
    payload = msgspec.msgpack.encode((content_type, body, for_mlflow))
    return ModelRequest(FrameKind.BODY, payload, 1, b"", is_alone=True)
