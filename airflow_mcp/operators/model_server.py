"""Deploy a model server to Kubernetes, wait for its pods, and go back to an earlier revision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.cluster.model_server import ServerDeployment
from airflow_mcp.cluster.objects import api_of
from airflow_mcp.core.argument import choice, flag, required_text, whole_number
from airflow_mcp.core.contract import ENV_TRACKING_URI
from airflow_mcp.core.manifests.model_server import model_server_manifests, traffic_service
from airflow_mcp.core.manifests.parts import Manifest
from airflow_mcp.core.manifests.progress import Progress
from airflow_mcp.core.manifests.spec import ModelServerSpec, read_model_server
from airflow_mcp.exceptions import (
    AuditUnavailableError,
    InvalidArgumentError,
    ManifestRefusedError,
    ModelServerFailedError,
)
from airflow_mcp.operators.base import has_template
from airflow_mcp.operators.server_deployment import ModelServerOperator, found

if TYPE_CHECKING:
    from airflow.sdk import Context

OnFailure = Literal["undo", "keep"]


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
        self.record_intent(context, {**self._names(), "image": self._spec().image_reference}, wanted)
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
        result = {**found(server), "reason": reason, "version": self._spec().version, "skipped": skipped}
        if is_ready:
            result |= {"phase": "READY"}
            self.record_end(context, result, **self._names())
            return result
        is_undone = self.on_failure == "undo" and server.undo()
        result |= {"phase": "UNDONE" if is_undone else "FAILED"}
        self.record_failed_end(context, result, **self._names())
        with self.pushed_when_raising(context, result):
            raise ModelServerFailedError(
                f"the Deployment {server.name} of model {self.model_name!r}: {reason}. {self._what_is_left(is_undone)}"
            )

    def deployment_name(self) -> str:
        """Return the name of the Deployment."""
        return self._spec().deployment_name

    def inputs(self) -> dict[str, Any]:
        """Return the objects."""
        return {"action": "deploy-server", "objects": list(model_server_manifests(self._spec()))}

    def _names(self) -> dict[str, str]:
        spec = self._spec()
        return {"model": spec.model_name, "version": spec.version}

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
        :raises AuditUnavailableError: when the audit log does not answer, unless
            ``[airflow_mcp] rollback_without_audit`` lets it go on; nothing was changed, and a retry goes on.
        """
        server, is_dry = self.server_deployment(context), flag("dry_run", self.dry_run)
        if not is_dry:
            self._record_way_back(context)
        server.go_back(self._revision(), dry_run=is_dry)
        if is_dry:
            raise AirflowSkipException(f"dry run: Deployment {server.name} would go back")
        return self.begun(context)

    def conclude(self, context: Context, progress: Progress) -> dict[str, Any]:
        """Return what runs.

        :raises ModelServerFailedError: when the pods are not ready.
        """
        server = self.server_deployment(context)
        is_ready = progress.phase == "complete"
        result = {**found(server), "reason": progress.reason, "phase": "READY" if is_ready else "FAILED"}
        if is_ready:
            self.record_end(context, result)
            return result
        self.record_failed_end(context, result)
        for line in server.evidence():
            self.log.error("%s", line)
        with self.pushed_when_raising(context, result):
            raise ModelServerFailedError(
                f"the Deployment {server.name} went back to an earlier revision, but {progress.reason}. The pods "
                "stay as they are"
            )

    def deployment_name(self) -> str:
        """Return the name of the Deployment."""
        return required_text("deployment", self.deployment)

    def inputs(self) -> dict[str, Any]:
        """Return Deployment and revision."""
        return {"action": "rollback-server", "deployment": self.deployment, "to_revision": self._revision()}

    def _record_way_back(self, context: Context) -> None:
        try:
            self.record_intent(context, {"to_revision": self._revision()}, ())
        except AuditUnavailableError as error:
            if not self.governance.rollback_without_log:
                raise
            self.log.warning("the way back goes on, and is recorded when it has ended: %s", error)

    def _revision(self) -> int:
        revision = whole_number("to_revision", self.to_revision)
        if revision < 0:
            raise InvalidArgumentError(f"to_revision must be at least 0; got {revision}")
        return revision
