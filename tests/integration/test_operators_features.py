"""The operators of a Feast store against a real MLflow server, with the steps in real processes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.identity import content_hash
from airflow_mcp.operators.features import FeatureSkewCheckOperator, GetHistoricalFeaturesOperator
from airflow_mcp.work.reading.dataset_frame import load_dataset
from tests.support.feast_repository import FEATURES, NOW, FeastRepository, offline_rows
from tests.support.mlflow_world import World

pytestmark = pytest.mark.integration
KEYS = 110


def test_features_become_a_data_version_and_skew_is_found(world: World) -> None:
    rows = offline_rows(KEYS, moments=1)
    repository = FeastRepository(world.folder / "feast", rows)
    repository.materialize()
    repository.push(rows[:3].assign(avg_amount_30d=-7.0))
    path = world.folder / "entities.parquet"
    pd.DataFrame([{"customer_id": key, "event_timestamp": NOW} for key in range(KEYS)]).to_parquet(path, index=False)
    keys = world.folder / "keys.csv"
    keys.write_text("customer_id\n" + "".join(f"{key}\n" for key in range(KEYS)))
    given: dict[str, Any] = {
        "experiment_name": world.experiment,
        "model_name": world.model_name,
        "feature_repo": str(repository.folder),
        "features": list(FEATURES),
    }
    entities = {"uri": str(path), "hash": content_hash(path.read_bytes())}
    output = str(world.folder / "versions")
    read = world.run(GetHistoricalFeaturesOperator, **given, entities=entities, output_uri=output)
    assert read.state == "success", read.error
    frame, _ = load_dataset(DatasetPin(**read.result["dataset"]))
    assert list(frame["transaction_count_7d"]) == [10 * key for key in range(KEYS)]
    assert (read.result["verdict"], read.result["rows"]) == ("fetched", KEYS)
    run = world.hook.get_run(read.result["run_id"])
    assert (run.status, run.tags["feast.feature_refs"]) == ("FINISHED", ",".join(FEATURES))
    assert run.tags[contract.TAG_KIND] == contract.KIND_FEATURES
    again = world.run(GetHistoricalFeaturesOperator, **given, entities=entities, output_uri=output, try_number=2)
    assert again.result == read.result

    compared = world.run(
        FeatureSkewCheckOperator,
        **given,
        task_id="skew",
        entities={"uri": str(keys), "hash": content_hash(keys.read_bytes())},
        as_of=NOW.isoformat(),
    )
    assert compared.state == "success", compared.error
    assert compared.result["verdict"] == "skewed"
    counts = compared.result["features"]["customer_stats:avg_amount_30d"]
    assert counts == {"equal": KEYS - 3, "stale": 0, "skewed": 3, "missing": 0, "absent": 0}
    assert b"customer_id=0" in world.artifact(compared.result["run_id"], contract.ARTIFACT_SKEW_REPORT_HTML)
