"""Hook for an MLflow tracking server and model registry, over its REST API.

MLflow's own client is not used: importing it takes seconds and a hundred megabytes in every task process.
"""

from __future__ import annotations

import dataclasses
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from airflow.sdk import BaseHook
from airflow.sdk.log import amask_secret, mask_secret

from airflow_mcp.core.contract import ENV_TRACKING_URI
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.mlflow_versions import why_too_old
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.mlflow_client.settings import MlflowSettings, settings_from_connection
from airflow_mcp.mlflow_client.transport import AsyncDriver, SyncDriver
from airflow_mcp.mlflow_client.wire import Operation

T = TypeVar("T")


class MlflowHook(BaseHook, MlflowOperations):
    """Hook for an MLflow server.

    Every operation has two forms: ``hook.get_run(run_id)`` blocks, ``await hook.get_run.aio(run_id)`` does not. The
    function of the same name in :mod:`airflow_mcp.mlflow_client.api` or :mod:`airflow_mcp.mlflow_client.registry_api`
    documents its arguments, result and errors. The blocking form keeps one client until :meth:`close`; the other opens
    one per call, so a hook may be used from any event loop.

    :param mlflow_conn_id: id of a connection of type ``mlflow``.
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.mlflow_conn_id = mlflow_conn_id
        self._settings: MlflowSettings | None = None
        self._sync_driver: SyncDriver | None = None
        self._async_driver: AsyncDriver | None = None

    def get_conn(self) -> Self:
        """Return the hook itself, which is the client."""
        return self

    @property
    def settings(self) -> MlflowSettings:
        """Address and credentials from the connection, which is read once.

        :raises InvalidArgumentError: when a field of the connection is not usable.
        """
        if self._settings is None:
            settings = settings_from_connection(self.get_connection(self.mlflow_conn_id))
            for secret in settings.secrets:
                mask_secret(secret)
            self._settings = settings
        return self._settings

    async def asettings(self) -> MlflowSettings:
        """Return :attr:`settings` without blocking the event loop."""
        if self._settings is None:
            settings = settings_from_connection(await self.aget_connection(self.mlflow_conn_id))
            for secret in settings.secrets:
                await amask_secret(secret)
            self._settings = settings
        return self._settings

    def perform(self, operation: Operation[T]) -> T:
        """Perform an operation and return its result; blocks."""
        if self._sync_driver is None:
            self._sync_driver = SyncDriver(self.settings)
        return self._sync_driver.perform(operation)

    async def aperform(self, operation: Operation[T]) -> T:
        """Perform an operation and return its result, without blocking the event loop."""
        if self._async_driver is None:
            self._async_driver = AsyncDriver(await self.asettings())
        return await self._async_driver.perform(operation)

    def close(self) -> None:
        """Close the client of the blocking form; the hook stays usable."""
        if self._sync_driver is not None:
            self._sync_driver.close()

    def __enter__(self) -> Self:
        """Return the hook."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the hook."""
        self.close()

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection once, without raising.

        :return: whether MLflow answers and permits reading, and the server's version or the problem.
        """
        try:
            settings = dataclasses.replace(self.settings, retries=0)
            driver = SyncDriver(settings)
            try:
                version = driver.perform(mlflow_api.check_server())
            finally:
                driver.close()
        except Exception as error:  # the connection form shows any error
            return False, str(error)
        if problem := why_too_old(version):
            return False, f"{settings.base_url}: {problem}"
        return True, f"MLflow {version or '(unknown version)'} answers at {settings.base_url}"

    def run_url(self, run: Run) -> str:
        """Return the address of a run in MLflow's UI."""
        experiment, run_id = quote(run.experiment_id, safe=""), quote(run.run_id, safe="")
        return self._page(f"experiments/{experiment}/runs/{run_id}")

    def artifact_url(self, run: Run, path: str) -> str:
        """Return the address of the page of MLflow's UI that shows an artifact of a run."""
        experiment, run_id = quote(run.experiment_id, safe=""), quote(run.run_id, safe="")
        return self._page(f"experiments/{experiment}/runs/{run_id}/artifacts/{quote(path)}")

    def model_version_url(self, name: str, version: str) -> str:
        """Return the address of a model version in MLflow's UI."""
        return self._page(f"models/{quote(name, safe='')}/versions/{quote(version, safe='')}")

    def _page(self, route: str) -> str:
        workspace = self.settings.workspace
        return f"{self.settings.ui_url}/#/{route}" + (f"?workspace={workspace}" if workspace else "")

    def workload_environment(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the environment that lets MLflow's own client reach the same server from a workload.

        :return: plain variables, and secret ones that belong in a Kubernetes Secret.
        """
        settings = self.settings
        plain, secret = {ENV_TRACKING_URI: settings.workload_url or settings.base_url}, {}
        if settings.verify is False:
            plain["MLFLOW_TRACKING_INSECURE_TLS"] = "true"
        elif isinstance(settings.verify, str):
            plain["MLFLOW_TRACKING_SERVER_CERT_PATH"] = settings.verify
        if settings.workspace:
            plain["MLFLOW_WORKSPACE"] = settings.workspace
        if settings.username:
            secret["MLFLOW_TRACKING_USERNAME"] = settings.username
            secret["MLFLOW_TRACKING_PASSWORD"] = settings.password
        if settings.token:
            secret["MLFLOW_TRACKING_TOKEN"] = settings.token
        return plain, secret
