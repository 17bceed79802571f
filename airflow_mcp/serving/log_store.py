"""Whether the address of the prediction log can be used, as far as that is known without connecting to the store."""

from __future__ import annotations

import importlib.util

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.serving.prediction_log import ENV_LOG_URI
from airflow_mcp.exceptions import InvalidArgumentError


def check_log_uri(uri: str) -> None:
    """Check that fsspec knows the kind of an address, and that the package for it is installed.

    The store itself is not asked: it may be away when the server starts.

    :param uri: the address; empty for no log.
    :raises InvalidArgumentError: when segments could never be stored there.
    """
    if not uri:
        return
    try:
        from fsspec.core import split_protocol  # type: ignore[import-untyped]  # noqa: PLC0415
        from fsspec.registry import (  # type: ignore[import-untyped]  # noqa: PLC0415
            known_implementations,
            registry,
        )
    except ModuleNotFoundError:
        raise InvalidArgumentError(
            f"{ENV_LOG_URI} needs fsspec, which is not installed: pip install 'airflow-mcp[runtime]'. "
            "Nothing was started"
        ) from None
    for part in uri.split("::"):
        protocol = split_protocol(part)[0] or ("file" if part == uri else part)
        if protocol in registry:
            continue
        if protocol not in known_implementations:
            raise InvalidArgumentError(
                f"{ENV_LOG_URI} must be a path or an address that fsspec can use; got {public_uri(uri)!r}. "
                "Nothing was started"
            )
        package = known_implementations[protocol]["class"].partition(".")[0]
        if importlib.util.find_spec(package) is None:
            raise InvalidArgumentError(
                f"{ENV_LOG_URI} {public_uri(uri)!r} needs the package {package}, which is not installed. "
                "Nothing was started"
            )
