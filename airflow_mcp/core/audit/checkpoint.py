"""Checkpoints: size and head of the tree as a signed note (C2SP), kept where the owner of the database cannot write."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import EvidenceError

if TYPE_CHECKING:
    from airflow_mcp.core.ports import Signer

ORIGIN_PREFIX = "airflow-mcp/"
_ED25519 = b"\1"
"""Type of the key in a signed note."""
_MARK = "\N{EM DASH} "


@dataclass(frozen=True)
class Checkpoint:
    """How a log stood: so many records, and the head of the tree over them."""

    log_id: str
    size: int
    root: bytes

    @property
    def file(self) -> str:
        """Name of the file that keeps it; of one log, the names are in the order of the sizes."""
        return f"{self.log_id}-{self.size:012}.txt"

    @property
    def body(self) -> str:
        """The text that is signed."""
        return f"{ORIGIN_PREFIX}{self.log_id}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def sign(checkpoint: Checkpoint, signer: Signer) -> str:
    """Return a checkpoint as a signed note.

    :param checkpoint: the checkpoint.
    :param signer: an Ed25519 key.
    :raises InvalidArgumentError: when it is a key of another kind.
    :raises FailedError: when a service that holds the key does not answer.
    """
    name, public = ORIGIN_PREFIX + checkpoint.log_id, VerificationKey(signer.public_pem)
    signature = _key_hash(name, public) + signer.sign(checkpoint.body.encode()).value
    return f"{checkpoint.body}\n{_MARK}{name} {base64.b64encode(signature).decode()}\n"


def read_checkpoint(note: str, public_pem: bytes) -> Checkpoint:
    """Read a signed note and check its signature.

    :param note: the note.
    :param public_pem: public Ed25519 key, PEM.
    :raises EvidenceError: when it is not a signed checkpoint, or no signature in it is of this key.
    :raises InvalidArgumentError: when the key is not an Ed25519 key.
    """
    key = VerificationKey(public_pem.decode(errors="replace"))
    body, signatures = _parts(note)
    checkpoint = _checkpoint(body)
    for name, signature in signatures:
        if signature[:4] != _key_hash(name, key):
            continue  # a note may have signatures of other keys, which readers ignore
        if not key.accepts(signature[4:], body.encode()):
            break
        return checkpoint
    raise EvidenceError(
        f"the checkpoint of {checkpoint.size} records has no valid signature of this key, so it shows nothing. "
        "Look for another copy of it"
    )


def _parts(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    body, separator, rest = note.rpartition("\n\n")
    signatures = []
    for line in rest.splitlines():
        name, _, encoded = line.removeprefix(_MARK).rpartition(" ")
        try:
            signatures.append((name, base64.b64decode(encoded, validate=True)))
        except binascii.Error:
            separator = ""
        if not line.startswith(_MARK):
            separator = ""
    if not separator or not signatures:
        raise EvidenceError("a checkpoint is a text, an empty line and signature lines; this is something else")
    return body + "\n", signatures


def _checkpoint(body: str) -> Checkpoint:
    lines = body.split("\n")
    try:
        origin, size, root = lines[:3]
        checkpoint = Checkpoint(origin.removeprefix(ORIGIN_PREFIX), int(size), base64.b64decode(root, validate=True))
        is_ours = origin.startswith(ORIGIN_PREFIX) and checkpoint.body == body
    except ValueError:
        is_ours = False
    if not is_ours:
        raise EvidenceError(
            f"a checkpoint has three lines: {ORIGIN_PREFIX}LOG, the number of records and the head of the tree; this "
            "note says something else"
        )
    return checkpoint


def _key_hash(name: str, key: VerificationKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.ed25519_bytes).digest()[:4]
