"""The steps of a Feast store on many rows, each in a process of its own: ``python -m tests.benchmarks.features``.

Arguments: ``make FOLDER ROWS``, ``get FOLDER``, ``compare FOLDER SAMPLE`` or ``feast FOLDER``. Prints JSON with seconds
and CPU seconds from the first import on, MiB at the peak, and what the step counted.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from datetime import timedelta  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

STALE, SKEWED = 50_000, 1_000
"""Keys whose newest offline row came after they were materialized, and keys with another online value."""


def make(folder: Path, rows: str) -> dict[str, Any]:
    """Write a store with one offline row per key, all of them online, and entity rows for each key."""
    import numpy as np
    import pandas as pd

    from tests.support.feast_repository import NOW, FeastRepository

    keys = np.arange(int(rows))
    offline = pd.DataFrame(
        {
            "customer_id": keys,
            "event_timestamp": NOW - timedelta(hours=25),
            "created": NOW - timedelta(days=10),
            "transaction_count_7d": keys % 1000,
            "avg_amount_30d": keys / 4,
        }
    )
    repository = FeastRepository(folder / "feast", offline)
    repository.materialize()
    newer = offline.head(STALE).assign(
        event_timestamp=NOW - timedelta(hours=1), avg_amount_30d=offline["avg_amount_30d"].head(STALE) + 1
    )
    repository.write(pd.concat([offline, newer], ignore_index=True))
    repository.push(offline.tail(SKEWED).assign(avg_amount_30d=-7.0))
    pd.DataFrame({"customer_id": keys}).to_parquet(folder / "keys.parquet", index=False)
    pd.DataFrame({"customer_id": keys, "event_timestamp": NOW}).to_parquet(folder / "entities.parquet", index=False)
    return {}


def _asked(folder: Path) -> dict[str, Any]:
    from tests.support.feast_repository import FEATURES

    return {"feature_repo": str(folder / "feast"), "features": FEATURES}


def get(folder: Path) -> dict[str, Any]:
    """Read point-in-time correct features of every entity row, as ``GetHistoricalFeaturesOperator`` does."""
    from airflow_mcp.core.data.pin import DatasetPin
    from airflow_mcp.core.features.summary import HistoricalRequest
    from airflow_mcp.work.features.historical import get_features

    entities = DatasetPin(uri=str(folder / "entities.parquet"))
    summary = get_features(HistoricalRequest(entities=entities, output=str(folder / "versions"), **_asked(folder)))
    return {"rows": summary.rows, "missing": sum(column.missing for column in summary.columns)}


def compare(folder: Path, sample: str) -> dict[str, Any]:
    """Compare online with offline values of so many keys, as ``FeatureSkewCheckOperator`` does."""
    from airflow_mcp.core.data.pin import DatasetPin
    from airflow_mcp.core.features.summary import SkewPolicy, SkewRequest
    from airflow_mcp.work.features.comparison import compare_features
    from tests.support.feast_repository import NOW

    policy = SkewPolicy(sample_rows=int(sample))
    keys = DatasetPin(uri=str(folder / "keys.parquet"))
    summary = compare_features(SkewRequest(entities=keys, as_of=NOW, policy=policy, **_asked(folder)))
    found = next(each for each in summary.features if each.feature.endswith("avg_amount_30d"))
    return {"keys": summary.keys, **found.model_dump(include={"equal", "stale", "skewed", "missing"})}


def feast(folder: Path) -> dict[str, Any]:
    """Read both stores for every key with Feast alone, and compare nothing: what a skew check cannot do without."""
    import pandas as pd
    from feast import FeatureStore

    from airflow_mcp.work.features.comparison import ONLINE_AT_ONCE
    from tests.support.feast_repository import FEATURES, NOW

    store, features = FeatureStore(repo_path=str(folder / "feast")), list(FEATURES)
    keys = pd.read_parquet(folder / "keys.parquet")
    offline = store.get_historical_features(entity_df=keys.assign(event_timestamp=NOW), features=features).to_df()
    ids, online = keys["customer_id"].tolist(), 0
    for start in range(0, len(ids), ONLINE_AT_ONCE):
        rows = {"customer_id": ids[start : start + ONLINE_AT_ONCE]}
        online += len(store.get_online_features(features, rows).to_dict(include_event_timestamps=True)["customer_id"])
    return {"keys": online, "rows": len(offline)}


ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"make": make, "get": get, "compare": compare, "feast": feast}


def main(action: str, folder: str, *more: str) -> None:
    """Run one action and print what it took."""
    found = ACTIONS[action](Path(folder), *more)
    found |= {
        "wall": time.perf_counter() - STARTED,
        "cpu": time.process_time(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
