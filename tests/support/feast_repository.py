"""A real Feast repository with its local provider: Parquet offline, SQLite online."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
FEATURES = ("customer_stats:transaction_count_7d", "customer_stats:avg_amount_30d")
DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
source = FileSource(path="{path}", timestamp_field="event_timestamp", created_timestamp_column="created")
customer_stats = FeatureView(
    name="customer_stats", entities=[customer], ttl=timedelta(days=30), online=True, source=source,
    schema=[
        Field(name="transaction_count_7d", dtype=Int64), Field(name="avg_amount_30d", dtype=Float64),
    ],
)
service = FeatureService(name="fraud", features=[customer_stats])
objects = [customer, customer_stats, service]
"""


def offline_rows(keys: int, moments: int = 3) -> pd.DataFrame:
    """Return rows of every key at several times, the newest an hour before :data:`NOW`."""
    rows = [
        {
            "customer_id": key,
            "event_timestamp": NOW - timedelta(hours=1 + 24 * (moments - 1 - moment)),
            "created": NOW - timedelta(days=10),
            "transaction_count_7d": 10 * key + moment,
            "avg_amount_30d": key + moment / 4,
        }
        for key in range(keys)
        for moment in range(moments)
    ]
    return pd.DataFrame(rows)


class FeastRepository:
    """A feature store below a folder, applied; the online store is empty.

    :param folder: an empty folder.
    :param rows: rows of the offline store.
    """

    def __init__(self, folder: Path, rows: pd.DataFrame) -> None:
        from feast import FeatureStore

        self.folder, self._offline = folder, folder / "offline.parquet"
        folder.mkdir(parents=True, exist_ok=True)
        self.write(rows)
        (folder / "feature_store.yaml").write_text(
            f"project: fraud\nregistry: {folder}/registry.db\nprovider: local\n"
            f"online_store:\n  type: sqlite\n  path: {folder}/online.db\n"
            "offline_store:\n  type: file\nentity_key_serialization_version: 3\n"
        )
        scope: dict[str, Any] = {}
        exec(compile(DEFINITIONS.format(path=self._offline), "definitions.py", "exec"), scope)
        self.store = FeatureStore(repo_path=str(folder))
        self.store.apply(scope["objects"])

    def write(self, rows: pd.DataFrame) -> None:
        """Replace the rows of the offline store."""
        rows.to_parquet(self._offline, index=False)

    def materialize(self, end: datetime = NOW) -> None:
        """Take the newest rows up to a time into the online store."""
        self.store.materialize(NOW - timedelta(days=20), end, feature_views=["customer_stats"])

    def push(self, rows: pd.DataFrame) -> None:
        """Write rows into the online store only, as a second way of computing them would."""
        self.store.write_to_online_store("customer_stats", rows)


def is_installed() -> bool:
    """Return whether this interpreter has Feast."""
    from importlib.util import find_spec

    return find_spec("feast") is not None or "feast" in sys.modules
