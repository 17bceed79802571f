"""Which tokens are accepted, with real keys of every algorithm."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from airflow_mcp.core.serving.tokens import (
    MAX_TOKEN_CHARACTERS,
    Caller,
    TokenError,
    TokenPolicy,
    bearer_token,
    check_token,
    read_header,
)

NOW = 1_800_000_000.0
ISSUER = "https://auth.example.com"
POLICY = TokenPolicy(ISSUER, "fraud")


class Signer(NamedTuple):
    """A private key, and its public part as a JSON Web Key."""

    private: Any
    public: Mapping[str, Any]


def _signer(algorithm: str) -> Signer:
    private: Any
    if algorithm == "RS256":
        private, to_jwk = rsa.generate_private_key(65537, 2048), jwt.algorithms.RSAAlgorithm.to_jwk
    elif algorithm == "ES256":
        private, to_jwk = ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm.to_jwk
    else:
        private, to_jwk = ed25519.Ed25519PrivateKey.generate(), jwt.algorithms.OKPAlgorithm.to_jwk
    return Signer(private, {**json.loads(to_jwk(private.public_key())), "kid": "k1"})


@pytest.fixture(scope="module")
def signers() -> dict[str, Signer]:
    return {algorithm: _signer(algorithm) for algorithm in ("RS256", "ES256", "EdDSA")}


def claims(**changes: Any) -> dict[str, Any]:
    values = {"iss": ISSUER, "aud": "fraud", "exp": NOW + 60, "sub": "ann", **changes}
    return {name: value for name, value in values.items() if value is not None}


def signed(signer: Signer, algorithm: str, headers: Mapping[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), signer.private, algorithm, headers={"kid": "k1", **(headers or {})})


def reason_of(token: str, key: Mapping[str, Any], policy: TokenPolicy = POLICY) -> str:
    with pytest.raises(TokenError) as caught:
        check_token(token, key, policy, NOW)
    assert token not in str(caught.value)
    return caught.value.reason


class TestAcceptedTokens:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_name_the_caller(self, signers: dict[str, Signer], algorithm: str) -> None:
        signer = signers[algorithm]
        assert check_token(signed(signer, algorithm), signer.public, POLICY, NOW) == Caller("ann", NOW + 60)

    def test_may_have_several_audiences(self, signers: dict[str, Signer]) -> None:
        token = signed(signers["ES256"], "ES256", aud=["other", "fraud"])
        assert check_token(token, signers["ES256"].public, POLICY, NOW).subject == "ann"

    def test_need_no_audience_where_none_is_asked_for(self, signers: dict[str, Signer]) -> None:
        token = signed(signers["ES256"], "ES256", aud=None)
        assert check_token(token, signers["ES256"].public, TokenPolicy(ISSUER), NOW).subject == "ann"

    def test_may_be_off_by_30_seconds(self, signers: dict[str, Signer]) -> None:
        key = signers["ES256"]
        for changes in ({"exp": NOW - 29}, {"nbf": NOW + 29}, {"iat": NOW + 29}):
            assert check_token(signed(key, "ES256", **changes), key.public, POLICY, NOW).subject == "ann"


class TestRefusedTokens:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"iss": "https://evil.example.com"}, "issuer"),
            ({"iss": ISSUER + "/"}, "issuer"),
            ({"iss": None}, "issuer"),
            ({"aud": "churn"}, "audience"),
            ({"aud": ["churn"]}, "audience"),
            ({"aud": None}, "audience"),
            ({"exp": NOW - 30}, "expired"),
            ({"exp": None}, "claims"),
            ({"exp": "tomorrow"}, "claims"),
            ({"exp": True}, "claims"),
            ({"exp": 10**400}, "claims"),
            ({"nbf": NOW + 31}, "early"),
            ({"iat": NOW + 31}, "early"),
            ({"sub": 7}, "claims"),
        ],
    )
    def test_say_something_wrong(self, signers: dict[str, Signer], changes: dict[str, Any], reason: str) -> None:
        signer = signers["ES256"]
        payload = json.dumps(claims(**changes)).encode()
        token = jwt.PyJWS().encode(payload, signer.private, "ES256", headers={"kid": "k1"})
        assert reason_of(token, signer.public) == reason

    def test_are_signed_with_none(self, signers: dict[str, Signer]) -> None:
        token = jwt.encode(claims(), None, "none", headers={"kid": "k1"})
        assert reason_of(token, signers["RS256"].public) == "algorithm"

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "", None, 7])
    def test_name_no_algorithm_that_is_allowed(self, signers: dict[str, Signer], algorithm: Any) -> None:
        head, body, signature = signed(signers["RS256"], "RS256").split(".")
        other = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "k1"}).encode()).rstrip(b"=").decode()
        for token in (f"{other}.{body}.{signature}", f"{other}.{body}."):
            assert reason_of(token, signers["RS256"].public) in ("algorithm", "malformed")
        assert head != other

    def test_are_signed_with_the_public_key_as_a_secret(self, signers: dict[str, Signer]) -> None:
        import hashlib
        import hmac

        public = signers["RS256"].private.public_key()
        secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        parts = [json.dumps({"alg": "HS256", "kid": "k1"}).encode(), json.dumps(claims()).encode()]
        text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        mac = base64.urlsafe_b64encode(hmac.new(secret, text, hashlib.sha256).digest()).rstrip(b"=")
        assert reason_of((text + b"." + mac).decode(), signers["RS256"].public) == "algorithm"

    def test_are_signed_with_another_key(self, signers: dict[str, Signer]) -> None:
        assert reason_of(signed(_signer("ES256"), "ES256"), signers["ES256"].public) == "signature"

    def test_were_changed(self, signers: dict[str, Signer]) -> None:
        head, _, signature = signed(signers["EdDSA"], "EdDSA").split(".")
        body = base64.urlsafe_b64encode(json.dumps(claims(sub="root")).encode()).rstrip(b"=").decode()
        assert reason_of(f"{head}.{body}.{signature}", signers["EdDSA"].public) == "signature"

    def test_use_another_algorithm_than_their_key(self, signers: dict[str, Signer]) -> None:
        assert reason_of(signed(signers["ES256"], "ES256"), signers["RS256"].public) == "algorithm"
        other = {**signers["ES256"].public, "alg": "ES384"}
        assert reason_of(signed(signers["ES256"], "ES256"), other) == "algorithm"
        encrypting = {**signers["ES256"].public, "use": "enc"}
        assert reason_of(signed(signers["ES256"], "ES256"), encrypting) == "algorithm"

    def test_do_not_name_their_key(self, signers: dict[str, Signer]) -> None:
        token = jwt.encode(claims(), signers["ES256"].private, "ES256")
        assert reason_of(token, signers["ES256"].public) == "key"

    def test_use_an_algorithm_that_the_policy_leaves_out(self, signers: dict[str, Signer]) -> None:
        policy = TokenPolicy(ISSUER, "fraud", ("RS256",))
        assert reason_of(signed(signers["ES256"], "ES256"), signers["ES256"].public, policy) == "algorithm"

    def test_demand_an_unknown_extension(self, signers: dict[str, Signer]) -> None:
        token = signed(signers["ES256"], "ES256", {"crit": ["b64"], "b64": True})
        assert reason_of(token, signers["ES256"].public) in ("algorithm", "malformed")

    @pytest.mark.parametrize("payload", [b"[]", b"7", b"{", b"\xff"])
    def test_hold_no_claims(self, signers: dict[str, Signer], payload: bytes) -> None:
        token = jwt.PyJWS().encode(payload, signers["ES256"].private, "ES256", headers={"kid": "k1"})
        assert reason_of(token, signers["ES256"].public) == "malformed"

    @pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "eyJ", "e30.e30.e30"])
    def test_are_not_tokens(self, token: str) -> None:
        with pytest.raises(TokenError):
            read_header(token, POLICY)

    def test_with_a_key_that_cannot_be_read(self, signers: dict[str, Signer]) -> None:
        token = signed(signers["ES256"], "ES256")
        assert reason_of(token, {"kty": "EC", "kid": "k1", "crv": "P-256"}) == "malformed"


class TestTheAuthorizationHeader:
    def test_holds_a_token(self) -> None:
        assert bearer_token("Bearer abc") == "abc"
        assert bearer_token("bearer   abc ") == "abc"

    @pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic abc", "abc"])
    def test_may_hold_none(self, value: str) -> None:
        with pytest.raises(TokenError) as caught:
            bearer_token(value)
        assert caught.value.reason == "missing"

    @pytest.mark.parametrize("token", ["x" * (MAX_TOKEN_CHARACTERS + 1), "ü"])
    def test_may_hold_something_that_is_not_read_at_all(self, token: str) -> None:
        with pytest.raises(TokenError) as caught:
            bearer_token(f"Bearer {token}")
        assert caught.value.reason == "malformed"
