"""Prints the OpenAPI document: ``python -m airflow_mcp.publisher > docs/publisher-openapi.json``."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

from airflow_mcp.publisher.app import create_api, openapi_document


async def _nobody() -> None:
    """Stands for Airflow's authentication: the document does not depend on it."""


def main() -> None:
    """Write the document to standard output."""
    services: Any = SimpleNamespace(access=SimpleNamespace(policy=None))  # the routes are described, not called
    json.dump(openapi_document(create_api(services, _nobody, services, 1)), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
