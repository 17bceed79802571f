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
    import pandas as pd
    from feast import FeatureStore

FEAST_TIME = "event_timestamp"
"""Name that Feast expects of the column with the time."""
DUMMY_KEY = "__dummy_id"
"""Key that Feast gives to feature views without entities, and fills in by itself."""
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
            self._views = {view.name: view for view in self.feast.list_all_feature_views()}
        self.keys = self._keys_of(self.features)
        """Columns of the keys of all features."""

    def registry_hash(self) -> str:
        """Return the hash of the definitions, without when they were written or materialized."""
        with answered("read"):
            proto = self.feast.registry.proto()
            groups = (proto.entities, proto.feature_views, proto.on_demand_feature_views, proto.feature_services)
            specs = [each.spec.SerializeToString(deterministic=True) for group in groups for each in group]
            return content_hash(b"".join(sorted(specs)))

    def historical(self, entities: pd.DataFrame, features: tuple[str, ...]) -> pd.DataFrame:
        """Return the values of features as of the time of each entity row, in the order of the rows.

        Feast's file store answers rows of the same keys and time once, and leaves out rows for which nothing was known
        yet. So features with the same keys are asked for together, each row once; what is left out comes back with
        missing values.

        :param entities: the keys, and a column :data:`FEAST_TIME`; other columns are not sent unless a feature is
            computed from them.
        :param features: ``<feature view>:<feature>``.
        :raises DatasetError: when a key is missing, or rows differ only in what a feature is computed from.
        :raises FailedError: when the store does not answer.
        """
        import pandas as pd  # noqa: PLC0415

        together: dict[tuple[str, ...], tuple[str, ...]] = {}
        for feature in features:
            keys = self._keys_of((feature,))
            together[keys] = (*together.get(keys, ()), feature)
        found = pd.concat([self._historical(entities, group) for group in together.values()], axis=1)
        if not found.columns.is_unique:
            raise DatasetError("features of different views must have different names. Nothing was stored")
        return found

    def _historical(self, entities: pd.DataFrame, features: tuple[str, ...]) -> pd.DataFrame:
        keys, sent = self._keys_of(features), self.columns(entities, features)
        asked = entities[[*sent, FEAST_TIME]]
        place = asked.groupby(list(asked.columns), dropna=False, sort=False).ngroup().to_numpy()
        once = asked[~asked.duplicated()].reset_index(drop=True)
        if once.duplicated([*keys, FEAST_TIME]).any():
            raise DatasetError(
                f"entity rows with the same keys and time must have the same {', '.join(sent[len(keys) :])}, from "
                "which features are computed: Feast answers such rows once. Nothing was stored"
            )
        with answered("read"):
            numbered = once.assign(**{KEPT_ROW: range(len(once))})
            found = self.feast.get_historical_features(entity_df=numbered, features=list(features)).to_df()
        if found[KEPT_ROW].duplicated().any():
            raise FailedError("the feature store returned an entity row twice. Nothing was stored")
        names = [name for name in found.columns if name not in numbered.columns]
        return found.set_index(KEPT_ROW)[names].reindex(place).reset_index(drop=True)

    def columns(self, entities: pd.DataFrame, features: tuple[str, ...]) -> list[str]:
        """Return the columns that features need: the keys, then what they are computed from.

        :param entities: entity rows.
        :param features: ``<feature view>:<feature>``.
        :raises DatasetError: when a key is missing.
        """
        keys = self._keys_of(features)
        absent = [key for key in keys if key not in entities]
        if absent:
            raise DatasetError(
                f"the entity rows have no column {', '.join(map(repr, absent))}, which is a key of the features; they "
                f"have {', '.join(map(repr, list(entities.columns)[:30]))}. Nothing was stored"
            )
        views = self._read_views(features)
        sources = [each for view in views for each in getattr(view, "source_request_sources", {}).values()]
        computed_from = dict.fromkeys(field.name for source in sources for field in source.schema)
        return [*keys, *(name for name in computed_from if name in entities and name not in keys)]

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

    def _keys_of(self, features: tuple[str, ...]) -> tuple[str, ...]:
        views = self._read_views(features)
        keys = dict.fromkeys(key for view in views for key in getattr(view, "join_keys", ()))
        return tuple(key for key in keys if key != DUMMY_KEY)

    def _read_views(self, features: tuple[str, ...]) -> list[Any]:
        """Return the feature views that are read: those that are named, and those that others are computed from."""
        names = dict.fromkeys(ref.partition(":")[0].partition("@")[0] for ref in features)
        if absent := [name for name in names if name not in self._views]:
            raise DatasetError(
                f"the feature store has no feature view {', '.join(absent)}; it has "
                f"{', '.join(sorted(self._views)[:30])}. Nothing was read"
            )
        named = [self._views[name] for name in names]
        inputs = [each for view in named for each in getattr(view, "source_feature_view_projections", {}).values()]
        return [*named, *(self._views[each.name] for each in inputs)]


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
        # What the data cause, such as keys of another type; what a store causes has types of its own.
        is_final = refused or type(error) in (KeyError, TypeError, ValueError)
        if is_final or type(error).__name__.endswith(("NotFoundException", "NotFoundError")):
            raise DatasetError(f"{message}. Nothing was stored") from None
        raise FailedError(f"{message}. Nothing was stored; a retry reads again") from None
