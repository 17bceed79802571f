"""TLS contexts are loaded when they are needed, once for many clients, and again for a bundle that was replaced."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from airflow_mcp.hooks import tls
from airflow_mcp.hooks.tls import tls_of
from tests.support.fakes.certificate import write_certificate


def test_nothing_is_loaded_where_there_is_nothing_to_verify() -> None:
    assert tls_of("http://models:8000", "/no/such/file") is False
    assert tls_of("https://models:8000", verify=False) is False


def test_clients_share_a_context_until_the_bundle_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = str(write_certificate(tmp_path))
    first = tls_of("https:", bundle)
    assert isinstance(first, ssl.SSLContext)
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert len(first.get_ca_certs()) == 1
    assert tls_of("https://prometheus", bundle) is first
    assert tls_of("https://prometheus", verify=True) is not first
    now = tls.time.monotonic()
    monkeypatch.setattr(tls.time, "monotonic", lambda: now + 300)
    assert tls_of("https:", bundle) is not first


def test_a_bundle_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        tls_of("https:", str(tmp_path / "missing.pem"))
