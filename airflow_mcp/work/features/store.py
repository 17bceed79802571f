"""A Feast feature store, opened from the folder of its definitions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_mcp.core.features.summary import FeatureRequest
from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import DatasetError, FailedError, InvalidArgumentError
from airflow_mcp.work.run.mlflow_run import redacted

if TYPE_CHECKING:
    from feast import FeatureStore

KEPT_ROW = "airflow_mcp_row"
"""Column with the number of an entity row: Feast may return rows in another order."""


class Store:
    """A feature store and the features that a request asks it for.

    :param request: names the folder and the features.
    :raises InvalidArgumentError: when Feast is not installed.
    :raises DatasetError: when the store or a feature does not exist.
    """

    def __init__(self, request: FeatureRequest) -> None:
        self._request = request
        with answered("opened", refused=True):
            self.feast = _open(request.feature_repo)
            self.features = self._refs()

    def registry_hash(self) -> str:
        """Return the hash of the definitions, without when they were written or materialized."""
        with answered("read"):
            proto = self.feast.registry.proto()
            groups = (proto.entities, proto.feature_views, proto.on_demand_feature_views, proto.feature_services)
            specs = [each.spec.SerializeToString(deterministic=True) for group in groups for each in group]
            return content_hash(b"".join(sorted(specs)))

    def historical(self, entities: Any, features: tuple[str, ...]) -> Any:
        """Return the values of features as of the time of each entity row, in the order of the rows.

        Feast's file store leaves out rows for which nothing was known yet; they come back with missing values.

        :param entities: entity rows with a column ``event_timestamp``.
        :param features: ``<feature view>:<feature>``.
        """
        asked = entities.assign(**{KEPT_ROW: range(len(entities))})
        with answered("read"):
            found = self.feast.get_historical_features(entity_df=asked, features=list(features)).to_df()
        if found[KEPT_ROW].duplicated().any():
            raise FailedError("the feature store returned an entity row twice. Nothing was stored")
        names = [name for name in found.columns if name not in asked.columns]
        values = found.set_index(KEPT_ROW)[names].reindex(range(len(entities)))
        return entities.reset_index(drop=True).join(values)

    def online(self, keys: dict[str, list[Any]], features: tuple[str, ...]) -> dict[str, list[Any]]:
        """Return the values of features in the online store, and the time of each as ``<feature>__ts``.

        :param keys: entity keys, as columns.
        :param features: ``<feature view>:<feature>``.
        """
        with answered("read"):
            found: dict[str, list[Any]] = self.feast.get_online_features(
                features=list(features), entity_rows=keys
            ).to_dict(include_event_timestamps=True)
            return found

    def _refs(self) -> tuple[str, ...]:
        if self._request.features:
            return self._request.features
        service = self.feast.get_feature_service(self._request.feature_service)
        views: Any = service.feature_view_projections
        return tuple(f"{view.name_to_use()}:{feature.name}" for view in views for feature in view.features)


def _open(folder: str) -> FeatureStore:
    os.environ.setdefault("FEAST_USAGE", "False")  # sends nothing to Feast's authors
    try:
        from feast import FeatureStore  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InvalidArgumentError(
            f"the interpreter of this step has no {error.name}: pip install 'airflow-mcp[feast]', or set python to an "
            "interpreter that has it. Nothing was read"
        ) from None
    return FeatureStore(repo_path=folder)


@contextmanager
def answered(what: str, *, refused: bool = False) -> Iterator[None]:
    """Turn errors of Feast and its stores into ours.

    :param what: what could not be done, for the message.
    :param refused: whether a retry would fail in the same way.
    """
    try:
        yield
    except (InvalidArgumentError, DatasetError):
        raise
    except Exception as error:  # Feast and its stores raise errors of many libraries
        message = f"the feature store could not be {what}: {type(error).__name__}: {redacted(error, 300)}"
        if refused or type(error).__name__.endswith(("NotFoundException", "NotFoundError")):
            raise DatasetError(f"{message}. Nothing was stored") from None
        raise FailedError(f"{message}. Nothing was stored; a retry reads again") from None
