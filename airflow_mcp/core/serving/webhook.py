"""Calls of MLflow's webhooks: whether they are genuine, recent and new."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping

HEADER_SIGNATURE = "x-mlflow-signature"
HEADER_DELIVERY = "x-mlflow-delivery-id"
HEADER_TIMESTAMP = "x-mlflow-timestamp"
HEADER_HOP = "x-airflow-mcp-hop"
"""Set by a server that hands a call on to the others, which do not hand it on again."""
MAX_AGE = 300.0
"""Seconds by which the time of a call may differ from now."""
REMEMBERED = 600.0
"""Seconds for which the id of a call is remembered; longer than a call is accepted for."""
MAX_REMEMBERED = 10_000
MAX_BODY_BYTES = 64 * 1024


def why_refused(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str:
    """Return why a call is not accepted; empty when it is.

    :param headers: headers of the call, with names in lower case.
    :param body: its body, exactly as it arrived.
    :param secret: the secret that MLflow and this server share.
    :param now: present time, in seconds since the epoch.
    """
    if not secret:
        return "this server has no secret for webhooks, so it accepts none"
    delivery, timestamp = headers.get(HEADER_DELIVERY, ""), headers.get(HEADER_TIMESTAMP, "")
    version, _, signature = headers.get(HEADER_SIGNATURE, "").partition(",")
    if not delivery or not timestamp or version != "v1":
        return f"{HEADER_SIGNATURE}, {HEADER_DELIVERY} and {HEADER_TIMESTAMP} must be set as MLflow sets them"
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 20):
        return f"{HEADER_TIMESTAMP} must be seconds since the epoch"
    if not _is_signed(signature, f"{delivery}.{timestamp}.".encode() + body, secret):
        return "the signature is wrong"
    if abs(now - int(timestamp)) > MAX_AGE:
        return f"the call is older than {MAX_AGE:g} s, or the clocks differ"
    return ""


def _is_signed(signature: str, signed: bytes, secret: str) -> bool:
    try:
        given = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, hmac.new(secret.encode(), signed, hashlib.sha256).digest())


class Deliveries:
    """The calls that were accepted lately, so that a repeated one does nothing."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()

    def is_new(self, delivery: str, now: float) -> bool:
        """Remember a call, and return whether it is the first of its id.

        :param delivery: id of the call, which MLflow keeps when it repeats it.
        :param now: present time, in seconds.
        """
        while self._seen and (len(self._seen) >= MAX_REMEMBERED or next(iter(self._seen.values())) < now - REMEMBERED):
            self._seen.popitem(last=False)
        if delivery in self._seen:
            return False
        self._seen[delivery] = now
        return True
