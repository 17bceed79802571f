"""Deploy a model server to Kubernetes, wait for its pods, and go back to an earlier revision."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp import settings
from airflow_mcp.cluster.model_server import ServerDeployment
from airflow_mcp.cluster.objects import ClusterObjects, api_of
from airflow_mcp.core.argument import choice, flag, required_text, whole_number
from airflow_mcp.core.contract import ENV_TRACKING_URI
from airflow_mcp.core.identity import identity
from airflow_mcp.core.manifests.model_server import model_server_manifests, traffic_service
from airflow_mcp.core.manifests.parts import Manifest
from airflow_mcp.core.manifests.progress import Progress
from airflow_mcp.core.manifests.spec import ModelServerSpec, read_model_server
from airflow_mcp.core.workload.pod_options import PodOptions, pod_options
from airflow_mcp.exceptions import InvalidArgumentError, ManifestRefusedError, ModelServerFailedError
from airflow_mcp.operators.base import ModelControlOperator, has_template, is_deferrable, no_result
from airflow_mcp.triggers.model_server import DEFAULT_POLL_SECONDS, ModelServerTrigger
from airflow_mcp.triggers.watch import checked_poll_seconds

if TYPE_CHECKING:
    from airflow.sdk import Context

OnFailure = Literal["undo", "keep"]
_TIMEOUT = timedelta(seconds=300)


class ModelServerOperator(ModelControlOperator):
    """Base of the operators that change the Deployment of a model server and wait for its pods.

    :param namespace: namespace; empty takes that of ``kubernetes`` (templated).
    :param kubernetes: options for the cluster, as for workloads (templated).
    :param timeout: how long the pods may take to become ready.
    :param dry_run: let Kubernetes check everything, change nothing, and skip (templated).
    :param poll_interval: seconds between two looks, at least 1.
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    def __init__(
        self,
        *,
        namespace: str = "",
        kubernetes: Mapping[str, Any] | None = None,
        timeout: timedelta = _TIMEOUT,
        dry_run: bool | str = False,
        poll_interval: float = DEFAULT_POLL_SECONDS,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.namespace = namespace
        self.kubernetes = kubernetes
        self.timeout = timeout
        self.dry_run = dry_run
        self.poll_interval = checked_poll_seconds(poll_interval)
        self.deferrable = is_deferrable(deferrable)
        if timeout <= timedelta(0):
            raise InvalidArgumentError(f"timeout must be more than 0; got {timeout!r}")

    def conclude(self, context: Context, progress: Progress) -> dict[str, Any]:
        """End the task when the pods are ready, or will not be in time.

        :param progress: how the rollout stands.
        """
        raise TypeError(f"{type(self).__name__} does not implement conclude()")

    def resume(self, context: Context, event: Mapping[str, Any] | None, deadline: float) -> dict[str, Any]:
        """Go on from what the cluster says, which may have changed since the event.

        :raises FailedError: when the trigger failed or ended without an event; a retry goes on.
        """
        with self.at_the_edge():
            if event is None or event.get("status") != "due":
                raise no_result(event)
            return self.finish(self.wait_for_pods(context, deadline))

    def wait_for_pods(self, context: Context, deadline: float) -> dict[str, Any]:
        """Wait for the pods, in the triggerer or here, and end the task.

        :param deadline: when the time is over, in Unix time.
        """
        server, told = self.server_deployment(context), ""
        while (progress := server.progress()).phase == "waiting":
            if time.time() >= deadline:
                seconds = round(self.timeout.total_seconds())
                progress = Progress("failed", f"not ready after {seconds} s: {progress.reason}")
                break
            if self.deferrable:
                self.defer(trigger=self._trigger(server, deadline), method_name="resume", kwargs={"deadline": deadline})
            if progress.reason != told:
                told = progress.reason
                self.log.info("%s", told)
            time.sleep(self.poll_interval)
        return self.conclude(context, progress)

    def begun(self, context: Context) -> dict[str, Any]:
        """Wait for the pods of a change that was made just now."""
        return self.wait_for_pods(context, time.time() + self.timeout.total_seconds())

    def deployment_name(self) -> str:
        """Return the name of the Deployment."""
        raise TypeError(f"{type(self).__name__} does not implement deployment_name()")

    def inputs(self) -> dict[str, Any]:
        """Return what decides the result of the task, besides the task itself."""
        raise TypeError(f"{type(self).__name__} does not implement inputs()")

    def server_deployment(self, context: Context) -> ServerDeployment:
        """Return the Deployment."""
        key = identity(self.task_key(context), self.inputs())
        return ServerDeployment(self.cluster, self.deployment_name(), key, log=self.log)

    def _options(self) -> PodOptions:
        named = {"namespace": self.namespace} if self.namespace else {}
        return pod_options(settings.kubernetes_defaults(), self.kubernetes, named)

    @cached_property
    def cluster(self) -> ClusterObjects:
        """The namespace, connected as for workloads."""
        from airflow_mcp.workloads.kubernetes_arguments import bare_pod_operator  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_pod import namespace_of  # noqa: PLC0415

        with translated_errors(lambda: "the connection to Kubernetes"):
            pod = bare_pod_operator(self._options(), task=self)
            return ClusterObjects(pod.client.api_client, namespace_of(pod))

    def _trigger(self, server: ServerDeployment, deadline: float) -> ModelServerTrigger:
        options = self._options()
        return ModelServerTrigger(
            deployment={"name": server.name, "namespace": server.cluster.namespace},
            connection={
                "conn_id": options.kubernetes_conn_id,
                "in_cluster": options.in_cluster,
                "cluster_context": options.cluster_context,
                "config_file": options.config_file,
            },
            deadline=deadline,
            poll_seconds=self.poll_interval,
        )


class DeployModelServerOperator(ModelServerOperator):
    """Deploy a model server, wait until its pods are ready, and send it the requests.

    The objects are applied on the server's side: fields of other owners stay as they are. The Service for requests is
    applied when the pods are ready, so with ``track`` requests change sides only then. When the pods do not become
    ready, the task logs what they say, goes back to the revision before, and fails without a retry.

    XCom, also when the task fails: ``deployment``, ``namespace``, ``phase`` (``READY``, ``UNDONE`` or ``FAILED``),
    ``reason``, ``version`` (empty when the server follows the champion), ``revision``, ``replica_set``, ``replicas``
    (that are ready), ``image``, ``image_digest`` (empty when no pod has started), ``skipped`` (objects whose API the
    cluster does not have).

    :param model_name: registered model (templated).
    :param image: image of the server; without tag and digest, the version is the tag (templated).
    :param version: number of the version to serve; empty follows the alias ``champion`` (templated).
    :param server: further fields, as in ``docs/serving/kubernetes.md`` (templated).
    :param on_failure: ``undo`` goes back to the revision before, ``keep`` leaves the pods as they are.
    :param force: take over fields that somebody else has set to something else (templated).
    :param skip_missing_apis: leave out objects whose API the cluster does not have, instead of refusing.
    """

    template_fields: Sequence[str] = (
        "model_name",
        "image",
        "version",
        "namespace",
        "server",
        "kubernetes",
        "force",
        "dry_run",
    )
    ui_color = "#d8e8cf"

    def __init__(
        self,
        *,
        model_name: str,
        image: str,
        version: str = "",
        server: Mapping[str, Any] | None = None,
        on_failure: OnFailure = "undo",
        force: bool | str = False,
        skip_missing_apis: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.image = image
        self.version = version
        self.server = server
        self.on_failure = choice("on_failure", on_failure, get_args(OnFailure))
        self.force = force
        self.skip_missing_apis = skip_missing_apis
        if not has_template([model_name, image, version, server]):
            self._read_server("http://not-known-yet")

    def act(self, context: Context) -> dict[str, Any]:
        """Apply the objects, and wait for the pods.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises ManifestRefusedError: when Kubernetes refuses an object; nothing was applied.
        :raises ModelServerFailedError: when the pods do not become ready, or somebody else changed the Deployment.
        :raises ClusterUnreachableError: when Kubernetes does not answer, or refuses the right; a retry goes on.
        """
        wanted, skipped = self._with_apis()
        server, force = self.server_deployment(context), flag("force", self.force)
        if flag("dry_run", self.dry_run):
            server.check(wanted, force=force)
            raise AirflowSkipException(f"dry run: Deployment {server.name} would be changed")
        if skipped:
            self.log.warning("Left out, because the cluster does not have their API: %s", ", ".join(skipped))
        service = traffic_service(self._spec(), wanted)
        server.change([each for each in wanted if each is not service], force=force)
        return self.begun(context)

    def conclude(self, context: Context, progress: Progress) -> dict[str, Any]:
        """Send the requests when the pods are ready; otherwise log what they say, and take the change back.

        :raises ModelServerFailedError: when they are not ready.
        """
        server, (wanted, skipped) = self.server_deployment(context), self._with_apis()
        is_ready, reason = progress.phase == "complete", progress.reason
        if is_ready:
            server.send_requests(traffic_service(self._spec(), wanted), force=flag("force", self.force))
        else:
            reason = self._logged_evidence(server, reason)
        result = {**_found(server), "reason": reason, "version": self._spec().version, "skipped": skipped}
        if is_ready:
            return {**result, "phase": "READY"}
        is_undone = self.on_failure == "undo" and server.undo()
        with self.pushed_when_raising(context, {**result, "phase": "UNDONE" if is_undone else "FAILED"}):
            raise ModelServerFailedError(
                f"Deployment {server.name} of model {self.model_name!r}: {reason}. {self._what_is_left(is_undone)}"
            )

    def deployment_name(self) -> str:
        """Return the name of the Deployment."""
        return self._spec().deployment_name

    def inputs(self) -> dict[str, Any]:
        """Return the objects."""
        return {"action": "deploy-server", "objects": list(model_server_manifests(self._spec()))}

    def _spec(self) -> ModelServerSpec:
        address = self.hook.workload_environment()[0][ENV_TRACKING_URI]
        return self._read_server(address)

    def _read_server(self, tracking_uri: str) -> ModelServerSpec:
        given = dict(self.server or {})
        named = {"model_name": self.model_name, "image": self.image, "version": str(self.version or "")}
        if twice := sorted(given.keys() & {*named, "namespace"}):
            raise InvalidArgumentError(f"server: {', '.join(twice)} must be given as an argument of the operator")
        return read_model_server({"tracking_uri": tracking_uri, **given, **named})

    def _with_apis(self) -> tuple[list[Manifest], list[str]]:
        """Return the objects that the cluster knows, and the names of the others."""
        manifests = list(model_server_manifests(self._spec()))
        missing = self.cluster.missing_apis(manifests)
        if missing and not self.skip_missing_apis:
            raise ManifestRefusedError(
                f"the cluster does not have {', '.join(missing)}. Nothing was applied. Use a newer cluster, install "
                "what brings this API, or set skip_missing_apis"
            )
        return [each for each in manifests if api_of(each) not in missing], missing

    def _logged_evidence(self, server: ServerDeployment, reason: str) -> str:
        lines = server.evidence()
        for line in lines:
            self.log.error("%s", line)
        return f"{reason}; {lines[0]}" if lines else reason

    def _what_is_left(self, is_undone: bool) -> str:
        if is_undone:
            return "The revision before answers again"
        if self.on_failure == "keep":
            return "The pods stay as they are, and those of the revision before still answer"
        return "There is no revision before to go back to, so the pods stay as they are"


class RollbackModelServerOperator(ModelServerOperator):
    """Change the Deployment of a model server back to an earlier revision: image, environment, everything of its pods.

    It does not move the alias ``champion``: a server that follows the registry still serves what that names.

    XCom: ``deployment``, ``namespace``, ``phase`` (``READY`` or ``FAILED``), ``reason``, ``revision`` (a new number:
    Kubernetes counts on), ``replica_set``, ``replicas`` (that are ready), ``image``, ``image_digest``.

    :param deployment: name of the Deployment (templated).
    :param to_revision: the revision, as ``kubectl rollout history`` shows it; 0 takes the one before the present one
        (templated).
    """

    template_fields: Sequence[str] = ("deployment", "to_revision", "namespace", "kubernetes", "dry_run")
    ui_color = "#f0dcc8"

    def __init__(self, *, deployment: str, to_revision: int | str = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deployment = deployment
        self.to_revision = to_revision
        if not has_template(to_revision):
            self._revision()

    def act(self, context: Context) -> dict[str, Any]:
        """Change the Deployment back, and wait for the pods.

        :raises InvalidArgumentError: when there is no such Deployment or revision; nothing was changed.
        :raises ModelServerFailedError: when the pods do not become ready, or somebody else changed the Deployment.
        :raises ClusterUnreachableError: when Kubernetes does not answer, or refuses the right; a retry goes on.
        """
        server, is_dry = self.server_deployment(context), flag("dry_run", self.dry_run)
        server.go_back(self._revision(), dry_run=is_dry)
        if is_dry:
            raise AirflowSkipException(f"dry run: Deployment {server.name} would go back")
        return self.begun(context)

    def conclude(self, context: Context, progress: Progress) -> dict[str, Any]:
        """Return what runs.

        :raises ModelServerFailedError: when the pods are not ready.
        """
        server = self.server_deployment(context)
        result = {**_found(server), "reason": progress.reason}
        if progress.phase == "complete":
            return {**result, "phase": "READY"}
        for line in server.evidence():
            self.log.error("%s", line)
        with self.pushed_when_raising(context, {**result, "phase": "FAILED"}):
            raise ModelServerFailedError(
                f"Deployment {server.name} went back to an earlier revision, but {progress.reason}. The pods stay as "
                "they are"
            )

    def deployment_name(self) -> str:
        """Return the name of the Deployment."""
        return required_text("deployment", self.deployment)

    def inputs(self) -> dict[str, Any]:
        """Return Deployment and revision."""
        return {"action": "rollback-server", "deployment": self.deployment, "to_revision": self._revision()}

    def _revision(self) -> int:
        revision = whole_number("to_revision", self.to_revision)
        if revision < 0:
            raise InvalidArgumentError(f"to_revision must be at least 0; got {revision}")
        return revision


def _found(server: ServerDeployment) -> dict[str, Any]:
    return {"deployment": server.name, "namespace": server.cluster.namespace, **server.deployed()._asdict()}
