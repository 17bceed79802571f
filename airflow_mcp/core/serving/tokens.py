"""Which JSON Web Tokens a server accepts: algorithms, signature, issuer, audience and times.

Only algorithms with a private and a public key are accepted: with ``none`` anybody could sign, and with ``HS256``
anybody who knows the public key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

ALGORITHMS: Mapping[str, str] = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
"""Every algorithm that can be allowed, with the type of its keys (``kty``)."""
LEEWAY = 30.0
"""Seconds by which clocks may differ."""
MAX_TOKEN_CHARACTERS = 16_384
"""A longer token is refused before it is read."""


class TokenError(Exception):
    """A token is not accepted.

    :param reason: a short word for metrics: ``missing``, ``malformed``, ``algorithm``, ``key``, ``signature``,
        ``issuer``, ``audience``, ``expired``, ``early`` or ``claims``.
    :param message: what is wrong, for the caller; never a part of the token.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class TokenPolicy:
    """What a token must say."""

    issuer: str
    audience: str = ""
    """Empty does not look at the audience; then a token for any other service of the issuer is accepted."""
    algorithms: tuple[str, ...] = tuple(ALGORITHMS)


class TokenHeader(NamedTuple):
    """The part of a token that says how to check it."""

    algorithm: str
    key_id: str


class Caller(NamedTuple):
    """Who sent a request, according to its token."""

    subject: str
    expires_at: float
    """Seconds since the epoch."""


def bearer_token(authorization: str) -> str:
    """Return the token of an ``Authorization`` header.

    :param authorization: value of the header; empty without one.
    :raises TokenError: when it holds no bearer token.
    """
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenError("missing", "the header Authorization must be 'Bearer <token>'")
    token = token.strip()
    if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
        raise TokenError("malformed", "the token is not a JSON Web Token")
    return token


def read_header(token: str, policy: TokenPolicy) -> TokenHeader:
    """Return how a token is signed, without believing anything in it.

    :param token: the token.
    :param policy: what is allowed.
    :raises TokenError: when it is not a token, or signed in a way that is not allowed.
    """
    import jwt  # noqa: PLC0415 -- an extra of the server; the rest of core does without it

    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise TokenError("malformed", "the token is not a JSON Web Token") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in policy.algorithms or algorithm not in ALGORITHMS:
        raise TokenError("algorithm", f"the token must be signed with one of {', '.join(policy.algorithms)}")
    if header.get("crit"):
        raise TokenError("algorithm", "the token demands an extension ('crit') that this server does not know")
    if not isinstance(key_id, str) or not key_id:
        raise TokenError("key", "the token does not name its key ('kid')")
    return TokenHeader(algorithm, key_id)


def check_token(token: str, key: Mapping[str, Any], policy: TokenPolicy, now: float) -> Caller:
    """Check a token against the key that it names.

    :param token: the token.
    :param key: the key of the issuer, as a JSON Web Key.
    :param policy: what the token must say.
    :param now: present time, in seconds since the epoch.
    :raises TokenError: when the token is not accepted.
    """
    import jwt  # noqa: PLC0415

    header = read_header(token, policy)
    if not fits(key, header.algorithm):
        raise TokenError("algorithm", "the token is signed with another algorithm than its key is for")
    try:
        public = jwt.PyJWK(dict(key), algorithm=header.algorithm).key
        payload = jwt.PyJWS().decode(token, public, algorithms=[header.algorithm])
        claims = json.loads(payload)
    except jwt.InvalidSignatureError:
        raise TokenError("signature", "the signature of the token is wrong") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise TokenError("malformed", "the token cannot be checked") from None
    if not isinstance(claims, dict):
        raise TokenError("malformed", "the token holds no claims")
    return check_claims(claims, policy, now)


def fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Return whether a JSON Web Key is for signatures with an algorithm.

    :param key: the key.
    :param algorithm: name of the algorithm.
    """
    return (
        key.get("kty") == ALGORITHMS.get(algorithm)
        and key.get("alg", algorithm) == algorithm
        and key.get("use", "sig") == "sig"
    )


def check_claims(claims: Mapping[str, Any], policy: TokenPolicy, now: float) -> Caller:
    """Check what a token says; its signature was checked before.

    :param claims: the claims.
    :param policy: what they must say.
    :param now: present time, in seconds since the epoch.
    :raises TokenError: when one is missing or wrong.
    """
    if claims.get("iss") != policy.issuer:
        raise TokenError("issuer", "the token is not from the issuer that this server trusts")
    if policy.audience:
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if policy.audience not in named:
            raise TokenError("audience", "the token is for another audience")
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise TokenError("claims", "the token does not say when it expires ('exp')")
    if expires_at + LEEWAY <= now:
        raise TokenError("expired", "the token has expired")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and begins - LEEWAY > now:
            raise TokenError("early", f"the token is not valid yet ('{name}')")
    subject = claims.get("sub", "")
    if not isinstance(subject, str):
        raise TokenError("claims", "the subject of the token ('sub') is not text")
    return Caller(subject, expires_at)


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise TokenError("claims", f"'{name}' of the token is not a time")
    return float(value)
