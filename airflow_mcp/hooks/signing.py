"""Hook for the key that signs passports and clearances."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mcp.core.ports import Signature, Signer
from airflow_mcp.core.signing.keys import PrivateKey, VerificationKey
from airflow_mcp.exceptions import FailedError, InvalidArgumentError

if TYPE_CHECKING:
    from airflow.sdk import Connection

KMS = "kms://"
"""Beginning of the address of a key in a key management service."""
EXTRAS = ("key_uri", "public_key")
_ON_ONE_LINE = re.compile(r"-----BEGIN ([A-Z ]+)-----(.+?)-----END \1-----", re.S)
_SHORTEST_SECRET = 16
"""Characters of a line of a key that is masked by itself; shorter ones would mask ordinary words."""


class SigningKeyHook(BaseHook):
    """Hook for a private key, or for a key management service that signs.

    :param signing_conn_id: id of a connection of type ``signing_key``.
    """

    conn_name_attr = "signing_conn_id"
    default_conn_name = "signing_key_default"
    conn_type = "signing_key"
    hook_name = "Signing key"

    def __init__(self, signing_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.signing_conn_id = signing_conn_id
        self._signer: Signer | None = None

    def get_conn(self) -> Signer:
        """Return what signs.

        :raises InvalidArgumentError: when there is no such connection, or it holds no usable key.
        """
        if self._signer is None:
            try:
                connection = self.get_connection(self.signing_conn_id)
            except AirflowNotFoundException:
                raise InvalidArgumentError(
                    f"[airflow_mcp] signing_conn_id must be the ID of a connection; got {self.signing_conn_id!r}, and "
                    "there is no such connection"
                ) from None
            self._signer = signer_of(connection)
        return self._signer

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection once, without raising: sign something, and verify it."""
        try:
            signer, message = self.get_conn(), b"airflow-mcp: test of the connection"
            key = VerificationKey(signer.public_pem)
            if not key.accepts(signer.sign(message).value, message):
                return False, "the public key of the connection does not verify what its private key signs"
        except Exception as error:  # the connection form shows any error
            return False, str(error)
        return True, f"the key {key.key_id} signs"


def signer_of(connection: Connection) -> Signer:
    """Return what a connection signs with.

    :param connection: a connection of type ``signing_key``.
    :raises InvalidArgumentError: when a field is wrong; a private key is never shown.
    """
    pem = connection.password or ""
    for secret in (pem, *(line for line in pem.splitlines() if len(line) >= _SHORTEST_SECRET)):
        mask_secret(secret)
    extra: Mapping[str, Any] = connection.extra_dejson
    if unknown := sorted(extra.keys() - set(EXTRAS)):
        raise InvalidArgumentError(f"extra must have only {', '.join(EXTRAS)}; got {', '.join(unknown)}")
    uri, public = str(extra.get("key_uri") or ""), str(extra.get("public_key") or "")
    if bool(pem) == bool(uri):
        raise InvalidArgumentError("a signing key must have either a password, the private key, or key_uri")
    if pem:
        return PrivateKey(_with_lines(pem))
    if not uri.startswith(KMS):
        raise InvalidArgumentError(f"key_uri must begin with {KMS}; got {uri!r}")
    return KmsSigner(uri.removeprefix(KMS), _with_lines(public))


class KmsSigner:
    """A key that a key management service keeps; the service signs, and the key never leaves it.

    :param uri: address of the key, as ``securesystemslib`` reads it: ``awskms:alias/models``.
    :param public_pem: the public key, PEM: Ed25519 or ECDSA on P-256.
    :raises InvalidArgumentError: when the public key is missing or of another kind.
    """

    def __init__(self, uri: str, public_pem: str) -> None:
        self.public_pem = public_pem
        self._uri, self._key = uri, VerificationKey(public_pem)

    def sign(self, message: bytes) -> Signature:
        """Sign a message.

        :raises InvalidArgumentError: when the extra ``kms`` is not installed, or the address is of no known service.
        :raises FailedError: when the service does not answer, or refuses.
        """
        try:
            from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
            from securesystemslib import signer as services  # noqa: PLC0415  (16 ms, for a service only)
        except ImportError:
            raise InvalidArgumentError(
                f"key_uri {KMS}{self._uri} needs the extra kms. Nothing was signed; pip install 'airflow-mcp[kms]'"
            ) from None
        known: Any = services  # its names are re-exported, but not declared so
        key = known.SSlibKey.from_crypto(load_pem_public_key(self.public_pem.encode()))
        try:
            found = known.Signer.from_priv_key_uri(self._uri, key).sign(message)
        except ValueError as error:
            raise InvalidArgumentError(
                f"key_uri {KMS}{self._uri} cannot be used: {error}. Nothing was signed"
            ) from None
        except Exception as error:  # each service has its own errors
            raise FailedError(f"key {KMS}{self._uri} did not sign: {type(error).__name__}: {error}") from error
        signature = bytes.fromhex(found.signature)
        if not self._key.accepts(signature, message):
            raise InvalidArgumentError(
                f"public_key is not the one of {KMS}{self._uri}: it does not verify what the service signed"
            )
        return Signature(self._key.key_id, signature)


def _with_lines(pem: str) -> str:
    """Return a key with line breaks, which Airflow's form and shells turn into spaces or ``\\n``."""
    found = _ON_ONE_LINE.search(pem.replace("\\n", "\n"))
    if found is None:
        return pem
    name, body = found[1], "".join(found[2].split())
    return f"-----BEGIN {name}-----\n{body}\n-----END {name}-----\n"
