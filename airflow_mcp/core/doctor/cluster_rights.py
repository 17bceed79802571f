"""Which rights Airflow needs in the namespace of its pods, and which are missing."""

from __future__ import annotations

import json
from collections.abc import Mapping

from airflow_mcp.core.doctor.diagnosis import Diagnosis, Level

RIGHTS: Mapping[str, tuple[str, ...]] = {
    "pods": ("create", "get", "list", "patch", "delete"),
    "pods/log": ("get",),
    "configmaps": ("create", "update", "patch", "delete"),
    "secrets": ("create", "update", "patch", "delete"),
    "events": ("list", "watch"),
    "services": ("create",),
}
"""Verbs that workers and triggerer need in the namespace of the pods, by resource."""
_CONVENIENT = {("events", "watch"): "", ("services", "create"): "; only for trainings on several pods (replicas)"}
"""Rights that are optional, and what they are for."""


def judge_rights(allowed: Mapping[tuple[str, str], bool], namespace: str) -> list[Diagnosis]:
    """Judge the rights in a namespace, one finding per resource.

    :param allowed: (resource, verb) to whether it is allowed.
    :param namespace: the namespace, for the message.
    """
    findings = []
    for resource, verbs in RIGHTS.items():
        missing = [verb for verb in verbs if not allowed[resource, verb]]
        if not missing:
            findings.append(Diagnosis(f"right: {resource}", "ok", ", ".join(verbs)))
            continue
        level: Level = "warning" if all((resource, verb) in _CONVENIENT for verb in missing) else "problem"
        advice = f"add verbs {json.dumps(missing)} on {resource} to the role of Airflow's account (docs/kubernetes.md)"
        purpose = "".join(_CONVENIENT.get((resource, verb), "") for verb in missing)
        says = f"may not {', '.join(missing)} in namespace {namespace!r}{purpose}"
        findings.append(Diagnosis(f"right: {resource}", level, says, advice))
    return findings
