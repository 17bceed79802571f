"""How Prometheus finds a model server."""

from __future__ import annotations

from airflow_mcp.core.manifests.parts import Manifest, metadata, replica_labels, replica_selector
from airflow_mcp.core.manifests.spec import ModelServerSpec

_INTERVAL_SECONDS = 15


def service_monitor(spec: ModelServerSpec) -> Manifest:
    """Return the ServiceMonitor of the Prometheus operator. It reads the headless Service, which has every replica."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(spec, spec.base_name, replica_labels(spec)),
        "spec": {
            "selector": {"matchLabels": replica_selector(spec)},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": f"{_INTERVAL_SECONDS}s"}],
        },
    }
