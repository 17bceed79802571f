"""Envelopes: a payload with its signatures, in the format DSSE 1.0 that other tools verify too."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from airflow_mcp.core.identity import canonical_json
from airflow_mcp.core.ports import Signer
from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import PassportError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""Type of an in-toto statement."""


class Envelope(NamedTuple):
    """A payload, and signatures that nobody has checked yet."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]
    """ID of the key, and the signature."""


def sign(payload: bytes, signer: Signer, *, payload_type: str = PAYLOAD_TYPE) -> str:
    """Return a payload in a signed envelope, as JSON.

    :param payload: the bytes to sign.
    :param signer: what signs; see :class:`~airflow_mcp.core.signing.keys.PrivateKey`.
    :param payload_type: what the payload is.
    """
    signature = signer.sign(_encoded(payload_type, payload))
    return canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": signature.key_id, "sig": base64.b64encode(signature.value).decode()}],
        }
    )


def verify(
    envelope: str | bytes,
    keys: Iterable[VerificationKey],
    *,
    signed_at: datetime | None = None,
    payload_type: str = PAYLOAD_TYPE,
) -> bytes:
    """Return the payload of an envelope that one of the keys has signed.

    A signature is tried with every key, whatever key it names: the name is not signed.

    :param envelope: the envelope as JSON.
    :param keys: the keys whose signatures count.
    :param signed_at: when it was signed, as the audit log says; None when that is not known.
    :param payload_type: what the payload must be.
    :raises PassportError: when no signature counts; the message says why.
    """
    found = read_envelope(envelope)
    if found.payload_type != payload_type:
        raise PassportError(f"the envelope must hold {payload_type}; got {found.payload_type!r}")
    message, reasons = _encoded(found.payload_type, found.payload), []
    for key in keys:
        if any(key.accepts(signature, message) for _, signature in found.signatures):
            reason = key.why_not(signed_at)
            if not reason:
                return found.payload
            reasons.append(f"signature: {reason} (key {key.key_id[:12]})")
    raise PassportError("; ".join(reasons) or _unknown(found.signatures))


def read_envelope(envelope: str | bytes) -> Envelope:
    """Read an envelope; nothing is verified.

    :param envelope: the envelope as JSON.
    :raises PassportError: when it is not one.
    """
    try:
        fields: Any = json.loads(envelope)
        signatures = [(_text(one.get("keyid", "")), _bytes(one["sig"])) for one in fields["signatures"]]
        return Envelope(_bytes(fields["payload"]), _text(fields["payloadType"]), tuple(signatures))
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error, RecursionError):
        raise PassportError(
            "the envelope must be JSON with payload, payloadType and signatures; got something else"
        ) from None


def _encoded(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: lengths before texts, so that no two envelopes have the same."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _bytes(value: Any) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _unknown(signatures: Sequence[tuple[str, bytes]]) -> str:
    named = ", ".join(sorted({key_id[:12] for key_id, _ in signatures if key_id})) or "none"
    return (
        f"signature: no known key has signed this statement (keys that it names: {named}). It was changed, or somebody "
        "else signed it"
    )
