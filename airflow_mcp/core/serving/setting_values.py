"""Checks of single settings of the model server, and how a wrong one is described."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from pydantic import ValidationError

from airflow_mcp.core.argument import in_words, matched, sentences

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,254}}$){_LABEL}(\.{_LABEL})*\.?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def describe_settings(error: ValidationError, prefix: str) -> str:
    """Describe every wrong setting by the variable that holds it.

    :param error: what the validation raised.
    :param prefix: beginning of the names of the variables.
    """
    found = (
        f"{prefix}{str(item['loc'][0]).upper()} {in_words(item)}" if item["loc"] else in_words(item)
        for item in error.errors(include_url=False)
    )
    return sentences(*dict.fromkeys(found), "Nothing was started")


def check_host(value: str) -> str:
    """Return the name of a host or an IP address.

    :raises ValueError: when it is neither.
    """
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value):
            raise ValueError(
                f"must be an IP address or the name of a host, without scheme and port; got {value!r}"
            ) from None
    return value


def check_digest(value: str) -> str:
    """Return the digest of an image.

    :raises ValueError: when it is not one.
    """
    return matched(_DIGEST, value, "be sha256: and 64 hexadecimal digits, as the image's registry shows it")


def check_upstream(value: str) -> str:
    """Return the beginning of an address.

    :raises ValueError: when no address that requests may be sent to can begin so.
    """
    try:
        url = urlsplit(value)
        is_address = url.scheme in ("http", "https") and bool(check_host(url.hostname or "")) and url.port != 0
    except ValueError:
        is_address = False
    if not is_address or "@" in url.netloc or "?" in value or "#" in value:
        raise ValueError(
            "must be addresses such as http://triton:8000/v2/models, with http or https and without login and query; "
            "got one that is not"
        )
    return value


def check_variable_name(value: str) -> str:
    """Return the name of an environment variable.

    :raises ValueError: when it is not one.
    """
    return matched(_VARIABLE, value, "be names of environment variables, separated by commas")
