"""TLS contexts of HTTP clients, read once in five minutes: triggers create a client for every look."""

from __future__ import annotations

import functools
import ssl
import time

import httpx

_READ_AGAIN_SECONDS = 300
"""A CA bundle that was replaced counts after this time."""


def tls_of(url: str, verify: bool | str) -> ssl.SSLContext | bool:
    """Return what an HTTP client needs to verify a server; for ``http:`` nothing is loaded.

    Left to itself, httpx loads the CA bundle for every client, also for ``http:``: 12 to 30 ms of CPU.

    :param url: address of the server, or its scheme with a colon.
    :param verify: whether to check certificates, or the path of a PEM file with the authorities.
    :raises OSError: when that file is not a readable PEM file.
    """
    if verify is False or not url.startswith("https:"):
        return False
    return _context(verify if isinstance(verify, str) else "", int(time.monotonic() // _READ_AGAIN_SECONDS))


@functools.lru_cache(maxsize=16)
def _context(ca_bundle: str, period: int) -> ssl.SSLContext:
    """Load a context; another period loads it again."""
    return ssl.create_default_context(cafile=ca_bundle) if ca_bundle else httpx.create_ssl_context()
