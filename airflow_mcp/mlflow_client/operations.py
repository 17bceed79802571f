"""Every operation of MLflow's API as a method, for the hook and for commands without Airflow."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, ParamSpec, Self, TypeVar, overload

from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client import registry_api as mlflow_registry_api
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import AsyncDriver, SyncDriver
from airflow_mcp.mlflow_client.wire import Operation

P = ParamSpec("P")
T = TypeVar("T")


class BoundOperation(Generic[P, T]):
    """An operation on one MLflow server: call it to block, or await ``aio``."""

    def __init__(self, mlflow: MlflowOperations, describe: Callable[P, Operation[T]]) -> None:
        self._mlflow = mlflow
        self._describe = describe
        functools.update_wrapper(self, describe)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Perform the operation and return its result."""
        return self._mlflow.perform(self._describe(*args, **kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Perform the operation without blocking the event loop and return its result."""
        return await self._mlflow.aperform(self._describe(*args, **kwargs))


class OperationMethod(Generic[P, T]):
    """The method that performs an operation, with the arguments of the operation's description.

    :param describe: function that returns the description.
    """

    def __init__(self, describe: Callable[P, Operation[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, mlflow: None, owner: type[MlflowOperations]) -> Self: ...
    @overload
    def __get__(self, mlflow: MlflowOperations, owner: type[MlflowOperations]) -> BoundOperation[P, T]: ...
    def __get__(self, mlflow: MlflowOperations | None, owner: type[MlflowOperations]) -> Self | BoundOperation[P, T]:
        """Return the operation bound to a server."""
        return self if mlflow is None else BoundOperation(mlflow, self._describe)


class MlflowOperations(ABC):
    """The operations on an MLflow server: ``get_run(run_id)`` blocks, ``await get_run.aio(run_id)`` does not.

    Arguments, results and errors are documented at the functions of the same names in
    :mod:`airflow_mcp.mlflow_client.api` and :mod:`airflow_mcp.mlflow_client.registry_api`.
    """

    get_or_create_experiment = OperationMethod(mlflow_api.get_or_create_experiment)
    get_experiment_by_name = OperationMethod(mlflow_api.get_experiment_by_name)
    search_experiments = OperationMethod(mlflow_api.search_experiments)
    create_run = OperationMethod(mlflow_api.create_run)
    get_run = OperationMethod(mlflow_api.get_run)
    update_run = OperationMethod(mlflow_api.update_run)
    set_tag = OperationMethod(mlflow_api.set_tag)
    set_tags = OperationMethod(mlflow_api.set_tags)
    log_batch = OperationMethod(mlflow_api.log_batch)
    search_runs = OperationMethod(mlflow_api.search_runs)
    delete_run = OperationMethod(mlflow_api.delete_run)
    get_logged_model = OperationMethod(mlflow_api.get_logged_model)
    list_artifacts = OperationMethod(mlflow_api.list_artifacts)
    list_model_artifacts = OperationMethod(mlflow_api.list_model_artifacts)
    download_artifact = OperationMethod(mlflow_api.download_artifact)
    find_artifact = OperationMethod(mlflow_api.find_artifact)
    existing_artifacts = OperationMethod(mlflow_api.existing_artifacts)
    upload_artifact = OperationMethod(mlflow_api.upload_artifact)

    create_registered_model = OperationMethod(mlflow_registry_api.create_registered_model)
    get_registered_model = OperationMethod(mlflow_registry_api.get_registered_model)
    search_registered_models = OperationMethod(mlflow_registry_api.search_registered_models)
    set_registered_model_tag = OperationMethod(mlflow_registry_api.set_registered_model_tag)
    delete_registered_model_tag = OperationMethod(mlflow_registry_api.delete_registered_model_tag)
    create_model_version = OperationMethod(mlflow_registry_api.create_model_version)
    get_model_version = OperationMethod(mlflow_registry_api.get_model_version)
    search_model_versions = OperationMethod(mlflow_registry_api.search_model_versions)
    set_model_version_tag = OperationMethod(mlflow_registry_api.set_model_version_tag)
    get_model_version_by_alias = OperationMethod(mlflow_registry_api.get_model_version_by_alias)
    find_model_versions = OperationMethod(mlflow_registry_api.find_model_versions)
    transition_stage = OperationMethod(mlflow_registry_api.transition_stage)
    read_model_versions = OperationMethod(mlflow_registry_api.read_model_versions)
    find_deleted_versions = OperationMethod(mlflow_registry_api.find_deleted_versions)
    set_alias = OperationMethod(mlflow_registry_api.set_alias)
    delete_alias = OperationMethod(mlflow_registry_api.delete_alias)

    @property
    @abstractmethod
    def settings(self) -> MlflowSettings:
        """Address and credentials of the server."""

    @abstractmethod
    def perform(self, operation: Operation[T]) -> T:
        """Perform an operation and return its result; blocks."""

    @abstractmethod
    async def aperform(self, operation: Operation[T]) -> T:
        """Perform an operation and return its result, without blocking the event loop."""


class DirectMlflow(MlflowOperations):
    """An MLflow server that is reached without Airflow.

    :param settings: address and credentials.
    """

    def __init__(self, settings: MlflowSettings) -> None:
        self._settings = settings
        self._driver = SyncDriver(settings)

    @property
    def settings(self) -> MlflowSettings:
        """Address and credentials of the server."""
        return self._settings

    def perform(self, operation: Operation[T]) -> T:
        """Perform an operation and return its result; blocks."""
        return self._driver.perform(operation)

    async def aperform(self, operation: Operation[T]) -> T:
        """Perform an operation and return its result, without blocking the event loop."""
        return await AsyncDriver(self._settings).perform(operation)

    def close(self) -> None:
        """Close the connections; the object stays usable."""
        self._driver.close()
