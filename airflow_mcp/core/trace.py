"""The identity of a trace, as ``traceparent`` of the W3C carries it between processes."""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id_of(traceparent: str) -> str:
    """Return the ID of a trace, 32 hexadecimal characters; empty for a text that is no ``traceparent``.

    :param traceparent: a header or an environment variable.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    return found[1] if found else ""
