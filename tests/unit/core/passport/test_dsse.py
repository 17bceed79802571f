"""Envelopes and keys: what is accepted, what is refused, and whether other tools agree."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from airflow_mcp.core.passport.dsse import PAYLOAD_TYPE, sign, verify
from airflow_mcp.core.ports import Signature
from airflow_mcp.core.signing.keys import PrivateKey, VerificationKey, read_public_keys
from airflow_mcp.exceptions import InvalidArgumentError, PassportError
from tests.support.audit_log import new_key
from tests.support.passports import key_pair

PAYLOAD = b'{"a":1}'
NOW = datetime(2026, 11, 29, tzinfo=UTC)
DAY = timedelta(days=1)


class EcdsaSigner:
    """What a key management service does that has no Ed25519."""

    def __init__(self) -> None:
        self._key = generate_private_key(SECP256R1())
        public = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public_pem = public.decode()

    def sign(self, message: bytes) -> Signature:
        key = VerificationKey(self.public_pem)
        return Signature(key.key_id, self._key.sign(message, ECDSA(SHA256())))


def changed(envelope: str, **fields: Any) -> str:
    return json.dumps({**json.loads(envelope), **fields})


class TestAnEnvelope:
    def test_is_accepted_with_the_key_that_signed_it(self) -> None:
        private, public = key_pair()
        _, other = key_pair()
        assert verify(sign(PAYLOAD, private), [other, public]) == PAYLOAD

    def test_may_be_signed_with_ecdsa(self) -> None:
        signer = EcdsaSigner()
        assert verify(sign(PAYLOAD, signer), [VerificationKey(signer.public_pem)]) == PAYLOAD

    def test_is_the_same_text_each_time(self) -> None:
        private, _ = key_pair()
        assert sign(PAYLOAD, private) == sign(PAYLOAD, private)

    @pytest.mark.parametrize(
        "fields",
        [
            {"payload": base64.b64encode(b'{"a":2}').decode()},
            {"signatures": []},
            {"signatures": [{"keyid": "", "sig": base64.b64encode(b"0" * 64).decode()}]},
        ],
        ids=["another payload", "no signature", "another signature"],
    )
    def test_that_was_changed_is_refused(self, fields: dict[str, Any]) -> None:
        private, public = key_pair()
        with pytest.raises(PassportError, match="no known key has signed"):
            verify(changed(sign(PAYLOAD, private), **fields), [public])

    def test_of_another_type_is_refused_though_it_is_signed(self) -> None:
        private, public = key_pair()
        with pytest.raises(PassportError, match="must hold application/vnd"):
            verify(sign(PAYLOAD, private, payload_type="text/plain"), [public])

    def test_cannot_be_given_another_type_afterwards(self) -> None:
        private, public = key_pair()
        envelope = changed(sign(PAYLOAD, private, payload_type="text/plain"), payloadType=PAYLOAD_TYPE)
        with pytest.raises(PassportError, match="no known key has signed"):
            verify(envelope, [public])

    def test_of_an_unknown_key_is_refused(self) -> None:
        private, _ = key_pair()
        _, other = key_pair()
        with pytest.raises(PassportError, match="no known key has signed"):
            verify(sign(PAYLOAD, private), [other])

    @pytest.mark.parametrize(
        "text",
        ["", "no JSON", "[]", "{}", '{"payload":1}', '{"payload":"!","payloadType":"a","signatures":[]}', "null"],
    )
    def test_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(PassportError, match="must be JSON with payload"):
            verify(text, [])


class TestAKey:
    def test_signs_nothing_new_after_its_end(self) -> None:
        private, public = key_pair()
        ended = VerificationKey(public.public_pem, until=NOW)
        envelope = sign(PAYLOAD, private)
        assert verify(envelope, [ended], signed_at=NOW - DAY) == PAYLOAD
        with pytest.raises(PassportError, match="was valid until"):
            verify(envelope, [ended], signed_at=NOW + DAY)

    def test_counts_from_its_beginning(self) -> None:
        private, public = key_pair()
        begun = VerificationKey(public.public_pem, since=NOW)
        with pytest.raises(PassportError, match="is valid since"):
            verify(sign(PAYLOAD, private), [begun], signed_at=NOW - DAY)

    def test_that_has_an_end_counts_only_when_the_time_is_known(self) -> None:
        private, public = key_pair()
        with pytest.raises(PassportError, match="when it signed is not recorded"):
            verify(sign(PAYLOAD, private), [VerificationKey(public.public_pem, until=NOW)])

    def test_that_is_revoked_counts_for_nothing(self) -> None:
        private, public = key_pair()
        with pytest.raises(PassportError, match="is revoked"):
            verify(sign(PAYLOAD, private), [VerificationKey(public.public_pem, revoked=True)], signed_at=NOW)

    def test_of_another_kind_is_refused_when_it_is_read(self) -> None:
        public = generate_rsa_key(65537, 2048).public_key()
        with pytest.raises(InvalidArgumentError, match="Ed25519 or ECDSA on P-256"):
            VerificationKey(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())

    def test_that_cannot_be_read_is_not_shown(self) -> None:
        with pytest.raises(InvalidArgumentError, match="not shown") as refused:
            PrivateKey("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----")
        assert "secret" not in str(refused.value)

    def test_file_may_hold_several(self) -> None:
        pems = [new_key()[1].decode() for _ in range(2)]
        assert [key.public_pem.strip() for key in read_public_keys("# ours\n" + "".join(pems))] == [
            pem.strip() for pem in pems
        ]

    def test_file_without_a_key_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="must hold public keys"):
            read_public_keys("nothing")


class TestSecuresystemslib:
    """A second implementation of the format, which others use to verify."""

    def test_verifies_what_we_sign(self) -> None:
        private, public = key_pair()
        key = SSlibKey.from_crypto(public._key)
        accepted = Envelope.from_dict(json.loads(sign(PAYLOAD, private))).verify([key], 1)
        assert list(accepted) == [public.key_id]

    def test_refuses_what_was_changed(self) -> None:
        private, public = key_pair()
        envelope = changed(sign(PAYLOAD, private), payload=base64.b64encode(b"other").decode())
        with pytest.raises(VerificationError):
            Envelope.from_dict(json.loads(envelope)).verify([SSlibKey.from_crypto(public._key)], 1)

    def test_signs_what_we_verify_and_gives_the_same_signature(self) -> None:
        pem, public = new_key()
        theirs = Envelope(PAYLOAD, PAYLOAD_TYPE, {})
        key: Any = load_pem_private_key(pem, None)
        theirs.sign(CryptoSigner(key))
        assert verify(json.dumps(theirs.to_dict()), [VerificationKey(public.decode())]) == PAYLOAD
        assert json.loads(sign(PAYLOAD, PrivateKey(pem))) == theirs.to_dict()

    def test_verifies_ecdsa_of_ours_and_gives_the_key_the_same_id(self) -> None:
        signer = EcdsaSigner()
        key = VerificationKey(signer.public_pem)
        accepted = Envelope.from_dict(json.loads(sign(PAYLOAD, signer))).verify([SSlibKey.from_crypto(key._key)], 1)
        assert list(accepted) == [key.key_id]
