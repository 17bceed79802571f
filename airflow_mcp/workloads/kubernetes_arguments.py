"""Builds pod operators from a workload and the options of its pod."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

from airflow_mcp.core.contract import ENV_RUN_ID
from airflow_mcp.core.credential_shapes import is_credential
from airflow_mcp.core.workload.pod import pod_manifest
from airflow_mcp.core.workload.replicas import as_leader
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.kubernetes_pod import WorkloadPodOperator

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_mcp.core.workload.definition import Workload
    from airflow_mcp.core.workload.pod_options import PodOptions

_STARTUP_CHECK_SECONDS = 2
"""Seconds between two looks at a pod that has not started; at the default of 5, short pods are noticed late."""
_ON_FINISH = {"delete": "delete_pod", "keep_failed": "delete_succeeded_pod", "keep": "keep_pod"}
_OWNED = frozenset(
    {
        *("task_id", "name", "namespace", "full_pod_spec", "pod_template_file", "deferrable", "kubernetes_conn_id"),
        *("random_name_suffix", "in_cluster", "config_file", "cluster_context", "do_xcom_push", "get_logs"),
        *("startup_timeout_seconds", "schedule_timeout_seconds", "poll_interval", "on_finish_action"),
        *("base_container_name", "termination_grace_period", "log_pod_spec_on_failure", "durable", "image", "cmds"),
        *("arguments", "reattach_on_restart", "logging_interval"),
    }
)


def workload_pod_operator(
    workload: Workload,
    options: PodOptions,
    *,
    name: str,
    task: BaseOperator,
    kind: type[WorkloadPodOperator] = WorkloadPodOperator,
) -> WorkloadPodOperator:
    """Build the pod operator of one workload.

    :param workload: the workload.
    :param options: options of its pod.
    :param name: name of a new pod, its ConfigMap and its Secret.
    :param task: the task that runs it.
    :param kind: class of the operator.
    """
    run_id = workload.env.get(ENV_RUN_ID, "")
    manifest = pod_manifest(workload, options, name=name, run_id=run_id, companion=name)
    manifest = as_leader(manifest, workload, options)
    operator = _build(kind, options, task, name=name, full_pod_spec=PodGenerator.deserialize_model_dict(manifest))
    operator.workload = workload
    return operator


def bare_pod_operator(options: PodOptions, *, task: BaseOperator) -> WorkloadPodOperator:
    """Build a pod operator that only looks for pods."""
    return _build(WorkloadPodOperator, options, task, name="probe")


def _build(
    kind: type[WorkloadPodOperator], options: PodOptions, task: BaseOperator, **arguments: Any
) -> WorkloadPodOperator:
    _check_pod_kwargs(options.pod_kwargs)
    operator = kind(
        task_id=task.task_id,
        namespace=options.namespace,
        kubernetes_conn_id=options.kubernetes_conn_id,
        in_cluster=options.in_cluster,
        config_file=options.config_file,
        cluster_context=options.cluster_context,
        random_name_suffix=False,
        deferrable=options.deferrable,
        durable=False,  # find_workload_pod attaches by identity
        execution_timeout=task.execution_timeout,
        startup_timeout_seconds=options.startup_timeout,
        schedule_timeout_seconds=options.schedule_timeout,
        poll_interval=options.poll_interval,
        logging_interval=options.log_interval,
        pod_template_file=options.pod_template_file,
        on_finish_action=_ON_FINISH[options.on_finish],
        termination_grace_period=options.termination_grace_period,
        log_pod_spec_on_failure=False,  # it would print the environment
        container_name_log_prefix_enabled=False,
        **arguments,
        **{"startup_check_interval_seconds": _STARTUP_CHECK_SECONDS, **options.pod_kwargs},
    )
    operator.replicas = options.replicas
    return operator


def _check_pod_kwargs(given: dict[str, Any]) -> None:
    if found := sorted(name for name, value in _plain_variables(given.get("env_vars")) if is_credential(name, value)):
        raise InvalidArgumentError(
            f"kubernetes.pod_kwargs.env_vars must have no credential; got {', '.join(found)}, whose value is not "
            "shown. Use connection_env, or kubernetes.secrets"
        )
    known = set(inspect.signature(KubernetesPodOperator.__init__).parameters) - {"self", "kwargs"}
    unknown, owned = sorted(given.keys() - known), sorted(given.keys() & _OWNED)
    if unknown or owned:
        raise InvalidArgumentError(
            "kubernetes.pod_kwargs: "
            + "; ".join(
                part
                for part in (
                    f"KubernetesPodOperator does not know {', '.join(unknown)}" if unknown else "",
                    f"{', '.join(owned)} are set by other options" if owned else "",
                )
                if part
            )
        )


def _plain_variables(given: Any) -> Iterator[tuple[str, str]]:
    """Yield the variables that have a value, as ``KubernetesPodOperator`` takes them: a mapping or a list."""
    for each in given.items() if isinstance(given, Mapping) else given or ():
        name, value = each if isinstance(each, tuple) else _of_object(each)
        if value is not None:
            yield str(name), str(value)


def _of_object(variable: Any) -> tuple[Any, Any]:
    if isinstance(variable, Mapping):
        return variable.get("name"), variable.get("value")
    return getattr(variable, "name", ""), getattr(variable, "value", None)
