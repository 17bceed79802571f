"""One HTTP client per MLflow server and event loop, shared by all hooks: a new one costs more than a request.

A triggerer with 1,000 triggers makes many small requests. A client of its own for each would triple their CPU time: it
has a connection to open, and a TLS context to load.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import httpx

IDLE_SECONDS = 5.0
"""A client that nobody has used for this long is closed."""
LONGEST_SECONDS = 300.0
"""Age at which a client gets no more requests: a new one reads the CA bundle again."""
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=1.0)
"""A second is less than servers keep an idle connection open (gunicorn: 2 s), so none is closed under a request."""

_kept: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _KeptClient]] = WeakKeyDictionary()


@asynccontextmanager
async def kept_client(key: Hashable, create: Callable[[], httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    """Yield the client of this event loop for a server; it is closed when nobody has used it for some time.

    :param key: whom to share it with: address and credentials.
    :param create: creates a client; called when there is none.
    """
    loop = asyncio.get_running_loop()
    clients = _kept.setdefault(loop, {})
    kept = clients.get(key)
    if kept is None:
        kept = clients[key] = _KeptClient(create(), loop)
        # Not in the context of the first caller: the task outlives it. The event loop cancels it at its end.
        kept.closing = loop.create_task(kept.close_when_idle(clients, key), context=contextvars.Context())
    kept.users += 1
    try:
        yield kept.client
    finally:
        kept.users -= 1
        kept.used = loop.time()


class _KeptClient:
    """A client, and who uses it.

    :param client: the client.
    :param loop: the event loop that it belongs to.
    """

    def __init__(self, client: httpx.AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self.client, self.users = client, 0
        self.used = self._created = loop.time()
        self.closing: asyncio.Task[None] | None = None
        """Kept here, because an event loop holds only weak references to its tasks."""

    async def close_when_idle(self, clients: dict[Hashable, _KeptClient], key: Hashable) -> None:
        """Wait until nobody uses the client any more, and close it.

        :param clients: the clients of the event loop.
        :param key: its key there; it is removed before the client is closed, so that nobody gets a closed one.
        """
        try:
            while self._is_wanted():
                await asyncio.sleep(IDLE_SECONDS)
                if clients.get(key) is self and (not self._is_wanted() or self._is_old()):
                    del clients[key]
        finally:
            if clients.get(key) is self:
                del clients[key]
            await self.client.aclose()

    def _is_wanted(self) -> bool:
        return self.users > 0 or asyncio.get_running_loop().time() - self.used < IDLE_SECONDS

    def _is_old(self) -> bool:
        return asyncio.get_running_loop().time() - self._created > LONGEST_SECONDS
