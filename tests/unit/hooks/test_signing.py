"""Signing keys from connections: what signs, what is refused, and what is never shown."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_mcp.core.passport.dsse import sign, verify
from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import FailedError, InvalidArgumentError
from airflow_mcp.hooks.signing import SigningKeyHook, signer_of
from tests.support.audit_log import new_key


def connection(**fields: Any) -> Connection:
    return Connection(**{"conn_id": "key", "conn_type": "signing_key", **fields})


def of_service(uri: str, public: str) -> Connection:
    return connection(extra=json.dumps({"key_uri": uri, "public_key": public}))


@pytest.fixture
def pair() -> tuple[str, str]:
    """Return a private and a public key, PEM."""
    private, public = new_key()
    return private.decode(), public.decode()


@pytest.mark.parametrize("spell", [str, lambda pem: " ".join(pem.split("\n")), lambda pem: pem.replace("\n", "\\n")])
def test_a_private_key_signs_however_its_lines_were_broken(pair: tuple[str, str], spell: Any) -> None:
    signer = signer_of(connection(password=spell(pair[0])))
    assert verify(sign(b"{}", signer), [VerificationKey(pair[1])]) == b"{}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "either a password, the private key, or key_uri"),
        ({"password": "a", "extra": '{"key_uri": "kms://awskms:a"}'}, "either a password"),
        ({"password": "not a key at all"}, "private Ed25519 key as PEM"),
        ({"extra": '{"key_uri": "awskms:a"}'}, "key_uri must begin with kms://"),
        ({"extra": '{"key_uri": "kms://awskms:a"}'}, "public key as PEM"),
        ({"password": "a", "extra": '{"pubkey": "a"}'}, "only key_uri, public_key; got pubkey"),
    ],
)
def test_a_connection_without_a_usable_key_is_refused(fields: Any, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said) as refused:
        signer_of(connection(**fields))
    assert "not a key at all" not in str(refused.value)


def test_the_private_key_is_masked_in_logs(pair: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    signer_of(connection(password=pair[0]))
    with caplog.at_level(logging.INFO):
        assert pair[0].split("\n")[1] not in str(redact(f"a key: {pair[0]}"))


class TestAService:
    """The signers of securesystemslib; here the one that reads a file, because it needs no cloud."""

    def test_signs_and_its_signature_is_verified(self, pair: tuple[str, str], tmp_path: Path) -> None:
        (tmp_path / "key.pem").write_text(pair[0])
        signer = signer_of(of_service(f"kms://file2:{tmp_path / 'key.pem'}", pair[1]))
        assert verify(sign(b"{}", signer), [VerificationKey(pair[1])]) == b"{}"

    def test_that_does_not_answer_is_tried_again(self, pair: tuple[str, str], tmp_path: Path) -> None:
        signer = signer_of(of_service(f"kms://file2:{tmp_path / 'gone.pem'}", pair[1]))
        with pytest.raises(FailedError, match="did not sign: FileNotFoundError"):
            signer.sign(b"{}")

    def test_that_nobody_knows_is_refused(self, pair: tuple[str, str]) -> None:
        with pytest.raises(InvalidArgumentError, match="cannot be used: Unsupported private key scheme"):
            signer_of(of_service("kms://mykms:a", pair[1])).sign(b"{}")

    def test_with_another_public_key_is_refused(self, pair: tuple[str, str], tmp_path: Path) -> None:
        (tmp_path / "key.pem").write_text(pair[0])
        signer = signer_of(of_service(f"kms://file2:{tmp_path / 'key.pem'}", new_key()[1].decode()))
        with pytest.raises((InvalidArgumentError, FailedError), match="key"):
            signer.sign(b"{}")


class TestTheHook:
    def test_says_which_key_signs(self, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SigningKeyHook, "get_connection", lambda *_: connection(password=pair[0]))
        assert SigningKeyHook("key").test_connection() == (True, f"the key {VerificationKey(pair[1]).key_id} signs")

    def test_says_what_is_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SigningKeyHook, "get_connection", lambda *_: connection())
        works, said = SigningKeyHook("key").test_connection()
        assert (works, "either a password" in said) == (False, True)
