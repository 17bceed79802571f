"""Reads point-in-time correct features into a data version that trainings read."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.features.summary import FeatureColumn, FeaturesVerdict, HistoricalRequest, HistoricalSummary
from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import DatasetError, FailedError
from airflow_mcp.work.features.store import FEAST_TIME, Store
from airflow_mcp.work.reading.dataset_frame import load_dataset, require_columns
from airflow_mcp.work.run.mlflow_run import redacted
from airflow_mcp.work.run.process import library_versions

if TYPE_CHECKING:
    import pandas as pd

FILE = "features.parquet"


def get_features(request: HistoricalRequest) -> HistoricalSummary:
    """Read features as of the time of each entity row, and store them as one Parquet file.

    The file is named after its content, so the same rows are stored once, also after a kill.

    :param request: the feature store, entity rows and features.
    :raises DatasetError: when the entity rows, the store or a feature cannot be used.
    :raises FailedError: when the store does not answer, or the file cannot be stored.
    """
    store = Store(request)
    entities, used = load_dataset(request.entities)
    require_columns(entities, [request.time_column], "time_column")
    times = _times(entities, request.time_column)
    values = store.historical(entities.assign(**{FEAST_TIME: times}), store.features)
    both = [name for name in values if name in entities]
    if both:
        raise DatasetError(
            f"the entity rows must have no column of the name of a feature; got {', '.join(both)}. Nothing was stored"
        )
    columns = tuple(FeatureColumn(name=str(name), missing=int(values[name].isna().sum())) for name in values)
    table = entities.assign(**{request.time_column: times}).join(values)
    pin = _store(request.output, table)
    verdict, reason = _verdict(columns, len(table))
    return HistoricalSummary(
        identity=request.identity,
        run_id=request.run_id,
        model_name=request.model_name,
        verdict=verdict,
        reason=reason,
        dataset=pin,
        entities=used,
        features=store.features,
        feature_service=request.feature_service,
        registry_hash=store.registry_hash(),
        rows=len(table),
        first=times.min().to_pydatetime(),
        last=times.max().to_pydatetime(),
        columns=columns,
        created_at=datetime.now(UTC).isoformat(),
        environment=library_versions("feast", "pandas", "pyarrow"),
    )


def _times(entities: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Return the times of the entity rows in UTC; numbers are seconds since 1970."""
    import pandas as pd  # noqa: PLC0415

    given = entities[column]
    if pd.api.types.is_numeric_dtype(given):
        times = pd.to_datetime(given, utc=True, errors="coerce", unit="s")
    else:
        text_format = "ISO8601" if given.dtype == object or pd.api.types.is_string_dtype(given) else None
        times = pd.to_datetime(given, utc=True, errors="coerce", format=text_format)
    unreadable = int(times.isna().sum())
    if unreadable:
        raise DatasetError(
            f"column {column!r} of the entity rows has {unreadable} values that are not times. Nothing was stored"
        )
    return times


def _verdict(columns: tuple[FeatureColumn, ...], rows: int) -> tuple[FeaturesVerdict, str]:
    empty = [column.name for column in columns if column.missing == rows]
    if empty:
        return "inconclusive", f"no row has a value of {', '.join(empty)}"
    return "fetched", f"{len(columns)} features of {rows} rows"


def _store(output: str, table: pd.DataFrame) -> DatasetPin:
    import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415

    sink = io.BytesIO()
    table.to_parquet(sink, index=False, compression="zstd")
    content = sink.getvalue()
    digest = content_hash(content)
    version = digest.partition(":")[2][:16]
    address = f"{output.rstrip('/')}/{version}/{FILE}"
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        folder = path.rpartition("/")[0]
        filesystem.makedirs(folder, exist_ok=True)
        part = f"{folder}/_{FILE}.part"
        filesystem.pipe_file(part, content)
        filesystem.mv(part, path)  # a reader never sees half a file
    except Exception as error:  # every file system raises errors of its own
        raise FailedError(
            f"the features cannot be stored in {public_uri(output)}: {type(error).__name__}: "
            f"{redacted(error, 300, output)}. A retry stores them again"
        ) from None
    return DatasetPin(uri=public_uri(address), version=version, hash=digest, size=len(content))


def names_of(summary: HistoricalSummary) -> dict[str, Any]:
    """Return the tags of the data version, in the form of Feast's own MLflow integration.

    :param summary: the data version.
    """
    return {
        "feast.feature_refs": ",".join(summary.features)[:5000],
        "feast.feature_service": summary.feature_service,
        "feast.registry_hash": summary.registry_hash,
        "feast.entity_rows": str(summary.rows),
    }
