"""Runs inside a pod, as ``python -c``, and prints its findings as one line of JSON. Standard library only."""

from __future__ import annotations

import json
import os
import platform
import ssl
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("airflow-mcp", "mlflow", "evidently", "pandas", "scikit-learn")
TIMEOUT_SECONDS = 10


def main() -> None:
    """Print the report, with the fields of ``ProbeReport``."""
    report = {
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "user_id": os.getuid(),
        "root_is_writable": is_writable("/"),
        "scratch_is_writable": is_writable("/scratch"),
        "has_token": Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists(),
    }
    url = os.environ.get("MLFLOW_TRACKING_URI", "")
    print(json.dumps({**report, **(ask(url) if url else {})}))


def version_of(name: str) -> str | None:
    """Return the version of an installed package; None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_writable(folder: str) -> bool:
    """Return whether a file can be created in a folder."""
    path = Path(folder) / f".airflow-mcp-probe-{os.getpid()}"
    try:
        path.touch()
        path.unlink()
    except OSError:
        return False
    return True


def ask(url: str) -> dict[str, Any]:
    """Request the health and the version of MLflow."""
    try:
        with fetch(f"{url}/health") as answer:
            status = answer.status
        with fetch(f"{url}/version") as answer:
            version = answer.read(100).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        return {"mlflow_status": error.code, "mlflow_error": error.read(300).decode(errors="replace").strip()}
    except OSError as error:
        return {"mlflow_error": str(getattr(error, "reason", error))}
    return {"mlflow_status": status, "mlflow_version": version if version[:1].isdigit() else ""}


def fetch(url: str) -> Any:
    """Open a URL with the CA bundle that MLflow's client would use."""
    context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None)
    return urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS, context=context)  # noqa: S310  (the operator's own URL)


if __name__ == "__main__":
    main()
