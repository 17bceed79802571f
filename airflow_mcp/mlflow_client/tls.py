"""TLS contexts of HTTP clients."""

from __future__ import annotations

import ssl

import httpx


def load_tls(url: str, verify: bool | str) -> ssl.SSLContext | bool:
    """Load what an HTTP client needs to verify a server; for ``http:`` nothing is loaded.

    Left to itself, httpx loads the CA bundle for every client, also for ``http:``: 12 to 30 ms of CPU.

    :param url: address of the server, or its scheme with a colon.
    :param verify: whether to check certificates, or the path of a PEM file with the authorities.
    :raises OSError: when that file is not a readable PEM file.
    """
    if verify is False or not url.startswith("https:"):
        return False
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else httpx.create_ssl_context()
