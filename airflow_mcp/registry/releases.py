"""Find the version that a policy names: by its number, as a release, or by an alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mcp.core.pipeline.file.policies import TAG_RELEASE
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.mlflow_client.api import filter_value

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion
    from airflow_mcp.mlflow_client.operations import MlflowOperations


def find_stable_version(mlflow: MlflowOperations, model_name: str, named: str) -> ModelVersion:
    """Return the version that the field ``stableVersion`` of a rollback policy names, as the model server finds it.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :param named: a version number, a release that a version's tag ``airflow_mcp.release`` names, or an alias.
    :raises EvidenceError: when there is none.
    :raises MlflowError: when MLflow does not answer.
    """
    try:
        if named.isdigit():
            return mlflow.get_model_version(model_name, named)
        where = f"name = {filter_value(model_name)} AND tags.`{TAG_RELEASE}` = {filter_value(named)}"
        released = mlflow.search_model_versions(where, ("version_number DESC",), 1)
        found = released[0] if released else mlflow.get_model_version_by_alias(model_name, named)
    except (MlflowNotFoundError, InvalidArgumentError):  # a release such as v1.7.3 cannot be an alias
        found = None
    if found is None:
        raise EvidenceError(
            f"stableVersion {named!r} of model {model_name!r} is not in the registry. Nothing was changed; name a "
            f"version number, an alias, or the value of the tag {TAG_RELEASE} of a version"
        )
    return found
