"""The shapes and the names of credentials, for whatever must not hold one. Light, because every task imports it."""

from __future__ import annotations

import re

# 20: schemes are short, and without a bound a long text without "://" costs its length squared.
URL_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[^/\s:@]*:[^/\s@]+@", re.I)
TOKEN_OR_KEY = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\."
)

_NAMES = re.compile(
    r"(password|passwd|passphrase|pgpass)$|_pwd$"
    r"|(^|_)(pass|secret|token|credentials?|authorization|cookie"
    r"|(api|access|account|encryption|license|private|secret|shared|signing|ssh)_?key)$"
)
"""``_pwd`` needs something before it: ``PWD`` alone is the working folder of every shell."""
_TOKENS_OF_TEXT = re.compile(r"(^|_)(pad|mask|eos|bos|unk|cls|sep|special|start|end|stop)_token$")


def names_a_credential(name: str) -> bool:
    """Return whether a name is that of a credential, such as ``MLFLOW_TRACKING_PASSWORD`` or ``PGPASSWORD``.

    :param name: of an environment variable, a setting, a label or an annotation.
    """
    words = re.sub(r"[-./]", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower()
    return bool(_NAMES.search(words)) and not _TOKENS_OF_TEXT.search(words)


def is_credential(name: str, text: str) -> bool:
    """Return whether a variable is one that must not have a plain value; a switch may be named after a credential.

    :param name: its name.
    :param text: its value.
    """
    is_switch = text.lower() in ("", "true", "false")
    return (names_a_credential(name) and not is_switch) or has_credential_shape(text)


def has_credential_shape(text: str) -> bool:
    """Return whether a text holds something with the shape of a credential: a token, a key, a URL with a password."""
    return bool(URL_WITH_PASSWORD.search(text) or TOKEN_OR_KEY.search(text))
