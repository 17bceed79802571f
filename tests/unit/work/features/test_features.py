"""Features of a real Feast store with its local provider."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.features.page import render_skew_report
from airflow_mcp.core.features.summary import HistoricalRequest, HistoricalSummary, SkewPolicy, SkewRequest, SkewSummary
from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.features import comparison
from airflow_mcp.work.features.comparison import compare_features
from airflow_mcp.work.features.historical import get_features
from airflow_mcp.work.features.store import Store
from airflow_mcp.work.reading.dataset_frame import load_dataset
from tests.support.feast_repository import FEATURES, NOW, FeastRepository, offline_rows

KEYS = 120


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> FeastRepository:
    return FeastRepository(tmp_path_factory.mktemp("feast"), offline_rows(KEYS))


def table(folder: Path, rows: Any, name: str = "entities.parquet") -> DatasetPin:
    path = folder / name
    pd.DataFrame(rows).to_parquet(path, index=False)
    return DatasetPin(uri=str(path), hash=content_hash(path.read_bytes()))


def get(repository: FeastRepository, folder: Path, rows: Any, **fields: Any) -> HistoricalSummary:
    request = {
        "feature_repo": str(repository.folder),
        "features": FEATURES,
        "entities": table(folder, rows),
        "output": str(folder / "versions"),
        **fields,
    }
    return get_features(HistoricalRequest(**request))


def compare(repository: FeastRepository, folder: Path, keys: Any = range(KEYS), **fields: Any) -> SkewSummary:
    request = {
        "feature_repo": str(repository.folder),
        "features": FEATURES,
        "entities": table(folder, [{"customer_id": key} for key in keys]),
        "as_of": NOW,
        **fields,
    }
    return compare_features(SkewRequest(**request))


class TestADataVersion:
    def test_has_the_features_that_were_known_at_the_time_of_each_row_in_the_order_of_the_rows(
        self, repository: FeastRepository, tmp_path: Path
    ) -> None:
        moments = [1, 30, 50, 1]
        rows = [
            {"customer_id": key, "event_timestamp": NOW - timedelta(hours=hours), "label": key % 2}
            for key, hours in zip((5, 5, 5, 3), moments, strict=True)
        ]
        found = get(repository, tmp_path, rows)
        frame, _ = load_dataset(found.dataset)  # verifies the hash
        assert list(frame["transaction_count_7d"].fillna(-1)) == [52, 50, -1, 32]
        assert list(frame["customer_id"]) == [5, 5, 5, 3]
        assert list(frame["label"]) == [1, 1, 1, 1]
        assert {each.name: each.missing for each in found.columns} == {"transaction_count_7d": 1, "avg_amount_30d": 1}
        assert (found.verdict, found.rows, found.features) == ("fetched", 4, FEATURES)
        assert Path(found.dataset.uri).parent.name == found.dataset.version

    def test_of_the_same_rows_is_the_same_version_and_is_stored_whole(
        self, repository: FeastRepository, tmp_path: Path
    ) -> None:
        rows = [{"customer_id": key, "event_timestamp": NOW} for key in range(3)]
        first, again = get(repository, tmp_path, rows), get(repository, tmp_path, rows)
        assert first.dataset == again.dataset
        assert [path.name for path in (tmp_path / "versions").rglob("*") if path.is_file()] == ["features.parquet"]
        assert first.registry_hash == again.registry_hash

    def test_is_found_by_a_feature_service(self, repository: FeastRepository, tmp_path: Path) -> None:
        rows = [{"customer_id": 1, "seen_at": NOW.isoformat()}]
        found = get(repository, tmp_path, rows, features=(), feature_service="fraud", time_column="seen_at")
        assert found.features == FEATURES
        assert "seen_at" in load_dataset(found.dataset)[0].columns

    def test_without_any_value_of_a_feature_is_inconclusive(self, repository: FeastRepository, tmp_path: Path) -> None:
        found = get(repository, tmp_path, [{"customer_id": 9999, "event_timestamp": NOW}])
        assert found.verdict == "inconclusive"
        assert "no row has a value of transaction_count_7d, avg_amount_30d" in found.reason

    def test_needs_a_store_features_and_times(self, repository: FeastRepository, tmp_path: Path) -> None:
        rows = [{"customer_id": 1, "event_timestamp": NOW}]
        with pytest.raises(DatasetError, match="the feature store could not be opened"):
            get(repository, tmp_path, rows, feature_repo=str(tmp_path))
        with pytest.raises(DatasetError, match="nothing_here"):
            get(repository, tmp_path, rows, features=("nothing_here:x",))
        with pytest.raises(DatasetError, match="1 values that are not times"):
            get(repository, tmp_path, [{"customer_id": 1, "event_timestamp": "yesterday"}])
        with pytest.raises(DatasetError, match="no column 'event_timestamp'"):
            get(repository, tmp_path, [{"customer_id": 1}])
        with pytest.raises(DatasetError, match="no column 'customer_id', which is a key of the features"):
            get(repository, tmp_path, [{"customer": 1, "event_timestamp": NOW}])
        with pytest.raises(DatasetError, match="no column of the name of a feature; got avg_amount_30d"):
            get(repository, tmp_path, [{**rows[0], "avg_amount_30d": 1.0}])

    @pytest.mark.filterwarnings("ignore:Merging dataframes")  # of Dask
    def test_with_keys_of_another_type_is_refused_for_good(self, repository: FeastRepository, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"could not be read: ValueError: .* columns for key 'customer_id'"):
            get(repository, tmp_path, [{"customer_id": "one", "event_timestamp": NOW}])

    def test_has_the_features_of_rows_with_the_same_keys_and_time(
        self, repository: FeastRepository, tmp_path: Path
    ) -> None:
        rows = [{"customer_id": key, "at": NOW.timestamp(), "label": label} for key, label in ((5, 0), (3, 1), (5, 1))]
        found = get(repository, tmp_path, rows, time_column="at")
        frame, _ = load_dataset(found.dataset)
        assert list(frame["transaction_count_7d"]) == [52, 32, 52]
        assert list(frame["label"]) == [0, 1, 1]
        assert {each.missing for each in found.columns} == {0}
        assert found.first == NOW


class TestKeysOfSeveralFeatureViews:
    def test_need_not_be_those_of_every_view(self, tmp_path: Path) -> None:
        from feast import Entity, FeatureView, Field, FileSource
        from feast.types import Float64
        from feast.value_type import ValueType

        rows = offline_rows(KEYS, moments=1)
        made = FeastRepository(tmp_path / "store", rows)
        shops = rows.rename(columns={"customer_id": "shop_id", "avg_amount_30d": "turnover"})
        shops.to_parquet(tmp_path / "shops.parquet", index=False)
        shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.INT64)
        source = FileSource(path=str(tmp_path / "shops.parquet"), timestamp_field="event_timestamp")
        turnover = [Field(name="turnover", dtype=Float64)]
        made.store.apply([shop, FeatureView(name="shops", entities=[shop], schema=turnover, source=source)])
        made.store.materialize(NOW - timedelta(days=20), NOW)
        features = (*FEATURES, "shops:turnover")
        pairs = [{"customer_id": key % 2, "shop_id": key} for key in range(KEYS)]  # two customers at many shops
        found = get(made, tmp_path, [{**pair, "event_timestamp": NOW} for pair in pairs], features=features)
        frame, _ = load_dataset(found.dataset)
        assert list(frame["transaction_count_7d"]) == [10 * (key % 2) for key in range(KEYS)]
        assert list(frame["turnover"]) == [float(key) for key in range(KEYS)]
        skew = compare(made, tmp_path, entities=table(tmp_path, pairs, "pairs.parquet"), features=features)
        assert (skew.verdict, [each.equal for each in skew.features]) == ("consistent", [KEYS] * 3)


class TestSkew:
    @pytest.fixture
    def store(self, tmp_path: Path) -> FeastRepository:
        rows = offline_rows(KEYS, moments=1)
        made = FeastRepository(tmp_path / "store", rows)
        made.materialize()
        return made

    def test_of_a_store_that_was_just_materialized_is_none(self, store: FeastRepository, tmp_path: Path) -> None:
        found = compare(store, tmp_path)
        assert found.verdict == "consistent"
        assert [(each.feature, each.equal) for each in found.features] == [(name, KEYS) for name in FEATURES]

    def test_tells_old_values_from_values_that_are_computed_differently(
        self, store: FeastRepository, tmp_path: Path
    ) -> None:
        rows = offline_rows(KEYS, moments=1)
        newer = rows[rows["customer_id"] < 30].assign(
            event_timestamp=NOW - timedelta(minutes=10), transaction_count_7d=-1, avg_amount_30d=-1.0
        )
        store.write(pd.concat([rows, newer]))
        other = rows[rows["customer_id"].between(30, 36)]
        store.push(other.assign(avg_amount_30d=other["avg_amount_30d"] * 1.01))
        unknown = rows.assign(customer_id=rows["customer_id"] + 1000)[:4]
        store.write(pd.concat([rows, newer, unknown]))
        keys = [*range(KEYS), *range(1000, 1004), 5000]
        found = compare(store, tmp_path, keys)
        count, amount = found.features
        assert (count.equal, count.stale, count.skewed, count.missing, count.absent) == (KEYS - 30, 30, 0, 4, 1)
        assert (amount.equal, amount.stale, amount.skewed, amount.missing) == (KEYS - 37, 30, 7, 4)
        assert (found.verdict, amount.verdict) == ("skewed", "skewed")
        assert count.oldest_seconds == 3600
        assert {each.state for each in amount.examples} == {"skewed"}
        assert amount.examples[0].key.startswith("customer_id=3")
        page = render_skew_report(found)
        assert "customer_stats:avg_amount_30d: 5.65% of the values are skewed" in found.reason
        assert "customer_stats:avg_amount_30d" in page

        lenient = compare(store, tmp_path, keys, policy=SkewPolicy(largest_skewed=0.1, largest_stale=0.3))
        assert lenient.verdict == "consistent"

    def test_is_looked_for_once_per_key_whatever_else_the_rows_have(
        self, store: FeastRepository, tmp_path: Path
    ) -> None:
        rows = [{"customer_id": float(key), "label": label} for key in range(KEYS) for label in (0, 1)]
        given = table(tmp_path, [*rows, {"customer_id": None, "label": 0}], "labelled.parquet")
        found = compare(store, tmp_path, entities=given)
        assert (found.verdict, found.keys) == ("consistent", KEYS)

    def test_asks_the_online_store_in_batches_and_the_offline_store_again_for_what_differs_only(
        self, store: FeastRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = offline_rows(KEYS, moments=1)
        store.push(rows[rows["customer_id"].isin([7, 119])].assign(avg_amount_30d=-7.0))
        online, offline = Store.online, Store.historical
        asked: list[tuple[str, int]] = []

        def read_online(self: Store, keys: dict[str, list[Any]], features: tuple[str, ...]) -> Any:
            asked.append(("online", len(keys["customer_id"])))
            return online(self, keys, features)

        def read_offline(self: Store, entities: Any, features: tuple[str, ...]) -> Any:
            asked.append(("offline", len(entities)))
            return offline(self, entities, features)

        monkeypatch.setattr(Store, "online", read_online)
        monkeypatch.setattr(Store, "historical", read_offline)
        monkeypatch.setattr(comparison, "ONLINE_AT_ONCE", 50)
        _, amount = compare(store, tmp_path).features
        assert asked == [("offline", KEYS), ("online", 50), ("online", 50), ("online", 20), ("offline", 2)]
        assert (amount.equal, amount.skewed) == (KEYS - 2, 2)
        assert [(each.key, each.online, each.offline) for each in amount.examples] == [
            ("customer_id=7", "-7.0", "7.0"),
            ("customer_id=119", "-7.0", "119.0"),
        ]

    def test_of_few_keys_is_inconclusive(self, store: FeastRepository, tmp_path: Path) -> None:
        found = compare(store, tmp_path, range(5))
        assert found.verdict == "inconclusive"
        assert "5 keys have a value, and min_rows is 100" in found.reason
        sample = compare(store, tmp_path, policy=SkewPolicy(sample_rows=10, min_rows=10))
        assert (sample.keys, sample.verdict) == (10, "consistent")
