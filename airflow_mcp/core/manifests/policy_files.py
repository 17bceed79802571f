"""The policies of a model server as files of a ConfigMap."""

from __future__ import annotations

import json

from airflow_mcp.core.identity import canonical_json, content_hash
from airflow_mcp.core.manifests.parts import Manifest, metadata, object_labels
from airflow_mcp.core.manifests.spec import ModelServerSpec
from airflow_mcp.core.pipeline.file.fields import SpecModel

POLICY_FOLDER = "/etc/airflow-mcp/policies"


_API_VERSION = "airflow-mcp.io/v1"


def policy_files(spec: ModelServerSpec) -> dict[str, str]:
    """Return the documents, as JSON (which is YAML too), by the names of their files; empty without policies."""
    policies = {"RollbackPolicy": spec.rollback_policy, "TrafficPolicy": spec.traffic_policy}
    return {f"{kind}.yaml": _document(kind, policy) for kind, policy in policies.items() if policy is not None}


def _document(kind: str, policy: SpecModel) -> str:
    document = {
        "apiVersion": _API_VERSION,
        "kind": kind,
        "spec": policy.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }
    return json.dumps(document, indent=2) + "\n"


def policy_name(spec: ModelServerSpec) -> str:
    """Return the name of the ConfigMap, which has a hash of its content.

    A change is a new object, so it rolls the pods, and pods of an earlier revision still find their own policies.
    """
    digest = content_hash(canonical_json(policy_files(spec)).encode()).removeprefix("sha256:")
    return f"{spec.deployment_name}-policies-{digest[:10]}"


def policy_config_map(spec: ModelServerSpec) -> Manifest:
    """Return the ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(spec, policy_name(spec), object_labels(spec)),
        "immutable": True,
        "data": policy_files(spec),
    }
