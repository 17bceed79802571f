"""TLS contexts of HTTP clients, read once in five minutes: triggers create a client for every look."""

from __future__ import annotations

import functools
import ssl
import time

from airflow_mcp.mlflow_client.tls import load_tls

_READ_AGAIN_SECONDS = 300
"""A CA bundle that was replaced counts after this time."""


def tls_of(url: str, verify: bool | str) -> ssl.SSLContext | bool:
    """Return what an HTTP client needs to verify a server, as :func:`~airflow_mcp.mlflow_client.tls.load_tls` loads it.

    :param url: address of the server, or its scheme with a colon.
    :param verify: whether to check certificates, or the path of a PEM file with the authorities.
    :raises OSError: when that file is not a readable PEM file.
    """
    scheme = url.partition(":")[0]
    return _kept(f"{scheme}:", verify, int(time.monotonic() // _READ_AGAIN_SECONDS))


@functools.lru_cache(maxsize=16)
def _kept(scheme: str, verify: bool | str, period: int) -> ssl.SSLContext | bool:
    """Load; another period loads again."""
    return load_tls(scheme, verify)
