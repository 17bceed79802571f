"""``POST /hooks/mlflow``: a genuine call of MLflow causes a look at the registry, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from airflow_mcp.core.serving.webhook import (
    HEADER_DELIVERY,
    HEADER_HOP,
    HEADER_SIGNATURE,
    HEADER_TIMESTAMP,
    MAX_BODY_BYTES,
    Deliveries,
    why_refused,
)
from airflow_mcp.serving.access import addresses_of
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.pages import Page

_log = logging.getLogger(__name__)
_BODY_SECONDS = 10.0
_HAND_ON_SECONDS = 3.0


class WebhookReceiver:
    """Takes the calls of MLflow's webhook.

    MLflow calls one address, so the first receiver hands the same signed call on to the other replicas.

    :param secret: the secret that MLflow signs with.
    :param look_soon: called for every genuine call.
    :param service: name of the headless Service, under which the other replicas are found; empty for none.
    :param port: port of the replicas.
    """

    def __init__(self, secret: str, look_soon: Callable[[], None], service: str = "", port: int = 8000) -> None:
        self._secret, self._look_soon = secret, look_soon
        self._service, self._port = service, port
        self._deliveries = Deliveries()
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(self, exchange: Exchange, receive: Any) -> Page:
        """Answer a call; a repeated one is accepted and does nothing.

        :raises Problem: when it is not genuine.
        """
        body = await _body(receive)
        names = (HEADER_SIGNATURE, HEADER_DELIVERY, HEADER_TIMESTAMP, HEADER_HOP)
        headers = {name: exchange.headers.get(name, "") for name in names}
        reason = why_refused(headers, body, self._secret, time.time())
        if reason:
            _log.warning("a call of the webhook was refused: %s", reason)
            raise Problem("unauthorized", reason)
        if self._deliveries.is_new(headers[HEADER_DELIVERY], time.monotonic()):
            self._look_soon()
            if self._service and not headers[HEADER_HOP]:
                task = asyncio.create_task(self._hand_on(headers, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return Page(msgspec.json.encode({"accepted": True}))

    async def _hand_on(self, headers: dict[str, str], body: bytes) -> None:
        """Hand a call on to the other replicas; those that miss it look at the registry by themselves."""
        own = await addresses_of(socket.gethostname())
        others = await addresses_of(self._service) - own
        async with httpx.AsyncClient(timeout=_HAND_ON_SECONDS, trust_env=False) as client:
            await asyncio.gather(*(self._call(client, address, headers, body) for address in others))

    async def _call(self, client: httpx.AsyncClient, address: str, headers: dict[str, str], body: bytes) -> None:
        host = f"[{address}]" if ":" in address else address
        try:
            await client.post(
                f"http://{host}:{self._port}/hooks/mlflow",
                content=body,
                headers={**headers, HEADER_HOP: "1", "content-type": "application/json"},
            )
        except httpx.HTTPError as error:
            _log.info("replica %s was not told of a change: %s", address, type(error).__name__)


async def _body(receive: Any) -> bytes:
    """Read a body of bounded size.

    :raises Problem: when it is larger, or does not arrive in time.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem("timeout_body", "the connection was closed before the body was complete")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise Problem("too_large", f"the body must have at most {MAX_BODY_BYTES} bytes")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise Problem("timeout_body", "the body did not arrive in time") from None
