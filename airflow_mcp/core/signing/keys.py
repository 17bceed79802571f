"""Keys of signatures: their IDs, what a public key accepts and until when, and the private key that signs.

The library ``cryptography`` is imported when something is signed or a signature is checked, and not before.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_mcp.core.identity import canonical_json
from airflow_mcp.core.ports import Signature
from airflow_mcp.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    AnyPublicKey = Ed25519PublicKey | EllipticCurvePublicKey
_PEM_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.S)


@dataclass(frozen=True)
class VerificationKey:
    """A public key, and which of its signatures count.

    :raises InvalidArgumentError: when the PEM is not a public key of an accepted kind.
    """

    public_pem: str
    """Public key as PEM: Ed25519, or ECDSA on the curve P-256, which key management services offer."""
    since: datetime | None = None
    """What was signed before does not count; None sets no limit."""
    until: datetime | None = None
    """What was signed afterwards does not count, what was signed before still does; None sets no limit."""
    revoked: bool = False
    """Whether nothing that the key has signed counts any more."""

    def __post_init__(self) -> None:
        """Check the key, so that a wrong one is found when it is configured and not when it is needed."""
        _ = self.key_id

    @cached_property
    def key_id(self) -> str:
        """ID by which signatures name the key: the one that ``securesystemslib`` computes by default."""
        return key_id(self._key)

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Return whether a signature is of this key; its dates are not looked at.

        :param signature: the signature.
        :param message: the bytes that were signed.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        try:
            if isinstance(self._key, EllipticCurvePublicKey):
                self._key.verify(signature, message, ECDSA(SHA256()))
            else:
                self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def why_not(self, signed_at: datetime | None) -> str:
        """Return why a signature of this key does not count; empty when it does.

        :param signed_at: when it was made, as the audit log says; None when that is not known.
        """
        if self.revoked:
            return "the key is revoked"
        if self.since is None and self.until is None:
            return ""
        if signed_at is None:
            return "the key is valid for a time, and when it signed is not recorded"
        if self.since is not None and signed_at < self.since:
            return f"the key is valid since {self.since.isoformat()}, and signed at {signed_at.isoformat()}"
        if self.until is not None and signed_at > self.until:
            return f"the key was valid until {self.until.isoformat()}, and signed at {signed_at.isoformat()}"
        return ""

    @property
    def ed25519_bytes(self) -> bytes:
        """The 32 bytes of an Ed25519 key.

        :raises InvalidArgumentError: when the key is of another kind.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        if not isinstance(self._key, Ed25519PublicKey):
            raise InvalidArgumentError("the key must be a public Ed25519 key as PEM; got one of another kind")
        return self._key.public_bytes_raw()

    @cached_property
    def _key(self) -> AnyPublicKey:
        return _public_key(self.public_pem)


def read_public_keys(text: str) -> tuple[VerificationKey, ...]:
    """Read the public keys of a PEM file, which may hold several.

    :param text: the file.
    :raises InvalidArgumentError: when there is none, or one of them is of another kind.
    """
    keys = tuple(VerificationKey(block) for block in _PEM_BLOCK.findall(text))
    if not keys:
        raise InvalidArgumentError(
            "the key file must hold public keys as PEM (-----BEGIN PUBLIC KEY-----); got a file without one"
        )
    return keys


def key_id(key: AnyPublicKey) -> str:
    """Return the ID of a public key.

    :param key: the key.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    if isinstance(key, EllipticCurvePublicKey):
        kind, scheme = "ecdsa", "ecdsa-sha2-nistp256"
        public = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        # securesystemslib's canonical JSON keeps the line breaks of the PEM as they are.
        written = f'{{"keytype":"{kind}","keyval":{{"public":"{public}"}},"scheme":"{scheme}"}}'
    else:
        public = key.public_bytes_raw().hex()
        written = canonical_json({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
    return hashlib.sha256(written.encode()).hexdigest()


class PrivateKey:
    """A private Ed25519 key that signs here.

    :param pem: the key, PEM without a password.
    :raises InvalidArgumentError: when it is not such a key; the message does not show it.
    """

    def __init__(self, pem: str | bytes) -> None:
        self._key = _private_key(pem.encode() if isinstance(pem, str) else pem)
        self._key_id = key_id(self._key.public_key())

    @property
    def public_pem(self) -> str:
        """The public key, PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, message: bytes) -> Signature:
        """Sign a message.

        :param message: the bytes to sign.
        """
        return Signature(self._key_id, self._key.sign(message))


def _private_key(pem: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidArgumentError(
            "the signing key must be a private Ed25519 key as PEM without a password; got a value that is not shown"
        )
    return key


def _public_key(pem: str) -> AnyPublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise InvalidArgumentError("the key must be a public key as PEM, Ed25519 or ECDSA on P-256; got something else")
