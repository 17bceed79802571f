"""The options of a workload's pod, as users write them: on an operator or in a file of defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from airflow_mcp.core.argument import read_argument
from airflow_mcp.core.document import Document
from airflow_mcp.exceptions import InvalidArgumentError

OnFinish = Literal["delete", "keep_failed", "keep"]
Target = Literal["pods", "job", "train_job", "ray_job"]


class SecretVariable(Document):
    """An environment variable whose value is a key of a Kubernetes Secret."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    secret: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)]


class VolumeOption(Document):
    """A volume with exactly one source, and where it is mounted."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    mount_path: Annotated[str, Field(pattern=r"^/.+")]
    read_only: bool = True
    sub_path: str | None = None
    claim: str | None = None
    """Name of a PersistentVolumeClaim."""
    host_path: str | None = None
    """Folder of the node; for one-node clusters and tests."""
    config_map: str | None = None
    secret: str | None = None
    empty_dir: bool = False

    def source(self) -> dict[str, Any]:
        """Return the source of the volume in the form of Kubernetes."""
        sources: list[dict[str, Any]] = []
        if self.claim:
            sources.append({"persistentVolumeClaim": {"claimName": self.claim, "readOnly": self.read_only}})
        if self.host_path:
            sources.append({"hostPath": {"path": self.host_path, "type": "Directory"}})
        if self.config_map:
            sources.append({"configMap": {"name": self.config_map}})
        if self.secret:
            sources.append({"secret": {"secretName": self.secret}})
        if self.empty_dir:
            sources.append({"emptyDir": {}})
        if len(sources) != 1:
            raise InvalidArgumentError(
                f"kubernetes.volumes: {self.name!r} must have exactly one of claim, host_path, config_map, secret and "
                f"empty_dir; got {len(sources)}"
            )
        return sources[0]


class PodOptions(Document):
    """Options of one pod; operators and the file of defaults may set each of them."""

    image: str | None = None
    """Container image of built-in steps and scripts; an operator's ``image`` takes precedence."""
    source_image: str | None = None
    """Container image that fetches code and DVC data before the workload starts; None takes ``image``."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    namespace: str | None = None
    """None takes the connection's, then that of the Airflow pod, then ``default``."""
    kubernetes_conn_id: str | None = "kubernetes_default"
    in_cluster: bool | None = None
    config_file: str | None = None
    """Path of a kubeconfig on the Airflow worker; None takes the connection's."""
    cluster_context: str | None = None
    deferrable: bool = True
    """Wait without a worker slot."""
    cpu: str = "1"
    memory: str = "2Gi"
    """Request and limit unless the operator sets them (Kubernetes quantities)."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Number of pods that train together; each gets its rank in environment variables."""
    rendezvous_port: Annotated[int, Field(ge=1024, le=65535)] = 29500
    """Port of rank 0 for the other ranks."""
    target: Target = "pods"
    """Who creates the pods of a training: Airflow, or the controller of a Job, a TrainJob or a RayJob."""
    training_runtime: Annotated[str, Field(min_length=1)] = "torch-distributed"
    """ClusterTrainingRuntime of a TrainJob."""
    ray_version: str | None = None
    """Version of Ray in the image of a RayJob; KubeRay does not need it for a cluster of a fixed size."""
    gpu_resource: str = "nvidia.com/gpu"
    gpu_tolerations: tuple[dict[str, Any], ...] = (
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    )
    """Added when the workload asks for GPUs."""
    gpu_node_selector: dict[str, str] = Field(default_factory=dict)
    """Added when the workload asks for GPUs."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = Field(default_factory=dict)
    secrets: tuple[SecretVariable, ...] = ()
    env_from_config_maps: tuple[str, ...] = ()
    env_from_secrets: tuple[str, ...] = ()
    volumes: tuple[VolumeOption, ...] = ()
    service_account: str | None = None
    service_account_token: bool = False
    """Whether to mount a token of the service account."""
    queue: str | None = None
    """Kueue local queue; written as a label."""
    priority_class: str | None = None
    pod_template_file: str | None = None
    """Pod template on the Airflow worker; its additions are kept, its scalars are overridden."""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    startup_timeout: Annotated[int, Field(ge=1)] = 300
    """Seconds from scheduling within which the container must start."""
    schedule_timeout: Annotated[int, Field(ge=1)] = 600
    """Seconds within which the pod must be scheduled."""
    poll_interval: Annotated[float, Field(gt=0)] = 5
    """Seconds between two looks at the pod."""
    log_interval: Annotated[int, Field(ge=1)] | None = 30
    """Seconds between two looks at the log of a deferred pod; None copies it when the pod has ended."""
    termination_grace_period: Annotated[int, Field(ge=0)] = 10
    """Seconds between SIGTERM and SIGKILL."""
    on_finish: OnFinish = "delete"
    """What happens to a finished pod. Logs are in the task log, results in MLflow."""
    pod_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of ``KubernetesPodOperator``, by its names."""


def pod_options(*layers: Mapping[str, Any] | None) -> PodOptions:
    """Merge layers of options, of which later ones take precedence, and check them.

    :param layers: mappings of :class:`PodOptions` fields; None is skipped.
    :raises InvalidArgumentError: listing every problem.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer or {})
    return read_argument(PodOptions, "kubernetes", merged)
