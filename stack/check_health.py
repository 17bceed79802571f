"""The health check of a service in docker-compose.yaml: exit code 0 when it answers and says that it is healthy.

Runs every few seconds in each service, so it imports nothing but the standard library (and little of that).
"""

from __future__ import annotations

import json
import sys
import urllib.request

_SECONDS = 8
"""Less than the timeout of the check, which would end it without a word."""


def is_healthy(url: str, component: str | None = None) -> bool:
    """Ask a service how it is.

    :param url: address that answers 200 when the service works.
    :param component: part of Airflow whose status the JSON answer must call ``healthy``; ``None`` accepts any answer.
    :return: whether it is healthy.
    :raises OSError: when it cannot be reached, or answers with an HTTP error.
    :raises ValueError: when the answer is no JSON.
    """
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxy.open(url, timeout=_SECONDS) as answer:
        if component is None:
            return True
        return bool((json.load(answer).get(component) or {}).get("status") == "healthy")


if __name__ == "__main__":
    try:
        sys.exit(0 if is_healthy(*sys.argv[1:3]) else f"{sys.argv[2]} is not healthy")
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
