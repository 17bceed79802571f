"""Who may reach a model server, and what it may reach."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow_mcp.core.manifests.parts import PORT, Manifest, metadata, object_labels, selector
from airflow_mcp.core.manifests.spec import ModelServerSpec, NetworkRule

_DNS, _HTTP, _HTTPS = 53, 80, 443
_LABEL_NAMESPACE = "kubernetes.io/metadata.name"
"""Kubernetes itself puts it on every namespace, since 1.22."""


def network_policy(spec: ModelServerSpec, rule: NetworkRule) -> Manifest:
    """Return the NetworkPolicy: requests and scrapes come in; DNS, MLflow and the named ports go out.

    :param spec: the model server.
    :param rule: who may reach it, and which ports it may reach.
    """
    incoming = {"ports": [{"port": PORT, "protocol": "TCP"}]}
    if rule.from_namespaces:
        names = {"key": _LABEL_NAMESPACE, "operator": "In", "values": list(rule.from_namespaces)}
        incoming["from"] = [{"namespaceSelector": {"matchExpressions": [names]}}]
    dns = [{"port": _DNS, "protocol": protocol} for protocol in ("UDP", "TCP")]
    tcp = [{"port": port, "protocol": "TCP"} for port in sorted({*_own_ports(spec), *rule.to_ports})]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(spec, spec.deployment_name, object_labels(spec)),
        "spec": {
            "podSelector": {"matchLabels": selector(spec)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [incoming],
            "egress": [{"ports": dns}, {"ports": tcp}],
        },
    }


def _own_ports(spec: ModelServerSpec) -> set[int]:
    """Return the ports of MLflow, of the issuer of tokens, and of an object store that takes the prediction log."""
    url = urlsplit(spec.tracking_uri)
    ports = {url.port or (_HTTPS if url.scheme == "https" else _HTTP)}
    has_issuer = spec.traffic_policy is not None and spec.traffic_policy.auth is not None
    has_log = any(name.upper() == "LOG_URI" for name in spec.settings)
    return ports | ({_HTTPS} if has_issuer or has_log else set())
