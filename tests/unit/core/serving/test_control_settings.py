"""Settings of what a server follows, checks, limits and logs."""

from __future__ import annotations

import pytest

from airflow_mcp.core.serving.control_settings import NAMES, ControlSettings, read_control_settings
from airflow_mcp.core.serving.pairing import PairingRule
from airflow_mcp.exceptions import InvalidArgumentError
from tests.support.paths import DOCS

PREFIX = "X_"


def test_defaults_need_no_variable() -> None:
    assert read_control_settings({}, PREFIX) == ControlSettings()
    assert read_control_settings({"X_POLL_SECONDS": " ", "POLL_SECONDS": "1"}, PREFIX) == ControlSettings()


def test_values_are_read_from_variables() -> None:
    found = read_control_settings(
        {
            "X_POLL_SECONDS": "60",
            "X_REQUIRE_REGISTRY": "true",
            "X_PAIRING": "warn",
            "X_ALLOWED_DATA": "2026-*, sha256:aa",
            "X_LOG_HASH": "iban",
            "X_LOG_HASH_KEY": "0123456789abcdef",
        },
        PREFIX,
        keep_warm=3,
        memory_bytes=None,
    )
    assert (found.poll_seconds, found.require_registry, found.keep_warm) == (60, True, 3)
    assert found.pairing_rule == PairingRule("warn", ("2026-*", "sha256:aa"))
    assert found.log_rule.hashed == {"iban"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"X_POLL_SECONDS": "0"}, "X_POLL_SECONDS must be more than 0; got '?0"),
        ({"X_PAIRING": "off"}, "X_PAIRING must be one of enforce, warn; got 'off'"),
        ({"X_LOG_SAMPLE": "2"}, "X_LOG_SAMPLE must be at most 1"),
        ({"X_LOG_HASH": "iban"}, "X_LOG_HASH_KEY must be a secret of at least 16 characters"),
        ({"X_LOG_HASH_KEY": "short"}, "X_LOG_HASH_KEY must be a secret of at least 16 characters"),
        ({"X_SERVICE": "http://x y"}, "X_SERVICE must be an IP address or the name of a host.*got 'http://x y'"),
        ({"X_CLEARANCE": "prod"}, "X_CLEARANCE must have keys that it is checked with: set PASSPORT_KEYS too"),
        ({"X_IMAGE_DIGEST": "latest"}, "X_IMAGE_DIGEST must be sha256: and 64 hexadecimal digits.*got 'latest'"),
        *(
            ({"X_ALLOWED_UPSTREAMS": f"http://ok:1,{wrong}"}, "X_ALLOWED_UPSTREAMS must be addresses such as http://")
            for wrong in ("triton", "ftp://triton", "http://", "http://a b", "http://me:pw@triton", "http://triton:x")
        ),
    ],
)
def test_wrong_values_are_named(variables: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_control_settings(variables, PREFIX)


def test_secrets_are_not_shown() -> None:
    with pytest.raises(InvalidArgumentError) as wrong:
        read_control_settings({"X_ALLOWED_UPSTREAMS": "http://me:s3cret@triton"}, PREFIX)
    assert "s3cret" not in str(wrong.value)
    secrets = {"X_WEBHOOK_SECRET": "s3cret", "X_LOG_URI": "s3://me:s3cret@x", "X_LOG_HASH_KEY": "s3cret-s3cret-s3cret"}
    assert "s3cret" not in repr(read_control_settings(secrets, PREFIX))
    with pytest.raises(InvalidArgumentError) as caught:
        read_control_settings({"X_LOG_HASH": "iban", "X_LOG_HASH_KEY": "s3cret"}, PREFIX)
    assert "s3cret" not in str(caught.value)


def test_every_setting_is_documented_with_its_variable() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "serving").glob("*.md"))
    assert [name for name in sorted(NAMES) if f"`{name.upper()}`" not in pages] == []
