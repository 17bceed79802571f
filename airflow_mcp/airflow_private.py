"""Everything this package uses of Airflow and its providers that is private there, in one place.

An upgrade may remove such a name without notice. ``tests/unit/test_airflow_private.py`` checks that each still exists
and does what is expected here, and that no other module reads a private name of an Airflow object.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OVERRIDDEN: Mapping[str, tuple[str, ...]] = {
    "airflow.providers.cncf.kubernetes.operators.pod.KubernetesPodOperator": ("_killed", "_write_logs"),
    "airflow.providers.cncf.kubernetes.triggers.pod.KubernetesPodTrigger": ("_fired_event", "_get_pod"),
    "airflow.providers.cncf.kubernetes.utils.pod_manager.AsyncPodManager": ("_hook",),
    "airflow.providers.cncf.kubernetes.utils.pod_manager.PodManager": ("_client",),
}
"""Private methods and attributes that our subclasses in ``workloads`` and ``triggers`` override or read, by class."""


def is_resumed(task_instance: Any) -> bool:
    """Return whether a task resumes after a deferral, which Airflow shows only to its task runner.

    :param task_instance: ``context["ti"]``.
    """
    server = getattr(task_instance, "_ti_context_from_server", None)  # task instances in unit tests have none
    return bool(getattr(server, "next_method", None))


def asset_state_stores(accessors: Any) -> list[Any]:
    """Return the state stores of all assets that a trigger serves; Airflow's accessor returns that of one asset only.

    :param accessors: ``asset_state_store`` of an event trigger.
    """
    return [*accessors._by_name.values(), *accessors._by_uri.values()]


def incluster_namespace(operator: Any) -> str | None:
    """Return the namespace of the pod that this process runs in, as the pod operator finds it; None outside a cluster.

    :param operator: a ``KubernetesPodOperator``.
    """
    namespace: str | None = operator._incluster_namespace
    return namespace


def calling_folder() -> Path:
    """Return the folder of the Python file that called the function that calls this one.

    Airflow has no public function that resolves a path relative to a Dag file; its own ``DAG`` inspects the frame too.
    """
    file = sys._getframe(2).f_globals.get("__file__")
    return Path(file).absolute().parent if file else Path.cwd()
