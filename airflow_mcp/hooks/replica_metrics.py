"""The metrics of every replica of a model server, read over HTTP at the same time; without Airflow."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import NamedTuple

import httpx

from airflow_mcp.exceptions import InvalidArgumentError, ServerUnreachableError
from airflow_mcp.hooks.tls import tls_of

DEFAULT_PORT = 8000
_MAX_BYTES = 16 * 1024 * 1024
"""An answer of this size is not from a model server."""


class ReplicaText(NamedTuple):
    """The metrics of one replica."""

    replica: str
    """Its address, ``host:port``."""
    text: str


@dataclass(frozen=True)
class ReplicaAddresses:
    """Where the replicas of a model server answer."""

    hosts: tuple[tuple[str, int], ...]
    """Names and ports. Each address that a name has is one replica, so a headless Service names them all."""
    scheme: str = "http"
    verify: bool | str = True
    """Whether to check TLS certificates, or the path of a file with the authorities."""
    timeout: float = 5.0
    """Seconds for the whole answer of a replica."""

    async def read(self, path: str = "/metrics") -> list[ReplicaText]:
        """Read the metrics, or another page, of all replicas.

        :param path: path of the page.

        :raises ServerUnreachableError: when a name has no address, or a replica does not answer as a model server does.
        """
        found = await asyncio.gather(*(self._addresses(host, port) for host, port in self.hosts))
        places = dict.fromkeys(place for places in found for place in places)
        verify = tls_of(f"{self.scheme}:", self.verify)
        async with httpx.AsyncClient(verify=verify, timeout=self.timeout, trust_env=False) as client:
            answers = await asyncio.gather(
                *(self._read(client, path, *place) for place in places), return_exceptions=True
            )
        problems = [answer for answer in answers if isinstance(answer, BaseException)]
        if unknown := next((each for each in problems if not isinstance(each, ServerUnreachableError)), None):
            raise unknown
        if problems:
            raise ServerUnreachableError("; ".join(map(str, problems)))
        return [answer for answer in answers if isinstance(answer, ReplicaText)]

    async def _addresses(self, host: str, port: int) -> list[tuple[str, str, int]]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout):
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise ServerUnreachableError(f"{host} has no address: {error or 'no answer in time'}") from None
        return [(host, str(info[4][0]), port) for info in infos]

    async def _read(self, client: httpx.AsyncClient, path: str, host: str, address: str, port: int) -> ReplicaText:
        place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self.timeout),  # for the whole answer: a server may send a byte a second
                client.stream(
                    "GET",
                    f"{self.scheme}://{place}{path}",
                    headers={"Host": f"{host}:{port}", "User-Agent": "airflow-mcp"},
                    extensions={"sni_hostname": host},
                ) as response,
            ):
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        raise ServerUnreachableError(f"{place}: {path} is larger than {_MAX_BYTES} bytes")
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            problem = str(error) or f"no complete answer in {self.timeout:g} s"
            raise ServerUnreachableError(f"{place} does not answer: {problem}") from None
        if response.status_code != httpx.codes.OK:
            raise ServerUnreachableError(f"{place}: {path} answers {response.status_code}")
        return ReplicaText(place, body.decode("utf-8", "replace"))


def read_addresses(text: str, default_port: int = DEFAULT_PORT) -> tuple[tuple[str, int], ...]:
    """Read a list of hosts, with or without ports.

    :param text: such as ``fraud-headless.ml.svc`` or ``10.0.0.1:8000,10.0.0.2:8000``.
    :param default_port: port of a host without one.
    :raises InvalidArgumentError: when it is empty, or a port is not a number.
    """
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        host, colon, port = part.rpartition(":") if not part.endswith("]") else (part, "", "")
        name = (host if colon else part).strip("[]")
        if not name or "/" in name or (colon and not (port.isdecimal() and 0 < int(port) < 65536)):
            raise InvalidArgumentError(f"host must be names or addresses, each with or without a port; got {text!r}")
        found.append((name, int(port) if colon else default_port))
    if not found:
        raise InvalidArgumentError("host must name at least one model server; got ''")
    return tuple(found)
